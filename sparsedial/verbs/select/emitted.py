"""`select --emit`: a script by which another program leaves out what `select` would."""

from __future__ import annotations

import shlex
from importlib.resources import files
from pathlib import Path
from string import Template

from sparsedial.records.selection import SelectionPipeline
from sparsedial.store import require_free, whole_folder, write_atomically
from sparsedial.verbs.select.settings import FAMILIES, SelectSettings

FILE = "datatrove_pipeline.py"
VERSION = "0.10"


def emitted(settings: SelectSettings) -> SelectionPipeline:
    """Write the script into a new folder; no text is read.

    Raises: UserError where the folder is not free or cannot be written.
    """
    require_free(settings.out)
    folder = settings.out.resolve()
    template = Template(files("sparsedial.selection").joinpath("templates", f"{FILE}.template").read_text())
    script = template.substitute(
        VERSION=VERSION,
        SOURCES=repr([str(Path(source).expanduser().resolve()) for source in settings.text]),
        FOLDER=repr(str(folder)),
        NEAR=repr(settings.near),
        QUALITY=repr([family for family in FAMILIES if family in settings.quality]),
    )
    with whole_folder(folder) as partial:
        write_atomically(partial / FILE, script.encode())
    return SelectionPipeline(
        peer="datatrove",
        file=str(settings.out / FILE),
        command=f"python {shlex.quote(str(folder / FILE))}",
        written_for=VERSION,
        kept=str(settings.out / "kept"),
    )
