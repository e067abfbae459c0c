"""`fit` on anybody's table: what is wrong with it is said in one line, with the way out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars
import pytest

import sparsedial
from sparsedial.cli.main import main
from sparsedial.errors import UserError
from sparsedial.verbs.fit.settings import PRIOR_EXAMPLE
from tests.law.test_fit import branches, table

GOOD = {name: values.tolist() for name, values in table("chinchilla")[0].items()}


def write(folder: Path, **changes) -> str:
    polars.DataFrame({**GOOD, **changes}).write_csv(folder / "runs.csv")
    return str(folder / "runs.csv")


def test_a_table_is_fitted_and_its_largest_budget_held_out(tmp_path, capsys):
    assert main(["fit", write(tmp_path), "--form", "chinchilla", "--bootstrap", "30"]) == 0
    said = capsys.readouterr().out
    assert "alpha" in said
    assert "held out" in said


@pytest.mark.parametrize("value", ["0", "-0.1", "0.25"])
def test_a_coefficient_is_pinned_to_any_finite_number(tmp_path, capsys, value):
    flags = ["--form", "chinchilla_sparsity", "--pin", f"mu={value}", "--bootstrap", "0", "--json"]
    assert main(["fit", write(tmp_path), *flags]) == 0
    assert json.loads(capsys.readouterr().out)["coefficients"]["mu"] == float(value)


def test_a_prior_is_counted_and_said(tmp_path, capsys):
    assert main(["fit", write(tmp_path), "--form", "chinchilla", "--prior", "beta=0.37:0.2", "--bootstrap", "0"]) == 0
    assert "beta was expected near 0.37 (0.303 to 0.452, one standard deviation)" in capsys.readouterr().out


def test_runs_of_a_study_have_its_prior_and_other_tables_none(tmp_path, capsys):
    def priors(*command: str) -> dict:
        assert main(["fit", *command, "--bootstrap", "0", "--json"]) == 0
        return json.loads(capsys.readouterr().out)["priors"]

    study = str(Path(__file__).parents[2] / "benchmarks" / "records" / "reference_study")
    assert priors(study) == {"beta": {"value": 0.37, "log_spread": 0.2}}
    assert priors(study) == priors(study, "--prior", PRIOR_EXAMPLE), "which the help names"
    assert priors(study, "--prior", "none") == priors(write(tmp_path), "--form", "chinchilla") == {}


@pytest.mark.parametrize(
    ("changes", "flags", "says", "hint"),
    [
        ({"loss": [0.0, *GOOD["loss"][1:]]}, [], "row 1 has loss=0", ""),
        ({"tokens": [-1.0, *GOOD["tokens"][1:]]}, [], "row 1 has tokens=-1", ""),
        ({"tokens": [None] * len(GOOD["tokens"])}, [], "needs a column 'tokens'", "--columns 'tokens=NAME'"),
        ({"flops": [-1.0, *GOOD["flops"][1:]]}, [], "row 1 has flops=-1", "--where 'flops > 0'"),
        ({"loss": [1e-300, *([1e-299] * (len(GOOD["loss"]) - 1))]}, [], "cannot be a loss in nats", "--columns"),
        ({"active_parameters": (1e6 * np.array(GOOD["active_parameters"])).tolist()}, [], "in other units", "*1e-6"),
        ({"loss": [2.0] * len(GOOD["loss"])}, [], "loss is 2 in every row", ""),
        ({"total_parameters": (np.array(GOOD["total_parameters"]) / 1e9).tolist()}, [], "millions or billions", "*1e9"),
        ({"bpb": GOOD["loss"]}, ["--columns", "loss=bpb"], "looks like bits", "0.6931"),
        ({}, ["--columns", "loss=los"], "no column 'los'", "loss"),
        ({}, ["--form", "chinchila"], "no form named 'chinchila'", "chinchilla"),
        ({}, ["--hold-out", "flops > 1e40"], "picks 0 of", ""),
        ({}, ["--hold-out", f"flops > {min(GOOD['flops'])}"], "1 budget is too few", "hold out fewer"),
        ({}, ["--where", "flops > 1e40"], "holds no runs", ""),
        ({}, ["--where", "flops>1 & loss>1"], "combines something that is not a condition", "brackets"),
        ({}, ["--columns", "loss=loss,loss=tokens"], "'loss' is given twice", ""),
        ({}, ["--columns", "loss=loss/0"], "does not give a number", ""),
        (
            {"one": [1] * len(GOOD["loss"])},
            ["--group", "one"],
            "every run has the same 'one'",
            "leave --group 'one' out",
        ),
        ({}, ["--pin", "E=1,A=1,B=1,alpha=0.3,beta=0.3"], "every coefficient of chinchilla is pinned", ""),
        ({}, ["--bootstrap", "-5"], "--bootstrap: -5 lies outside", ""),
        ({}, ["--bootstrap", "inf"], "not a whole number", ""),
        ({}, ["--huber", "0"], "--huber: 0 is not above 0", "1e-3"),
        ({}, ["--seed", "-1"], "--seed: -1 lies outside", ""),
        ({}, ["--out", ""], "file or folder is empty", ""),
        ({}, ["--pin", "alpha=0.3B"], "--pin: cannot read '0.3B'", "without a unit"),
        ({}, ["--pin", "alpha=nan"], "--pin: nan is not a finite number", ""),
        ({}, ["--pin", "A=-1"], "A=-1 is below 0", ""),
        ({}, ["--pin", "gamma=1"], "no coefficient named 'gamma'", ""),
        ({}, ["--prior", "beta"], "--prior: cannot read 'beta'", "beta=0.37:0.2"),
        ({}, ["--prior", "beta=0.3"], "--prior: '0.3' is not a value and a spread above 0", "beta=0.37:0.2"),
        ({}, ["--prior", "beta=-1:0.2"], "--prior: '-1:0.2' is not a value and a spread above 0", ""),
        ({}, ["--prior", "beta=0.3:x"], "--prior: cannot read 'x'", ""),
        ({}, ["--prior", "gamma=1:0.2"], "no exponent named 'gamma'", "alpha, beta"),
        ({}, ["--form", "chinchilla,abnar", "--pin", "alpha=1"], "--pin: needs a single form", "--form chinchilla"),
    ],
)
def test_what_is_wrong_is_said_with_the_way_out(tmp_path, capsys, changes, flags, says, hint):
    form = [] if "--form" in flags else ["--form", "chinchilla"]
    assert main(["fit", write(tmp_path, **changes), *form, *flags]) == 2
    out = capsys.readouterr()
    assert not out.out
    assert says in out.err
    assert hint in out.err


def test_without_samples_no_interval_is_printed_and_no_coefficient_called_determined(tmp_path, capsys):
    words = ["fit", write(tmp_path), "--form", "chinchilla", "--bootstrap", "0"]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "no intervals" in said
    assert " to " not in said.split("spread")[0].replace("to say", "")
    assert main([*words, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert set(result["intervals"].values()) == {None}
    assert result["undetermined"] is None


@pytest.mark.parametrize("given", [{"form": "chinchilla"}, {"bootstrap": 50}, {"pin": "alpha=1"}, {"group": "row"}])
def test_a_setting_of_a_fit_is_refused_beside_a_law(tmp_path, given):
    with pytest.raises(UserError, match=f"{next(iter(given))}: is for a fit"):
        sparsedial.fit(law="abnar", predict=write(tmp_path), out=tmp_path / "out.csv", **given)


@pytest.mark.parametrize(("forms", "said"), [("chinchilla", False), ("chinchilla,chinchilla_sparsity", True)])
def test_held_out_runs_that_chose_the_form_are_no_independent_check(tmp_path, forms, said):
    found = sparsedial.fit(write(tmp_path), form=forms, bootstrap=0)
    assert found.held_out is not None
    assert any("helped to choose the form" in note for note in found.notes) == said


def test_three_rows_are_refused_with_the_reason_which_is_a_result(tmp_path, capsys):
    polars.DataFrame(GOOD).head(3).write_csv(tmp_path / "few.csv")
    assert main(["fit", str(tmp_path / "few.csv"), "--form", "chinchilla"]) == 0
    assert "3 runs are too few" in capsys.readouterr().out


def test_a_refused_fit_writes_no_law_and_says_so(tmp_path, capsys):
    polars.DataFrame(GOOD).head(3).write_csv(tmp_path / "few.csv")
    words = ["fit", str(tmp_path / "few.csv"), "--form", "chinchilla", "--out", str(tmp_path / "law.json"), "--json"]
    assert main(words) == 0
    printed = capsys.readouterr()
    result = json.loads(printed.out)
    assert "3 runs are too few" in result["refused"]
    assert result["out"] is None
    assert f"{tmp_path / 'law.json'} is not written: the fit is refused: 3 runs are too few" in printed.err
    assert not (tmp_path / "law.json").exists()


def test_the_sparsest_level_can_be_held_out(tmp_path, capsys):
    rows = {name: values.tolist() for name, values in table("chinchilla_sparsity")[0].items()}
    polars.DataFrame(rows).write_csv(tmp_path / "a.csv")
    words = [
        "fit",
        str(tmp_path / "a.csv"),
        "--form",
        "chinchilla_sparsity",
        "--hold-out",
        "sparsest",
        "--bootstrap",
        "5",
    ]
    assert main([*words]) == 0
    assert "20 runs" in capsys.readouterr().out


def test_forms_are_compared_by_what_they_predict_and_the_simplest_near_the_best_is_taken(tmp_path, capsys):
    rows = {name: values.tolist() for name, values in table("chinchilla_sparsity")[0].items()}
    del rows["granularity"]
    polars.DataFrame(rows).write_csv(tmp_path / "a.csv")
    forms = "chinchilla,chinchilla_sparsity,krajewski"
    assert main(["fit", str(tmp_path / "a.csv"), "--form", forms, "--bootstrap", "0", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    errors = {name: form["rms_log_error"] for name, form in result["compared"]["forms"].items()}
    assert result["form"] == "chinchilla_sparsity"
    assert errors["chinchilla_sparsity"] < errors["chinchilla"]  # which cannot tell sparsities apart
    assert "granularity" in result["compared"]["forms"]["krajewski"]["refused"]


def test_runs_without_shared_experts_can_be_fitted_by_a_form_of_their_share(tmp_path, capsys):
    assert main(["fit", write(tmp_path), "--form", "zhao", "--bootstrap", "0"]) == 0
    assert "zhao" in capsys.readouterr().out


def intervals(capsys, *words: str) -> tuple[dict[str, list[float]], int]:
    assert main(["fit", *words, "--form", "chinchilla", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    return result["intervals"], result["independent_runs"]


def test_a_table_with_trunks_counts_their_branches_as_one_unless_told_otherwise(tmp_path, capsys):
    rows = {name: values.tolist() for name, values in branches().items()}
    trunks = [f"trunk {number:g}" for number in rows.pop("group")]
    hashes = [str(place) for place in range(len(trunks))]
    polars.DataFrame({**rows, "trunk": trunks, "hash": hashes}).write_csv(tmp_path / "runs.csv")
    polars.DataFrame(rows).write_csv(tmp_path / "plain.csv")
    file = str(tmp_path / "runs.csv")
    grouped, apart = intervals(capsys, file), intervals(capsys, file, "--group", "hash")
    assert grouped == intervals(capsys, file, "--group", "trunk")
    assert apart == intervals(capsys, str(tmp_path / "plain.csv"))
    assert (grouped[1], apart[1]) == (6, 36)
    widths = [high - low for low, high in (grouped[0]["alpha"], apart[0]["alpha"])]
    assert widths[0] > 1.5 * widths[1]


def test_the_table_says_how_many_groups_are_independent(tmp_path, capsys):
    trunks = [str(place % 10) for place in range(len(GOOD["loss"]))]
    assert main(["fit", write(tmp_path, trunk=trunks), "--form", "chinchilla", "--bootstrap", "5"]) == 0
    assert f"{len(trunks)} in 10 independent groups" in capsys.readouterr().out


def test_branches_of_one_trunk_alone_are_refused_with_the_reason_which_is_a_result(tmp_path, capsys):
    file = write(tmp_path, trunk=["a"] * len(GOOD["loss"]))
    assert main(["fit", file, "--form", "chinchilla"]) == 0
    assert "share one trunk" in capsys.readouterr().out
    assert main(["fit", file, "--form", "chinchilla", "--bootstrap", "0"]) == 0
    assert "alpha" in capsys.readouterr().out


def test_bad_runs_and_what_a_coefficient_can_trade_with_are_said(tmp_path, capsys):
    loss = np.array(GOOD["loss"])
    loss[11] *= 1.4
    assert main(["fit", write(tmp_path, loss=loss.tolist()), "--form", "chinchilla", "--bootstrap", "30"]) == 0
    assert "outlier, row 12" in capsys.readouterr().out
    file = write(tmp_path, loss=loss.tolist(), kept=[0, 0, *[1] * (len(loss) - 2)])
    assert main(["fit", file, "--where", "kept == 1", "--form", "chinchilla", "--bootstrap", "30"]) == 0
    assert "outlier, row 12" in capsys.readouterr().out  # of the table, though its first rows are left out
    size = np.geomspace(3e7, 3e9, 14)
    ratio = {"total_parameters": size, "tokens": 20 * size, "loss": 1.7 + 400 / size**0.34}
    polars.DataFrame(ratio).write_csv(tmp_path / "ratio.csv")
    assert main(["fit", str(tmp_path / "ratio.csv"), "--form", "chinchilla", "--bootstrap", "30"]) == 0
    said = capsys.readouterr().out
    assert "not determined by these runs: it can trade with" in said
    assert "not known: the runs leave" in said
    found = sparsedial.fit(tmp_path / "ratio.csv", form="chinchilla", bootstrap=30)
    for name in found.open_coefficients:
        low, high = found.intervals[name]
        assert low <= found.coefficients[name] <= high


def test_a_form_that_does_not_describe_the_runs_is_called_a_misfit(tmp_path, capsys):
    size = np.log(np.array(GOOD["tokens"]))
    bend = np.cos(2 * np.pi * (size - size.min()) / np.ptp(size))
    bent = (np.array(GOOD["loss"]) * np.exp(0.05 * bend)).tolist()
    assert main(["fit", write(tmp_path, loss=bent), "--form", "chinchilla", "--bootstrap", "30"]) == 0
    assert "the residuals follow" in capsys.readouterr().out
