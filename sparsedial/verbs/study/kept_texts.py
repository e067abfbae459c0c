"""The shares of a text that `study --select` trains on: selections in its folder, each prepared as a text."""

from __future__ import annotations

from collections.abc import Sequence

from sparsedial.errors import UserError
from sparsedial.records.kept import KeptShare
from sparsedial.runs.machines.machines import Machines
from sparsedial.runs.run_store import RunStore
from sparsedial.sweep.crossing import Crossing, KeptText
from sparsedial.sweep.lab import TEST_TOKENS
from sparsedial.sweep.question import Question
from sparsedial.text.prepare import Text, prepare
from sparsedial.verbs.study.kept_selections import FOLDER, KeptSelection
from sparsedial.verbs.study.select_method import METHODS, asked_shares
from sparsedial.verbs.study.select_speed import select_seconds


def full_text(question: Question, whole: KeptSelection | None) -> Text:
    """The text that the whole study trains on; `whole` is the selection that it is, where copies were left out of it.

    Raises: UserError as `prepare`.
    """
    sources = question.sources if whole is None else (str(whole.folder),)
    folder, tokenizer = question.out / "text", question.inputs.tokenizer
    return prepare(sources, tokenizer=tokenizer, folder=folder, probes=question.probes)


def crossed(
    question: Question,
    full: Text,
    selections: Sequence[KeptSelection],
    whole: KeptSelection | None,
    machines: Machines,
) -> Crossing | None:
    """What a study trains on shares of its text; None without a method. A dry run, which selects nothing, has no texts.

    `whole` is the selection that the full text is, where copies of held-out text were left out of it. `machines` train
    the runs.

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
        texts=_texts(question, full, selections, whole, machines) if selections else (),
        select_seconds=0.0 if selections else select_seconds(METHODS[method], full, question),
    )


def _texts(
    question: Question,
    full: Text,
    selections: Sequence[KeptSelection],
    whole: KeptSelection | None,
    machines: Machines,
) -> tuple[KeptText, ...]:
    """The full text and its shares, prepared with its tokenizer, so that their held-out tokens are the same ones.

    Raises: UserError where nothing was left out, or a share is too small to train on.
    """
    store = RunStore(question.out / "runs")

    def kept(share: KeptShare, text: Text) -> KeptText:
        device = question.inputs.device
        return KeptText(share=share, open=lambda workers: machines.executor(device, text, store, workers))

    all_of_it = KeptShare(
        kept=1.0,
        train_tokens=full.train_tokens,
        text_digest=full.digest,
        manifest_digest=whole and whole.record.manifest.digest,
        folder=whole and str(whole.folder),
    )
    found = [kept(all_of_it, full)]
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
