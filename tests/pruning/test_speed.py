"""How fast checkpoints are, and how much memory they take: by the count of tokens and in a process of their own."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from sparsedial.errors import UserError
from sparsedial.machine.energy import StatedPower
from sparsedial.machine.timing import Timing
from sparsedial.model.decoder import Decoder
from sparsedial.pruning import speed
from sparsedial.pruning.windows import Windows
from sparsedial.records.text import SkippedLines
from sparsedial.shape.turned import Turned
from sparsedial.verbs.checkpoint_costs import costs_of
from tests.pruning.planted import saved, with_domains


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(speed, "ROUNDS", 2)
    monkeypatch.setattr(speed, "ROUND_SECONDS", 0.0)
    monkeypatch.setattr(speed, "ENERGY_SECONDS", 0.0)
    monkeypatch.setattr(speed, "peak_memory", lambda place, threads: 1)


def test_a_rate_is_tokens_over_seconds_and_its_low_end_comes_from_the_slow_calls():
    timing = Timing(median_seconds=2.0, low_seconds=1.0, high_seconds=4.0, mean_seconds=2.3, count=7)
    rate = speed._rate(timing, 8)
    assert (rate.median, rate.p10, rate.p90, rate.count) == (4.0, 2.0, 8.0, 7)


def test_every_call_reads_or_writes_as_many_tokens_as_it_counts(quick, monkeypatch):
    read, written = [], []
    monkeypatch.setattr(Decoder, "read", lambda self, ids, *_: read.append(len(ids[0])))
    monkeypatch.setattr(Decoder, "step", lambda self, ids, *_: written.append(len(ids)))
    speed.speeds_of({Path("one"): with_domains()}, speed.Place)
    assert set(read) == {32, 16}, "the context, and what stands before the written tokens"
    assert len(written) % 16 == 0


def test_it_is_the_text_that_is_read_and_written(quick, monkeypatch):
    """Which experts and neurons take part depends on it; a text that is too short comes again."""
    read, written, ids_WS1 = [], [], np.arange(22).reshape(2, 11)
    windows = Windows(source="", digest="", skipped=SkippedLines(lines=0, named=()), ids_WS1=ids_WS1, bytes_W=None)
    text = speed.timed_ids(windows)
    assert text == [*range(1, 11), *range(12, 22)]
    monkeypatch.setattr(Decoder, "read", lambda self, ids, *_: read.append(ids[0]))
    monkeypatch.setattr(Decoder, "step", lambda self, ids, *_: written.append(ids[0]))
    speed.speeds_of({Path("one"): with_domains()}, speed.Place, text)
    again = [*text, *text[:12]]
    assert next(ids for ids in read if len(ids) == 32) == again
    assert next(ids for ids in read if len(ids) == 16) == again[:16]
    assert written[:16] == again[16:]


def test_a_slower_model_is_slower_by_the_measure(quick, monkeypatch):
    model, slow = with_domains(), with_domains()
    stream = slow.stream
    monkeypatch.setattr(slow, "stream", lambda *given: (time.sleep(0.05), stream(*given))[1])
    found = speed.speeds_of({Path("one"): model, Path("slow"): slow}, speed.Place)
    assert found[Path("slow")].prefill.median < found[Path("one")].prefill.median
    assert found[Path("one")].joules_per_token.joules > 0


def test_energy_of_stated_watts_has_the_range_of_the_time(quick, monkeypatch):
    monkeypatch.setattr(speed, "processor_meter", lambda *_: StatedPower(watts=2.0, source="stated"))
    (found,) = speed.speeds_of({Path("one"): with_domains()}, speed.Place).values()
    energy, rate = found.joules_per_token, found.decode
    assert (energy.joules, energy.low, energy.high) == pytest.approx((2 / rate.median, 2 / rate.p90, 2 / rate.p10))


def test_where_the_process_that_measures_memory_is_killed_all_else_is_there(quick, monkeypatch):
    def killed(place: speed.Place, threads: int) -> int:
        raise UserError("the process that measures memory was killed")

    monkeypatch.setattr(speed, "peak_memory", killed)
    (found,) = speed.speeds_of({Path("one"): with_domains()}, speed.Place).values()
    assert (found.peak_memory_bytes, found.why_no_peak) == (None, "the process that measures memory was killed")
    assert found.decode.median > 0
    costs = costs_of(with_domains().shape, 1, {}, speed=found)
    assert costs.peak_memory_bytes_reason == found.why_no_peak


def test_memory_is_that_of_a_process_of_its_own(tmp_path):
    """It holds PyTorch, and the model is small beside it."""
    assert 5e7 < speed.peak_memory(speed.Place(saved(with_domains(), tmp_path / "c"), Turned(top_k=(1,))), 1) < 1.5e9
