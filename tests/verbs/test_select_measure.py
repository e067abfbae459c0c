"""`select --measure` as a user runs it: the effect, the table, going on after a stop, what it would cost, bad input."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import sparsedial
from sparsedial.cli.main import main
from sparsedial.machine.hardware import usable_cores
from sparsedial.records.dry_run import EffectDryRun
from sparsedial.records.record import read
from sparsedial.records.run import Run
from sparsedial.records.selection import Selected
from sparsedial.runs.in_process import InProcess
from sparsedial.selection import reference
from sparsedial.sweep import effect_design
from sparsedial.sweep.budgets import PROBE_SECONDS
from sparsedial.text.prepare import open_text, prepare
from sparsedial.verbs.select import effect_cost, measured_effect
from tests.records.held import of_file, of_values
from tests.selection.planted import prose
from tests.sweep.simulation import PROFILE

SMALL = ("--measure", "--budgets", "2e9,6e9", "--workers", "2", "--device", "cpu")


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two domains of made-up prose, about 150 kB."""
    folder = tmp_path_factory.mktemp("measured") / "text"
    for number, name in enumerate(("code", "prose")):
        (folder / name).mkdir(parents=True)
        for at in range(80):
            (folder / name / f"{at:02}.txt").write_text(" ".join(prose(at + 1000 * number, 200)))
    return folder


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of few steps, on a machine that need not be measured."""
    monkeypatch.setattr(effect_design, "LEAST_STEPS", 20)
    monkeypatch.setattr(measured_effect, "measured_machine", lambda device, vocab_size, report: PROFILE)


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs in this process: workers would take longer to start than to train."""

    monkeypatch.setattr(
        measured_effect, "executor_for", lambda device, text, store, workers, pool: InProcess(text=text, store=store)
    )


def words(text: Path, out: Path, *more: str, keep: float | None = 0.5, seeds: int = 2) -> list[str]:
    share = [] if keep is None else ["--keep", str(keep)]
    return ["select", str(text), *share, "--out", str(out), *SMALL, "--seeds", str(seeds), *more]


def test_the_effect_is_measured_on_held_out_text_and_written(text, tmp_path, capsys):
    out = tmp_path / "kept"
    assert main(words(text, out, "--json", "--probes", "20%")) == 0
    answer = of_values(json.loads(capsys.readouterr().out), Selected)
    assert of_file(out / "select.json", Selected) == answer
    effect = answer.effect
    assert effect is not None
    assert effect.budgets_flops == (2e9, 6e9)
    assert [(point.part, point.budget_flops) for point in effect.points] == [
        (part, budget) for part in ("kept", "random", "full") for budget in effect.budgets_flops
    ]
    for point in effect.points:
        assert point.diverged == 0
        assert point.flops <= point.budget_flops
        assert set(point.domains) == {"code", "prose"}
        assert set(point.probes) == {"arithmetic", "facts", "reading"}
        lowest, highest = sorted(one.mean for one in point.domains.values())
        assert lowest <= point.loss.mean <= highest
    texts = {part: open_text(out / "effect" / "texts" / part) for part in ("kept", "random", "full")}
    for one in texts.values():
        assert one.facts.probes.tokens / one.train_tokens == pytest.approx(0.2, abs=0.02)
    for split in ("validation", "test"):
        assert len({one.facts.splits.of(split).sha256 for one in texts.values()}) == 1
    for point in effect.points:
        assert point.repeats == pytest.approx(point.tokens / texts[point.part].train_tokens)
        runs = [read(out / "effect" / "runs" / name[:16] / "run.json", Run) for name in point.runs]
        assert [run.recipe.seed for run in runs] == [1, 2]
        assert {run.text_digest for run in runs} == {texts[point.part].digest}
        assert point.loss.mean == pytest.approx(sum(run.test_loss for run in runs) / 2)
    sizes = [texts[part].train_tokens for part in ("kept", "random")]
    assert abs(sizes[0] - sizes[1]) <= 1500
    assert effect.equal_total is None
    assert effect.random_digest == read(out / "effect" / "random" / "select.json", Selected).manifest.digest


@pytest.fixture(scope="module")
def stopped(text, tmp_path_factory) -> Path:
    """A selection whose measurement was stopped before its first run."""
    out = tmp_path_factory.mktemp("stopped") / "kept"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(effect_design, "LEAST_STEPS", 20)
        patch.setattr(measured_effect, "measured_machine", lambda device, vocab_size, report: PROFILE)

        def stop(*_):
            raise KeyboardInterrupt

        patch.setattr(measured_effect, "measure_effect", stop)
        assert main(words(text, out)) == 130
    return out


def test_the_same_command_goes_on(text, stopped, in_process, capsys):
    before = read(stopped / "select.json", Selected)
    assert before.effect is None
    assert main(words(text, stopped)) == 0
    said = capsys.readouterr().out
    for part in ("test loss", "kept", "random", "full", "2e9 FLOPs", "read 0.", "effect", "Nothing follows for other"):
        assert part in said
    done = read(stopped / "select.json", Selected)
    assert done.manifest == before.manifest
    assert done.effect is not None
    assert main(words(text, stopped, "--json")) == 0
    assert of_values(json.loads(capsys.readouterr().out), Selected) == done
    prepare((str(stopped),), folder=stopped.parent / "read")  # the folder is still a text


def error(asked: list[str], capsys) -> str:
    assert main(asked) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = [line for line in captured.err.splitlines() if line.startswith(("error: ", "hint: "))]
    assert len(lines) in (1, 2)
    assert "Traceback" not in captured.err
    return captured.err


