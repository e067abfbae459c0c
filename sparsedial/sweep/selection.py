"""Which model a family sends to a verdict, by validation: the law's choice or the best measured one; its optimizer.

The runs that choose have seeds of their own, so that the verdict's runs, on test text, know nothing of the choice: its
interval is that of two models that were fixed in advance.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from sparsedial.law.law import Law
from sparsedial.records.quantities import Family
from sparsedial.records.run import Run
from sparsedial.records.verdict import NamedBy
from sparsedial.sweep.lab import Lab
from sparsedial.sweep.rates import RatesBy
from sparsedial.sweep.rivals import Nominees, Rival, Rivals, selection_task
from sparsedial.units import OPTIMIZERS, family_name

UNTRIED = "there was no time to try both optimizers, and the scans of learning rates speak for this one"


@dataclass(frozen=True, kw_only=True)
class Sent:
    """The model that a family sends, what named it, and why it was sent."""

    rival: Rival
    named_by: NamedBy
    because: str


def rivals_of(sent: Mapping[Family, Sent]) -> Rivals:
    """The models that both families sent."""
    return Rivals(dense=sent["dense"].rival, sparse=sent["sparse"].rival)


def select(
    lab: Lab,
    rates: RatesBy,
    law: Law | None,
    nominees: Mapping[Family, Nominees],
    seeds: int,
    measured: str = "the best cell of the grid",
) -> dict[Family, Sent]:
    """Train the nominees of a family with `seeds` seeds, where they differ, and send the best one.

    Without seeds, the law's choice goes if the law beat the plain guesses on the held-out budget, else the measured,
    of the optimizer that comes first. `measured` says in words what that one is.
    """
    contested = {
        (family, rival, seed): selection_task(lab, rates, rival, seed)
        for family, both in nominees.items()
        if len(both.different()) > 1
        for rival in both.different()
        for seed in range(1, seeds + 1)
    }
    runs = lab.run(contested.values())

    def sent(family: Family, both: Nominees) -> Sent:
        if len(both.different()) == 1:
            return _only(both, measured)
        if not seeds:
            return _untried(law, both, measured, several=len(lab.optimizers) > 1)
        losses = {
            rival: _mean_loss([runs[contested[family, rival, seed].job.hash] for seed in range(1, seeds + 1)])
            for rival in both.different()
        }
        return _best(both, losses, seeds, measured, several=len(lab.optimizers) > 1)

    return {family: sent(family, both) for family, both in nominees.items()}


def _mean_loss(runs: list[Run]) -> float:
    """Mean validation loss; infinite where a run diverged: a model that diverges with one of two seeds is not sent."""
    return float(np.mean([run.validation_loss if run.validation_loss is not None else np.inf for run in runs]))


def _only(both: Nominees, measured: str) -> Sent:
    rival = both.measured or both.law
    assert rival is not None, "a family names no model"
    if both.law is None:
        return Sent(rival=rival, named_by="measured", because=f"it is {measured}, and no law could be fitted")
    if both.measured is None:
        return Sent(rival=rival, named_by="law", because="the law chose it, and no cell of the grid finished")
    return Sent(rival=rival, named_by="both", because=f"the law chose it, and it is {measured}")


def _untried(law: Law | None, both: Nominees, measured: str, several: bool) -> Sent:
    chosen, best = both.law, both.measured
    if chosen is None or best is None or chosen == best:
        only = _only(both, measured)
        return replace(only, because=f"{only.because}; {UNTRIED}")
    why = "one model was tried" + (f" ({UNTRIED})" if several else "")
    if law is not None and beats_guesses(law):
        because = f"{why}, and the law that chose it beat the plain guesses on the held-out budget"
        return Sent(rival=chosen, named_by="law", because=because)
    checked = law is not None and law.held_out is not None
    doubt = "did not beat the plain guesses on the held-out budget" if checked else "was checked on no held-out budget"
    return Sent(rival=best, named_by="measured", because=f"{why}: {measured}, since the law {doubt}")


def beats_guesses(law: Law) -> bool:
    """Whether the law predicted the best runs of its held-out budget better than every plain guess."""
    check = law.held_out
    if check is None or check.law_on_the_same is None or not check.baselines:
        return False
    return check.law_on_the_same < min(check.baselines.values())


def _best(both: Nominees, losses: Mapping[Rival, float], seeds: int, measured: str, several: bool) -> Sent:
    """The nominee of the lowest loss; of equal ones a measured model before the law's choice."""
    won = min(losses, key=lambda rival: (losses[rival], rival != both.naming(rival).measured))
    named = both.naming(won)
    named_by: NamedBy = "both" if named.law == named.measured else "measured" if won == named.measured else "law"

    def words(rival: Rival) -> str:
        role = measured if rival == both.naming(rival).measured else "the law's choice"
        by = f", {OPTIMIZERS[rival.optimizer]}" if several else ""
        return f"{role} ({family_name(rival.shape.experts)}, width {rival.shape.d_model}{by})"

    lost = sorted((rival for rival in losses if rival != won), key=lambda rival: losses[rival])
    beaten = " and ".join(map(words, lost))
    against = " and ".join(f"{losses[rival]:.4f}" for rival in lost)
    because = (
        f"on validation text it beat {beaten}: {losses[won]:.4f} against {against}"
        f" nats per token, {seeds} seeds each that the verdict does not use"
    )
    return Sent(rival=won, named_by=named_by, because=because)
