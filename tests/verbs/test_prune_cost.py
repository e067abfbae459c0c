"""`prune --dry-run` and `dial --measure --dry-run`: what they say is what the same command then does, and nothing is
written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from msgspec.structs import replace

import sparsedial
from sparsedial.cli.main import main
from sparsedial.cli.prune_cost_table import prune_dry_table
from sparsedial.errors import UserError
from sparsedial.records.dry_run import DialDryRun, PruneDryRun
from tests.cli.wide import too_wide
from tests.pruning.planted import saved, with_clusters, with_dead_experts
from tests.records.held import of_values
from tests.verbs.test_prune import prune

pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return saved(with_dead_experts("softmax", (1, 3, 4, 6)), tmp_path / "whole")


def files(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


@pytest.mark.parametrize("target", [{"keep": 0.5}, {"keep": 0.5, "method": "random"}, {"keep": None, "memory": "40kB"}])
def test_it_says_what_the_same_command_then_does(checkpoint, text, target):
    before = files(checkpoint.parent)
    cost = prune(checkpoint, text, dry_run=True, **target)
    assert isinstance(cost, PruneDryRun)
    assert files(checkpoint.parent) == before
    answer = prune(checkpoint, text, **target)
    assert cost.keep == pytest.approx(answer.keep, abs=0.1)
    assert (cost.total_parameters, cost.active_parameters) == (
        answer.before.total_parameters, answer.before.active_parameters
    )  # fmt: skip
    assert cost.left_total_parameters == answer.after.total_parameters
    assert cost.left_active_parameters == answer.after.active_parameters
    assert cost.disk_bytes == answer.after.weight_bytes
    assert cost.calibration_tokens == answer.calibration.tokens
    assert cost.scored_tokens == sum(loss.tokens for loss in answer.before.loss.values())
    assert cost.choices == 1 + (answer.control_draws if answer.control else 0)
    assert cost.memory_bytes >= 4 * cost.total_parameters
    assert cost.seconds > 0


def test_what_a_search_leaves_is_not_known_and_its_steps_count(checkpoint, text):
    cost = prune(checkpoint, text, keep=None, max_loss_increase=0.05, dry_run=True)
    assert (cost.keep, cost.left_total_parameters, cost.disk_bytes) == (None, None, None)
    assert "shares are tried" in cost.left_reason
    assert cost.search_steps == 3, "seven numbers of experts can stay"


def test_a_comparison_counts_all_of_its_choices(checkpoint, text, tmp_path):
    settings = {"keep": None, "compare": ("reap", "frequency"), "strengths": (0.75, 0.5)}
    cost = prune(checkpoint, text, dry_run=True, **settings)
    assert cost.choices == 2 * 2 + 2 * 3, "a random choice of each share thrice"
    assert "keeps no checkpoint" in cost.left_reason
    assert cost.memory_bytes > prune(checkpoint, text, dry_run=True).memory_bytes


def test_a_layer_at_a_time_takes_little_memory(checkpoint, text):
    cost = prune(checkpoint, text, layer_by_layer=True, dry_run=True)
    assert cost.memory_bytes is None
    assert "one layer" in cost.memory_bytes_reason


def test_a_division_leaves_all_and_adds_routers(text, tmp_path):
    dense = saved(with_clusters()[0], tmp_path / "dense")
    asked = {"split_experts": 8, "always": 1, "calibrate": text, "out": tmp_path / "split"}
    cost = sparsedial.prune(dense, dry_run=True, **asked)
    assert not (tmp_path / "split").exists()
    answer = sparsedial.prune(dense, **asked)
    assert cost.left_total_parameters == answer.after.total_parameters
    assert cost.left_active_parameters == answer.after.active_parameters
    assert cost.disk_bytes == answer.after.weight_bytes
    assert cost.choices == len(answer.dial) + 2, "a random division and a removal are scored too"
    assert cost.calibration_tokens == answer.calibration.tokens


def test_it_is_refused_where_it_is_not_known(checkpoint, text, tmp_path):
    for other in ({"join_experts": True}, {"fix_setting": "k=1"}):
        with pytest.raises(UserError, match="goes without"):
            prune(checkpoint, text, **{"keep": None, "calibrate": (), **other}, dry_run=True)
    (checkpoint.parent / "smaller").mkdir()
    (checkpoint.parent / "smaller" / "mine").touch()
    with pytest.raises(UserError):
        prune(checkpoint, text, dry_run=True)


def test_the_tables_and_the_json_of_both(checkpoint, text, tmp_path, capsys):
    words = [
        "prune",
        str(checkpoint),
        "--keep",
        "0.5",
        "--calibrate",
        text,
        "--out",
        str(tmp_path / "out"),
        "--dry-run",
    ]
    assert main(words) == 0
    said = capsys.readouterr().out
    for part in ("what stays  0.5: ", "score the original and 4 choices", "time        about", "memory", "disk"):
        assert part in said
    assert main([*words, "--json"]) == 0
    cost = of_values(json.loads(capsys.readouterr().out), PruneDryRun)
    assert cost.keep == 0.5
    assert "what stays  all: " in prune_dry_table(replace(cost, keep=1.0))
    assert not too_wide(cost)
    dial = ["dial", str(checkpoint), "--measure", "--text", text, "--dry-run"]
    assert main(dial) == 0
    said = capsys.readouterr().out
    assert "k=2, k=1" in said
    assert main([*dial, "--json"]) == 0
    measured = of_values(json.loads(capsys.readouterr().out), DialDryRun)
    assert measured.scored_tokens > 0
    assert not too_wide(measured)


def test_the_cost_of_a_dial_is_that_of_its_measurement(checkpoint, text):
    before = files(checkpoint)
    cost = sparsedial.dial(str(checkpoint), measure=True, text=text, dry_run=True)
    assert files(checkpoint) == before
    found = sparsedial.dial(str(checkpoint), measure=True, text=text)
    assert cost.settings == tuple(point.setting.name for point in found.settings)
    (loss,) = found.settings[0].costs.loss.values()
    assert cost.scored_tokens == loss.tokens
    assert cost.calibration_tokens == 0
    assert cost.active_parameters == found.settings[0].costs.active_parameters
    with pytest.raises(UserError, match="is for measuring"):
        sparsedial.dial(str(checkpoint), dry_run=True)
