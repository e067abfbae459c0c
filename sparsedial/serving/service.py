"""From a request to the answers of a served checkpoint: its prompts as ids, its limits, its setting, its sampling."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sparsedial.errors import UserError, about
from sparsedial.records.serving import (
    ChatMessage,
    ChatRequest,
    CompletionRequest,
    DialUsage,
    ResponseFormat,
    TextRequest,
    Usage,
)
from sparsedial.serving.answer_text import Before
from sparsedial.serving.answers import Answers, Writer
from sparsedial.serving.asks import Ask, Closed
from sparsedial.serving.dial import Chosen, Dial
from sparsedial.serving.guide import Guide, Guides
from sparsedial.serving.refused import BAD_VALUE, FAILED, Refused, refused
from sparsedial.serving.sampling import Sampling
from sparsedial.text.prompts import Prompts
from sparsedial.text.token_bytes import TokenBytes
from sparsedial.text.tokenizer import Tokenizer

MOST_CHOICES, MOST_PROMPTS, MOST_ANSWERS = 8, 64, 64  # of a prompt, of a request, of a request in all
MOST_STOPS = 4
MOST_TOP = 20  # likeliest tokens that are told with each token
MOST_WAITING = 256  # answers that wait for a slot; a request that would add to more is refused
RETRY_SECONDS = 5
COMPLETION_TOKENS = 16  # unless a request says how many, as OpenAI has it; a chat goes on until it ends
SEEDS = 2**62
DRAWN = ("temperature", "top_p", "top_k", "frequency_penalty", "presence_penalty")  # fields of a request
ANY_OBJECT: dict[str, Any] = {"type": "object"}
TOO_LONG = "context_length_exceeded"
Ids = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Service:
    """A checkpoint that is served."""

    engine: Writer
    dial: Dial
    tokenizer: Tokenizer
    words: TokenBytes  # of the tokenizer: making it reads the whole tokenizer
    guides: Guides
    prompts: Prompts
    joules_basis: Literal["measured", "estimated"]

    def chat_ids(self, messages: Sequence[ChatMessage]) -> tuple[Ids, ...]:
        """The prompt of a chat, by the tokenizer's template.

        Raises: Refused where there is no template, or it fails.
        """
        if self.prompts.template is None:
            words = "the tokenizer of this checkpoint has no chat template; /v1/completions continues a text"
            raise Refused(400, words, code="no_chat_template", param="messages")
        if not messages:
            raise Refused(400, "there are no messages", code=BAD_VALUE, param="messages")
        plainly = [{"role": _role(message), "content": _content(message)} for message in messages]
        try:
            return (tuple(self.prompts.encode(self.prompts.render(plainly), whole=True).tolist()),)
        except UserError as error:
            raise refused(error, param="messages") from error

    def prompt_ids(self, prompt: str | Sequence[str | int | Ids]) -> tuple[Ids, ...]:
        """The prompts of a completion: a text, ids, or a list of either.

        Raises: Refused for a list of nothing or of several kinds, and for an id outside the vocabulary.
        """
        if isinstance(prompt, str):
            return (self._ids(prompt),)
        numbers = tuple(one for one in prompt if isinstance(one, int))
        texts = [one for one in prompt if isinstance(one, str)]
        rows = [one for one in prompt if isinstance(one, tuple)]
        if sum(map(bool, (numbers, texts, rows))) != 1:
            words = "the prompt is neither a text, nor ids, nor a list of texts or of lists of ids"
            raise Refused(400, words, code=BAD_VALUE, param="prompt")
        if not numbers and len(prompt) > MOST_PROMPTS:
            raise Refused(400, f"{len(prompt)} prompts are more than {MOST_PROMPTS}", code=BAD_VALUE, param="prompt")
        return tuple(map(self._known, [numbers] if numbers else rows)) or tuple(map(self._ids, texts))

    def guide(self, form: ResponseFormat | None) -> Guide | None:
        """What makes an answer keep to a form, if one is asked for; the first one takes a moment.

        Raises: Refused for a schema that is missing, wrong, or has what is not supported.
        """
        if form is None or form.type == "text":
            return None
        if (form.json_schema is not None) != (form.type == "json_schema"):
            words = "response_format: json_schema is given with the type json_schema, and with no other"
            raise Refused(400, words, code=BAD_VALUE, param="response_format.json_schema")
        try:
            return self.guides.json(ANY_OBJECT if form.json_schema is None else form.json_schema.schema)
        except UserError as error:
            raise refused(error, param="response_format.json_schema.schema") from error
        except ModuleNotFoundError as error:
            words = f"response_format needs {error.name}, which the server lacks: pip install 'sparsedial[serve]'"
            raise Refused(400, words, code="unsupported_parameter", param="response_format") from error

    def begin(self, request: TextRequest, chosen: Chosen, prompts: Sequence[Ids], guide: Guide | None) -> Answers:
        """The answers to a request, which are being written from now on, each by a copy of the guide.

        Raises: Refused for a value outside its range, a prompt that is too long, or too many answers that wait.
        """
        stops, most = _stops(request.stop), min(MOST_CHOICES, MOST_ANSWERS // len(prompts))
        if not 1 <= request.n <= most:
            raise Refused(400, f"n={request.n} lies outside 1..{most}", code=BAD_VALUE, param="n")
        top, samplings = _top(request), _samplings(request, len(prompts) * request.n, self.dial.shape.vocab_size)
        rows = [prompt for prompt in prompts for _ in range(request.n)]
        befores = [before for before in self._befores(request, prompts, top) for _ in range(request.n)]
        asks = [
            Ask(
                prompt=prompt,
                tokens=self._tokens(request, prompt),
                sampling=sampling,
                turned=chosen.turned,
                top=top,
                scores_prompt=before.echo and top is not None,
                guide=guide and guide.another(),
            )
            for prompt, before, sampling in zip(rows, befores, samplings, strict=True)
        ]
        if self.engine.load().waiting + len(asks) > MOST_WAITING:
            words = f"{MOST_WAITING} answers wait already; ask again later"
            raise Refused(429, words, code="too_many_waiting", retry_seconds=RETRY_SECONDS)
        try:
            return Answers(self.engine, asks, befores, self.tokenizer, self.words, stops)
        except Closed as error:
            raise Refused(500, error.problem, code=FAILED) from error
        except UserError as error:
            raise refused(error, param=_param(error, request)) from error

    def usage(self, request: TextRequest, chosen: Chosen, prompts: Sequence[Ids], answers: Answers) -> Usage:
        """What all answers to a request took. A prompt counts once, whatever `n` is."""
        spent, read, setting = answers.spent, sum(map(len, prompts)), chosen.setting
        of_prompts = [spent[at : at + request.n] for at in range(0, len(spent), request.n)]
        return Usage(
            prompt_tokens=read,
            completion_tokens=answers.tokens,
            total_tokens=read + answers.tokens,
            dial=DialUsage(
                setting=setting.name,
                setting_reason=chosen.reason,
                top_k_experts=setting.top_k_experts,
                active_parameters_per_token=setting.active_parameters,
                seconds=max(one.seconds for one in spent),
                waited_seconds=max(one.waited for one in spent),
                joules=sum(one.joules for one in spent),
                joules_basis=self.joules_basis,
                cached_prompt_tokens=sum(min(one.cached for one in alike) for alike in of_prompts),
            ),
        )

    def _befores(self, request: TextRequest, prompts: Sequence[Ids], top: int | None) -> list[Before]:
        """The text of each prompt, as it was given or of its ids, where an answer says something of it."""
        if not isinstance(request, CompletionRequest) or (top is None and not request.echo):
            return [Before(text="", echo=False)] * len(prompts)
        given = (request.prompt,) if isinstance(request.prompt, str) else request.prompt
        texts = [one for one in given if isinstance(one, str)] or [self.tokenizer.decode(ids) for ids in prompts]
        return [Before(text=text, echo=request.echo) for text in texts]

    def _known(self, ids: Ids) -> Ids:
        """Ids of a request, all in the vocabulary."""
        words = self.dial.shape.vocab_size
        outside = next((one for one in ids if not 0 <= one < words), None)
        if outside is not None:
            raise Refused(400, f"prompt: id {outside} lies outside 0..{words - 1}", code=BAD_VALUE, param="prompt")
        return ids

    def _ids(self, text: str) -> Ids:
        try:
            return tuple(self.prompts.encode(text).tolist())
        except UserError as error:
            raise refused(error, param="prompt") from error

    def _tokens(self, request: TextRequest, prompt: Ids) -> int:
        """How many tokens an answer has at most.

        Raises: Refused where that is less than one, or than none of a prompt that is repeated; or where a prompt leaves
            no room for it.
        """
        room, asked, param, usual = self.dial.length - len(prompt), request.max_tokens, "max_tokens", COMPLETION_TOKENS
        if isinstance(request, ChatRequest):
            usual = room
            if request.max_completion_tokens is not None:
                asked, param = request.max_completion_tokens, "max_completion_tokens"
        least = 0 if isinstance(request, CompletionRequest) and request.echo else 1
        if room < (least if asked == 0 else 1):
            words = f"the prompt has {len(prompt):,} tokens; with the answer it may have {self.dial.length:,}"
            raise Refused(400, words, code=TOO_LONG, param=_prompt_field(request))
        if asked is not None and asked < least:
            raise Refused(400, f"{param}={asked} is below {least}", code=BAD_VALUE, param=param)
        return min(usual if asked is None else asked, room)


def _role(message: ChatMessage) -> str:
    return "system" if message.role == "developer" else message.role


def _content(message: ChatMessage) -> str:
    if isinstance(message.content, str):
        return message.content
    return "".join(part.text for part in message.content)


def _stops(stop: str | Sequence[str]) -> tuple[str, ...]:
    strings = (stop,) if isinstance(stop, str) else tuple(stop)
    if len(strings) > MOST_STOPS or not all(strings):
        words = f"stop: up to {MOST_STOPS} strings can be given, and none of them is empty"
        raise Refused(400, words, code=BAD_VALUE, param="stop")
    return strings


def _top(request: TextRequest) -> int | None:
    """How many of the likeliest tokens are told with each token; None where no log-probabilities are asked for."""
    name, given = "logprobs", None
    if isinstance(request, ChatRequest):
        name, given = "top_logprobs", request.top_logprobs or 0
        if given and not request.logprobs:
            raise Refused(400, "top_logprobs needs logprobs, which is not true", code=BAD_VALUE, param="top_logprobs")
        given = given if request.logprobs else None
    elif isinstance(request, CompletionRequest) and request.logprobs is not False:
        given = request.logprobs
    if given is True:
        raise Refused(400, "logprobs: for a text it is how many of the likeliest", code=BAD_VALUE, param="logprobs")
    if given is not None and not 0 <= given <= MOST_TOP:
        raise Refused(400, f"{name}={given} lies outside 0..{MOST_TOP}", code=BAD_VALUE, param=name)
    return given


def _samplings(request: TextRequest, count: int, vocab_size: int) -> list[Sampling]:
    """How each of the answers is drawn: with a seed of its own, counted up from the one that is given."""
    seed = secrets.randbelow(SEEDS) if request.seed is None else request.seed
    values: dict[str, Any] = {name: request[name] for name in DRAWN}
    values["logit_bias"] = _bias(request, vocab_size)
    try:
        for name, value in values.items():  # each by itself, so that an error names it
            with about(name):
                Sampling(**{name: value})
    except UserError as error:
        raise refused(error) from error
    return [Sampling(**values, seed=(seed + number) % SEEDS) for number in range(count)]


def _bias(request: TextRequest, vocab_size: int) -> tuple[tuple[int, float], ...]:
    """What is added to the logits of some ids."""
    bias = request.logit_bias or {}
    for token in bias:
        if not (token.isascii() and token.isdigit() and len(token) < 10 and int(token) < vocab_size):
            words = f"logit_bias: '{token}' is no id of 0..{vocab_size - 1}"
            raise Refused(400, words, code=BAD_VALUE, param="logit_bias")
    return tuple((int(token), value) for token, value in bias.items())


def _param(error: UserError, request: TextRequest) -> str | None:
    """The field of a request that an engine's error is about."""
    fields = {"prompt": _prompt_field(request), "tokens": "max_tokens", "setting": "dial"}
    return fields.get(error.field or "", error.field)


def _prompt_field(request: TextRequest) -> str:
    return "prompt" if isinstance(request, CompletionRequest) else "messages"
