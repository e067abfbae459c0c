"""`fit` on tables whose rows are seeds, sweeps or checkpoints."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sparsedial.cli.main import main
from tests.verbs.test_fit_tables import ALPHA, BETA, A, B, E, fitted, followed, write


def grid(seeds: int, rates: int = 1) -> dict[str, list[float]]:
    """A grid of sizes and tokens, each cell with several seeds and learning rates, of which the middle one is best."""
    cells = [(2e7 * 2.5**n, 1e9 * 3.0**d) for n in range(6) for d in range(5)]
    rows = [(*cell, seed, rate) for cell in cells for seed in range(seeds) for rate in range(rates)]
    size, tokens, seed, rate = map(np.array, zip(*rows, strict=True))
    loss = E + A / size**ALPHA + B / tokens**BETA + 0.1 * (rate - rates // 2) ** 2 + 0.002 * (seed - (seeds - 1) / 2)
    columns = {"total_parameters": size, "tokens": tokens, "loss": loss, "seed": seed, "lr": 1e-3 * 2.0**rate}
    return {name: values.tolist() for name, values in {**columns, "flops": 6 * size * tokens}.items()}


def test_several_seeds_of_a_cell_are_no_line_of_sizes(tmp_path, capsys):
    found = fitted(capsys, write(tmp_path, grid(seeds=3)))
    assert found["refused"] is None
    assert (found["runs"], found["cells"], found["independent_runs"]) == (90, 30, 90)
    assert found["coefficients"]["alpha"] == pytest.approx(ALPHA, abs=0.02)


def about_tables(found: dict[str, Any]) -> list[str]:
    """The notes of a fit but those on its held-out check."""
    return [note for note in found["notes"] if "held-out" not in note]


def test_the_best_of_a_sweep_is_kept_with_all_its_seeds(tmp_path, capsys):
    file = write(tmp_path, grid(seeds=3, rates=3))
    swept = fitted(capsys, file)
    assert (swept["runs"], swept["cells"]) == (270, 30)
    assert swept["notes"][0] == "runs of one size and tokens differ in lr: --best-of 'lr' keeps the best of each"
    best = fitted(capsys, file, "--best-of", "lr")
    assert (best["runs"], best["cells"], about_tables(best)) == (90, 30, [])
    assert best["coefficients"]["E"] == pytest.approx(E, abs=0.02)
    one = fitted(capsys, write(tmp_path, grid(seeds=1, rates=3)), "--best-of", "lr")
    assert (one["runs"], one["cells"]) == (30, 30)


@pytest.mark.parametrize(
    ("column", "says", "hint"),
    [
        ("rl", "no column 'rl' to take the best of", "did you mean 'lr'?"),
        ("tokens", "a variable of the law", "differ in"),
        ("lr", "no cell holds more than one 'lr'", "leave --best-of out"),
    ],
)
def test_a_sweep_that_is_none_is_refused(tmp_path, capsys, column, says, hint):
    assert main(["fit", write(tmp_path, grid(seeds=2)), "--form", "chinchilla", "--best-of", column]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert hint in error


def checkpoints(points: int, even: bool = True) -> dict[str, list]:
    """Checkpoints of eight runs of four sizes."""
    names, sizes, tokens = [], [], []
    for run in range(8):
        places = np.arange(1, points + 1) if even else 1.7 ** np.arange(points)
        tokens += (1e9 * (1 + 0.01 * run) * places).tolist()
        sizes += [3e7 * 3.0 ** (run // 2)] * points
        names += [f"job {run}"] * points
    loss = E + A / np.array(sizes) ** ALPHA + B / np.array(tokens) ** BETA
    return {"job": names, "total_parameters": sizes, "tokens": tokens, "loss": loss.tolist()}


@pytest.mark.parametrize(("points", "even"), [(6, True), (12, False)])
def test_checkpoints_of_a_run_are_one_group_unless_told_otherwise(tmp_path, capsys, points, even):
    file = write(tmp_path, checkpoints(points, even))
    found = fitted(capsys, file)
    assert (found["runs"], found["independent_runs"]) == (8 * points, 8)
    assert "look like checkpoints of 8 runs, as job tells" in found["notes"][0]
    assert fitted(capsys, file, "--group", "row")["independent_runs"] == 8 * points
    assert fitted(capsys, file, "--group", "total_parameters")["independent_runs"] == 4
    assert fitted(capsys, file, "--group", "total_parameters, job")["independent_runs"] == 8


def test_checkpoints_with_a_column_of_steps_are_told_from_runs_of_several_lengths(tmp_path, capsys):
    table = checkpoints(4, even=False)
    table["global_step"] = [1 + round(tokens / 1e6) for tokens in table["tokens"]]
    assert fitted(capsys, write(tmp_path, table))["independent_runs"] == 8
    table["run name"] = [f"run {place}" for place in range(32)]
    assert fitted(capsys, write(tmp_path, table))["independent_runs"] == 32


def test_a_grid_of_sizes_and_tokens_is_no_set_of_curves(tmp_path, capsys):
    found = fitted(capsys, write(tmp_path, grid(seeds=1)))
    assert (found["independent_runs"], about_tables(found)) == (30, [])


def test_many_runs_of_each_size_are_taken_as_runs_with_a_word_on_grouping(tmp_path, capsys):
    table = checkpoints(12, even=False)
    del table["job"]
    table["lr"] = np.repeat([1e-3, 2e-3] * 4, 12).tolist()
    words = ["fit", write(tmp_path, table), "--form", "chinchilla", "--bootstrap", "0"]
    found = fitted(capsys, *words[1:])
    assert found["independent_runs"] == 96
    grouped = fitted(capsys, *followed(words, f"hint: {about_tables(found)[-1]}")[1:])
    assert grouped["independent_runs"] in (4, 8)


def test_checkpoints_without_tokens_are_thinned_by_their_steps(tmp_path, capsys):
    rows = [(3e7 * 4.0**size, 2.0**experts, step) for size in range(4) for experts in range(5) for step in range(1, 13)]
    size, experts, step = map(np.array, zip(*rows, strict=True))
    loss = 10 ** (1.1 - 0.08 * np.log10(size) - 0.1 * np.log10(experts)) + 1 / step
    table = {"active_parameters": size, "experts": experts, "step": step, "loss": loss}
    file = write(
        tmp_path,
        {name: values.tolist() for name, values in table.items()} | {"run": [f"{row[0]:g} {row[1]:g}" for row in rows]},
    )
    found = fitted(capsys, file, form="clark")
    assert found["independent_runs"] == 20
    assert "--best-of 'step' keeps one of each size" in found["notes"][0]
    assert fitted(capsys, file, "--best-of", "step", form="clark")["runs"] == 20
