"""The arithmetic of the benchmarks that turn parts off beside peers and on models of two domains, and their tables."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.four_costs_page import finding, picture
from benchmarks.memory_limit import STATUS, no_limit_here, status_bytes, under_limit
from benchmarks.process_memory import tree_peaks
from benchmarks.prune_findings import agreement_of, windows_of
from benchmarks.prune_findings_page import findings, over_seeds, verdict
from benchmarks.prune_peers import Pruned, compare_kept, of_answer, times_row
from benchmarks.split_speeds import replace_speeds
from sparsedial.pruning.speed import Speed
from sparsedial.records.evaluation import Joules
from sparsedial.records.prune import Quantiles
from sparsedial.store import write_json


def test_experts_that_one_keeps_alone_are_excused_by_equal_scores_only():
    scores = [[0.0, 1.0, 2.0, 2.00001, 5.0]]
    same = compare_kept([[2, 4]], [[2, 4]], scores)
    assert (same["different"], same["holds"]) == (0, True)
    near = compare_kept([[3, 4]], [[2, 4]], scores)
    assert (near["different"], near["holds"]) == (1, True)
    assert near["largest_gap_relative"] == pytest.approx(5e-6, rel=1e-3)
    far = compare_kept([[3, 4]], [[1, 4]], scores)
    assert (far["different"], far["holds"]) == (1, False)
    unreached = compare_kept([[0]], [[1]], [[0.0, 0.0]])
    assert (unreached["different"], unreached["holds"]) == (1, True)


def pruned(seconds: float, peak: int) -> Pruned:
    answer = {"seconds": seconds, "peak_bytes": peak, "kept": None}
    return of_answer(answer, {7: 99, 8: 5}, 7, seconds + 1, None, Path("out"))


def test_memory_counts_children_and_ratios_are_ours_over_theirs_turn_by_turn():
    found = times_row([(pruned(1.0, 5), pruned(2.0, 15)), (pruned(3.0, 5), pruned(4.0, 15))])
    assert found["peak_bytes_ours"] == 10
    assert found["peak_bytes_ratio"] == {"median": 0.5, "low": 0.5, "high": 0.5}
    assert found["seconds_ratio"] == {"median": 0.625, "low": 0.5, "high": 0.75}
    assert found["turns"] == 2


def test_the_memory_of_a_process_and_its_children_is_seen():
    child = "import time; held = bytearray(60_000_000); time.sleep(0.5)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    process = subprocess.Popen([sys.executable, "-c", parent], text=True)
    peaks = tree_peaks(process)
    assert peaks[process.pid] < 40e6
    assert max(peak for pid, peak in peaks.items() if pid != process.pid) > 60e6


def test_differences_over_seeds_have_the_interval_of_students_t():
    found = over_seeds([1.0, 2.0, 3.0])
    assert found["mean"] == 2.0
    assert found["high"] - 2.0 == pytest.approx(4.3027 / 3**0.5, rel=1e-4)
    assert over_seeds([1.0])["low"] is None


@pytest.mark.parametrize(
    ("low", "high", "said"), [(0.1, 0.3, "yes"), (-0.3, -0.1, "no, the other way round"), (-0.1, 0.3, "not resolved")]
)
def test_an_answer_needs_the_whole_interval(low, high, said):
    assert verdict({"mean": 0.0, "low": low, "high": high}) == said


def row(seed: str, method: str, loss: float, agreement: float = 0.5, calibration: str = "both") -> dict:
    losses = {"prose": loss, "code": loss + 1}
    facts = {"seed": seed, "checkpoint": seed, "calibration": calibration, "method": method, "keep": 0.5}
    return {**facts, "loss": losses, "agreement": agreement}


def test_findings_are_paired_over_seeds_and_chance_is_the_mean_of_its_draws():
    rows = [
        row("a", "reap", 2.0),
        row("b", "reap", 3.0),
        row("a", "hc-smoe", 2.5, 0.25),
        row("b", "hc-smoe", 3.7, 0.25),
    ]
    rows += [row("a", "random", 4.0), row("a", "random", 6.0)]
    rows += [row("a", "man", 1.0, calibration="code"), row("a", "reap", 2.0, calibration="code")]
    rows += [{**each, "keep": 0.75} for each in rows]
    found = findings(rows)
    assert found["hc-smoe above reap, keep 0.5"]["mean"] == pytest.approx(0.6)
    assert found["hc-smoe above reap, keep 0.5"]["seeds"] == 2
    assert found["hc-smoe above reap, agreement, keep 0.5"]["mean"] == -0.25
    assert found["random above reap, keep 0.5"] == {"mean": 3.0, "low": None, "high": None, "seeds": 1}
    assert found["man above reap on code, calibrated on code, keep 0.5"]["mean"] == -1.0
    assert "frequency above reap, keep 0.5" not in found


def test_agreement_ends_with_the_first_token_that_differs():
    assert agreement_of([[1, 2, 3, 4]], [[1, 2, 9, 4]]) == 0.5
    assert agreement_of([[1, 2], [3, 4]], [[1, 2], [9, 4]]) == 0.5


def test_windows_are_evenly_spread_and_do_not_overlap():
    windows_WS1 = windows_of(np.arange(101), 10, 50)
    assert windows_WS1.shape == (5, 11)
    assert windows_WS1[:, 0].tolist() == [0, 20, 40, 60, 80]


def way(name: str, part: str, loss: float | None, rate: float, size: int) -> dict[str, Any]:
    return {
        "name": name,
        "part": part,
        "loss_increase": None if loss is None else {"mean": loss, "low": loss, "high": loss},
        "control_loss_increase": loss and 2 * loss,
        "decode_tokens_per_second": {"median": rate},
        "weight_bytes": size,
        "joules_per_token": {"joules": 1 / rate},
    }


def test_the_picture_of_the_four_costs_says_what_half_of_the_experts_saves(tmp_path):
    ways = [
        way("whole", "whole", None, 100, 4000),
        way("reap 50 %", "experts", 0.04, 110, 3000),
        way("k=3", "dial", 0.03, 150, 4000),
    ]
    assert finding(ways) == (
        "Half of the experts off saves 25 % of the memory and adds 0.040 nats;"
        " half as many for each token makes it 1.5 times as fast and adds 0.030"
    )
    models = {name: {"what": "dense", "ways": ways} for name in ("smollm2", "sparse", "study")}
    write_json(tmp_path / "record.json", {"models": models})
    drawn = picture(tmp_path / "record.json")
    assert drawn.startswith(b"<?xml")
    assert b"<!-- experts 50 % -->" in drawn, "a part is named to those who do not know its method"
    assert b"reap (experts)" in drawn


@pytest.mark.skipif(no_limit_here() is not None, reason=str(no_limit_here()))
def test_a_limit_on_memory_counts_what_is_allocated_and_not_what_is_mapped_to_be_read(tmp_path):
    """A process may allocate less than the limit leaves it, and no more; a file that it reads may be larger."""
    (tmp_path / "large").touch()
    os.truncate(tmp_path / "large", 400_000_000)
    bare = under_limit([sys.executable, "-c", f"import mmap; {STATUS}"], None)
    limit = status_bytes(bare.stdout, "VmData") + 100_000_000
    assert limit < 200_000_000
    file = f"os.open({str(tmp_path / 'large')!r}, os.O_RDONLY)"
    read = f"import mmap, os; mmap.mmap({file}, 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)[-9:]"
    for code, fails in (("bytes(50_000_000)", False), ("bytes(150_000_000)", True), (read, False)):
        done = under_limit([sys.executable, "-c", code], limit)
        assert ("MemoryError" in done.stderr, bool(done.returncode)) == (fails, fails), code


def test_speeds_that_are_measured_again_leave_the_losses():
    joules = Joules(joules=0.5, basis="estimated", source="stated", low=0.4, high=0.6)
    rate = Quantiles(median=20.0, p10=19.0, p90=21.0, count=5)
    costs: dict[str, Any] = {"loss": 1.5, "decode_tokens_per_second": {"median": 1.0}, "weight_bytes": 7}
    replace_speeds(costs, Speed(prefill=rate, decode=rate, joules_per_token=joules, peak_memory_bytes=None))
    assert (costs["loss"], costs["weight_bytes"]) == (1.5, 7)
    assert costs["decode_tokens_per_second"] == {"median": 20.0, "p10": 19.0, "p90": 21.0, "count": 5}
    assert costs["joules_per_token"]["joules"] == 0.5
