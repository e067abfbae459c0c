"""What lies where a selection will: an earlier one whose effect is still to be measured, or the text itself."""

from __future__ import annotations

from pathlib import Path

from sparsedial.errors import UserError
from sparsedial.records.record import read
from sparsedial.records.selection import SELECT_FILE, Selected
from sparsedial.text.corpus import is_selection
from sparsedial.verbs.select.answer import asked_of, paths_of
from sparsedial.verbs.select.settings import SelectSettings


def selected_before(settings: SelectSettings) -> Selected | None:
    """The selection in `out`; None where there is none.

    Raises: UserError where it was made from another text or with other settings, or its record is damaged.
    """
    if not is_selection(settings.out):
        return None
    held = read(settings.out / SELECT_FILE, Selected)
    for name, now in {"sources": paths_of(settings.text), **asked_of(settings)}.items():
        was = getattr(held, name)
        if was != now:
            what = "of another text" if name == "sources" else f"with {name}={_word(was)}, not {_word(now)}"
            raise UserError(
                f"{settings.out} holds a selection {what}",
                hint="give the same settings to measure its effect, or name another folder",
                field="out",
            )
    return held


def require_apart(settings: SelectSettings) -> None:
    """Raises: UserError for an `out` inside the text, which would then have changed."""
    out = settings.out.resolve()
    for source in settings.text:
        if Path(source).expanduser().resolve() in out.parents:
            raise UserError(
                f"{settings.out} lies in {source}, the text", hint="name a folder outside of it", field="out"
            )


def _word(value: object) -> str:
    return ",".join(value) or "none" if isinstance(value, tuple) else "none" if value is None else str(value)
