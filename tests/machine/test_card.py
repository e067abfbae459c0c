"""A study's steps follow from the card, and its budgets from its time per step."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from msgspec.structs import replace as with_fields

from sparsedial.errors import UserError
from sparsedial.machine.card import Card, batch_for
from sparsedial.machine.profile import FEATURES
from sparsedial.runs import devices
from sparsedial.sweep.design import design
from sparsedial.sweep.layout import Layout
from sparsedial.verbs.study_settings import StudySettings
from tests.sweep.simulation import PROFILE, asked

H100 = Card(memory_bytes=80e9, processors=132, capability=(9, 0))


@pytest.mark.parametrize(
    ("card", "context", "batch"),
    [
        (H100, 256, 64),
        (Card(memory_bytes=80e9, processors=108, capability=(8, 0)), 128, 64),  # A100
        (Card(memory_bytes=24e9, processors=128, capability=(8, 9)), 256, 64),  # RTX 4090
        (Card(memory_bytes=16e9, processors=40, capability=(7, 5)), 64, 16),  # T4: no bfloat16 products
        (Card(memory_bytes=8e9, processors=128, capability=(8, 9)), 128, 32),  # memory for half the tokens
        (Card(memory_bytes=2e9, processors=6, capability=(8, 6)), 64, 16),
        (Card(memory_bytes=180e9, processors=148, capability=(10, 0)), 256, 64),
    ],
)
def test_context_and_batch_follow_from_the_card(card, context, batch):
    assert (card.context, batch_for(card, card.context)) == (context, batch)


@pytest.mark.parametrize("given", [None, "1"])
def test_a_gpu_has_a_queue_for_each_stream_unless_another_number_is_given(monkeypatch, given):
    name, most = devices.QUEUES
    monkeypatch.setattr(devices.os, "environ", {} if given is None else {name: given})
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert (devices.pick_device("cpu"), devices.os.environ.get(name)) == ("cpu", given)
    assert (devices.pick_device("auto"), devices.os.environ.get(name)) == ("cuda", given or most)


def test_a_study_takes_them_unless_others_are_asked_for(monkeypatch):
    found = SimpleNamespace(total_memory=80e9, multi_processor_count=132, major=9, minor=0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: found)
    assert devices.card_of("cuda") == H100
    for asked_for, context, batch in (({}, 256, 64), ({"context": 128}, 128, 128), ({"batch": 8}, 256, 8)):
        inputs = StudySettings(device="cuda", **asked_for).question().inputs
        assert (inputs.context, inputs.batch) == (context, batch)
    assert StudySettings(device="cuda").question().at_once == (1, 2, 4, 8)
    assert StudySettings(device="cuda", workers=5).question().at_once == (5,)
    inputs = StudySettings(device="cpu").question().inputs
    assert (inputs.context, inputs.batch) == (None, 16)


def laid(seconds: float, step_seconds: float) -> Layout:
    """What a study lays on a GPU whose smallest steps take so long, all else as an H100 at 60 TFLOP/s."""
    per_flop = {"dense_flops": 1 / 60e12, "expert_flops": 1.5 / 60e12, "parameters": 30 / 3e12}
    times = {"step": 0.3 * step_seconds, "layers": 0.35 * step_seconds}
    profile = with_fields(PROFILE, coefficients=dict.fromkeys(FEATURES, 0.0) | times | per_flop)
    levels = (0.0, 0.75, 0.875, 0.9375)
    question = asked(time=seconds, device="cuda", context=256, batch=64, sparsities=levels)
    question = replace(question, workers=1)

    def measure(shapes, batch, context, _):
        assert (max(shape.d_model for shape in shapes), batch, context) == (256, 64, 256)
        return profile

    return design(question, 256, measure, lambda: 30.0)[0]


@pytest.mark.parametrize(("seconds", "step_ms", "least_flops"), [(150, 1.0, 1e11), (300, 1.0, 2e13), (300, 0.3, 1e14)])
def test_the_budgets_that_a_replayed_step_allows(seconds, step_ms, least_flops):
    layout = laid(seconds, step_ms / 1e3)
    assert layout.budgets[-1] >= least_flops
    assert len(layout.cells) >= 36


def test_without_replay_a_step_of_15_ms_refuses_five_minutes():
    with pytest.raises(UserError, match="too short"):
        laid(300, 15e-3)
