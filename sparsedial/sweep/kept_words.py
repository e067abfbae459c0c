"""What a study says of shares of its text, in sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sparsedial.records.evaluation import PairedDifference
from sparsedial.records.kept import BestPair, KeptRuns, Moves, Pairing, SparseMinusDense
from sparsedial.sweep.crossing import Crossing
from sparsedial.sweep.effect_words import MOST_REPEATS
from sparsedial.units import bare_exponent, signed

LATE = "Shares of the text were not crossed with the models: the time ran out before their runs."
LATE_TOTAL = "the time ran out before the runs that pay for the selection"
MOVES: dict[Moves, str] = {
    "towards_sparse": "the best sparsity moves towards sparse",
    "towards_dense": "the best sparsity moves towards dense",
}


def share_words(kept: float) -> str:
    """`the full text`, or `0.5 of the text`."""
    return "the full text" if kept == 1 else f"{kept:g} of the text"


def pair_name(pair: BestPair) -> str:
    """`the sparse model on 0.5 of the text`."""
    return f"the {pair.family} model on {share_words(pair.kept)}"


def pair_words(found: Pairing, budget_flops: float, paid: bool = False) -> str:
    """The best pair and its lead over the one that it is told from least surely."""
    total = " with the selection's FLOPs counted" if paid else ""
    at = f"At {bare_exponent(f'{budget_flops:.2g}')} FLOPs{total}"
    if found.best is None:
        return f"{at} no pair was trained to its end"
    best = pair_name(found.best)
    if found.gap is None or found.next_best is None:
        return f"{at} {best} has the lowest test loss, and too few other runs finished to compare it with"
    other, gap = pair_name(found.next_best), f"{signed(found.gap.mean, '.4f')} nats per token, {_interval(found.gap)}"
    if found.undecided:
        return f"{at} the best pair is undecided: {best} has the lowest test loss, but is not told from {other} ({gap})"
    return f"{at} the best pair is {best}, ahead of {other} and all others ({gap})"


def moves_words(gaps: Sequence[SparseMinusDense]) -> str:
    """Whether the best sparsity moves when data is left out, share by share."""
    told = [f"with {share_words(gap.kept)} {_moved(gap)} ({_change(gap.change)})" for gap in gaps if gap.kept < 1]
    return "; ".join(told)


def _moved(gap: SparseMinusDense) -> str:
    return MOVES.get(gap.moves or "undecided", "it is undecided whether the best sparsity moves")


def _change(change: PairedDifference | None) -> str:
    if change is None:
        return "too few runs finished"
    return f"sparse minus dense changes by {signed(change.mean, '.4f')}, {_interval(change)}"


def is_resolved(difference: PairedDifference) -> bool:
    """Whether the interval leaves out 0."""
    return difference.low is not None and difference.high is not None and not difference.low <= 0 <= difference.high


def _interval(difference: PairedDifference) -> str:
    if difference.low is None or difference.high is None:
        return f"all {difference.items} differences are alike"
    return f"{signed(difference.low, '.4f')} to {signed(difference.high, '.4f')} at 95 %, {difference.items} seeds"


def repeats_words(repeats: Mapping[float, float]) -> str:
    """How often a run of the largest budget reads its text."""
    each = ", ".join(f"{share_words(kept)} {times:.2g} times" for kept, times in repeats.items())
    often = " More than four times is less than new text is worth." if max(repeats.values()) > MOST_REPEATS else ""
    return f"At equal FLOPs less text is read more often, by the model that reads most: {each}.{often}"


def no_total(crossing: Crossing, top_flops: float, wanted: KeptRuns) -> str | None:
    """Why nothing was compared at equal total FLOPs; None where it was."""
    if wanted.at_equal_total:
        return None
    if not crossing.selection_flops:
        return "the selection uses no model, so equal training FLOPs are equal total FLOPs"
    if not crossing.left(top_flops):
        return (
            f"the selection cost {crossing.selection_flops:.3g} FLOPs, which leaves too little of {top_flops:.3g} to"
            " train on"
        )
    return LATE_TOTAL
