"""Both sparsities at one cost: the best sparse and the best dense model on shares of the text, compared seed by seed.

Runs of one seed begin with the same weights on every share and draw their windows by the same seed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from sparsedial.law.law import Law
from sparsedial.records.evaluation import PairedDifference
from sparsedial.records.kept import (
    BestPair,
    EqualTotalPairs,
    KeptPoint,
    KeptRuns,
    KeptShare,
    Moves,
    Pairing,
    SparseMinusDense,
    StudySelection,
)
from sparsedial.records.quantities import Family, Interval
from sparsedial.runs.executor import Task
from sparsedial.store import digest
from sparsedial.sweep.cells import Cells
from sparsedial.sweep.crossing import FAMILIES, Crossing, KeptText
from sparsedial.sweep.kept_words import LATE, moves_words, no_total, pair_words, repeats_words, share_words
from sparsedial.sweep.lab import Lab
from sparsedial.sweep.paired import SeededRuns, is_above, is_below, mean_difference, paired_difference
from sparsedial.sweep.rates import RatesBy
from sparsedial.sweep.rivals import Rival, Rivals, flop_nominees, verdict_task
from sparsedial.sweep.selection import rivals_of, select
from sparsedial.sweep.verdict import CONFIDENCE, mean_interval

AtBudget = Mapping[float, Rivals]  # the models by budget


@dataclass(frozen=True, kw_only=True)
class Trained(SeededRuns):
    """The runs of one model on one share at one budget, by seed."""

    share: KeptShare
    rival: Rival
    budget_flops: float


Pairs = Mapping[tuple[float, Family], Trained]  # by share and family, at one budget
Measured = Mapping[float, Pairs]  # by budget


def crossed_models(lab: Lab, rates: RatesBy, law: Law | None, cells: Cells, at_top: Rivals) -> AtBudget:
    """The models of the verdict at the largest budget, and at the lowest those that law or cells name, untried.

    Those have the optimizers of the verdict's.
    """
    lowest, top = _crossing(lab).budgets(lab.layout.budgets)
    named = rivals_of(select(lab, rates, law, flop_nominees(lab, rates, law, cells, lowest), seeds=0))
    dense = replace(named.dense, optimizer=at_top.dense.optimizer)
    return {lowest: Rivals(dense=dense, sparse=replace(named.sparse, optimizer=at_top.sparse.optimizer)), top: at_top}


def paying_models(lab: Lab, models: AtBudget) -> AtBudget:
    """The models of the largest budget with so many steps less that the selection is paid for."""
    _, top = _crossing(lab).budgets(lab.layout.budgets)

    def pays(rival: Rival) -> Rival:
        return replace(rival, steps=lab.layout.steps_for(rival.shape, top - _crossing(lab).selection_flops))

    return {top: Rivals(dense=pays(models[top].dense), sparse=pays(models[top].sparse))}


Tasks = Mapping[tuple[float, Family, int], Task]  # by budget, family and seed, on one share


def share_tasks(lab: Lab, rates: RatesBy, models: AtBudget, kept: KeptText) -> Tasks:
    """The runs of all models on one share, the largest first; those of the full text may be the verdict's."""
    there = lab.on(kept)
    tasks: Tasks = {
        (budget, rival.family, seed): verdict_task(there, rates, rival, seed, alone=False)
        for budget in sorted(models, reverse=True)
        for seed in range(1, _crossing(lab).seeds + 1)
        for rival in models[budget].both()
    }
    where = share_words(kept.share.kept)
    return {key: replace(task, label=f"{task.label}, {where}", keep_checkpoint=False) for key, task in tasks.items()}


def train_shares(lab: Lab, rates: RatesBy, models: AtBudget, texts: Sequence[KeptText]) -> Measured:
    """Train every model on every share with every seed, share by share. What is trained is not trained again."""
    found: dict[float, dict[tuple[float, Family], Trained]] = {budget: {} for budget in models}
    for kept in texts:
        tasks = share_tasks(lab, rates, models, kept)
        runs = lab.on(kept).run(tasks.values())
        for budget, rivals in models.items():
            for rival in rivals.both():
                by_seed = {
                    seed: runs[task.job.hash]
                    for (at, family, seed), task in tasks.items()
                    if (at, family) == (budget, rival.family)
                }
                found[budget][kept.share.kept, rival.family] = Trained(
                    share=kept.share, rival=rival, budget_flops=budget, runs=by_seed
                )
    return found


def cross(lab: Lab, rates: RatesBy, models: AtBudget, wanted: KeptRuns) -> StudySelection:
    """Train what there is time for, and compare it on text that none of it was trained on.

    Raises: UserError where a run cannot be done.
    """
    crossing = _crossing(lab)
    texts = crossing.texts
    measured = train_shares(lab, rates, {budget: models[budget] for budget in wanted.budgets_flops}, texts)
    top = wanted.budgets_flops[-1] if wanted.budgets_flops else None
    pairing = best_pair(measured[top] if top else {})
    total, why = None, no_total(crossing, lab.layout.budgets[-1], wanted)
    if why is None and top is not None:
        total = _equal_total(lab, rates, models, measured[top])
    gaps = tuple(gap for pairs in measured.values() for gap in sparse_minus_dense(pairs))
    at_top = [gap for gap in gaps if gap.budget_flops == top]
    return StudySelection(
        method=crossing.method,
        manifest_digest=digest([text.share.manifest_digest for text in texts if text.share.manifest_digest]),
        shares=tuple(text.share for text in texts),
        selection_flops=crossing.selection_flops,
        seeds=crossing.seeds,
        confidence=CONFIDENCE,
        budgets_flops=wanted.budgets_flops,
        points=tuple(_point(one) for pairs in measured.values() for one in pairs.values()),
        sparse_minus_dense=gaps,
        best=pairing.best,
        undecided=pairing.undecided,
        gap=pairing.gap,
        next_best=pairing.next_best,
        sentence=LATE if top is None else f"{pair_words(pairing, top)}; {moves_words(at_top)}.",
        repeats_sentence=None if top is None else repeats_words(_repeats(measured[top])),
        equal_total=total,
        equal_total_reason=why,
    )


