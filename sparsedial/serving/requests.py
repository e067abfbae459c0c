"""From the body of a request to its record: what is not known or not built is refused by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar, cast, get_args, get_type_hints

import msgspec

from sparsedial.errors import nearest
from sparsedial.records.record import field_at_fault, in_words
from sparsedial.records.serving import IGNORED, NOT_BUILT, DialRequest, ResponseFormat, Role, StreamOptions, TextRequest
from sparsedial.serving.refused import BAD_VALUE, Refused

T = TypeVar("T", bound=TextRequest)
NESTED: Mapping[str, type[DialRequest | StreamOptions | ResponseFormat]] = {
    "dial": DialRequest,
    "stream_options": StreamOptions,
    "response_format": ResponseFormat,
}
WORDS_OF = {  # the values of a field that has only some
    "role": get_args(Role),
    "type": ("text",),
    "response_format.type": get_args(get_type_hints(ResponseFormat)["type"]),
}
SCHEMA = "schema"  # in which null is a value
CHATS, TEXTS = "/v1/chat/completions", "/v1/completions"
ELSEWHERE = {"messages": CHATS, "top_logprobs": CHATS, "prompt": TEXTS, "echo": TEXTS}


def read_request(body: bytes, cls: type[T]) -> T:
    """A request, from its JSON.

    Raises: Refused for what is not JSON, and for a field that is missing, unknown, not built or of another type.
    """
    given = _given(body)
    for name, value in given.items():
        if name not in cls.__struct_fields__ and name not in IGNORED:
            _require_nothing_asked(name, value, cls.__struct_fields__)
    for name, inner in NESTED.items():
        if isinstance(given.get(name), Mapping):
            for key in given[name]:
                _require_known(key, inner.__struct_fields__, name)
    try:
        return msgspec.convert({name: given[name] for name in cls.__struct_fields__ if name in given}, cls)
    except msgspec.ValidationError as error:
        param = field_at_fault(str(error)) or None
        raise Refused(400, _in_words(str(error), param), code=BAD_VALUE, param=param) from error


def _in_words(message: str, param: str | None) -> str:
    """What is wrong with a value, and what it may be where that is one of a few words."""
    words, name = in_words(message), param or ""
    known = WORDS_OF.get(name) or WORDS_OF.get(name.rpartition(".")[2])
    hint = f"; known are {', '.join(known)}" if known and words.endswith("is not known") else ""
    return f"{words}{hint}" if param and words.startswith(f"{param}:") else f"the request {words}"


def _given(body: bytes) -> dict[str, Any]:
    """The fields of a body that are not null."""
    if not body:
        raise Refused(400, "the request has no body; it must be a JSON object", code="invalid_json")
    try:
        values = _without_nulls(msgspec.json.decode(body))
    except (RecursionError, UnicodeDecodeError, msgspec.DecodeError) as error:
        raise Refused(400, f"the body of the request is not JSON: {error}", code="invalid_json") from error
    if not isinstance(values, dict):
        raise Refused(400, "the body of the request is not a JSON object", code="invalid_json")
    return cast("dict[str, Any]", values)


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: item if key == SCHEMA else _without_nulls(item) for key, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value


def _require_nothing_asked(name: str, value: Any, known: Iterable[str]) -> None:
    """Refuse a field that is not built, unless its value asks for nothing, and one that nobody knows."""
    if any(value == nothing and (value is False) == (nothing is False) for nothing in NOT_BUILT.get(name, ())):
        return
    if name not in NOT_BUILT or name in ELSEWHERE:
        _require_known(name, known)
    else:
        raise Refused(
            400, f"{name} is not built in this server; leave it out", code="unsupported_parameter", param=name
        )


def _require_known(name: str, known: Iterable[str], within: str | None = None) -> None:
    if name in known:
        return
    words = tuple(known)
    hint = nearest(name, words) or f"known are {', '.join(words)}"
    if within is None and name in ELSEWHERE:
        hint = f"{ELSEWHERE[name]} has it"
    param = f"{within}.{name}" if within else name
    code = "unknown_dial_field" if within == "dial" else "unknown_field"
    raise Refused(400, f"no field is named '{param}'; {hint}", code=code, param=param)
