"""What the server of a checkpoint reads and answers: OpenAI's JSON, with a dial.

A field of a request that is null counts as not given. What the server does not do is refused by name, unless it is
given a value that asks for nothing.

Source: OpenAI's API reference, "Chat", "Completions", "Models" and "Errors"; the dial is ours
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import msgspec

from sparsedial.records.quantities import Interval
from sparsedial.records.record import Record
from sparsedial.records.setting import Setting
from sparsedial.shape.turned import Turned

Role = Literal["system", "developer", "user", "assistant"]
FinishReason = Literal["stop", "length"]
Number = Annotated[int, msgspec.Meta(ge=0)]
Limit = Annotated[float, msgspec.Meta(gt=0)]
Numbers = Annotated[tuple[Number, ...], msgspec.Meta(min_length=1)]

# Fields of requests that change nothing of an answer.
IGNORED = (
    "user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_retention",
    "prediction", "parallel_tool_calls",
)  # fmt: skip
# Fields of requests that are not built, each with the values that ask for nothing.
NOT_BUILT: Mapping[str, tuple[Any, ...]] = {
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "modalities": (["text"],),
    "audio": (),
    "web_search_options": (),
    "reasoning_effort": (),
    "verbosity": (),
    "top_logprobs": (0,),
    "suffix": ("",),
    "echo": (False,),
    "best_of": (1,),
}


class TextPart(Record, frozen=True, kw_only=True):
    """A part of a message; there are no parts but text."""

    type: Literal["text"]
    text: str


class ChatMessage(Record, frozen=True, kw_only=True, omit_defaults=True):
    """A message of a chat."""

    role: Role
    content: str | tuple[TextPart, ...]
    name: str | None = None  # of who says it; templates do not use it
    annotations: tuple[()] | None = None  # of an answer that is sent back, as `tool_calls`: there are none
    tool_calls: tuple[()] | None = None


class StreamOptions(Record, frozen=True, kw_only=True, omit_defaults=True):
    """What a stream has beside the text."""

    include_usage: bool = False  # a last chunk without text says what the answer took
    include_obfuscation: bool = False  # it changes nothing: chunks are never padded


class DialRequest(Record, frozen=True, kw_only=True, omit_defaults=True):
    """The setting of a request: its name, or its parts, or a budget that `dial.json` resolves."""

    setting: str | None = None  # as `k=2,skip=3`
    top_k_experts: int | Numbers | None = None  # one number, or one for each sparse layer
    top_p_experts: float | None = None
    neurons_share: float | None = None
    skip_layers: tuple[Number, ...] | None = None
    at_least_tokens_per_second: Limit | None = None
    at_most_joules_per_100_tokens: Limit | None = None
    max_loss_increase: Limit | None = None  # a share of the default's loss

    PARTS: ClassVar[tuple[str, ...]] = ("top_k_experts", "top_p_experts", "neurons_share", "skip_layers")

    @property
    def given(self) -> tuple[str, ...]:
        """The fields that are not null."""
        return tuple(key for key in self.__struct_fields__ if self[key] is not None)

    @property
    def turned(self) -> Turned:
        """The setting that the parts describe."""
        k = self.top_k_experts
        return Turned(
            top_k=() if k is None else (k,) if isinstance(k, int) else k,
            top_p=self.top_p_experts,
            neurons=1.0 if self.neurons_share is None else self.neurons_share,
            skip=self.skip_layers or (),
        )

    @property
    def budgets(self) -> dict[str, float | None]:
        """The limits, as `serving.budget` names them and in its units."""
        joules = self.at_most_joules_per_100_tokens
        return {
            "at_least": self.at_least_tokens_per_second,
            "at_most": None if joules is None else joules / 100,
            "max_loss_increase": self.max_loss_increase,
        }


class JsonSchema(Record, frozen=True, kw_only=True, omit_defaults=True):
    """The schema of an answer in JSON."""

    schema: dict[str, Any]
    name: str | None = None  # it changes nothing, as the next two: the answer keeps to the schema in any case
    description: str | None = None
    strict: bool | None = None


class ResponseFormat(Record, frozen=True, kw_only=True, omit_defaults=True):
    """The form of an answer."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None  # of that type alone


class TextRequest(Record, frozen=True, kw_only=True, omit_defaults=True):
    """What all requests for text have."""

    model: str | None = None  # its name, or with a setting: `name:k=2`
    dial: DialRequest | None = None
    max_tokens: int | None = None
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int | None = None
    seed: int | None = None  # null: another one each time
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    logit_bias: dict[str, float] | None = None  # by a token's id
    stop: str | tuple[str, ...] = ()
    n: int = 1
    response_format: ResponseFormat | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None


class ChatRequest(TextRequest, frozen=True, kw_only=True, omit_defaults=True):
    """The next message of a chat."""

    messages: tuple[ChatMessage, ...]
    max_completion_tokens: int | None = None  # the newer name of max_tokens
    logprobs: bool = False  # whether each token's log-probability is told
    top_logprobs: int | None = None  # and those of so many of the likeliest tokens at its place


class CompletionRequest(TextRequest, frozen=True, kw_only=True, omit_defaults=True):
    """The text after a prompt, or after each of several."""

    prompt: str | tuple[str | int | tuple[int, ...], ...]
    logprobs: int | bool | None = None  # so many of the likeliest tokens are told with each token; false: none
    echo: bool = False  # the prompt is repeated before its answer