def _crossing(lab: Lab) -> Crossing:
    assert lab.crossing is not None, "no shares of the text were asked for"
    return lab.crossing


def best_pair(pairs: Pairs) -> Pairing:
    """The pair of lowest mean test loss; it is decided where it is below every other one by the whole interval."""
    losses = {pair: one.test_losses for pair, one in pairs.items() if one.test_losses}
    if not losses:
        return Pairing(best=None, undecided=True, gap=None, next_best=None)
    best = min(losses, key=lambda pair: sum(losses[pair].values()) / len(losses[pair]))
    apart = {pair: paired_difference(losses[best], losses[pair]) for pair in pairs if pair != best and pair in losses}
    known = {pair: gap for pair, gap in apart.items() if gap is not None}
    closest = max(known, key=lambda pair: _upper(known[pair]), default=None)
    decided = bool(known) and len(known) == len(pairs) - 1 and all(is_below(gap) for gap in known.values())
    return Pairing(
        best=BestPair(kept=best[0], family=best[1]),
        undecided=not decided,
        gap=None if closest is None else known[closest],
        next_best=None if closest is None else BestPair(kept=closest[0], family=closest[1]),
    )


def _upper(gap: PairedDifference) -> float:
    return gap.mean if gap.high is None else gap.high


def sparse_minus_dense(pairs: Pairs, full: Pairs | None = None) -> list[SparseMinusDense]:
    """The difference of the families on each share, and its change against the full text, which may be in `full`.

    The changes' intervals hold all together, so that equal models on several shares are rarely called different.
    """
    whole = _apart(full or pairs, 1.0)
    shares = dict.fromkeys(kept for kept, _ in pairs)
    comparisons = sum(kept < 1 for kept in shares)
    found: list[SparseMinusDense] = []
    for kept in shares:
        here = _apart(pairs, kept)
        seeds = sorted(here.keys() & whole.keys())
        change = mean_difference([here[seed] - whole[seed] for seed in seeds], comparisons) if kept < 1 else None
        found.append(
            SparseMinusDense(
                kept=kept,
                budget_flops=pairs[kept, "dense"].budget_flops,
                difference=mean_difference(list(here.values())),
                change=change,
                moves=moves(change) if kept < 1 else None,
            )
        )
    return found


def _apart(pairs: Pairs, kept: float) -> dict[int, float]:
    """Test loss of the sparse model minus that of the dense one on a share, by seed."""
    dense, sparse = (pairs[kept, family].test_losses for family in FAMILIES)
    return {seed: sparse[seed] - dense[seed] for seed in sorted(sparse.keys() & dense.keys())}


def moves(change: PairedDifference | None) -> Moves:
    """Where leaving data out moves the best sparsity, if the interval of the change says so."""
    if is_below(change):
        return "towards_sparse"
    return "towards_dense" if is_above(change) else "undecided"


def _equal_total(lab: Lab, rates: RatesBy, models: AtBudget, measured: Pairs) -> EqualTotalPairs:
    paying = paying_models(lab, models)
    ((top, paid),) = train_shares(lab, rates, paying, _crossing(lab).texts[1:]).items()
    full = {pair: one for pair, one in measured.items() if pair[0] == 1}
    pairing = best_pair({**full, **paid})
    gaps = sparse_minus_dense(paid, full)
    return EqualTotalPairs(
        selection_flops=_crossing(lab).selection_flops,
        points=tuple(_point(one) for one in paid.values()),
        sparse_minus_dense=tuple(gaps),
        pairing=pairing,
        sentence=f"{pair_words(pairing, top, paid=True)}; {moves_words(gaps)}.",
    )


def _repeats(pairs: Pairs) -> dict[float, float]:
    """How often the share is read by the model that reads most of it, by share."""
    found: dict[float, float] = {}
    for (kept, _), one in pairs.items():
        found[kept] = max(found.get(kept, 0.0), _point(one).repeats)
    return found


def _point(trained: Trained) -> KeptPoint:
    runs, finished = list(trained.runs.values()), list(trained.finished.values())

    def mean(name: str) -> Interval | None:
        return mean_interval([getattr(run, name) for run in finished]) if finished else None

    return KeptPoint(
        kept=trained.share.kept,
        family=trained.rival.family,
        budget_flops=trained.budget_flops,
        shape=trained.rival.shape,
        flops=runs[0].flops,
        tokens=runs[0].tokens,
        repeats=runs[0].tokens / trained.share.train_tokens,
        seeds=len(runs),
        loss=mean("test_loss"),
        bits_per_byte=mean("test_bits_per_byte"),
        validation_loss=mean("validation_loss"),
        runs=tuple(run.hash for run in runs),
        diverged=len(runs) - len(finished),
    )
