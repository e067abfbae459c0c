"""A model of ours behind the interface of lm-eval, so that its tasks, filters and metrics judge it as they are.

Source: lm-eval 0.4.13, `lm_eval.api.model`
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import normalize_gen_kwargs
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from sparsedial.errors import UserError
from sparsedial.evaluation.kept import Kept
from sparsedial.evaluation.scorer import Pair, Scorer
from sparsedial.model.transformer import Transformer
from sparsedial.records.evaluation import KeptAnswer
from sparsedial.text.prompts import Prompts, prompts_of
from sparsedial.text.tokenizer import Tokenizer, load_tokenizer

NEW_TOKENS = 256  # of an answer, where a task states no number; as in lm-eval's own models
Request = tuple[tuple[str, str], list[int], list[int]]  # texts of a context and its continuation, and their ids


@dataclass(frozen=True)
class Greedily:
    """How an answer is written."""

    until: tuple[str, ...]  # texts before which it ends
    tokens: int  # at most


class HarnessModel(TemplateLM):
    """A checkpoint as lm-eval asks it: likelihoods of continuations, and greedy answers.

    `too_long` has the contexts of what exceeds the model's. They are cut at their beginning; those that are not asked
    at all are in `not_asked` too: see `begin`.
    """

    def __init__(self, scorer: Scorer, tokenizer: Tokenizer, prompts: Prompts, kept: Kept | None = None) -> None:
        super().__init__()
        self.scorer, self.text, self.prompts = scorer, tokenizer, prompts
        self.kept = Kept() if kept is None else kept
        self.begin()

    @classmethod
    def around(cls, folder: Path, model: Transformer, kept: Kept | None = None) -> HarnessModel:
        """A model that was loaded from a checkpoint folder.

        Raises: UserError for a tokenizer that is damaged or does not fit the model.
        """
        tokenizer = load_tokenizer(folder)
        return cls(Scorer(model), tokenizer, prompts_of(folder, tokenizer), kept)

    def begin(self, *, cut: bool = True, refuse: bool = True) -> None:
        """Begin a task. What is not asked gets no answer: a likelihood of 0, or no text.

        Without `cut` that is all that is too long for the model; without `refuse`, a continuation that alone is too
        long, which is otherwise an error.
        """
        self.too_long: set[str] = set()
        self.not_asked: set[str] = set()
        self.cut, self.refuse = cut, refuse

    @property
    def eot_token_id(self) -> int:
        """The token that ends a text."""
        return self.text.end_token

    @cached_property
    def prefix_token_id(self) -> int:
        """What stands before a continuation without a context: the BOS token, else the one that ends a text."""
        name = self.prompts.special.get("bos_token")
        found = None if name is None or self.prompts.backend is None else self.prompts.backend.token_to_id(name)
        return self.eot_token_id if found is None else found

    @property
    def context(self) -> int:
        """Tokens that the model reads at once."""
        return self.scorer.model.shape.context

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """The ids of a prompt; special tokens before it as its tokenizer says, unless they are there or refused."""
        bos = self.prompts.special.get("bos_token")
        whole = add_special_tokens is False or (
            add_special_tokens is None and bool(bos) and string.startswith(bos or "")
        )
        return self.prompts.encode(string, whole=whole).tolist()

    @property
    def tokenizer_name(self) -> str:
        """A name for the tokenizer, with which lm-eval marks prompts that it keeps."""
        return str(self.prompts.folder)

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """The chat template."""
        return self.prompts.template if chat_template else None

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """The messages as the tokenizer's chat template writes them."""
        return self.prompts.render(chat_history, answer=add_generation_prompt)

    def loglikelihood(self, requests: Sequence[Any], disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        """The log-likelihood of each continuation after its context, and whether it is the greedy one."""
        return super().loglikelihood(list(requests), disable_tqdm=disable_tqdm)

    def _loglikelihood_tokens(self, requests: Sequence[Request], **_: Any) -> list[tuple[float, bool]]:
        pairs = [self._asked(request) for request in requests]
        answers = iter(self._scores([pair for pair in pairs if pair is not None]))
        return [(0.0, False) if pair is None else next(answers) for pair in pairs]

    def _asked(self, request: Request) -> Pair | None:
        """The ids of a request; None where it is too long and may not be cut."""
        (context_text, _), context, continuation = request
        if len(context) + len(continuation) - 1 > self.context:
            self.too_long.add(context_text)
            if not self.cut or (len(continuation) > self.context and not self.refuse):
                self.not_asked.add(context_text)
                return None
        return context, continuation

    def _scores(self, pairs: Sequence[Pair]) -> list[tuple[float, bool]]:
        def score(open_pairs: list[Pair]) -> Iterator[dict[int, KeptAnswer]]:
            for group in self.scorer.likelihoods(open_pairs):
                yield {
                    number: KeptAnswer(asked="", nats=found.log_likelihood, greedy=found.greedy, text=None)
                    for number, found in group.items()
                }

        return [(float(kept.nats or 0.0), bool(kept.greedy)) for kept in self.kept.each(pairs, score)]

    def loglikelihood_rolling(self, requests: Sequence[Any], **_: Any) -> list[float]:
        """The log-likelihood of whole texts, in windows; each token is scored once, with as much before it as fits."""
        pairs, owners = [], []
        for number, request in enumerate(requests):
            (text,) = request.args
            windows = get_rolling_token_windows(
                token_list=self.tok_encode(text),
                prefix_token=self.prefix_token_id,
                max_seq_len=self.context,
                context_len=1,
            )
            for context, continuation in map(make_disjoint_window, windows):
                pairs.append((context, continuation))
                owners.append(number)
        totals = [0.0] * len(requests)
        for number, scored in zip(owners, self._scores(pairs), strict=True):
            totals[number] += scored[0]
        return totals

    def generate_until(self, requests: Sequence[Any], **_: Any) -> list[str]:
        """The greedy answers. A prompt that leaves no room for one is cut at its beginning.

        Raises: UserError for a task that samples.
        """
        groups: defaultdict[Greedily, list[int]] = defaultdict(list)
        for number, request in enumerate(requests):
            groups[self.greedily(request.args[1])].append(number)
        answers = [""] * len(requests)
        for how, numbers in groups.items():
            prompts = {number: ids for number in numbers if (ids := self.prompt(requests[number].args[0], how))}
            for number, answer in zip(prompts, self._answers(list(prompts.values()), how), strict=True):
                answers[number] = answer
        return answers

    def prompt(self, text: str, how: Greedily) -> list[int]:
        """The ids of a prompt that leave room for its answer; none where it is too long and may not be cut."""
        room = self.room(how)
        ids = self.tok_encode(text)
        if len(ids) > room:
            self.too_long.add(text)
            if not self.cut:
                self.not_asked.add(text)
                return []
        return ids[-room:]

    def room(self, how: Greedily) -> int:
        """The most tokens of a prompt.

        Raises: UserError where the answer fills the whole context.
        """
        if self.context <= how.tokens:
            raise UserError(
                f"answers of up to {how.tokens} tokens leave no room for a question in the model's context of"
                f" {self.context}"
            )
        return self.context - how.tokens

    def _answers(self, prompts: Sequence[list[int]], how: Greedily) -> list[str]:
        def write(questions: list[tuple[Any, ...]]) -> Iterator[dict[int, KeptAnswer]]:
            open_prompts = [prompt for prompt, *_ in questions]
            for group in self.scorer.continuations(open_prompts, self.text, how.until, how.tokens):
                yield {
                    number: KeptAnswer(asked="", nats=None, greedy=None, text=text) for number, text in group.items()
                }

        asked = [(prompt, how.until, how.tokens) for prompt in prompts]
        return [kept.text or "" for kept in self.kept.each(asked, write)]

    def greedily(self, given: Mapping[str, Any]) -> Greedily:
        """How a task wants its answers written.

        Raises: UserError for a task that samples.
        """
        wanted: Any = normalize_gen_kwargs(dict(given), NEW_TOKENS)
        if wanted.get("do_sample"):
            raise UserError("a task that samples its answers is not supported: answers are greedy")
        return Greedily(tuple(filter(None, wanted["until"])), wanted["max_gen_toks"])

    def size(self, requests: Sequence[Any]) -> tuple[int, int]:
        """The tokens that are read for these requests, and at most written; what is too long is noted in `too_long`."""
        pairs, written = [], 0
        for request in requests:
            if request.request_type == "generate_until":
                how = self.greedily(request.args[1])
                prompt = self.prompt(request.args[0], how)
                pairs += [(prompt, [self.eot_token_id])] if prompt else []
                written += how.tokens if prompt else 0
            elif pair := self._asked((request.args, *self._pair(*request.args))):
                pairs.append(pair)
        return self.scorer.tokens_to_read(pairs), written

    def _pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        if context:
            return self._encode_pair(context, continuation)
        return [self.prefix_token_id], self.tok_encode(continuation, add_special_tokens=False)

    def scores_of(self, pairs: Sequence[tuple[str, str]]) -> list[float] | None:
        """The log-likelihood of each answer after its prompt, both given as text; a prompt that is too long is cut.

        None where an answer alone is longer than the model's context.
        Units: nats
        """
        ids = [self._pair(*pair) for pair in pairs]
        if any(len(answer) > self.context for _, answer in ids):
            return None
        return [nats for nats, _ in self._scores(ids)]
