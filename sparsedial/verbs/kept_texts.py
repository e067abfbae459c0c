"""The shares of a text that `study --select` trains on: selections in its folder, each prepared as a text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars
from msgspec.structs import replace

from sparsedial.errors import UserError
from sparsedial.records.kept import KeptShare
from sparsedial.records.record import read, write
from sparsedial.records.selection import SELECT_FILE, Selected, SelectedManifest
from sparsedial.runs.local import Local
from sparsedial.runs.run_store import RunStore
from sparsedial.selection.narrowing import narrowed
from sparsedial.selection.reference import BATCH, CONTEXT, SCORED_WINDOWS, STEPS
from sparsedial.selection.scores import SCORES
from sparsedial.store import whole_folder
from sparsedial.sweep.crossing import Crossing, KeptText
from sparsedial.sweep.lab import TEST_TOKENS
from sparsedial.sweep.question import Question
from sparsedial.text.manifest import MANIFEST, read_manifest, write_manifest
from sparsedial.text.prepare import Text, prepare
from sparsedial.text.splits import SPLITS
from sparsedial.verbs.select import select
from sparsedial.verbs.select_method import METHODS, Method, asked_shares
from sparsedial.verbs.select_settings import SelectSettings
from sparsedial.verbs.selected_amounts import amount_of, domains_amounts
from sparsedial.verbs.selected_before import selected_before

FOLDER = "shares"
COMPARED_BYTES_PER_SECOND = 2e6  # of the text, to find its copies
REFERENCE_TOKENS_PER_SECOND = 4e4  # that a reference model learns from
PART_OF_STUDY = "it is a share of a study's text"


@dataclass(frozen=True, kw_only=True)
class KeptSelection:
    """A selection in the study's folder."""

    asked: float | None  # the share; None where a filter alone decides
    folder: Path
    record: Selected


def kept_selections(question: Question) -> list[KeptSelection]:
    """The selections of all shares below the full text, made now or by an earlier start; none without a method.

    The largest one is made as `select` makes it, and the others from its manifest, so a reference model learns once.

    Raises: UserError as `select`, and where an earlier start selected from another text.
    """
    method = question.inputs.select
    if method is None:
        return []
    first, *others = (_selection_settings(question, asked) for asked in asked_shares(method, question.inputs.keep))
    whole = selected_before(first)
    if whole is None:
        made = select(first)
        assert isinstance(made, Selected)
        whole = made
    records = [whole, *(_smaller(one, first, whole) for one in others)]
    return [
        KeptSelection(asked=settings.keep, folder=settings.out, record=record)
        for settings, record in zip((first, *others), records, strict=True)
    ]


def _selection_settings(question: Question, asked: float | None) -> SelectSettings:
    name = question.inputs.select or ""
    method, share = METHODS[name], "filtered" if asked is None else f"{asked:g}"
    return SelectSettings(
        text=question.sources,
        out=question.out.resolve() / FOLDER / f"{name.replace(':', '-')}-{share}",
        quality=method.quality,
        keep=asked,
        score=method.score,
        side=method.side,
        seed=question.inputs.seed,
        device=question.inputs.device,
    )


def _smaller(asked: SelectSettings, first: SelectSettings, whole: Selected) -> Selected:
    """A smaller share, in a folder of its own; the one that an earlier start left there."""
    before = selected_before(asked)
    if before is not None:
        return before
    share = asked.keep
    assert share is not None
    manifest = read_manifest(first.out / MANIFEST).collect()
    frame = narrowed(manifest, share=share, score=asked.score, seed=asked.seed, side=asked.chosen_side)
    removed = amount_of(frame.filter(polars.col("reason") == asked.score))
    with whole_folder(asked.out) as partial:
        written = write_manifest(partial / MANIFEST, frame)
        record = replace(
            whole,
            manifest=SelectedManifest(path=str(asked.out / MANIFEST), digest=written.sha256, bytes=written.bytes),
            keep=share,
            kept=amount_of(frame.filter("kept")),
            domains=domains_amounts(frame),
            filters=tuple(
                replace(one, threshold=share, removed=removed) if one.name == asked.score else one
                for one in whole.filters
            ),
            effect_reason=PART_OF_STUDY,
        )
        write(partial / SELECT_FILE, record)
    return read(asked.out / SELECT_FILE, Selected)


def crossed(question: Question, full: Text, selections: Sequence[KeptSelection]) -> Crossing | None:
    """What a study trains on shares of its text; None without a method. A dry run, which selects nothing, has no texts.

    Raises: UserError where nothing was left out, or a share is too small to train on.
    """
    method = question.inputs.select
    if method is None:
        return None
    reference = selections[0].record.reference if selections else None
    return Crossing(
        method=method,
        shares=1 + len(asked_shares(method, question.inputs.keep)),
        seeds=question.crossed_seeds,
        scored_tokens=sum(min(TEST_TOKENS, held) for held in (full.validation_tokens, full.test_tokens)),
        selection_flops=reference.flops if reference else 0.0,
        texts=_texts(question, full, selections) if selections else (),
        select_seconds=0.0 if selections else select_seconds(METHODS[method], full),
    )


def _texts(question: Question, full: Text, selections: Sequence[KeptSelection]) -> tuple[KeptText, ...]:
    """The full text and its shares, prepared with its tokenizer, so that their held-out tokens are the same ones.

    Raises: UserError where nothing was left out, or a share is too small to train on.
    """
    store = RunStore(question.out / "runs")

    def kept(share: KeptShare, text: Text) -> KeptText:
        executor = Local(text_folder=text.folder, runs_folder=store.folder, workers=question.workers)
        return KeptText(share=share, executor=executor)

    whole = KeptShare(
        kept=1.0, train_tokens=full.train_tokens, text_digest=full.digest, manifest_digest=None, folder=None
    )
    found = [kept(whole, full)]
    for one in selections:
        text = prepare(
            (str(one.folder),),
            tokenizer=full.tokenizer,
            folder=question.out / FOLDER / "texts" / one.folder.name,
            probes=question.probes,
        )
        _require_usable(question, full, text, one)
        share = KeptShare(
            kept=one.asked or round(text.train_tokens / full.train_tokens, 4),
            train_tokens=text.train_tokens,
            text_digest=text.digest,
            manifest_digest=one.record.manifest.digest,
            folder=str(one.folder),
        )
        found.append(kept(share, text))
    return tuple(found)


def select_seconds(method: Method, full: Text) -> float:
    """About how long it takes to select from a text, by the speed of one core."""
    seconds = sum(full.bytes(split) for split in SPLITS) / COMPARED_BYTES_PER_SECOND
    if not SCORES[method.score].reference:
        return seconds
    scored = min(SCORED_WINDOWS * CONTEXT * full.documents, full.train_tokens)
    return seconds + (STEPS * BATCH * CONTEXT + scored / 3) / REFERENCE_TOKENS_PER_SECOND


def _require_usable(question: Question, full: Text, text: Text, one: KeptSelection) -> None:
    """Raises: UserError where a share is the full text, or too small to train on."""
    held_out = [[each.facts.splits.of(split).sha256 for split in ("validation", "test")] for each in (full, text)]
    assert held_out[0] == held_out[1], "held-out text differs between the shares"
    if text.digest == full.digest:
        raise UserError("nothing was left out, so there is nothing to compare", hint="give a <keep>", field="select")
    least = (question.inputs.batch + 1) * question.context
    if text.train_tokens < least:
        raise UserError(
            f"{one.folder.name} keeps {text.train_tokens:,} tokens, too few to train on: at least {least:,} are needed",
            hint="give more text, or a larger share",
            field="keep",
        )
