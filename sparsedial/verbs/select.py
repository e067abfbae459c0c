"""`select`: leave out of a text what does not matter, as a manifest that every other command reads as that text."""

from __future__ import annotations

import time
from pathlib import Path

from sparsedial.errors import UserError
from sparsedial.machine.hardware import usable_cores
from sparsedial.records.record import write
from sparsedial.records.selection import EXAMPLES_FILE, SELECT_FILE, Selected
from sparsedial.records.text import SkippedLines
from sparsedial.showing.notes import note, note_skipped
from sparsedial.store import require_free, whole_folder, write_atomically
from sparsedial.text.corpus import open_corpus
from sparsedial.text.manifest import MANIFEST, write_manifest
from sparsedial.text.reading import Reading, read_corpus
from sparsedial.text.splitting import split_reading
from sparsedial.units import count_words, human_bytes
from sparsedial.verbs.select_settings import SelectSettings

SMALL_BYTES = 2**25  # one process is faster than to start another


def select(settings: SelectSettings) -> Selected:
    """Write a manifest that says of each document of a text whether it stays, and if not, why.

    Copies are left out of the train split, and with `keep` all but a share of the rest. Held-out text stays as it is.
    No text is copied: `study` and `train` read the folder as the text without what is left out. The folder appears
    when it is whole.

    Raises: UserError for a bad, empty or small text, one of which nothing is left, a folder that is not free or cannot
    be written, and where rensa is missing.
    """
    from sparsedial.selection.choosing import Wanted, choose
    from sparsedial.selection.examples import examples
    from sparsedial.selection.table import Table
    from sparsedial.showing.examples_page import examples_page
    from sparsedial.verbs.selected_answer import answered, domain_of_source

    began = time.perf_counter()
    require_free(settings.out)
    _require_apart(settings)
    corpus = open_corpus(settings.text)
    reading = read_corpus(corpus)
    splitting = split_reading(reading)
    note_skipped(SkippedLines(lines=reading.bad.count, named=tuple(reading.bad.named)))
    note(f"comparing {count_words(len(reading.entries), 'document')}, {human_bytes(reading.bytes)}")
    wanted = Wanted(
        near=settings.near,
        keep=settings.keep,
        score=settings.score,
        seed=settings.seed,
        workers=_workers(settings, reading),
    )
    with whole_folder(settings.out.resolve()) as partial:
        table = Table(reading)
        choice = choose(reading, splitting, wanted, partial, table.add)
        frame = table.frame(choice, domain_of_source(corpus))
        manifest = write_manifest(partial / MANIFEST, frame)
        answer = answered(settings, reading, choice, frame, manifest, began)
        shown = examples_page(answer, examples(reading, splitting, choice))
        write_atomically(partial / EXAMPLES_FILE, shown.encode())
        write(partial / SELECT_FILE, answer)
    return answer


def _require_apart(settings: SelectSettings) -> None:
    """Raises: UserError for an `out` inside the text, which would then have changed."""
    out = settings.out.resolve()
    for source in settings.text:
        if Path(source).expanduser().resolve() in out.parents:
            raise UserError(
                f"{settings.out} lies in {source}, the text", hint="name a folder outside of it", field="out"
            )


def _workers(settings: SelectSettings, reading: Reading) -> int:
    if settings.workers is not None:
        return settings.workers
    return 1 if reading.bytes < SMALL_BYTES else usable_cores()
