"""The benchmark of a dense model's shares of neurons: what it says is read, and its record."""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import pytest
import torch

import sparsedial
from benchmarks import gates
from sparsedial.model.transformer import initialise
from sparsedial.model.turned import at_setting
from sparsedial.pruning import speed
from sparsedial.pruning.gates import measured_gates
from sparsedial.shape.counts import active_parameters
from sparsedial.shape.turned import Turned
from tests.model.shapes import DENSE
from tests.pruning.planted import FIRST, SECOND, saved, text_of

SHAPE = replace(DENSE, vocab_size=256, context=128, d_ff=200)


def test_a_step_of_more_sequences_reads_more_neurons_and_all_without_a_share():
    model = initialise(SHAPE, 0).eval()
    ids = torch.randint(256, (8, gates.PROMPT + 8), generator=torch.Generator().manual_seed(0))
    half = at_setting(model, Turned(neurons=0.5), measured_gates(model, ids))
    alone, together = (sum(gates.shares_read(half, ids[:rows]).values()) / SHAPE.layers for rows in (1, 8))
    assert alone == pytest.approx(0.5, abs=0.1)
    assert together > alone + 0.2
    assert set(gates.shares_read(model, ids).values()) == {1.0}
    run = gates.Run(seconds=1.0, ids=ids[:1, -8:].tolist())
    prompts = ids[:1, : gates.PROMPT].tolist()
    whole, read = (gates.read_a_step(each, prompts, run) for each in (model, half))
    share = sum(gates.shares_read(half, ids[:1, :-1]).values()) / SHAPE.layers
    spared = active_parameters(SHAPE) - active_parameters(SHAPE, neurons=share)
    assert whole["bytes_a_step"] - read["bytes_a_step"] == pytest.approx(4 * spared, rel=1e-3)


def test_the_record_has_both_batches_with_the_loss_of_each_setting(tmp_path, monkeypatch):
    monkeypatch.setattr(speed, "ROUNDS", 1)
    for name in ("ROUND_SECONDS", "ENERGY_SECONDS"):
        monkeypatch.setattr(speed, name, 0.0)
    monkeypatch.setattr(speed, "alone", lambda call, *given: call(*given))
    folder = saved(initialise(SHAPE, 0).eval(), tmp_path / "c")
    text = text_of(tmp_path / "text.txt", FIRST, SECOND)
    sparsedial.dial(folder, measure=True, text=str(text), settings="neurons=0.5;neurons=0.5,skip=0")
    words = ["gates", str(folder), str(text), "--quick", "--threads", "1", "--out", str(tmp_path / "record.json")]
    monkeypatch.setattr(sys, "argv", words)
    gates.main()
    record = json.loads((tmp_path / "record.json").read_text())
    assert list(record["loss_increase"]) == ["default", "neurons=0.5"]
    assert [group["batch"] for group in record["groups"]] == [1, 8]
    for group in record["groups"]:
        default, half = group["rows"]
        assert default["times_fewer_bytes"] == 1 < half["times_fewer_bytes"]
        assert default["times_as_fast"]["value"] == pytest.approx(1)
