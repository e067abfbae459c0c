"""The trainers themselves read what was written for them, and build and train what it says.

This needs torchtitan or Megatron-LM (a checkout on PYTHONPATH), and skips without.
"""

from __future__ import annotations

import importlib
import sys
import typing
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import sparsedial
from sparsedial.planning.export.hugging_face import hugging_face
from sparsedial.planning.export.megatron import megatron
from sparsedial.planning.export.torchtitan import torchtitan
from sparsedial.shape.counts import total_parameters
from sparsedial.shape.shape import Shape
from tests.planning.test_export import EVERY_SHAPE, RECIPE, SHAPES, recipe


@pytest.fixture
def titan_plan(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A function that writes a shape for torchtitan, and gives what its parser makes of the file."""
    pytest.importorskip("torchtitan.trainer", reason="torchtitan is not on PYTHONPATH", exc_type=ImportError)

    def load(shape: Shape) -> Any:
        for item in (torchtitan(shape, recipe()), hugging_face(shape, recipe())):
            (tmp_path / item.file).write_text(item.text)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "torchtitan_plan", raising=False)
        return (
            importlib.import_module("torchtitan.config")
            .ConfigManager()
            .parse_args(["--module", "torchtitan_plan", "--config", "plan"])
        )

    return load


@EVERY_SHAPE
@pytest.mark.filterwarnings("ignore")
def test_torchtitan_reads_the_plan_and_builds_as_many_parameters(shape, titan_plan):
    import torch

    config = titan_plan(shape)
    config.model_spec.model.update_from_config(config=config)
    with torch.device("meta"):
        model = config.model_spec.model.build()
    assert sum(parameter.numel() for parameter in model.parameters()) == total_parameters(shape)
    assert config.training.num_tokens_per_train_step == RECIPE.batch * RECIPE.context


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "name", ["dense", "dense without norms of heads", "sparse", "a first dense layer", "softmax gates"]
)
def test_torchtitan_trains_by_the_recipe_and_its_weights_mean_the_same_to_us(
    name, titan_plan, tmp_path: Path, monkeypatch
):
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    config = titan_plan(SHAPES[name])
    _on_cpu(monkeypatch)
    model = config.model_spec.model.build()
    model.init_states(buffer_device=torch.device("cpu"))
    _away_from_one(model)
    optimizers = config.optimizer.build(model_parts=[model])
    decayed = {
        id(item)
        for each in optimizers
        for group in each.param_groups
        if group["weight_decay"]
        for item in group["params"]
    }
    assert decayed == {id(item) for item in model.parameters() if item.dim() > 1}
    rates = config.lr_scheduler.build(optimizers=optimizers, training_steps=config.training.steps).schedulers[0]
    for step in range(RECIPE.steps):
        assert rates.get_last_lr()[0] == pytest.approx(RECIPE.rate(step))
        rates.optimizer.step()
        rates.step()

    weights = config.model_spec.state_dict_adapter(config.model_spec.model, None).to_hf(dict(model.state_dict()))
    save_file({key: value.contiguous().clone() for key, value in weights.items()}, tmp_path / "model.safetensors")
    ids, positions = torch.randint(0, 200, (1, 64)), torch.arange(64)
    with torch.no_grad():
        theirs = model.eval()(ids[0], positions, model.get_attention_masks(positions))
        ours = sparsedial.load(str(tmp_path))(ids)[0]
    torch.testing.assert_close(theirs, ours, atol=2e-5, rtol=0)  # float32; logits have a spread of one half


def _on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attention uncompiled, and experts in float32 instead of the bfloat16 of a GPU's grouped product."""
    import torch
    from torch.nn.attention.flex_attention import flex_attention

    attention = importlib.import_module("torchtitan.models.common.attention").FlexAttention
    experts = importlib.import_module("torchtitan.models.common.moe").GroupedExperts

    def forward(self: Any, x_RD: Any, rows_E: Any) -> Any:
        parts = zip(x_RD.split(rows_E.tolist()), self.w1_EFD, self.w3_EFD, self.w2_EDF, strict=True)
        return torch.cat([(torch.nn.functional.silu(x @ w1.T) * (x @ w3.T)) @ w2.T for x, w1, w3, w2 in parts])

    monkeypatch.setattr(attention, "_compiled_flex_attn", staticmethod(flex_attention))
    monkeypatch.setattr(experts, "forward", forward)


def _away_from_one(model: Any) -> None:
    """Norms and routing biases that are not all alike, so that a lost one shows."""
    for name, value in (*model.named_parameters(), *model.named_buffers()):
        if "norm" in name:
            value.data.uniform_(0.5, 1.5)
        elif "expert_bias" in name:
            value.uniform_(-0.2, 0.2)


@pytest.fixture
def megatron_args(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """A function that gives what Megatron-LM makes of a shape's arguments, on one process without a GPU."""
    monkeypatch.setattr(typing, "override", lambda method: method, raising=False)  # all that it needs of Python 3.12
    reason = "Megatron-LM is not on PYTHONPATH"
    arguments = pytest.importorskip("megatron.training.arguments", reason=reason, exc_type=ImportError)
    import torch

    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (9, 0))
    monkeypatch.setattr(torch.cuda, "current_device", lambda: torch.device("cpu"))
    for name, value in {"WORLD_SIZE": "1", "RANK": "0", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)

    def parse(shape: Shape) -> Any:
        local = "--transformer-impl local --use-cpu-initialization --no-persist-layer-norm --no-rope-fusion"
        local += " --no-gradient-accumulation-fusion --no-masked-softmax-fusion --no-bias-swiglu-fusion"
        monkeypatch.setattr(sys, "argv", ["", *megatron(shape, recipe()).text.split(), *local.split()])
        return arguments.validate_args(arguments.parse_args())

    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", world_size=1, rank=0)
    states = importlib.import_module("megatron.core.parallel_state")
    states.initialize_model_parallel()
    yield parse
    states.destroy_model_parallel()
    torch.distributed.destroy_process_group()


@EVERY_SHAPE
@pytest.mark.filterwarnings("ignore")
def test_megatron_reads_the_arguments_and_builds_as_many_parameters(shape, megatron_args, monkeypatch):
    args = megatron_args(shape)
    args.moe_grouped_gemm = False  # its grouped product needs Transformer Engine
    build = importlib.import_module("gpt_builders").gpt_builder
    config = importlib.import_module("megatron.training.argument_utils").core_transformer_config_from_args(args)
    assert sum(item.numel() for item in build(args, True, True, config=config).parameters()) == total_parameters(shape)
    training: ModuleType = importlib.import_module("megatron.training.training")
    monkeypatch.setattr(training, "get_args", lambda: args)

    class Optimizer:
        param_groups = [{"lr": 0.0, "weight_decay": 0.0}]  # noqa: RUF012

    rates = training.get_optimizer_param_scheduler(Optimizer)
    for step in range(RECIPE.steps):
        late = RECIPE.learning_rate * step / 10  # its warm-up of ten steps begins at 0
        assert Optimizer.param_groups[0]["lr"] == pytest.approx(late if step < 10 else RECIPE.rate(step))
        rates.step(args.global_batch_size)