def test_a_stopped_measurement_says_how_to_go_on(text, tmp_path, monkeypatch, capsys):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(measured_effect, "measure_effect", stop)
    assert main(words(text, tmp_path / "kept")) == 130
    assert "run the same command again to continue" in capsys.readouterr().err
    out = tmp_path / "kept"
    assert "holds a selection with keep=0.5, not 0.4" in error(words(text, out, keep=0.4), capsys)
    assert "holds a selection of another text" in error(words(text / "code", out), capsys)
    assert "holds a measurement with seeds=2, not 3" in error(words(text, out, seeds=3), capsys)
    assert "holds files" in error(["select", str(text), "--keep", "0.5", "--out", str(out)], capsys)


def test_what_it_would_cost_is_said_before_anything_is_written(text, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(effect_cost, "measured_machine", lambda device, vocab_size, report: PROFILE)
    asked = ["select", str(text), "--keep", "0.5", "--out", str(tmp_path / "kept"), "--measure", "--dry-run"]
    assert main([*asked, "--time", "10m", "--json"]) == 0
    cost = of_values(json.loads(capsys.readouterr().out), EffectDryRun)
    assert cost.runs == 3 * 2 * 5
    assert 60 < cost.seconds < 600
    assert main([*asked, "--time", "10m", "--json", "--probes", "8%"]) == 0
    probed = of_values(json.loads(capsys.readouterr().out), EffectDryRun)
    assert probed.budgets_flops == cost.budgets_flops
    assert probed.seconds > cost.seconds + 30 * PROBE_SECONDS / usable_cores()
    assert main([*asked, "--budgets", "1e11,4e11"]) == 0
    said = capsys.readouterr().out
    for part in ("30: 3 parts, 2 budgets, 5 seeds", "1e11 FLOPs", "4e11 FLOPs", "time", " min "):
        assert part in said
    assert not (tmp_path / "kept").exists()


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--time", "10m"], "--time: is a setting of a measurement"),
        (["--seeds", "4"], "--seeds: is a setting of a measurement"),
        (["--dry-run"], "--dry-run: is a setting of a measurement"),
        (["--probes", "8%"], "--probes: is a setting of a measurement"),
        (["--measure", "--seeds", "1"], "--seeds: 1 is too few for an interval"),
        (["--measure", "--budgets", "4e11,1e11"], "--budgets: needs two budgets in rising order"),
        (["--measure", "--budgets", "4e11"], "--budgets: needs two budgets in rising order"),
        (["--measure", "--time", "10m", "--budgets", "1e11,4e11"], "--time: contradicts budgets"),
        (["--measure", "--time", "soon"], "--time: cannot read 'soon'"),
        (["--quality", "gofer"], "did you mean 'gopher'?"),
        (["--side", "low"], "--side: score random has no sides"),
        (["--keep", "0.5", "--score", "reference-loss", "--side", "lo"], "did you mean 'low'?"),
        (["--score", "reference-loss"], "--score: chooses nothing without a share"),
        (["--keep-by", "domain"], "--keep-by: chooses nothing without a share"),
        (["--keep", "0.5", "--keep-by", "domains"], "did you mean 'domain'?"),
    ],
)
def test_bad_settings_are_refused(text, tmp_path, capsys, flags, says):
    assert says in error(["select", str(text), "--out", str(tmp_path / "kept"), *flags], capsys)
    assert not (tmp_path / "kept").exists()


def test_a_selection_that_leaves_out_nothing_has_no_effect(text, tmp_path, capsys):
    asked = words(text, tmp_path / "kept", keep=None)
    assert "nothing was left out, so there is no effect" in error(asked, capsys)
    assert read(tmp_path / "kept" / "select.json", Selected).effect is None


def test_a_part_too_small_to_train_on_is_refused(text, tmp_path, capsys):
    assert "too few for a batch" in error(words(text, tmp_path / "kept", keep=0.001), capsys)


def test_a_text_that_changed_since_is_named(text, tmp_path, capsys):
    own = tmp_path / "text"
    shutil.copytree(text, own)

    def stop(*_):
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measured_effect, "measure_effect", stop)
        assert main(words(own, tmp_path / "kept")) == 130
    capsys.readouterr()
    (own / "code" / "03.txt").write_text("another text " * 200)
    assert "code/03.txt was changed since it was selected from" in error(words(own, tmp_path / "kept"), capsys)


def test_a_score_of_a_model_is_measured_at_equal_total_flops_too(text, tmp_path, in_process, monkeypatch):
    for name, value in (("STEPS", 10), ("LEAST_STEPS", 10), ("SCORED_WINDOWS", 1), ("WIDTH", 12)):
        monkeypatch.setattr(reference, name, value)
    monkeypatch.setattr(effect_design, "LEAST_TOTAL_SHARE", 0.01)
    probe = sparsedial.select(text, out=tmp_path / "probe", keep=0.5, score="reference-loss", device="cpu", workers=1)
    cost = probe.reference.flops
    answer = sparsedial.select(
        text, out=tmp_path / "kept", keep=0.5, score="reference-loss", device="cpu", workers=2, measure=True,
        budgets=(1.2 * cost, 1.5 * cost), seeds=2,
    )  # fmt: skip
    effect = answer.effect
    assert effect is not None
    assert effect.equal_total is not None
    assert effect.equal_total.selection_flops == answer.reference.flops == cost
    for paid, whole in zip(effect.equal_total.points, effect.points, strict=False):
        assert paid.part == whole.part == "kept"
        assert paid.flops + cost <= paid.budget_flops
        assert paid.tokens < whole.tokens
