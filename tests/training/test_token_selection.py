"""A step's loss counts the positions of the highest excess loss, whatever else is in the recipe."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sparsedial.model.transformer import initialise
from sparsedial.text.prepare import prepare
from sparsedial.text.reference_losses import STEP_NATS, open_losses
from sparsedial.text.sampler import Sampler
from sparsedial.training.optimizer import make_optimizers
from sparsedial.training.token_selection import Selecting, by_excess
from tests.runs.tiny import LADDER, RECIPE
from tests.text.test_reference_losses import stored
from tests.training.steps import train_steps


def test_the_share_with_the_highest_excess_counts_and_no_other():
    losses, reference = (
        torch.tensor([[5.0, 1.0, 3.0], [2.0, 9.0, 0.5]]),
        torch.tensor([[4.5, 0.0, 3.0], [0.0, 9.0, 1.0]]),
    )
    excess = (losses - reference).flatten()
    for share, count in ((0.01, 1), (0.34, 2), (0.5, 3), (0.99, 6)):
        weight = by_excess(reference, share)(losses)
        assert weight.shape == losses.shape
        assert weight.sum() == count
        assert min(excess[weight.flatten() == 1]) >= max([*excess[weight.flatten() == 0], torch.tensor(-9.0)])


@pytest.mark.parametrize("mtp_layers", [0, 1])
def test_a_step_of_the_loop_learns_from_the_tokens_that_its_text_and_reference_choose(
    corpus: Path, tmp_path, mtp_layers
):
    """By hand: the losses of the batch, those of the reference at the places of its predicted tokens, the gradient."""
    text = prepare([str(corpus)], folder=tmp_path / "text")
    tokens = text.tokens("train")[1:]
    selecting = Selecting(share=0.6, losses=open_losses(text, stored(text, tokens % 64 * STEP_NATS)))
    shape = replace(LADDER.shape(12, 8), mtp_layers=mtp_layers)
    model, again = initialise(shape, 0), initialise(shape, 0)
    taken = next(train_steps(model, make_optimizers(model, RECIPE), text, RECIPE, start=5, selecting=selecting))
    sampler = Sampler(text=text, seed=RECIPE.seed, sequences=RECIPE.batch, context=RECIPE.context)
    ids = torch.from_numpy(sampler.batch(5))
    reference = (ids[:, 1:] % 64).float() * STEP_NATS

    def weigh(losses):
        excess = losses - reference
        return (excess >= excess.flatten().sort(descending=True).values[round(0.6 * excess.numel()) - 1]).float()

    weights = RECIPE.balance_weight, RECIPE.z_loss_weight, RECIPE.prediction_weight(5)
    total, shown = again.loss(ids, *weights, weigh=weigh)
    total.backward()
    norm = torch.cat([parameter.grad.flatten() for parameter in again.parameters()]).norm()
    assert taken.gradient_norm == pytest.approx(float(norm), rel=1e-5)
    assert taken.loss == pytest.approx(float(shown), rel=1e-6)
    plain = initialise(shape, 0)
    unweighed, all_of_it = plain.loss(ids, *weights)
    assert taken.loss == pytest.approx(float(all_of_it), rel=1e-6), "what is shown is the loss of all positions"
    assert total.item() != pytest.approx(unweighed.item(), rel=1e-3), "the test would see no fault"
