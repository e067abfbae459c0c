"""`dial`: the page on which one turns the sparsity and sees loss, size, time, energy and money change."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from sparsedial.errors import UserError
from sparsedial.records.answers import Served
from sparsedial.records.law import LAW_FILE
from sparsedial.settings import setting
from sparsedial.verbs.origin import law_behind
from sparsedial.verbs.questions import questions
from sparsedial.verbs.space import DEFAULT_LAW


@dataclass(frozen=True, kw_only=True)
class DialSettings:
    """The law that the page asks, and the port."""

    law: str = setting(
        DEFAULT_LAW, "a published law, a law.json, a study's or a checkpoint's folder", positional=True, nargs="?"
    )
    port: int = setting(8765, "local port; 0 picks a free one", "N")
    open: bool = setting(False, "open the page in the browser")

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise UserError(f"{self.port} lies outside 0..65535", hint="0 picks a free port", field="port")


def dial(settings: DialSettings) -> Served:
    """Serve the dial page until Ctrl-C.

    Raises: UserError for an unknown law, a port in use, or missing libraries.
    """
    try:
        from sparsedial.showing.dial_server import serve
    except ModuleNotFoundError as error:
        raise UserError(f"{error.name} is not installed", hint="pip install 'sparsedial[dial]'") from error
    asks = questions(*_asked_for(settings.law))

    def ready(address: str) -> None:
        print(f"the dial is at {address} until Ctrl-C", file=sys.stderr, flush=True)
        if settings.open:
            import webbrowser

            webbrowser.open(address)

    serve(asks, settings.port, ready)
    return Served()


def _asked_for(word: str) -> tuple[str, dict[str, str] | None]:
    """The law and the first state. A checkpoint gives its own budget and sparsity, and the law that it came from."""
    path = Path(word)
    checkpoint = path.is_dir() and (path / "config.json").exists() and not (path / LAW_FILE).exists()
    return law_behind(path) if checkpoint else (word, None)
