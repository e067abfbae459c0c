"""`fit` on tables as people have them: what is mended, what is said, and hints that work when they are followed."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars
import pytest

from sparsedial.cli.main import main

CASES = Path("/work/shared/cases")
E, A, B, ALPHA, BETA = 1.7, 400.0, 1500.0, 0.34, 0.36


def runs(seeds: int = 1, noise: float = 0.002) -> dict[str, list[float]]:
    """Dense runs along six lines of equal compute, as labs have them."""
    budget = np.repeat(1e18 * 3.0 ** np.arange(6), 5)
    size = np.tile(2.0 ** np.arange(-2, 3), 6) * 0.29 * (budget / 6) ** 0.5 / 3
    budget, size = np.repeat(budget, seeds), np.repeat(size, seeds)
    tokens = budget / 6 / size
    loss = E + A / size**ALPHA + B / tokens**BETA
    loss = loss * np.exp(np.random.default_rng(0).normal(0, noise, len(loss)))
    columns = {"total_parameters": size, "tokens": tokens, "flops": budget, "loss": loss}
    return {name: values.tolist() for name, values in columns.items()}


GOOD = runs()
ROWS = len(GOOD["loss"])


def times(name: str, factor: float) -> list[float]:
    return (np.array(GOOD[name]) * factor).tolist()


def write(folder: Path, columns: dict, without: tuple[str, ...] = ()) -> str:
    kept = {name: values for name, values in columns.items() if name not in without}
    polars.DataFrame(kept, strict=False).write_csv(folder / "runs.csv")
    return str(folder / "runs.csv")


def fitted(capsys, *words: str, form: str = "chinchilla") -> dict:
    chosen = [] if "--form" in words else ["--form", form]
    fast = [] if "--bootstrap" in words else ["--bootstrap", "0"]
    status = main(["fit", *words, *chosen, *fast, "--json"])
    out = capsys.readouterr()
    assert status == 0, out.err
    return json.loads(out.out)


def followed(words: list[str], error: str) -> list[str]:
    """The command with the flags of its hint, which replace those that it has."""
    lines = [line for line in error.splitlines() if line.startswith("hint: ")]
    assert len(lines) == 1, error
    changed = list(words)
    for flag, quoted in re.findall(r"(--[a-z-]+) ('[^']*'|\"(?:[^\"\\]|\\.)*\"|\S+)", lines[0]):
        value = shlex.split(quoted)[0]
        if lines[0].startswith("hint: leave"):
            del changed[changed.index(flag) : changed.index(flag) + 2]
        elif flag in changed:
            changed[changed.index(flag) + 1] = value
        else:
            changed += [flag, value]
    assert changed != words, f"no flags in {lines[0]}"
    return changed


BITS = (np.array(GOOD["loss"]) / np.log(2)).tolist()
PERPLEXITY = np.exp(GOOD["loss"]).tolist()
BROKEN = ["diverged", *map(str, GOOD["loss"][1:])]
DENSE, SPARSE = ["--form", "chinchilla"], ["--form", "chinchilla_sparsity"]


@dataclass(frozen=True)
class Case:
    """A table that differs from the good one, how it is asked for, and what is said of it."""

    says: str
    changes: dict[str, list]
    without: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    form: tuple[str, ...] = tuple(DENSE)

    def words(self, folder: Path) -> list[str]:
        file = write(folder, {**GOOD, **self.changes}, self.without)
        return ["fit", file, *self.form, *self.flags, "--bootstrap", "0"]


def in_units(says: str, without: tuple[str, ...] = (), **factors: float) -> Case:
    return Case(says, {name: times(name, factor) for name, factor in factors.items()}, without)


def loss_of(name: str, values: list, says: str, *flags: str) -> Case:
    return Case(says, {name: values}, ("loss",), ("--columns", f"loss={name}", *flags))


REFUSED = {
    "millions and billions": in_units("millions or billions", ("flops",), total_parameters=1e-6, tokens=1e-9),
    "large models in millions": in_units("so few", ("flops",), total_parameters=3e-5),
    "tokens in billions beside flops": in_units("no run has so few", tokens=1e-9),
    "sizes in thousands beside flops": in_units("in other units", total_parameters=1e-3),
    "flops in petaflops": in_units("flops are", flops=1e-15),
    "flops in petaflop/s-days": in_units("flops are", flops=1 / 8.64e19),
    "flops of a step": in_units("flops are", flops=3.1e-5),
    "all in other units": in_units("so few", total_parameters=1e-6, tokens=1e-6, flops=1e-15),
    "a lone slip": Case("no run has so few", {"tokens": [3.0, *GOOD["tokens"][1:]]}),
    "other columns and conditions stay": Case(
        "so few",
        {"N (M)": times("total_parameters", 1e-6), "val loss": GOOD["loss"]},
        ("total_parameters", "loss"),
        ("--columns", "total_parameters=N (M),loss=val loss", "--where", "tokens > 1"),
    ),
    "bits": loss_of("eval/loss (bits)", BITS, "looks like bits"),
    "bits per byte": loss_of("Eval Bits-Per-Byte", BITS, "bits per byte"),
    "bits per byte in one word": loss_of("evalBPB", BITS, "bits per byte"),
    "perplexity": loss_of("Val/PPL", PERPLEXITY, "looks like perplexity"),
    "perplexity by its values": Case("looks like perplexity", {"loss": PERPLEXITY}),
    "a word in a column": loss_of("C4 Eval Loss", BROKEN, "row 1 has C4 Eval Loss='diverged'"),
    "a word in the loss": Case("row 1 has loss='diverged'", {"loss": BROKEN}),
    "a loss of zero": Case("row 1 has loss=0", {"loss": [0.0, *GOOD["loss"][1:]]}),
    "a loss of zero beside a condition": loss_of(
        "L", [0.0, *GOOD["loss"][1:]], "row 1 has loss=0", "--where", "flops > 1"
    ),
    "a weight of zero": Case("row 1 has weight=0", {"w": [0.0, *[2.0] * (ROWS - 1)]}, flags=("--weight", "w")),
    "columns by other names": Case(
        "needs columns 'loss', 'total_parameters', 'tokens'",
        {"N": GOOD["total_parameters"], "D": GOOD["tokens"], "val/loss": GOOD["loss"]},
        ("total_parameters", "tokens", "loss"),
    ),
    "a dense table and the default form": Case("'active_parameters', 'sparsity'", {}, form=tuple(SPARSE)),
    "a dense table by other names": Case(
        "needs columns", {"Model Size": GOOD["total_parameters"]}, ("total_parameters",), form=tuple(SPARSE)
    ),
    "sparsity in per cent": Case(
        "row 2 has sparsity=50",
        {"sparsity": [0.0, 50.0, 75.0] * (ROWS // 3), "active_parameters": GOOD["total_parameters"]},
        ("flops",),
        form=tuple(SPARSE),
    ),
    "one group": Case("every run has the same 'one'", {"one": [1] * ROWS}, flags=("--group", "one")),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_hint_works_when_it_is_followed(tmp_path, capsys, case):
    words = REFUSED[case].words(tmp_path)
    assert main(words) == 2
    error = capsys.readouterr().err
    assert REFUSED[case].says in error
    assert len(error.splitlines()) == 2
    again = followed(words, error)
    assert main(again) == 0, (again, capsys.readouterr().err)
    assert re.search("^ *(alpha|refused: no interior)", capsys.readouterr().out, re.MULTILINE)


RIGHT_FACTORS = ("millions and billions", "tokens in billions beside flops", "flops in petaflops", "all in other units")


@pytest.mark.parametrize("case", RIGHT_FACTORS)
def test_the_hint_names_the_right_factor(tmp_path, capsys, case):
    words = REFUSED[case].words(tmp_path)
    assert main(words) == 2
    coefficients = fitted(capsys, *followed(words, capsys.readouterr().err)[1:])["coefficients"]
    assert coefficients["A"] == pytest.approx(A, rel=0.2)
    assert coefficients["B"] == pytest.approx(B, rel=0.2)


@pytest.mark.parametrize("entry", ["nan", "NA", "None", "", "Infinity", "-inf", "N/A"])
def test_rows_without_a_loss_are_dropped_and_counted(tmp_path, capsys, entry):
    file = write(tmp_path, {**GOOD, "loss": [entry, *map(str, GOOD["loss"][1:])]})
    found = fitted(capsys, file)
    assert (found["runs"], found["dropped_rows"]) == (ROWS - 1, 1)
    assert found["dropped_reason"] == "1 without a number for loss"
    assert main(["fit", file, "--form", "chinchilla", "--bootstrap", "0"]) == 0
    assert re.search(r"dropped +1 row: 1 without a number for loss", capsys.readouterr().out)
    assert fitted(capsys, file, "--where", "loss > 0")["dropped_rows"] == 0


def test_rows_without_another_number_are_counted_by_what_they_lack(tmp_path, capsys):
    tokens, flops = [None, None, *GOOD["tokens"][2:]], [None, 1.0, None, *GOOD["flops"][3:]]
    found = fitted(capsys, write(tmp_path, {**GOOD, "tokens": tokens, "flops": flops}))
    assert found["dropped_rows"] == 3
    assert found["dropped_reason"] == "2 without a number for flops, 1 without a number for tokens"


def test_flops_that_most_rows_lack_are_left_out(tmp_path, capsys):
    found = fitted(capsys, write(tmp_path, {**GOOD, "flops": [None] * (ROWS - 2) + GOOD["flops"][-2:]}))
    assert (found["runs"], found["dropped_rows"], found["held_out"]) == (ROWS, 0, None)


def test_json_lines_with_nan_are_read(tmp_path, capsys):
    rows = [dict(zip(GOOD, row, strict=True)) for row in zip(*GOOD.values(), strict=True)]
    rows[3]["loss"], rows[4]["loss"] = float("nan"), float("inf")
    (tmp_path / "a.jsonl").write_text("\ufeff" + "\n".join(map(json.dumps, rows)), encoding="utf-8")
    assert fitted(capsys, str(tmp_path / "a.jsonl"))["dropped_rows"] == 2


def test_names_of_any_spelling_and_arithmetic_give_the_same_law(tmp_path, capsys):
    plain = fitted(capsys, write(tmp_path, GOOD))
    odd = {
        "Training FLOP": GOOD["flops"],
        "Model Size": GOOD["total_parameters"],
        "eval/ppl, all": PERPLEXITY,
    }
    columns = "total_parameters=Model Size,tokens=Training FLOP/(6*Model Size),flops=Training FLOP"
    columns += ",loss=log(`eval/ppl, all`)"
    found = fitted(capsys, write(tmp_path, odd), "--columns", columns)
    assert found["coefficients"] == pytest.approx(plain["coefficients"], rel=1e-3)
    ours = {"Total Parameters": "total_parameters", "TOKENS": "tokens", "Loss": "loss", "FLOPs": "flops"}
    capital = {theirs: GOOD[name] for theirs, name in ours.items()}
    assert fitted(capsys, write(tmp_path, capital)) == plain


def test_one_column_serves_two_variables(tmp_path, capsys):
    columns = "active_parameters=total_parameters,sparsity=0*total_parameters,experts=1+0*tokens"
    found = fitted(capsys, write(tmp_path, GOOD), "--columns", columns, form="chinchilla_sparsity")
    assert found["form"] == "chinchilla_sparsity"
    dense = fitted(capsys, write(tmp_path, GOOD), "--columns", columns)
    assert dense["coefficients"]["alpha"] == pytest.approx(ALPHA, abs=0.03)


@pytest.mark.parametrize("rule", ["C > 2e20", "flops > 2e20", "`C (all)` > 2e20", "kind == 'top'"])
def test_rows_are_picked_and_held_out_by_the_names_of_the_table_and_by_ours(tmp_path, capsys, rule):
    kind = ["top" if flops > 2e20 else "low" for flops in GOOD["flops"]]
    table = {**GOOD, "C": GOOD["flops"], "C (all)": GOOD["flops"], "kind": kind}
    file, columns = write(tmp_path, table, ("flops",)), ["--columns", "flops=C"]
    assert fitted(capsys, file, *columns, "--hold-out", rule)["held_out"]["runs"] == 5
    below = rule.replace(">", "<=").replace("==", "!=")
    assert fitted(capsys, file, *columns, "--where", below)["runs"] == ROWS - 5


def test_flops_with_noise_are_budgets_all_the_same(tmp_path, capsys):
    noise = np.exp(np.random.default_rng(1).normal(0, 0.01, ROWS))
    found = fitted(capsys, write(tmp_path, {**GOOD, "flops": (np.array(GOOD["flops"]) * noise).tolist()}))
    assert found["held_out"]["runs"] == 5
    exact = fitted(capsys, write(tmp_path, GOOD))
    assert found["held_out"]["median_relative_error"] == exact["held_out"]["median_relative_error"]


def test_lines_with_a_few_millionths_between_their_flops_are_lines(tmp_path, capsys):
    edge = [place for place in range(ROWS) if place % 5 >= 2]  # the best size is the smallest of three
    rows = {name: [values[place] for place in edge] for name, values in GOOD.items()}
    rows["flops"] = (np.array(rows["flops"]) * (1 + 1e-6 * (np.arange(len(edge)) % 3))).tolist()
    rows["loss"] = (E + 1e-9 * np.array(rows["total_parameters"]) + B / np.array(rows["tokens"]) ** BETA).tolist()
    assert "no interior minimum" in fitted(capsys, write(tmp_path, rows))["refused"]


def test_weights_are_read_and_a_column_of_that_name_is_not_taken_for_one(tmp_path, capsys):
    file = write(tmp_path, {**GOOD, "weight": [1.0] * (ROWS - 1) + [1e6], "group": [7.0] * ROWS})
    assert fitted(capsys, file) == fitted(capsys, write(tmp_path, GOOD))


def test_rows_on_several_texts_are_told_apart_by_a_condition_that_works(tmp_path, capsys):
    lower = times("loss", 0.8)
    table = {name: 2 * values for name, values in GOOD.items()} | {"loss": GOOD["loss"] + lower}
    file = write(tmp_path, {**table, "val_set": ["it's c4"] * ROWS + ["code"] * ROWS})
    words = ["fit", file, "--form", "chinchilla", "--where", "flops > 1", "--bootstrap", "0"]
    assert main(words) == 0
    note = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("note"))
    assert "differ in val_set" in note
    found = fitted(capsys, *followed(words, f"hint: {note}")[1:])
    assert (found["runs"], found["notes"]) == (ROWS, [])


def test_low_losses_are_fitted_with_a_word_on_bits_per_byte(tmp_path, capsys):
    found = fitted(capsys, write(tmp_path, {**GOOD, "loss": times("loss", 0.3)}))
    assert "bits per byte" in found["notes"][0]
    assert found["coefficients"]["E"] == pytest.approx(0.3 * E, abs=0.02)


@pytest.mark.skipif(not CASES.exists(), reason="needs the shared cases")
@pytest.mark.parametrize("file", ["fit_missing_values/missing_NA.csv", "fit_missing_values/inf.jsonl"])
def test_the_shared_tables_with_missing_values_keep_their_thirty_runs(capsys, file):
    found = fitted(capsys, str(CASES / file))
    assert (found["runs"], found["dropped_rows"]) == (30, 1)


@pytest.mark.skipif(not CASES.exists(), reason="needs the shared cases")
@pytest.mark.parametrize(
    ("file", "mended"),
    [
        ("fit_unit_hint/petaflops.csv", "flops=flops*1e15"),
        ("fit_unit_hint/d_bill_flops.csv", "tokens=tokens*1e9"),
        ("fit_units/big_mill.csv", "total_parameters=total_parameters*1e6,tokens=tokens*1e9"),
        ("fit_units/millions_billions.csv", "total_parameters=total_parameters*1e6,tokens=tokens*1e9"),
        ("fit_units/n_mill_d_raw.csv", "total_parameters=total_parameters*1e6"),
        ("fit_units/n_raw_d_mill.csv", "tokens=tokens*1e6"),
    ],
)
def test_the_shared_tables_in_other_units_get_the_right_factor(capsys, file, mended):
    words = ["fit", str(CASES / file), "--form", "chinchilla", "--bootstrap", "0"]
    assert main(words) == 2
    error = capsys.readouterr().err
    assert f"--columns '{mended}'" in error
    assert main(followed(words, error)) == 0
