"""`select`: leave out of a text what does not matter, as a manifest that every other command reads as that text."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from sparsedial.errors import needs
from sparsedial.machine.hardware import usable_cores
from sparsedial.records.dry_run import EffectDryRun
from sparsedial.records.record import write
from sparsedial.records.selection import EXAMPLES_FILE, SELECT_FILE, Selected, SelectionPipeline
from sparsedial.records.text import SkippedLines
from sparsedial.selection.minhash import require_rensa
from sparsedial.showing.notes import note, note_skipped
from sparsedial.store import require_free, whole_folder, write_atomically
from sparsedial.text.corpus import open_corpus
from sparsedial.text.manifest import MANIFEST, write_manifest
from sparsedial.text.reading import Reading, read_corpus
from sparsedial.text.splitting import Splitting, split_reading
from sparsedial.units import count_words, human_bytes
from sparsedial.verbs.evaluate.task_items import item_texts, loaded_tasks
from sparsedial.verbs.select.settings import SelectSettings

if TYPE_CHECKING:
    from sparsedial.selection.table import Table

SMALL_BYTES = 2**25  # one process is faster than to start another


def select(settings: SelectSettings) -> Selected | EffectDryRun | SelectionPipeline:
    """Write a manifest that says of each document of a text whether it stays, and if not, why.

    What holds items of `tasks`, what breaks a rule of quality, and copies are left out of the train split, and with
    `keep` all but a share of the rest. Held-out text stays as it is. No text is copied: `study` and `train` read the
    folder as the text without what is left out. The folder appears when it is whole. With `measure` equal models are
    then trained on what stays, on a random part of its size, and on the full text; the same settings go on with a
    measurement that was stopped. With `emit` only a script is written.

    Raises: UserError for a bad, empty or small text, one of which nothing is left, a folder that is not free or cannot
    be written, a task that is unknown or whose items cannot be had, and where rensa, lm-eval for tasks, or PyTorch for
    a model is missing.
    """
    from sparsedial.verbs.select.amounts import asked_domains
    from sparsedial.verbs.select.before import require_apart

    began = time.perf_counter()
    if settings.emit is not None:
        from sparsedial.verbs.select.emitted import emitted

        return emitted(settings)
    require_rensa()  # said now, not after reading
    if settings.measure or settings.chosen_side:
        with needs("torch", "train"):
            import torch  # noqa: F401  # said now, not after hours
    before = _before(settings)
    require_apart(settings)
    tasks = loaded_tasks(settings.tasks, settings.data)
    corpus = open_corpus(settings.text)
    domains = asked_domains(corpus, needed=settings.keep_by == "domain")
    reading = read_corpus(corpus)
    splitting = split_reading(reading)
    note_skipped(SkippedLines(lines=reading.bad.count, named=tuple(reading.bad.named)))
    if settings.dry_run:
        from sparsedial.verbs.select.effect_cost import dry_run

        return dry_run(settings, reading, splitting, domains)
    answer = before or _selected(settings, tasks, domains, reading, splitting, began)
    if not settings.measure:
        return answer
    from sparsedial.verbs.select.measured_effect import measured

    return measured(settings, answer, domains, reading, splitting)


def _before(settings: SelectSettings) -> Selected | None:
    """The selection whose measurement was stopped; None where a new one begins.

    Raises: UserError where the folder is not free for a new one, or holds another one.
    """
    from sparsedial.verbs.select.before import selected_before

    before = selected_before(settings) if settings.measure else None
    if before is None:
        require_free(settings.out)
    return before


def _selected(
    settings: SelectSettings,
    tasks: Mapping[str, Any],
    domains: Mapping[str, str] | None,
    reading: Reading,
    splitting: Splitting,
    began: float,
) -> Selected:
    """Write the folder; `tasks` are lm-eval's, whose items are looked for, and `domains` the domain of each source."""
    from sparsedial.selection.choosing import Wanted, choose
    from sparsedial.selection.examples import examples
    from sparsedial.selection.sketch_file import sketches_of
    from sparsedial.selection.table import Table
    from sparsedial.showing.examples_page import examples_page
    from sparsedial.verbs.select.answer import answered
    from sparsedial.verbs.select.referenced import referenced

    with whole_folder(settings.out.resolve()) as partial:
        reference = referenced(settings, splitting, partial)
        note(f"comparing {count_words(len(reading.entries), 'document')}, {human_bytes(reading.bytes)}")
        table = Table(reading)
        wanted = Wanted(
            near=settings.near,
            keep=settings.keep,
            score=settings.score,
            seed=settings.seed,
            workers=_workers(settings, reading),
            side=settings.chosen_side,
            quality=settings.quality,
            spans=settings.spans,
            items={name: list(items.values()) for name, items in item_texts(tasks).items()},
            items_stay=settings.contaminated == "report",
            losses=reference and reference.losses,
            domain_of=_by_domain(settings, table, domains),
        )
        choice = choose(reading, splitting, wanted, sketches_of(settings.out), table.add)
        frame = table.frame(choice, domains)
        manifest = write_manifest(partial / MANIFEST, frame)
        answer = answered(settings, reading, choice, frame, manifest, reference and reference.model, began)
        shown = examples_page(answer, examples(reading, splitting, choice))
        write_atomically(partial / EXAMPLES_FILE, shown.encode())
        write(partial / SELECT_FILE, answer)
    return answer


def _by_domain(
    settings: SelectSettings, table: Table, domains: Mapping[str, str] | None
) -> Callable[[int], str] | None:
    """The domain of a document, by its number; None where the share is one of the whole text."""
    if domains is None or settings.keep_by == "text":
        return None
    return lambda number: domains[table.sources[number]]


def _workers(settings: SelectSettings, reading: Reading) -> int:
    if settings.workers is not None:
        return settings.workers
    return 1 if reading.bytes < SMALL_BYTES else usable_cores()
