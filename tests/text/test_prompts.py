"""Prompts become the ids that `transformers` makes of them, special tokens and chats included."""

from __future__ import annotations

import json
import threading
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from sparsedial.errors import UserError
from sparsedial.text.prompts import Prompts, prompts_of
from sparsedial.text.tokenizer import byte_tokenizer, load_tokenizer, train_bpe

from .sentencepiece import KINDS, puts_first, write_tokenizer

PROMPTS = [
    "the cat",
    " the  cat sat",
    "the cat <|eot|>",
    "<s>the<|eot|> cat",
    "été </s> 🙂",
    "",
    "<|new|> cat",
    "the <|pad|> cat",
]
SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "bos": {"add_bos_token": True},
    "both": {"add_bos_token": True, "add_eos_token": True},
    "neither": {"add_bos_token": False},
    "bos without a name": {"add_bos_token": True, "bos_token": None},
    "letters": {"split_special_tokens": True},
    "named": {
        "additional_special_tokens": ["<|new|>"],
        "pad_token": {"__type": "AddedToken", "content": "<|pad|>", "lstrip": True, "normalized": False},
    },
    "added": {"added_tokens_decoder": {"400": {"content": "<|new|>", "lstrip": True, "special": False}}},
}
CHATML = """{%- for message in messages %}
    {{- '<|eot|>' + message['role'] + '\\n' + message['content'] | trim + '</s>\\n' }}
{%- endfor %}
{% if add_generation_prompt %}<|eot|>assistant
{% endif %}"""
TEMPLATES = {
    "chatml": CHATML,
    "spaces": "{% for m in messages %}\n  {{ bos_token }}{{ m.content }} {{ eos_token }}\n{% endfor %}\n<|eot|>",
    "json": "{{ messages | tojson(indent=1) }}{{ tools is none }}{{ missing }}",
    "loops": "{% set n = namespace(c=0) %}{% for m in messages %}{% set n.c = 1 %}{% break %}{% endfor %}{{ n.c }}",
    "marked": "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}",
}
MESSAGE = " the <cat> & 'été'\n"


def both(folder: Path) -> tuple[Prompts, Any]:
    """Our reading of a folder's prompts and the tokenizer of `transformers`."""
    transformers = pytest.importorskip("transformers")
    return prompts_of(folder, load_tokenizer(folder)), transformers.PreTrainedTokenizerFast.from_pretrained(folder)


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("first", [False, True])
def test_a_prompt_has_the_ids_of_transformers(tmp_path: Path, kind: str, settings: str, first: bool) -> None:
    changes = {"post_processor": puts_first("<s>", 1)} if first else {}
    ours, theirs = both(write_tokenizer(tmp_path, kind, SETTINGS[settings], **changes))
    for prompt in PROMPTS:
        assert ours.encode(prompt).tolist() == theirs(prompt).input_ids, prompt
        whole = theirs(prompt, add_special_tokens=False).input_ids
        assert ours.encode(prompt, whole=True).tolist() == whole, prompt


def test_our_own_tokenizers_read_prompts_as_transformers_does(tmp_path: Path) -> None:
    for number, tokenizer in enumerate((byte_tokenizer(), train_bpe([b"the cat sat on a mat " * 5], 280))):
        tokenizer.save(tmp_path / str(number))
        ours, theirs = both(tmp_path / str(number))
        for prompt in ("the cat", "été <|endoftext|> cat<|endoftext|>", " x"):
            assert ours.encode(prompt).tolist() == theirs(prompt).input_ids


def test_a_text_to_learn_from_spells_special_tokens_out(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(write_tokenizer(tmp_path, post_processor=puts_first("<s>", 1)))
    prompt = prompts_of(tmp_path, tokenizer).encode("the cat <|eot|>").tolist()
    text = tokenizer.encode(b"the cat <|eot|>").tolist()
    assert prompt[0] == 1
    assert prompt[-1] == 3
    assert not {1, 3} & set(text)
    assert len(text) > len(prompt) + 3


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("place", ["settings", "file", "listed"])
def test_a_chat_has_the_text_and_the_ids_of_transformers(tmp_path: Path, template: str, place: str) -> None:
    listed = [{"name": "tool_use", "template": "x"}, {"name": "default", "template": TEMPLATES[template]}]
    stated = {"settings": TEMPLATES[template], "file": "not this one", "listed": listed}[place]
    write_tokenizer(tmp_path, settings={"chat_template": stated, "add_bos_token": True})
    if place == "file":
        (tmp_path / "chat_template.jinja").write_text(TEMPLATES[template])
    ours, theirs = both(tmp_path)
    messages = [{"role": "user", "content": MESSAGE}]
    text = theirs.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert ours.chat(MESSAGE) == text
    ids = theirs.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert ours.encode(ours.chat(MESSAGE), whole=True).tolist() == ids


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        (None, "has no chat template"),
        ("{{ raise_exception('only one turn') }}", "chat template of the tokenizer fails: only one turn"),
        ("{% for %}", "chat template of the tokenizer fails: "),
        ("{{ messages.nothing.more }}", "chat template of the tokenizer fails: "),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "chat template of the tokenizer fails: "),
    ],
)
def test_a_chat_without_a_template_that_works_is_refused(tmp_path: Path, template: str | None, problem: str) -> None:
    tokenizer = load_tokenizer(write_tokenizer(tmp_path, settings={"chat_template": template}))
    with pytest.raises(UserError, match=problem):
        prompts_of(tmp_path, tokenizer).chat("hello")


def test_damaged_settings_are_named(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(write_tokenizer(tmp_path))
    for content in ("{", json.dumps({"added_tokens_decoder": {"x": 5}})):
        (tmp_path / "tokenizer_config.json").write_text(content)
        with pytest.raises(UserError, match=r"tokenizer_config\.json"):
            prompts_of(tmp_path, tokenizer)


def test_a_prompt_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(write_tokenizer(tmp_path))
    with pytest.raises(UserError, match="not valid UTF-8 from character 3 on"):
        prompts_of(tmp_path, tokenizer).encode("ab\ud800")


def test_other_threads_go_on_while_a_long_prompt_is_read(tmp_path: Path) -> None:
    """A server reads prompts beside the thread that writes answers."""
    ours = prompts_of(tmp_path, load_tokenizer(write_tokenizer(tmp_path, "sequence", {})))
    began, ticks = time.perf_counter(), [time.perf_counter()]
    reading = threading.Thread(target=ours.encode, args=("the cat sat " * 50_000,))
    reading.start()
    while reading.is_alive():
        time.sleep(0.001)
        ticks.append(time.perf_counter())
    longest = max(after - before for before, after in pairwise(ticks))
    assert longest < (time.perf_counter() - began) / 2
