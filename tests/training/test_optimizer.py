"""The compiled AdamW is PyTorch's; Muon's updates are near orthogonal; rates follow the width where they are told."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from sparsedial.kernels import native
from sparsedial.model.transformer import initialise
from sparsedial.records.recipe import Recipe
from sparsedial.shape.ladder import Ladder
from sparsedial.training import muon, muon_together
from sparsedial.training.adamw import Together
from sparsedial.training.muon import Muon, orthogonal
from sparsedial.training.optimizer import (
    CompiledAdamW,
    clip_gradient,
    gradient_norm,
    hold_zeros,
    make_optimizers,
    norm_on_device,
    set_rate,
)
from sparsedial.training.resume import restore_state, training_state
from sparsedial.training.step import Rates, TrainingStep, read

RECIPE = Recipe(learning_rate=0.01, steps=40, batch=4, context=16)


def test_a_rank_that_owns_nothing_has_a_gradient_of_norm_zero():
    assert (gradient_norm([]), float(norm_on_device([]))) == (0.0, 0.0)
    clip_gradient([], 3.0, 1.0)  # by the others' norm


@pytest.mark.skipif(native.module is None, reason="installed without a C compiler")
@pytest.mark.parametrize(("threads", "late"), [(1, ""), (2, ""), (1, "blocks.0.")])  # without gradients in three steps
def test_compiled_adamw_equals_pytorchs(monkeypatch, threads, late):
    shape = Ladder(vocab_size=64, context=16).shape(16, 8)
    models = [initialise(shape, 0) for _ in range(2)]
    ours = make_optimizers(models[0], RECIPE)
    assert [type(optimizer) for optimizer in ours] == [CompiledAdamW]
    monkeypatch.setattr(native, "module", None)
    theirs = make_optimizers(models[1], RECIPE)
    assert [isinstance(optimizer, torch.optim.AdamW) for optimizer in theirs] == [True]
    monkeypatch.undo()
    make, before = torch.Generator().manual_seed(1), torch.get_num_threads()
    torch.set_num_threads(threads)
    for step in range(5):
        for (name, mine), other in zip(models[0].named_parameters(), models[1].parameters(), strict=True):
            gradient = torch.randn(mine.shape, generator=make)
            if not (late and name.startswith(late) and step < 3):
                mine.grad, other.grad = gradient.clone(), gradient.clone()
        set_rate([*ours, *theirs], 0.01 / (step + 1))
        for optimizer in (*ours, *theirs):
            optimizer.step()
    torch.set_num_threads(before)
    for (name, mine), other in zip(models[0].named_parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(mine, other, atol=1e-6, rtol=1e-5, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.skipif(native.module is None, reason="installed without a C compiler")
def test_parameters_are_sorted_by_their_steps_once_and_again_after_a_resume(monkeypatch):
    """After a resume from before a parameter's first gradient its steps are fewer than the others' again."""
    calls, sorting = [], Together.sorted
    monkeypatch.setattr(Together, "sorted", lambda counts: calls.append(len(counts)) or sorting(counts))
    shape = Ladder(vocab_size=64, context=16).shape(16, 8)
    model, twin = (initialise(shape, 0) for _ in range(2))
    ours = make_optimizers(model, RECIPE)
    with monkeypatch.context() as without:
        without.setattr(native, "module", None)
        theirs = make_optimizers(twin, RECIPE)
    make = torch.Generator().manual_seed(1)

    def steps(number: int, late: bool) -> None:
        for _ in range(number):
            for (name, mine), other in zip(model.named_parameters(), twin.parameters(), strict=True):
                gradient = torch.randn(mine.shape, generator=make)
                for parameter in (mine, other):
                    parameter.grad = None if late and name.startswith("blocks.0.") else gradient.clone()
            for optimizer in (*ours, *theirs):
                optimizer.step()

    def state() -> list[dict[str, torch.Tensor]]:
        return [{name: value.clone() for name, value in training_state(*one).items()} for one in both]

    both, groups = ((model, ours), (twin, theirs)), sum(len(optimizer.param_groups) for optimizer in ours)
    begun = state()
    steps(3, late=True)
    assert len(calls) == groups, "once for each group"
    stopped = state()
    for resumed in (begun, stopped):
        for (one, optimizers), held in zip(both, resumed, strict=True):
            restore_state(one, optimizers, held)
        steps(2, late=False)
    assert len(calls) == 3 * groups
    for (name, mine), other in zip(model.named_parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(mine, other, atol=1e-6, rtol=1e-5, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_weights_of_layers_that_are_zero_stay_zero_and_the_others_learn(optimizer):
    torch.manual_seed(0)  # a weight whose update is below its rounding would seem not to learn
    model = initialise(Ladder(vocab_size=64, context=16).shape(16, 8), 0)
    names = {name for name, weight in model.blocks.named_parameters() if weight.dim() >= 2}
    with torch.no_grad():
        model.embedding_VD[3] = 0
        for name in names:
            model.blocks.get_parameter(name).mul_(torch.rand(model.blocks.get_parameter(name).shape) > 0.5)
    before = {name: model.blocks.get_parameter(name).clone() for name in names}
    optimizers = make_optimizers(model, replace(RECIPE, optimizer=optimizer))
    hold_zeros(model, optimizers)
    for _ in range(3):
        for parameter in model.parameters():
            parameter.grad = torch.randn_like(parameter)
        for each in optimizers:
            each.step()
    for name, weight in before.items():
        after = model.blocks.get_parameter(name)
        assert (after[weight == 0] == 0).all(), name
        assert (after[weight != 0] != weight[weight != 0]).all(), name
    assert (model.embedding_VD[3] != 0).all(), "a table is no layer"


def _muon(sizes: dict[tuple[int, ...], tuple[int, ...]]) -> tuple[list[torch.nn.Parameter], Muon]:
    """Parameters of these sizes, whose matrices have these widths, and their optimizer."""
    make = torch.Generator().manual_seed(1)
    parameters = [torch.nn.Parameter(torch.randn(size, generator=make)) for size in sizes]
    widths = dict(zip(parameters, sizes.values(), strict=True))
    return parameters, Muon([{"params": parameters, "weight_decay": 0.1}], widths, RECIPE)


@pytest.mark.skipif(native.module is None, reason="installed without a C compiler")
@pytest.mark.parametrize("threads", [1, 2])
def test_compiled_muon_equals_its_twin(monkeypatch, threads):
    """Odd sizes, some of several panels, matrices side by side, experts, weight decay, one without a gradient."""
    sizes = {(7, 33): (16, 9, 8), (5, 24, 40): (20, 20), (300, 17): (17,), (20, 290): (290,), (2, 16, 16): (16,)}
    sizes |= {(4, 1): (1,), (48, 45): (45,), (2, 50, 300): (300,)}
    (mine, ours), (others, theirs) = _muon(sizes), _muon(sizes)
    make, before = torch.Generator().manual_seed(2), torch.get_num_threads()
    torch.set_num_threads(threads)
    for step in range(3):
        held = [parameter.detach().clone() for parameter in mine]
        for one, other in zip(mine, others, strict=True):
            gradient = torch.randn(*one.shape[:-2], one.shape[-1], one.shape[-2], generator=make).mT  # not contiguous
            one.grad = other.grad = None if step == 1 and one.shape == (2, 16, 16) else gradient
            other.data.copy_(one.data)
        with monkeypatch.context() as patch:
            patch.setattr(Muon, "_step_one", None)
            ours.step()
        with monkeypatch.context() as patch:
            patch.setattr(native, "module", None)
            theirs.step()
        for one, other, start in zip(mine, others, held, strict=True):
            torch.testing.assert_close(one - start, other - start, atol=2e-6, rtol=2e-3)
    torch.set_num_threads(before)


@pytest.mark.parametrize("most", [2**26, 700])  # values held at once: all of them, and less than most parameters
@pytest.mark.parametrize("found_inf", [0.0, 1.0])
def test_muons_matrices_of_one_size_go_together_and_each_moves_as_alone(monkeypatch, most, found_inf):
    """Equal parameters, matrices that lie turned or side by side, experts, one without a gradient; some of NaN."""
    monkeypatch.setattr(muon_together, "MOST_VALUES", most)
    monkeypatch.setattr(native, "module", None)
    sizes = [((7, 33), (16, 9, 8)), ((16, 7), (7,)), ((7, 16), (16,)), ((7, 33), (16, 9, 8)), ((3, 7, 32), (16, 16))]
    make = torch.Generator().manual_seed(1)
    mine, others = ([torch.nn.Parameter(torch.ones(size)) for size, _ in sizes] for _ in range(2))
    widths = [dict(zip(held, (width for _, width in sizes), strict=True)) for held in (mine, others)]
    ours, theirs = (Muon([{"params": list(held), "weight_decay": 0.1}], held, RECIPE) for held in widths)
    ours.grad_scale = torch.tensor(2.0)
    calls: list[torch.Size] = []
    monkeypatch.setattr(muon, "orthogonal", lambda x: calls.append(x.shape) or orthogonal(x))
    for step in range(3):
        ours.found_inf = torch.tensor(found_inf if step == 1 else 0.0)
        for one, other in zip(mine, others, strict=True):
            gradient = torch.randn(one.shape, generator=make)
            one.grad = gradient * float("nan") if ours.found_inf else gradient * 2
            other.grad = None if ours.found_inf else gradient
        mine[0].grad = others[0].grad = None
        calls.clear()
        ours.step()
        assert len(calls) == (3 if most > 700 else len(calls))  # 7 x 16, 7 x 9 and 7 x 8
        theirs.step()
    for one, other in zip(mine, others, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)
        for name, value in theirs.state[other].items():
            torch.testing.assert_close(ours.state[one][name], value, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.usefixtures("on_a_gpu")
def test_on_a_gpu_without_triton_products_read_the_weights_that_the_step_before_made(optimizer):
    """PyTorch's AdamW changes weights without saying so."""
    recipe = replace(RECIPE, dtype="bfloat16", optimizer=optimizer)
    model = initialise(Ladder(vocab_size=64, context=16).shape(16, 8), 0)
    step = TrainingStep(model, make_optimizers(model, recipe), recipe)
    ids_BS1 = torch.randint(64, (4, 17), generator=torch.Generator().manual_seed(0))
    losses = [read([step.take(ids_BS1, Rates(0.01, 0.0, 0.0))])[0].loss for _ in range(20)]
    assert losses[-1] < losses[0] - 1
    step._working.renew()
    for name, weight in model.named_parameters():
        copied = step._working.model.get_parameter(name)
        assert torch.equal(copied, weight.to(copied.dtype)), name


