"""Why a request is not answered, as OpenAI's JSON says it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from sparsedial.errors import UserError
from sparsedial.records.serving import ErrorReply, ErrorWords

Kind = Literal["invalid_request_error", "rate_limit_error", "server_error"]
BAD_VALUE, FAILED = "invalid_value", "engine_failed"


class Refused(Exception):
    """A request that is not answered: its status, what was wrong, and in which field."""

    def __init__(
        self, status: int, message: str, *, code: str, param: str | None = None, retry_seconds: int | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.retry_seconds = status, retry_seconds
        self.reply = ErrorReply(error=ErrorWords(message=message, type=_kind(status), param=param, code=code))

    @property
    def headers(self) -> Mapping[str, str]:
        """What the client is told beside the words."""
        return {} if self.retry_seconds is None else {"Retry-After": str(self.retry_seconds)}


def refused(error: UserError, *, code: str = BAD_VALUE, param: str | None = None) -> Refused:
    """A user's error as the answer of a server; its field is the one at fault unless another is named."""
    param = param or error.field
    named = not param or error.problem.startswith(f"{param}=")  # as `top_p=2 …`
    about, hint = "" if named else f"{param}: ", f"; {error.hint}" if error.hint else ""
    return Refused(400, f"{about}{error.problem}{hint}", code=code, param=param)


def _kind(status: int) -> Kind:
    if status >= 500:
        return "server_error"
    return "rate_limit_error" if status == 429 else "invalid_request_error"
