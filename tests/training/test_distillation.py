"""Distillation: the divergence that is learned is that of whole logits, and a student comes nearer to its teacher."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from sparsedial.model.transformer import Transformer, initialise
from sparsedial.training.distillation import divergence, towards
from sparsedial.training.optimizer import make_optimizers
from tests.model.shapes import FAMILIES, SPARSE
from tests.runs.tiny import LADDER, RECIPE
from tests.training.steps import train_steps

IDS = torch.randint(0, 64, (3, 13), generator=torch.Generator().manual_seed(0))


def plainly(student: Transformer, teacher: Transformer, ids_BS1: torch.Tensor) -> torch.Tensor:
    """The same by all logits at once, in double precision where it is summed."""
    ours = student(ids_BS1[:, :-1]).double().log_softmax(2)
    with torch.no_grad():
        theirs = teacher(ids_BS1[:, :-1]).double().log_softmax(2)
    return (theirs.exp() * (theirs - ours)).sum(2).mean()


@pytest.mark.parametrize("family", ["llama", "qwen3", "olmoe", "deepseek_v3", "sparse"])
def test_it_is_the_divergence_of_whole_logits_and_so_are_its_gradients(family):
    shape = FAMILIES.get(family, SPARSE)
    student, twin, teacher = initialise(shape, 0), initialise(shape, 0), initialise(replace(shape, layers=3), 1)
    total, entropy = student.loss(IDS, main=towards(teacher, student, IDS))
    expected = plainly(twin, teacher, IDS)
    assert total.item() == pytest.approx(expected.item(), rel=1e-5)
    assert entropy.item() == pytest.approx(twin.loss(IDS)[1].item(), rel=1e-5), "what is shown is the text's"
    total.backward()
    expected.backward()
    for (name, mine), other in zip(student.named_parameters(), twin.parameters(), strict=True):
        if other.grad is not None:
            torch.testing.assert_close(mine.grad, other.grad, atol=1e-6, rtol=1e-4, msg=lambda text, name=name: name)
    assert all(weight.grad is None for weight in teacher.parameters())


def test_the_divergence_is_in_nats_per_token_and_zero_between_equals():
    ours, theirs = torch.tensor([[0.0, 0.0], [1.0, 1.0]]), torch.tensor([[0.0, 0.0], [3.0, 1.0]])
    share = torch.sigmoid(torch.tensor(2.0))
    by_hand = (share * (share / 0.5).log() + (1 - share) * ((1 - share) / 0.5).log()) / 2
    assert float(divergence(ours, theirs)) == pytest.approx(float(by_hand), rel=1e-5)
    assert float(divergence(theirs, theirs)) == pytest.approx(0, abs=1e-7)


def test_router_losses_and_multi_token_prediction_are_learned_beside_it():
    shape = replace(FAMILIES["deepseek_v3"], mtp_layers=1)
    student, teacher = initialise(shape, 0), initialise(shape, 1)
    main = towards(teacher, student, IDS)
    alone = student.loss(IDS, main=main)[0]
    more = student.loss(IDS, 1e-3, 1e-3, 0.3, main=main)[0]
    text = student.loss(IDS, 1e-3, 1e-3, 0.3)[0] - student.loss(IDS)[0]
    assert (more - alone).item() == pytest.approx(text.item(), rel=1e-3)


def test_a_student_comes_nearer_to_its_teacher_and_the_teacher_stays(small_text):
    """The teacher says what no text does: it is an untrained model of large weights."""
    shape, recipe = LADDER.shape(12, 0), replace(RECIPE, steps=20, batch=4)
    student, teacher = initialise(shape, 0), initialise(shape, 1)
    with torch.no_grad():
        teacher.embedding_VD.mul_(4)
    kept = copy.deepcopy(teacher.state_dict())
    ids = torch.from_numpy(small_text.tokens("test")[:132].astype("int64")).view(4, 33)
    with torch.no_grad():
        before = float(plainly(student, teacher, ids))
    steps = list(train_steps(student, make_optimizers(student, recipe), small_text, recipe, teacher=teacher))
    with torch.no_grad():
        after = float(plainly(student, teacher, ids))
    assert len(steps) == 20
    assert after < 0.9 * before
    for name, tensor in teacher.state_dict().items():
        assert torch.equal(tensor, kept[name]), name
