"""A study's steps follow from the card, and its budgets from its time per step."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from msgspec.structs import replace as with_fields

from sparsedial.errors import UserError
from sparsedial.kernels.metering import meter
from sparsedial.kernels.triton_descriptors import readable
from sparsedial.kernels.triton_tiles import SMALL, WIDE, capability_of, tiles_for
from sparsedial.machine.card import Card, batch_for
from sparsedial.machine.energy import StatedPower
from sparsedial.machine.profile import FEATURES
from sparsedial.runs import devices
from sparsedial.runs.timed import study_recipe
from sparsedial.sweep.design import (
    PROFILE_LEAST,
    PROFILE_MOST,
    _draft,
    card_widths,
    design,
    profile_seconds,
    profile_shapes,
)
from sparsedial.sweep.layout import Layout
from sparsedial.verbs.study.settings import StudySettings
from tests.sweep.simulation import H100, PROFILE, asked


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
    assert StudySettings(device="cuda").question().card == H100
    assert StudySettings(device="cpu").question().card is None
    inputs = StudySettings(device="cpu").question().inputs
    assert (inputs.context, inputs.batch) == (None, 16)


T4 = Card(memory_bytes=16e9, processors=40, capability=(7, 5))
MI300X = Card(memory_bytes=192e9, processors=304, capability=None)


@pytest.mark.parametrize(
    ("card", "asked_for", "widths"),
    [
        (H100, {"time": 600.0}, (32, 64, 128, 256)),
        (H100, {"time": 10 * 3600.0}, (32, 96, 256, 768)),
        (T4, {"time": 600.0}, (32, 48, 96, 128)),
        (T4, {"time": 60.0}, (32, 48, 64, 96)),
        (MI300X, {"time": 600.0}, (32, 64, 128, 256)),
        (T4, {"budgets": (1e15, 1e16)}, (32, 96, 192, 512)),  # as on any card
    ],
)
def test_the_widths_that_are_timed_follow_from_the_card_and_what_is_asked(card, asked_for, widths):
    question = replace(asked(device="cuda", context=card.context, **asked_for), card=card)
    assert card_widths(card, question) == widths
    timed = [shape.d_model for shape in profile_shapes(question, _draft(question, 256))]
    assert {*timed} == {48, *widths}


def test_stated_budgets_are_not_timed_as_long_as_a_cores():
    """A largest cell of 1e14 FLOPs takes an H100 about two seconds, and a core more than an hour."""
    assert profile_seconds(asked(device="cuda", budgets=(1e13, 1e14))) == PROFILE_LEAST
    assert profile_seconds(asked(device="cpu", budgets=(1e13, 1e14))) == PROFILE_MOST


@pytest.fixture
def amd(monkeypatch) -> None:
    """PyTorch's ROCm build with an MI300X, whose numbers look like a compute capability."""
    found = SimpleNamespace(
        name="AMD Instinct MI300X", uuid="00", total_memory=192e9, multi_processor_count=304, major=7, minor=4
    )
    monkeypatch.setattr(torch.version, "hip", "7.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (7, 4))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: found)
    monkeypatch.setattr(torch.Tensor, "is_cuda", True)


@pytest.mark.usefixtures("amd")
def test_a_card_of_amd_is_taken_as_it_is():
    """Its types, its steps, its tiles and its watts; nothing takes its numbers for NVIDIA's, or asks NVML."""
    assert devices.pick_device("auto") == "cuda"
    assert devices.training_dtype("cuda") == "bfloat16"
    assert devices.card_of("cuda") == MI300X
    assert (MI300X.context, batch_for(MI300X, MI300X.context)) == (256, 64)
    weights = torch.empty(8, 1024, 2048, device="meta", dtype=torch.bfloat16)
    assert capability_of(weights.device) is None
    assert tiles_for(None, 1e15) == SMALL
    assert readable(weights, WIDE, turned=False) is weights
    power = meter("cuda")
    assert isinstance(power, StatedPower)
    assert power.watts == 750
    assert "nvidia" not in power.source.lower()
    inputs = StudySettings(device="cuda").question().inputs
    assert (inputs.context, inputs.batch) == (256, 64)


@pytest.mark.parametrize(("capability", "dtype"), [((7, 5), "float32"), ((8, 0), "bfloat16"), ((12, 0), "bfloat16")])
def test_a_card_without_bfloat16_products_trains_in_float32(monkeypatch, capability, dtype):
    """There the compiler makes them of many single ones, with registers in memory."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: capability)
    assert devices.training_dtype("cuda") == dtype
    assert study_recipe(8, 32, "cuda").dtype == dtype
    assert devices.training_dtype("cpu") == "float32"


def laid(seconds: float, step_seconds: float) -> Layout:
    """What a study lays on a GPU whose smallest steps take so long, all else as an H100 at 60 TFLOP/s."""
    per_flop = {"dense_flops": 1 / 60e12, "expert_flops": 1.5 / 60e12, "parameters": 30 / 3e12}
    times = {"step": 0.3 * step_seconds, "layers": 0.35 * step_seconds}
    profile = with_fields(PROFILE, coefficients=dict.fromkeys(FEATURES, 0.0) | times | per_flop)
    levels = (0.0, 0.75, 0.875, 0.9375)
    question = asked(time=seconds, device="cuda", context=256, batch=64, sparsities=levels)
    question = replace(question, workers=1)

    def measure(shapes, batch, context, _):
        assert (max(shape.d_model for shape in shapes), batch, context) == (192 if seconds < 200 else 256, 64, 256)
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
