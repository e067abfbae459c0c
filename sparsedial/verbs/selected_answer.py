"""The answer of `select`."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import polars

from sparsedial.machine.hardware import peak_process_bytes
from sparsedial.records.selection import EXAMPLES_FILE, DomainAmounts, Filter, Selected, SelectedManifest, TextAmount
from sparsedial.records.text import ManifestFile
from sparsedial.selection.choosing import Choice
from sparsedial.selection.filters import EXACT, HELD_OUT_EXACT, HELD_OUT_NEAR, NEAR, RULES, Rule
from sparsedial.selection.index import FOUND_SHARE, bands_for
from sparsedial.selection.scores import SCORES
from sparsedial.text.corpus import Corpus
from sparsedial.text.domains import domains_of
from sparsedial.text.manifest import MANIFEST, printable
from sparsedial.text.reading import Reading
from sparsedial.units import count_words, human_percent
from sparsedial.verbs.select_settings import SelectSettings

NO_TOKENS = "a text has tokens once `study` or `train` chooses a tokenizer"
SHOWN_UNDER = {HELD_OUT_EXACT: EXACT, HELD_OUT_NEAR: NEAR}  # the examples of one filter stand with those of another


def answered(
    settings: SelectSettings,
    reading: Reading,
    choice: Choice,
    frame: polars.DataFrame,
    manifest: ManifestFile,
    began: float,
) -> Selected:
    """What was read, what stays, and what each filter left out; `frame` is the manifest."""
    kept = frame.filter("kept")
    return Selected(
        manifest=SelectedManifest(path=str(settings.out / MANIFEST), digest=manifest.sha256, bytes=manifest.bytes),
        text_digest=reading.digest,
        sources=tuple(os.path.abspath(Path(source).expanduser()) for source in settings.text),
        near=settings.near,
        keep=settings.keep,
        score=choice.score,
        seed=settings.seed,
        read=_amount(frame),
        kept=_amount(kept),
        held_out=_amount(kept.filter(polars.col("split") != "train")),
        tokens_reason=NO_TOKENS,
        domains=_domains(frame),
        filters=tuple(_filters(settings, choice, frame)),
        skipped_lines=reading.bad.count,
        contaminated=None,
        contaminated_reason="items of tasks are not looked for yet",
        effect=None,
        effect_reason="nothing is trained to measure it yet",
        warnings=tuple(_warnings(settings, choice)),
        wall_seconds=time.perf_counter() - began,
        peak_process_bytes=peak_process_bytes(),
    )


def domain_of_source(corpus: Corpus) -> Mapping[str, str] | None:
    """The domain of each file; None where the text is not one folder with sub-folders."""
    parts = domains_of(corpus)
    if parts is None:
        return None
    return {printable(file.source): name for name, part in parts.items() for file in part.files}


def _amount(rows: polars.DataFrame) -> TextAmount:
    return TextAmount(documents=rows.height, bytes=int(rows["bytes"].sum()), tokens=None)


def _domains(frame: polars.DataFrame) -> dict[str, DomainAmounts] | None:
    names = frame["domain"].drop_nulls().unique().sort().to_list()
    parts = {name: frame.filter(polars.col("domain") == name) for name in names}
    each = {name: DomainAmounts(read=_amount(part), kept=_amount(part.filter("kept"))) for name, part in parts.items()}
    return each or None


def _filters(settings: SelectSettings, choice: Choice, frame: polars.DataFrame) -> Iterator[Filter]:
    rules = dict(RULES)
    thresholds: dict[str, float | None] = {NEAR: settings.near, HELD_OUT_NEAR: settings.near}
    if choice.score is not None:
        score = SCORES[choice.score]
        says = f"train documents that are no copies, all but a share of the bytes; {score.says}"
        rules[choice.score] = Rule(says, score.source)
        thresholds[choice.score] = settings.keep
    for name, rule in rules.items():
        yield Filter(
            name=name,
            says=rule.says,
            source=rule.source,
            threshold=thresholds.get(name),
            removed=_amount(frame.filter(polars.col("reason") == name)),
            examples=f"{EXAMPLES_FILE}#{SHOWN_UNDER.get(name, name)}",
        )


def _warnings(settings: SelectSettings, choice: Choice) -> Iterator[str]:
    found = bands_for(settings.near).found(settings.near)
    if found < FOUND_SHARE:
        yield f"only {human_percent(found)} of the pairs that share {settings.near:g} are found: give a higher near"
    across = choice.duplicates.across_held_out
    if across:
        yield (
            f"{count_words(across, 'document')} of one held-out split {'is a copy' if across == 1 else 'are copies'} of"
            " one of the other: held-out text stays as it is, so test is not wholly new after validation"
        )
