"""The comparison of dial-trained with other models, rehearsed at a toy size."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import dial_training as bench
from benchmarks.trials import Trials
from sparsedial.records.record import plain
from sparsedial.store import read_json


def test_the_arms_have_equal_flops_and_the_dials_lie_between_the_others(small_text, tmp_path):
    trials = Trials.__new__(Trials)
    trials.text = small_text
    for seed in bench.SEEDS:
        jobs = {name: bench.task_of(trials, name, seed, bench.Size()).job for name in bench.ARMS}
        budget = jobs[bench.NORMAL].flops
        assert all(0.999 * budget <= job.flops <= budget for job in jobs.values())
        steps = {name: job.recipe.steps for name, job in jobs.items()}
        assert steps[bench.NORMAL] < steps[bench.STEP] < steps["separate, top-2"]
        assert {job.recipe.seed for job in jobs.values()} == {seed}


def test_the_comparison_is_paired_and_finds_what_was_planted():
    """Seeds differ by far more than what is compared."""
    seeds = [0.0, 0.5, -0.3, 0.2, 0.1]
    noise = [0.001, -0.001, 0.002, 0.0, -0.002]

    def at(*values: float) -> dict[int, list[float]]:
        return {
            number: [value + seed + one for seed, one in zip(seeds, noise, strict=True)]
            for number, value in zip(bench.NUMBERS, values, strict=False)
        }

    losses = {
        bench.NORMAL: at(3.0, 2.3, 2.0),
        bench.STEP: at(2.2, 2.1, 2.01),
        bench.LAYER: at(2.2, 2.1, 2.01),
        bench.STEP_LOWEST: at(2.2, 2.1, 2.01),
        bench.LAYER_LOWEST: at(2.2, 2.1, 2.01),
        "separate, top-2": {2: at(2.1)[2]},
        "separate, top-4": {4: at(0.0, 2.05)[4]},
    }
    found = bench.compared(losses)[bench.STEP]
    assert found["minus_normal"]["4"]["mean"] == pytest.approx(-0.2)
    assert found["minus_separate"]["2"]["high"] == pytest.approx(0.1, abs=1e-6)
    assert found["lost_at_half_over_normal"]["mean"] == pytest.approx(0.09 / 0.3)
    assert found["more_at_full"]["mean"] == pytest.approx(0.005, rel=0.1)


def test_arms_that_are_not_asked_for_keep_the_losses_of_a_record_of_the_same_kind():
    others = [name for name in bench.ARMS if name != bench.STEP]
    losses = {name: {"2": [1.0, 2.0]} for name in bench.ARMS}
    facts = plain({"shape": bench.SHAPE.record(), "recipe": bench.RECIPE, "seeds": [1, 2]})
    record = {**facts, "diverged": [], "losses": losses}
    size = bench.Size(seeds=(1, 2))
    assert bench.known_losses(record, size, [bench.STEP]) == {name: {2: [1.0, 2.0]} for name in others}
    for changed, says in (
        ({"seeds": [1, 3]}, "another seeds"),
        ({"losses": {}}, "lacks normal"),
        ({"diverged": ["x"]}, "diverged"),
    ):
        with pytest.raises(SystemExit, match=says):
            bench.known_losses(record | changed, size, [bench.STEP])


@pytest.mark.slow
def test_a_quick_comparison_is_made_and_made_again_from_what_is_kept(corpus, tmp_path: Path, capsys):
    bench.main([str(tmp_path), str(corpus), "--quick"])
    record = read_json(tmp_path / "record.json")
    assert record["diverged"] == []
    assert set(record["losses"]["normal"]) == {"2", "4", "8"}
    assert set(record["losses"]["separate, top-2"]) == {"2"}
    runs = sorted(path.stat().st_mtime_ns for path in tmp_path.glob("runs/*/run.json"))
    assert len(runs) == 14
    bench.main([str(tmp_path), str(corpus), "--quick"])
    assert sorted(path.stat().st_mtime_ns for path in tmp_path.glob("runs/*/run.json")) == runs
    assert "dial by layer" in capsys.readouterr().out
