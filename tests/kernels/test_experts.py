"""The experts as an operation: equal to the reference, traced without a break, seen by the FLOP counter."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from sparsedial.kernels import experts as operation
from sparsedial.kernels import native
from sparsedial.kernels.sparse import sparse_feed_forward
from sparsedial.model.transformer import Transformer, initialise
from sparsedial.shape.counts import flops_by_part, forward_flops_per_token
from sparsedial.shape.ladder import Ladder
from tests.kernels.test_sparse import SHAPES, assert_equal, gradients, run, some_of, sparse_inputs

LADDER = Ladder(vocab_size=64, context=16)
SPARSE = replace(LADDER.shape(16, 8), mtp_layers=1)


def as_operation(x, w_in, w_out, chosen, gates, top_k=None):
    return gradients(
        lambda x, w_in, w_out, gates: operation.experts(x, w_in, w_out, chosen, gates, top_k),
        ["x_TD", "w_in_EDH", "w_out_EFD", "gates_TK"],
        [x, w_in, w_out, gates],
    )


@pytest.fixture(params=["kernels", "reference", "triton"])
def _by(request, monkeypatch) -> None:
    """What computes the operation."""
    if request.param == "reference":
        monkeypatch.setattr(native, "module", None)
    if request.param == "triton":
        pytest.importorskip("triton", reason="installed without Triton")
        monkeypatch.setattr(operation, "_by_triton", lambda _: True)


@pytest.mark.parametrize("some", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.usefixtures("_by")
def test_the_operation_equals_the_reference(shape, some):
    inputs = sparse_inputs(shape, skip_first=True)
    given = (*inputs, some_of(inputs[3])) if some else inputs
    assert_equal(as_operation(*given), run("reference", *given), 2e-5)


def ids() -> torch.Tensor:
    return torch.randint(64, (2, 17), generator=torch.Generator().manual_seed(0))


def learned(model: Transformer, loss) -> dict[str, torch.Tensor]:
    """A loss and its gradients by name."""
    total, _ = loss(ids())
    model.zero_grad()
    total.backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    return {"loss": total.detach(), **gradients}


def test_a_compiler_traces_the_whole_loss_in_one_graph():
    model = initialise(replace(SPARSE, layers=1), 0)

    def loss(ids_BS1: torch.Tensor):
        return model.loss(ids_BS1, 1e-3, 1e-3, 0.3)

    torch.compiler.reset()
    fast = learned(model, torch.compile(loss, fullgraph=True, backend="aot_eager"))
    assert_equal(fast, learned(model, loss), 2e-5)


def test_an_export_has_the_experts_as_one_operation_a_layer():
    model = initialise(SPARSE, 0).eval()
    ids_BS = ids()[:, :-1]
    program = torch.export.export(model, (ids_BS,))
    operations = [node.target for node in program.graph.nodes if node.op == "call_function"]
    assert operations.count(torch.ops.sparsedial.experts.default) == SPARSE.layers
    torch.testing.assert_close(program.module()(ids_BS), model(ids_BS), atol=2e-5, rtol=2e-5)


@pytest.mark.usefixtures("_by")
def test_tensors_without_values_get_the_experts_shapes():
    with FakeTensorMode():
        model = Transformer(SPARSE)
        total, _ = model.loss(torch.zeros(2, 17, dtype=torch.long), 1e-3, 1e-3, 0.3)
        total.backward()
        x, w_in, w_out, chosen, gates = (torch.empty_like(tensor) for tensor in sparse_inputs(SHAPES[1]))
        assert sparse_feed_forward(x, w_in, w_out, chosen, gates).shape == x.shape
    assert all(parameter.grad.shape == parameter.shape for parameter in model.parameters())


def test_large_layers_have_shapes_on_a_card_that_reads_weights_by_descriptor(monkeypatch):
    """A descriptor needs an address, and tensors without values have none: a compiler refuses to look."""
    pytest.importorskip("triton", reason="installed without Triton")
    from sparsedial.kernels import triton_descriptors, triton_launch, triton_sparse, triton_tiles

    for owner, name, value in (
        (triton_tiles, "capability_of", lambda _: (9, 0)),
        (triton_descriptors, "capability_of", lambda _: (9, 0)),
        (triton_sparse, "tuned_tiles", lambda _: None),
        (triton_launch, "on", lambda _: nullcontext()),
        (torch.Tensor, "is_cuda", True),
    ):
        monkeypatch.setattr(owner, name, value)
    no_addresses = torch._functorch.config.patch(fake_tensor_allow_unsafe_data_ptr_access=False)
    with no_addresses, FakeTensorMode():
        sizes = (4096, 1024), (8, 1024, 1024), (8, 512, 1024), (4096, 2)
        x, w_in, w_out, gates = (torch.empty(size, dtype=torch.bfloat16, requires_grad=True) for size in sizes)
        y = operation.experts(x, w_in, w_out, torch.zeros(4096, 2, dtype=torch.long), gates, None)
        y.sum().backward()
    assert y.shape == x.shape
    assert all(leaf.grad.shape == leaf.shape for leaf in (x, w_in, w_out, gates))


@pytest.mark.parametrize("shape", [replace(SPARSE, mtp_layers=0), LADDER.shape(16, 0)])
def test_the_flop_counter_counts_the_experts_as_we_do(shape):
    model, tokens = initialise(shape, 0), 32
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model.loss(ids())[0].backward()
    counted = counter.get_flop_counts()["Global"]
    routed = flops_by_part(shape, 16)["routed_experts"] * tokens
    assert counted.get(torch.ops.sparsedial.experts, 0) == routed
    assert counted.get(torch.ops.sparsedial.experts_backward, 0) == 2 * routed
    assert counter.get_total_flops() == 3 * forward_flops_per_token(shape, 16) * tokens