def test_muons_parameters_are_multiplied_by_a_number_of_their_type(monkeypatch):
    """A replayed step's rate is of float64, and with that CUDA takes them one by one."""
    types: list[torch.dtype] = []
    multiply = torch._foreach_mul_
    monkeypatch.setattr(torch, "_foreach_mul_", lambda held, by: types.append(by.dtype) or multiply(held, by))
    parameters = {torch.nn.Parameter(torch.ones(4, 8)): (8,) for _ in range(2)}
    optimizer = Muon([{"params": list(parameters), "weight_decay": 0.1}], parameters, RECIPE)
    optimizer.found_inf, optimizer.grad_scale = torch.tensor(0.0), torch.tensor(1.0)
    optimizer.param_groups[0]["lr"] = torch.tensor(0.1, dtype=torch.float64)
    for parameter in parameters:
        parameter.grad = torch.ones(4, 8)
    optimizer.step()
    assert types == [torch.float32]


def test_fewer_products_give_the_same_orthogonal_matrices(monkeypatch):
    x = torch.randn(3, 8, 20, generator=torch.Generator().manual_seed(0))
    plain = orthogonal(x)
    monkeypatch.setattr(torch.Tensor, "is_cuda", True)
    assert (orthogonal(x) - plain).norm() < 0.02 * plain.norm()  # in bfloat16


