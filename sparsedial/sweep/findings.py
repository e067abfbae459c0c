"""What a study found, as `study.json` keeps it, and the plan that its law gives at the largest budget."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from sparsedial.law.law import Law
from sparsedial.planning.candidates import rungs
from sparsedial.planning.costs import Costs
from sparsedial.planning.crossing import POINTS, race
from sparsedial.planning.search import Answer, binding_constraints, near_optimal, plan_record
from sparsedial.sweep.grid import Cell, cell_seconds
from sparsedial.sweep.phases import Setup
from sparsedial.sweep.rates import RateModel, Scan
from sparsedial.sweep.rivals import families, ranked
from sparsedial.sweep.study import cells_summary
from sparsedial.sweep.tables import cells_table, law_curves, rates_record


@dataclass(frozen=True, kw_only=True)
class Findings:
    """The runs of a study and what was concluded from them."""

    scans: tuple[Scan, ...]
    rates: RateModel
    done: dict[Cell, dict[str, Any]]
    below: Law | None  # fitted to the budgets below the largest
    law: Law | None  # fitted to all
    refused: str | None  # why there is no law
    comparison: dict[str, Any]  # of the forms
    held_out: dict[str, Any] | None
    verdicts: dict[str, Any]  # by currency, and `runs`

    def plan(self, setup: Setup) -> dict[str, Any] | None:
        """The law's answer at the largest budget, with what would change it; None without a law."""
        law = self.law
        if law is None:
            return None
        layout, budget = setup.layout, setup.layout.budgets[-1]
        shapes = families(layout, self.done)
        everything = shapes["dense"] + shapes["sparse"]
        batch = layout.batch
        answers = ranked(setup, law, everything, "flops", budget, batch)
        best, rival = answers[0], next(answer for answer in answers if not answer.shape.experts)
        rate = self.rates.rate(best.shape, best.tokens)
        outside = law.outside(law.variables(best.shape, best.tokens))
        return plan_record(
            law,
            best,
            rival,
            currency="flops",
            budget=budget,
            profile=setup.profile,
            batch=batch,
            context=layout.ladder.context,
            cross=_crossover(setup, law),
            bounds=binding_constraints(best.shape, everything),
            band=near_optimal(_best_by_sparsity(answers)),
            recipe=asdict(setup.job(best.shape, best.steps, batch, rate, setup.seed).recipe),
            warnings=[f"{name} lies {factor:.2g} times outside the fitted range" for name, factor in outside.items()],
        )

    def record(self, setup: Setup, plan: dict[str, Any] | None) -> dict[str, Any]:
        """The findings as `study.json` holds them."""
        layout, done = setup.layout, self.done
        return {
            "cells": cells_summary(len(layout.cells), done),
            "budgets_flops": list(layout.budgets),
            "sparsities": [1 - layout.ladder.top_k / count if count else 0.0 for count in layout.experts],
            "text": setup.text.summary(),
            "machine": setup.profile.machine,
            "law": self._law_summary(),
            "verdict": {currency: self.verdicts[currency] for currency in ("flops", "seconds", "joules")},
            "near_optimal": plan["near_optimal"] if plan else {"sparsity": None},
            "binding_constraints": plan["binding_constraints"] if plan else [],
            "crossover": plan["crossover"] if plan else None,
            "crossover_reason": plan["crossover_reason"] if plan else "no law could be fitted",
            "cells_table": cells_table(layout, done, self.rates, self.below),
            "verdict_runs": self.verdicts["runs"],
            "learning_rates": rates_record(self.scans, self.rates),
            "law_curves": law_curves(layout, done, self.law),
            "profile": {
                "median_relative_error": setup.profile.median_relative_error,
                "max_relative_error": setup.profile.max_relative_error,
                "watts": setup.profile.watts,
                "watts_source": setup.profile.watts_source,
                "metered": setup.profile.metered,
            },
            "seed_noise": _seed_noise(self.verdicts["runs"]),
        }

    def _law_summary(self) -> dict[str, Any]:
        law = self.law
        return {
            "form": law.form if law else None,
            "coefficients": law.coefficients if law else {},
            "intervals": law.intervals if law else {},
            "confidence": law.confidence if law else None,
            "undetermined": list(law.undetermined) if law else [],
            "rmse_log_loss": law.rmse_log_loss if law else None,
            "held_out": self.held_out if law else None,
            "held_out_reason": "the budgets below the largest allow no fit" if law and not self.held_out else None,
            "refused": self.refused,
            "comparison": self.comparison,
        }


def _seed_noise(runs: list[dict[str, Any]]) -> float | None:
    """Standard deviation of test loss between seeds, pooled over the rivals."""
    groups: dict[tuple[str, str], list[float]] = {}
    for run in runs:
        groups.setdefault((run["currency"], run["family"]), []).append(run["test_loss"])
    variances = [
        sum((value - sum(values) / len(values)) ** 2 for value in values) / (len(values) - 1)
        for values in groups.values()
        if len(values) > 1
    ]
    return math.sqrt(sum(variances) / len(variances)) if variances else None


def _best_by_sparsity(answers: list[Answer]) -> list[Answer]:
    seen: dict[int, Answer] = {}
    for answer in answers:
        seen.setdefault(answer.shape.experts, answer)
    return sorted(seen.values(), key=lambda answer: answer.predicted["mean"])


def _crossover(setup: Setup, law: Law) -> tuple[dict[str, Any] | None, str | None]:
    """Where sparse begins to win in seconds, looked for a factor of ten around the studied budgets.

    Among the same shapes as `plan --law` on the study: with the trained widths alone a larger budget would overtrain
    the widest dense one, and sparse would seem to win.
    """
    layout, profile = setup.layout, setup.profile
    costs = [cell_seconds(layout, profile, cell) for cell in layout.cells]
    found = race(
        law,
        rungs(layout.ladder, layout.experts),
        currency="seconds",
        budgets=np.geomspace(min(costs) / 10, max(costs) * 10, POINTS),
        costs=Costs(machine=profile, batch=layout.batch, context=layout.ladder.context),
    )
    return found["crossover"], found["crossover_reason"]
