"""The part of the report about shares of the text: which share and which model are best together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sparsedial.records.evaluation import PairedDifference
from sparsedial.records.kept import KeptPoint, KeptShare, SparseMinusDense, StudySelection
from sparsedial.showing.numbers import NONE, count_words, with_interval
from sparsedial.showing.page import bullets, heading, paragraph, pictures, table
from sparsedial.showing.words import power_of_ten
from sparsedial.units import family_name, human_percent, signed


def kept_section(found: StudySelection, drawn: Mapping[str, str]) -> str:
    """What the runs on less text found."""
    return "\n".join(
        [
            heading("Less text, and the best model for it"),
            paragraph(_what_was_done(found)),
            bullets(kept_sentences(found)),
            pictures(drawn, "kept_shares"),
            *(_at_budget(found, budget) for budget in reversed(found.budgets_flops)),
            *([paragraph(_total_words(found))] if found.points else []),
            _shares(found.shares),
        ]
    )


def kept_sentences(found: StudySelection) -> list[str]:
    """The best pair and whether the best sparsity moves; repeats; the same where the selection is paid for."""
    more = [found.repeats_sentence, found.equal_total and found.equal_total.sentence]
    return [found.sentence, *(sentence for sentence in more if sentence)]


def share_name(kept: float) -> str:
    """`full text`, or `50 % kept`."""
    return "full text" if kept == 1 else f"{human_percent(kept)} kept"


def _what_was_done(found: StudySelection) -> str:
    return (
        f"The best sparse and the best dense model were trained on shares of the training text, chosen by"
        f" {found.method}, with {found.seeds} seeds each. Held-out text is the same for all shares, and so are the"
        " training FLOPs of a budget. Runs are compared seed by seed. Of the largest budget the models are those of the"
        " verdict; of the smaller one those that the law or the grid names. Every loss is of test text, and no"
        " share has the copies of held-out text that the selection found, the full text neither. Nothing follows for"
        " other budgets: a selection that helps small ones can hurt large ones (arXiv 2605.19407)."
    )


def _at_budget(found: StudySelection, budget: float) -> str:
    gaps = {gap.kept: gap for gap in found.sparse_minus_dense if gap.budget_flops == budget}
    points = {(point.kept, point.family): point for point in found.points if point.budget_flops == budget}
    dense, sparse = (points[1.0, family].shape for family in ("dense", "sparse"))
    return "\n".join(
        [
            heading(f"At {power_of_ten(budget)} FLOPs", 3),
            table(
                [
                    "text",
                    f"{family_name(dense.experts)}, width {dense.d_model}",
                    f"{family_name(sparse.experts)}, width {sparse.d_model}",
                    "sparse minus dense",
                    "its change against the full text",
                    "read by dense, by sparse",
                ],
                [_row(gap, points[kept, "dense"], points[kept, "sparse"]) for kept, gap in gaps.items()],
                "words",
            ),
        ]
    )


def _row(gap: SparseMinusDense, dense: KeptPoint, sparse: KeptPoint) -> list[str]:
    losses = [NONE if point.loss is None else with_interval(point.loss) for point in (dense, sparse)]
    change = NONE if gap.kept == 1 else _difference(gap.change)
    read = " and ".join(f"{point.repeats:.2g}" for point in (dense, sparse))
    return [share_name(gap.kept), *losses, _difference(gap.difference), change, f"{read} times"]


def _difference(difference: PairedDifference | None) -> str:
    if difference is None:
        return NONE
    if difference.low is None or difference.high is None:
        return signed(difference.mean)
    inside = "" if not difference.low <= 0 <= difference.high else ", undecided"
    return f"{signed(difference.mean)} ({signed(difference.low)} to {signed(difference.high)}{inside})"


def _total_words(found: StudySelection) -> str:
    if found.equal_total is not None:
        return f"The selection cost {power_of_ten(found.selection_flops)} FLOPs. {found.equal_total.sentence}"
    return f"There is no second comparison at equal total FLOPs: {found.equal_total_reason}."


def _shares(shares: Sequence[KeptShare]) -> str:
    rows = [
        [share_name(share.kept), count_words(share.train_tokens), share.folder or "the study's text"]
        for share in shares
    ]
    return table(["text", "training tokens", "to study or train on it"], rows, "words")
