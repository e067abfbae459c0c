"""Predictions per row stand beside the table's own columns, with intervals and how far they lie beyond the runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars
import pytest

from sparsedial.errors import UserError
from sparsedial.law.fit import fit
from sparsedial.law.law import Law
from sparsedial.law.predicting import predict
from tests.law.test_fit import table

LAW = fit(table("chinchilla")[0], "chinchilla", bootstrap=20)
COLUMNS = {"total_parameters": "params_m * 1e6", "tokens": "D", "loss": "final"}
RUNS = polars.DataFrame(
    {"name": ["a", "b", "c"], "params_m": [0.2, 400.0, None], "D": [10**6, 10**7, 10**6], "final": [6.0, None, 3.0]}
)


def predicted(folder: Path, ending: str = ".csv", law: Law = LAW, **settings) -> tuple[polars.DataFrame, object]:
    RUNS.write_parquet(folder / "runs.parquet")
    out = folder / f"out{ending}"
    answer = predict(law, folder / "runs.parquet", out, COLUMNS, **settings)
    read = {".csv": polars.read_csv, ".jsonl": polars.read_ndjson, ".parquet": polars.read_parquet}[ending]
    return read(out), answer


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet"])
def test_every_row_keeps_its_columns_and_gets_a_prediction_with_its_intervals(tmp_path, ending):
    frame, answer = predicted(tmp_path, ending)
    assert frame.select(RUNS.columns).equals(RUNS)
    size, tokens = np.array([0.2e6, 400e6]), np.array([1e6, 1e7])
    assert frame["predicted_loss"].to_list()[:2] == pytest.approx(LAW.loss(total_parameters=size, tokens=tokens))
    low, high = LAW.interval(total_parameters=size, tokens=tokens)
    assert frame["predicted_low"].to_list()[:2] == pytest.approx(low)
    assert frame["predicted_high"].to_list()[:2] == pytest.approx(high)
    assert frame["run_low"][0] < frame["predicted_low"][0]
    assert frame["run_high"][0] > frame["predicted_high"][0]
    assert frame["predicted_loss"][2] is None  # it has no size
    assert answer.rows == 2


def test_a_row_beyond_the_runs_is_marked_by_how_far(tmp_path):
    frame, answer = predicted(tmp_path)
    most = LAW.fitted_range["total_parameters"][1]
    assert frame["times_beyond"].to_list()[:2] == pytest.approx([1.0, 400e6 / most])
    assert answer.rows_beyond == 1


def test_errors_are_those_of_the_rows_that_have_a_loss(tmp_path):
    _, answer = predicted(tmp_path)
    error = abs(LAW.loss(total_parameters=0.2e6, tokens=1e6) / 6.0 - 1)
    assert answer.median_relative_error == pytest.approx(error)
    assert answer.max_relative_error == pytest.approx(error)


def test_a_law_without_samples_predicts_without_intervals_and_says_why(tmp_path):
    law = fit(table("chinchilla")[0], "chinchilla", bootstrap=0)
    frame, answer = predicted(tmp_path, law=law)
    assert frame.columns == [*RUNS.columns, "predicted_loss", "times_beyond"]
    assert "no bootstrap samples" in answer.intervals_reason


IN_ONES = {"size": [1e6, 4e6, 2e6], "tokens": [2e7, 4e7, 3e7], "final": [4.0, 3.5, 3.7]}


@pytest.mark.parametrize(
    ("changes", "columns", "says", "hint"),
    [
        ({"tokens": [0.02, 0.04, 0.03]}, {}, "looks like millions or billions", "tokens=tokens*1e9"),
        ({"flops": [0.12, 0.96, 0.36]}, {"flops": "flops"}, "times 6 x total_parameters x tokens", "flops=flops*1e15"),
        ({"size": [1.0, 4.0, 2.0]}, {}, "no model has so few", "total_parameters=size*1e6"),
        ({"final_bits": [5.7, 5.0, 5.3]}, {"loss": "final_bits"}, "looks like bits", "loss=final_bits*0.693147"),
        ({"ppl": [54.0, 33.0, 40.0]}, {"loss": "ppl"}, "looks like perplexity", "loss=log(ppl)"),
        ({"final": [54.0, 33.0, 40.0]}, {}, "looks like perplexity", "loss=log(final)"),
        ({"tokens": [2e7, -4e7, 3e7]}, {}, "row 2 has tokens=-4e\\+07", "tokens > 0"),
    ],
)
def test_a_table_in_other_units_than_the_law_is_refused_as_one_to_fit_is(tmp_path, changes, columns, says, hint):
    polars.DataFrame({**IN_ONES, **changes}).write_csv(tmp_path / "runs.csv")
    given = {"total_parameters": "size", "loss": "final", **columns}
    with pytest.raises(UserError, match=says) as found:
        predict(LAW, tmp_path / "runs.csv", tmp_path / "out.csv", given)
    assert hint in (found.value.hint or "")
    assert not (tmp_path / "out.csv").exists()


def test_low_losses_of_a_predicted_table_are_told(tmp_path):
    polars.DataFrame({**IN_ONES, "final": [1.1, 1.0, 1.05]}).write_csv(tmp_path / "runs.csv")
    columns = {"total_parameters": "size", "loss": "final"}
    (note,) = predict(LAW, tmp_path / "runs.csv", tmp_path / "out.csv", columns).notes
    assert "bits per byte" in note


def test_rows_that_are_not_picked_stay_without_a_prediction(tmp_path):
    frame, answer = predicted(tmp_path, where="name == 'b'")
    assert frame["predicted_loss"].is_null().to_list() == [True, False, True]
    assert (answer.rows, answer.median_relative_error) == (1, None)


@pytest.mark.parametrize(
    ("columns", "where", "says"),
    [
        ({"tokens": "D"}, None, "predicts by a column 'total_parameters'"),
        ({**COLUMNS, "tokens": "name"}, None, "which is not a number"),
        (COLUMNS, "D > 1e9", "holds no runs"),
        (COLUMNS, "name == 'c'", "no row holds|does not give a number in any row"),
    ],
)
def test_a_table_that_cannot_be_predicted_is_refused(tmp_path, columns, where, says):
    RUNS.write_parquet(tmp_path / "runs.parquet")
    with pytest.raises(UserError, match=says):
        predict(LAW, tmp_path / "runs.parquet", tmp_path / "out.csv", columns, where)


def test_a_table_that_was_predicted_is_not_predicted_into_itself(tmp_path):
    predicted(tmp_path)
    with pytest.raises(UserError, match="has a column 'predicted_loss' already"):
        predict(LAW, tmp_path / "out.csv", tmp_path / "again.csv", COLUMNS)
