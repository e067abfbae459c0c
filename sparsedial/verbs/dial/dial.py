"""`dial`: the page on which one turns the sparsity and sees loss, size, time, energy and money change.

With `measure`, the settings of a checkpoint are measured instead.
"""

from __future__ import annotations

from pathlib import Path

from sparsedial.errors import UserError
from sparsedial.records.answers import Served
from sparsedial.records.dial_file import DIAL_FILE, DialFile, MeasuredDial
from sparsedial.records.dry_run import DialDryRun
from sparsedial.records.law import LAW_FILE
from sparsedial.showing.notes import note
from sparsedial.verbs.dial.questions import questions
from sparsedial.verbs.dial.settings import DialSettings
from sparsedial.verbs.origin import law_behind, require_checkpoint
from sparsedial.verbs.plan.space import DEFAULT_LAW


def dial(settings: DialSettings) -> Served | MeasuredDial | DialDryRun:
    """Serve the dial page until Ctrl-C; or measure each setting of a checkpoint and write dial.json, or say what that
    would cost.

    Raises: UserError for an unknown law, a port in use, or missing libraries; and for a damaged checkpoint, a setting
    that it cannot have, or a text that is too short or does not fit it.
    """
    if settings.measure:
        require_checkpoint(Path(settings.law))
        from sparsedial.verbs.dial.cost import dry_run
        from sparsedial.verbs.dial.measured import measured_dial

        return dry_run(settings) if settings.dry_run else measured_dial(settings)
    try:
        from sparsedial.showing.dial_server import serve
    except ModuleNotFoundError as error:
        raise UserError(f"{error.name} is not installed", hint="pip install 'sparsedial[dial]'") from error
    asks = questions(*_asked_for(settings.law))

    def ready(address: str) -> None:
        note(f"the dial is at {address} until Ctrl-C")
        if settings.open:
            from sparsedial.verbs.browser import open_page

            open_page(address)

    serve(asks, settings.port, ready)
    return Served()


def _asked_for(word: str) -> tuple[str, dict[str, str] | None, DialFile | None]:
    """The law, the first state, and measured settings.

    A checkpoint gives its own budget and sparsity, the law that it came from, and what its `dial.json` holds. Where no
    law is known that it came from, measured settings stand beside a published one.
    """
    path = Path(word)
    if not (path / "config.json").exists() or (path / LAW_FILE).exists():
        return word, None, None
    measured = _measured(path)
    try:
        return *law_behind(path), measured
    except UserError as error:
        if measured is None:
            raise
        note(f"{error}: the page shows {DEFAULT_LAW} beside its settings")
        return DEFAULT_LAW, None, measured


def _measured(checkpoint: Path) -> DialFile | None:
    from sparsedial.serving.settings import read_dial

    if not (checkpoint / DIAL_FILE).exists():
        return None
    try:
        return read_dial(checkpoint)
    except UserError as error:
        note(f"the settings are not shown: {error}")
        return None