@pytest.mark.skipif(native.module is None, reason="installed without a C compiler")
def test_a_matrix_that_outweighs_the_rest_is_shared_by_all_threads(monkeypatch):
    parameters, optimizer = _muon({(64, 64): (64,), (3, 8, 8): (8,)})
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    monkeypatch.setattr(Muon, "_step_compiled", None)
    optimizer.step()
    torch.set_num_threads(before)


@pytest.mark.parametrize("contiguous", [True, False])  # taken by the compiled kernel, and not
def test_gradients_are_clipped_to_the_norm(contiguous):
    wide = torch.full((2, 1030), 2.0)
    gradients = [torch.full((3,), 2.0), wide if contiguous else wide.t()]
    norm = gradient_norm(gradients)
    assert norm == pytest.approx(2 * 2063**0.5)
    clip_gradient(gradients, norm, 2 * norm)
    assert gradient_norm(gradients) == norm
    clip_gradient(gradients, norm, 1.0)
    assert float(torch.cat([gradient.flatten() for gradient in gradients]).norm()) == pytest.approx(1.0, rel=1e-5)


@pytest.mark.parametrize("size", [(8, 8), (6, 20), (20, 6), (3, 7, 5)])
def test_muons_update_has_singular_values_near_one_and_the_gradients_vectors(size):
    x = torch.randn(size, generator=torch.Generator().manual_seed(0))
    y = orthogonal(x)
    assert y.shape == x.shape
    values = torch.linalg.svdvals(y)
    assert values.min() > 0.3  # five steps leave the smallest ones below one
    assert values.max() < 1.25
    u, s, v = torch.linalg.svd(x, full_matrices=False)
    along = (u.mT @ y @ v.mT).diagonal(dim1=-2, dim2=-1)
    torch.testing.assert_close(along.abs(), torch.linalg.svdvals(y).sort(-1).values.flip(-1), atol=0.6, rtol=0)
    assert (along > 0).all()
    assert len(s)


