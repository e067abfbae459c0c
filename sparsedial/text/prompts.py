"""Prompts as a tokenizer's own settings read them, special tokens and chat templates included, as `transformers` does.

Text to learn from is read otherwise (`Tokenizer.encode`): there a special token that is spelled out is only letters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from sparsedial.errors import UserError
from sparsedial.store import Fault
from sparsedial.text.tokenizer import END, Tokenizer, try_settings

TEMPLATE_FILE = "chat_template.jinja"
Settings: TypeAlias = Mapping[str, Any]  # of tokenizer_config.json
PROPERTIES = ("content", "single_word", "lstrip", "rstrip", "normalized", "special")  # of an added token


@dataclass(frozen=True, kw_only=True)
class Prompts:
    """How a checkpoint's tokenizer reads prompts."""

    folder: Path
    special: Mapping[str, str]  # by role, such as `bos_token`
    template: str | None  # of a chat
    backend: Any = field(repr=False)  # None for the tokenizer `bytes`

    def encode(self, prompt: str, *, whole: bool = False) -> np.ndarray:
        """The ids of a prompt; special tokens in it are those tokens, and one is put before it where it is said to be.

        A prompt that is `whole`, as a rendered chat is, gets nothing more.

        Raises: UserError where it is not valid UTF-8.
        """
        try:
            data = prompt.encode()
        except UnicodeEncodeError as error:
            raise UserError(f"the prompt is not valid UTF-8 from character {error.start + 1} on") from error
        if self.backend is None:
            return np.frombuffer(data.replace(END.encode(), b"\0"), np.uint8)  # byte 0 is that token
        # of several texts, since that lets other threads go on meanwhile
        (encoding,) = self.backend.encode_batch_fast([prompt], add_special_tokens=not whole)
        return np.array(encoding.ids, np.int64)

    def chat(self, message: str) -> str:
        """A user's message as the tokenizer's chat template writes it, up to where the answer begins.

        Raises: UserError where there is no template, or it fails.
        """
        return self.render([{"role": "user", "content": message}])

    def render(self, messages: Sequence[Mapping[str, str]], *, answer: bool = True) -> str:
        """Messages as the tokenizer's chat template writes them, as `text.chat.rendered` does.

        Raises: UserError where there is no template, or it fails.
        """
        if self.template is None:
            raise UserError(
                f"{self.folder}: its tokenizer has no chat template",
                hint="leave out <chat>: the prompt is then continued as it is",
                field="chat",
            )
        from sparsedial.text.chat import rendered  # jinja2 is needed only here

        return rendered(self.template, messages, self.special, answer=answer)


def prompts_of(folder: Path, tokenizer: Tokenizer) -> Prompts:
    """How the tokenizer of a checkpoint folder reads prompts.

    Raises: UserError for a tokenizer_config.json that is damaged.
    """
    settings = try_settings(folder / "tokenizer.json")
    if isinstance(settings, Fault):
        raise settings.error()
    special = {
        role: content
        for role, value in settings.items()
        if role.endswith("_token") and (content := _content(value)) is not None
    }
    try:
        backend = None if tokenizer.backend is None else _backend(tokenizer.backend, settings)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{folder / 'tokenizer_config.json'}: its tokens are not readable ({error!r})") from error
    return Prompts(folder=folder, special=special, template=_template(folder, settings), backend=backend)


def _content(token: Any) -> str | None:
    """A token as settings write it: its text, or a table of its properties."""
    found = token.get("content") if isinstance(token, dict) else token
    return found if isinstance(found, str) else None


def _backend(of_text: Any, settings: Settings) -> Any:
    """A tokenizer for prompts, as `transformers` makes it of tokenizer.json and its settings.

    What comes before and after a prompt is said in tokenizer.json: `add_bos_token` beside it changes nothing.

    Source: transformers 5, `PreTrainedTokenizerBase._from_pretrained` and `TokenizersBackend.__init__`
    """
    import tokenizers

    backend = tokenizers.Tokenizer.from_str(of_text.to_str())
    backend.encode_special_tokens = bool(settings.get("split_special_tokens", False))
    stated = sorted((settings.get("added_tokens_decoder") or {}).items(), key=lambda item: int(item[0]))
    known = {token.content for token in backend.get_added_tokens_decoder().values()}
    backend.add_tokens([_added(token) for _, token in stated if token["content"] not in known])
    extra = settings.get("extra_special_tokens") or settings.get("additional_special_tokens") or []
    listed = extra.values() if isinstance(extra, dict) else extra
    named = [value for role, value in settings.items() if role.endswith("_token") and _content(value) is not None]
    backend.add_special_tokens([_added(token, special=True) for token in (*named, *listed)])
    return backend


def _added(token: Any, **changes: bool) -> Any:
    import tokenizers

    if isinstance(token, str):
        return tokenizers.AddedToken(token, normalized=False, **changes)
    return tokenizers.AddedToken(**{**{name: token[name] for name in PROPERTIES if name in token}, **changes})


def _template(folder: Path, settings: Settings) -> str | None:
    """The chat template: of its own file, else of the settings; of several the one named `default`."""
    try:
        return (folder / TEMPLATE_FILE).read_text(encoding="utf-8")
    except FileNotFoundError:
        pass
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{folder / TEMPLATE_FILE}: not readable ({error})") from error
    stated = settings.get("chat_template")
    if isinstance(stated, list):
        stated = {item.get("name"): item.get("template") for item in stated if isinstance(item, dict)}
    if isinstance(stated, dict):
        stated = stated.get("default")
    return stated if isinstance(stated, str) else None