class DialUsage(Record, frozen=True, kw_only=True):
    """The setting of an answer, and what it took at it."""

    setting: str
    setting_reason: str  # why this setting: asked, default, or the budget that it keeps
    top_k_experts: int | tuple[int, ...] | None  # null: the model is dense
    active_parameters_per_token: int
    seconds: float  # from when it was asked to the last token
    waited_seconds: float  # of them, until its prompt began to be read
    joules: float
    joules_basis: Literal["measured", "estimated"]
    cached_prompt_tokens: int  # of the prompt, that were not read again


class Usage(Record, frozen=True, kw_only=True):
    """The tokens of an answer, and what they took."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    dial: DialUsage


class LikelyToken(Record, frozen=True, kw_only=True):
    """A token of a chat's answer, or one that could have stood there."""

    token: str
    logprob: float  # nats
    bytes: tuple[int, ...]  # of a token that is a part of a character too


class ScoredToken(LikelyToken, frozen=True, kw_only=True):
    """A token of a chat's answer, and the likeliest ones at its place."""

    top_logprobs: tuple[LikelyToken, ...]


class ChatLogprobs(Record, frozen=True, kw_only=True):
    """How likely the tokens of a message, or of a piece of it, were."""

    content: tuple[ScoredToken, ...]
    refusal: None = None


class TextLogprobs(Record, frozen=True, kw_only=True):
    """How likely the tokens of a text, or of a piece of it, were."""

    tokens: tuple[str, ...]
    token_logprobs: tuple[float | None, ...]  # nats; null for the first token of a prompt
    top_logprobs: tuple[dict[str, float] | None, ...]  # with the token itself
    text_offset: tuple[int, ...]  # characters before each, from the beginning of the prompt


class AnswerMessage(Record, frozen=True, kw_only=True):
    """The message of an answer."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class ChatChoice(Record, frozen=True, kw_only=True):
    """One of the answers to a chat."""

    index: int
    message: AnswerMessage
    logprobs: ChatLogprobs | None = None
    finish_reason: FinishReason


class TextChoice(Record, frozen=True, kw_only=True):
    """One of the texts after a prompt; of a stream, a piece of it."""

    index: int
    text: str
    logprobs: TextLogprobs | None = None
    finish_reason: FinishReason | None  # null while the text goes on


class FirstDelta(Record, frozen=True, kw_only=True):
    """The beginning of a message in a stream."""

    role: Literal["assistant"] = "assistant"
    content: str = ""


class Delta(Record, frozen=True, kw_only=True):
    """A piece of a message in a stream. It has no role: clients add up what they get."""

    content: str


class ChunkChoice(Record, frozen=True, kw_only=True):
    """A piece of one of the answers to a chat."""

    index: int
    delta: FirstDelta | Delta
    logprobs: ChatLogprobs | None = None
    finish_reason: FinishReason | None  # null while the message goes on


class Reply(Record, frozen=True, kw_only=True):
    """What all answers with text have."""

    id: str
    object: str
    created: int  # seconds since 1970
    model: str  # with the setting, as `/v1/models` names it
    system_fingerprint: None = None


class ChatReply(Reply, frozen=True, kw_only=True):
    """The answers to a chat."""

    object: Literal["chat.completion"] = "chat.completion"
    choices: tuple[ChatChoice, ...]
    usage: Usage


class TextReply(Reply, frozen=True, kw_only=True):
    """The texts after prompts; of a stream, a piece of one."""

    object: Literal["text_completion"] = "text_completion"
    choices: tuple[TextChoice, ...]
    usage: Usage | None  # null in the pieces of a stream, but for the last


class ChatChunk(Reply, frozen=True, kw_only=True):
    """A piece of the answers to a chat."""

    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    choices: tuple[ChunkChoice, ...]
    usage: Usage | None  # null, but for the last


class ServedModel(Record, frozen=True, kw_only=True):
    """The checkpoint at a setting of its dial."""

    id: str
    object: Literal["model"] = "model"
    created: int  # seconds since 1970
    owned_by: str = "sparsedial"
    default: bool  # whether requests that say nothing get this setting
    chat: bool | None  # whether its tokenizer has a chat template; null where that is not known yet
    max_model_len: int  # tokens of a prompt and its answer together, at most; the name is vLLM's
    dial: Setting
    loss: float | None  # nats per token of the text that the dial was measured on; null where it was not measured
    loss_increase: Interval | None  # nats per token over the setting that the checkpoint was trained at
    loss_increase_reason: str | None


class ServedModels(Record, frozen=True, kw_only=True):
    """The settings that a server knows; others can be asked for too."""

    object: Literal["list"] = "list"
    data: tuple[ServedModel, ...]


class ErrorWords(Record, frozen=True, kw_only=True):
    """Why a request is not answered."""

    message: str
    type: str
    param: str | None  # the field at fault; null where it is none
    code: str


class ErrorReply(Record, frozen=True, kw_only=True):
    """The answer to a request that is not answered."""

    error: ErrorWords


class Health(Record, frozen=True, kw_only=True):
    """The server is there."""

    status: Literal["ok"] = "ok"
    model: str


class ServeDryRun(Record, frozen=True, kw_only=True):
    """What a server of a checkpoint would hold in memory, and its settings."""

    dry_run: bool = True
    name: str
    default: str
    settings: tuple[str, ...]
    dtype: str  # in which weights are held
    total_parameters: int
    weight_bytes: int
    slots: int
    context_tokens: int  # of a prompt and its answer together
    cache_bytes: int  # of all slots at most, when they are full
    memory_bytes: int  # of the machine