def test_muon_takes_hidden_matrices_and_leaves_the_rest_to_adamw():
    model = initialise(Ladder(vocab_size=64, context=16).shape(16, 8), 0)
    optimizers = make_optimizers(model, replace(RECIPE, optimizer="muon"))
    names = {parameter: name for name, parameter in model.named_parameters()}
    muon, adamw = ({names[p] for group in part.param_groups for p in group["params"]} for part in optimizers)
    assert muon | adamw == set(names.values())
    assert not muon & adamw
    assert "blocks.0.feed_forward.w_in_EDH" in muon
    assert {"embedding_VD", "blocks.0.feed_forward.w_router_DE", "norm_D"} <= adamw


def test_muon_takes_matrices_that_lie_side_by_side_apart():
    """The update of the queries' columns is the same whatever the keys' gradient."""
    shape = Ladder(vocab_size=64, context=16).shape(16, 0)
    moved = []
    for factor in (1.0, 100.0):
        model = initialise(shape, 0)
        weight = model.blocks[0].attention.w_qkv_DQ
        before = weight.detach().clone()
        weight.grad = torch.randn(weight.shape, generator=torch.Generator().manual_seed(1))
        weight.grad[:, 16:32] *= factor
        for optimizer in make_optimizers(model, replace(RECIPE, optimizer="muon")):
            optimizer.step()
        moved.append(weight.detach() - before)
    torch.testing.assert_close(moved[0][:, :16], moved[1][:, :16])


def test_rates_of_matrices_fall_with_width_where_a_base_is_given():
    shape = Ladder(vocab_size=64, context=16).shape(32, 8)
    model = initialise(shape, 0)
    (optimizer,) = make_optimizers(model, replace(RECIPE, width_base=16))
    set_rate([optimizer], 0.01)
    rates = {name: group["lr"] for name, p in model.named_parameters() for group in optimizer.param_groups
             if any(p is q for q in group["params"])}  # fmt: skip
    assert rates["blocks.0.feed_forward.w_in_EDH"] == rates["blocks.0.feed_forward.w_router_DE"] == 0.005
    assert rates["embedding_VD"] == rates["norm_D"] == 0.01
    (plain,) = make_optimizers(model, RECIPE)
    set_rate([plain], 0.01)
    assert {group["lr"] for group in plain.param_groups} == {0.01}


def test_under_muon_rates_of_its_matrices_fall_with_the_root_of_the_width():
    """The update's own scale falls with the other root."""
    model = initialise(Ladder(vocab_size=64, context=16).shape(32, 8), 0)
    optimizers = make_optimizers(model, replace(RECIPE, optimizer="muon", width_base=16))
    set_rate(optimizers, 0.01)
    muon, adamw = ({group["lr"] for group in part.param_groups} for part in optimizers)
    assert list(muon) == [pytest.approx(0.01 * 0.5**0.5)]
    assert adamw == {0.005, 0.01}


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_weight_decay_is_on_matrices_alone(name):
    """Measured: without a gradient's pull, a step of rate r takes the share r times the decay off a weight."""
    model = initialise(replace(Ladder(vocab_size=64, context=16).shape(16, 8), attention_bias=True), 0)
    optimizers = make_optimizers(model, replace(RECIPE, optimizer=name, weight_decay=0.5))
    set_rate(optimizers, 0.1)
    before = {}
    for leaf, parameter in model.named_parameters():
        parameter.grad = torch.zeros_like(parameter)
        parameter.data += 1  # biases begin at zero
        before[leaf] = parameter.detach().clone()
    for optimizer in optimizers:
        optimizer.step()
    for leaf, parameter in model.named_parameters():
        kept = 0.95 if parameter.dim() >= 2 else 1.0
        torch.testing.assert_close(
            parameter.detach(), kept * before[leaf], msg=lambda text, leaf=leaf: f"{leaf}: {text}"
        )


STEPS = """
import sys
from dataclasses import replace
import torch
from sparsedial.model.transformer import initialise
from sparsedial.training.optimizer import make_optimizers
from tests.training.test_optimizer import RECIPE, Ladder

model = initialise(Ladder(vocab_size=64, context=16).shape(16, 8), 0)
for kind in ("adamw", "muon"):
    optimizers = make_optimizers(model, replace(RECIPE, optimizer=kind))
    model.loss(torch.randint(0, 64, (2, 17)))[0].backward()
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad()
        optimizer.load_state_dict(optimizer.state_dict())
assert "torch._dynamo" not in sys.modules
"""


@pytest.mark.skipif(native.module is None, reason="installed without a C compiler")
def test_training_does_not_import_the_compiler():
    """It takes nearly as long as to import PyTorch. In a process of its own: other tests may have imported it."""
    subprocess.run([sys.executable, "-c", STEPS], check=True)
