"""The form of a study's law describes dense and sparse models alike, on the reference study's stored cells."""

from __future__ import annotations

import numpy as np

from benchmarks.dense_at_top import rows_of
from benchmarks.replay import RECORD
from sparsedial.law.choose import PROVEN, STUDY_PRIORS, select
from sparsedial.law.fit import fit
from sparsedial.records.study import read_finished


def errors_of_dense(form: str) -> np.ndarray:
    """Log errors at the largest budget, by width, of a law fitted to the budgets below it."""
    rows = rows_of(read_finished(RECORD / "study.json"))
    top = rows["flops"] == rows["flops"].max()
    held = select(rows, top & (rows["sparsity"] == 0))
    return np.log(fit(select(rows, ~top), form, bootstrap=0, priors=STUDY_PRIORS).loss(**held) / held["loss"])


def test_dense_is_not_predicted_too_low_at_the_largest_budget():
    assert np.abs(errors_of_dense(PROVEN)).max() < 0.01
    assert errors_of_dense("sparsity_by_tokens").min() < -0.02  # without a power of size
