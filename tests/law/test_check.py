"""A law beside plain guesses at held-out runs, and what is said where they win or the runs are few."""

from __future__ import annotations

import numpy as np
import pytest
from msgspec.structs import replace

from sparsedial.law.answer import check_notes
from sparsedial.law.check import held_out_check
from sparsedial.law.choose import select
from sparsedial.law.fit import fit
from sparsedial.records.law import HeldOut
from tests.law.test_fit import table


def parts(rows):
    top = rows["flops"] == rows["flops"].max()
    return select(rows, ~top), select(rows, top)


def dense(**changes) -> dict[str, np.ndarray]:
    """Runs on lines of equal compute, in a table that knows neither sparsity nor active parameters."""
    rows, _ = table("chinchilla", noise=0.003, **changes)
    return {name: rows[name] for name in ("total_parameters", "tokens", "flops", "loss")}


def test_a_dense_table_is_guessed_like_the_one_level_of_a_table_with_sparsity():
    rows = dense(sparsities=(0.0,))
    low, top = parts(rows)
    law = fit(low, "chinchilla", bootstrap=0)
    check = held_out_check(low, top, law)
    full = [
        {**part, "sparsity": 0 * part["loss"], "active_parameters": part["total_parameters"]} for part in (low, top)
    ]
    assert check.baselines == held_out_check(*full, law).baselines
    assert set(check.baselines) == {"last_budget_shape_kept", "linear_in_log_compute"}


def test_the_guesses_are_a_line_through_the_best_losses_and_the_last_best_shape():
    size = np.tile([1e6, 1e7, 1e8], 3)
    flops = np.repeat([1e15, 1e16, 1e17], 3)
    loss = np.array([3.2, 3.0, 3.3, 2.9, 2.7, 2.8, 2.6, 2.45, 2.5])
    rows = {"total_parameters": size, "tokens": flops / (6 * size), "flops": flops, "loss": loss}
    low, top = parts(rows)
    law = replace(fit(dense(), "chinchilla", bootstrap=0))
    check = held_out_check(low, top, law)
    assert check.baselines["linear_in_log_compute"] == pytest.approx(abs(2.4 / 2.45 - 1))
    assert check.baselines["last_budget_shape_kept"] == pytest.approx(abs(2.4 / 2.45 - 1))
    jittered = {**rows, "total_parameters": size * (1 + 0.001 * np.arange(9))}
    assert held_out_check(*parts(jittered), law).baselines == pytest.approx(check.baselines)


def test_a_run_that_is_worse_than_smaller_ones_is_not_on_the_line_of_the_best():
    rows = dense(sparsities=(0.0,))
    low, top = parts(rows)
    worse = {name: np.append(values, values[low["flops"].argmax()]) for name, values in low.items()}
    worse["flops"][-1] *= 1.5
    worse["loss"][-1] *= 1.5
    law = fit(low, "chinchilla", bootstrap=0)
    lines = [held_out_check(part, top, law).baselines["linear_in_log_compute"] for part in (low, worse)]
    assert lines[0] == lines[1]


def said(held: HeldOut) -> str:
    return "\n".join(check_notes(held, None, dense()))


HELD = held_out_check(*parts(dense()), fit(parts(dense())[0], "chinchilla", bootstrap=0))


def test_a_guess_that_beats_the_law_is_said_in_a_sentence_and_a_tie_is_not():
    errors = {"last_budget_shape_kept": 0.03, "linear_in_log_compute": 0.012}
    assert said(replace(HELD, baselines=errors, law_on_the_same=0.019)) == (
        "on the held-out runs, a straight line through the best losses predicted better (1.2 %) than the law (1.9 %):"
        " do not trust the law beyond its range"
    )
    assert said(replace(HELD, baselines=errors, law_on_the_same=0.012)) == ""


def test_a_few_held_out_runs_are_said_to_be_no_check_with_a_condition_that_holds_out_more():
    rows = dense()
    words = said(replace(HELD, runs=1, baselines={}))
    assert words.startswith("a single held-out run is too few to check a law; holding out the runs with flops>=")
    condition, more = words.partition("flops>=")[2].split(" would leave ")
    assert int(more) == (rows["flops"] >= float(condition)).sum() > 1
    assert "3 held-out runs are too few" in said(replace(HELD, runs=3, baselines={}))


def test_a_law_that_was_not_checked_says_so():
    assert list(check_notes(None, "no budgets", dense())) == ["the law was not checked on held-out runs: no budgets"]
