"""The losses that a reference model stores are its own, of each token once, and all of its work is counted."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sparsedial.errors import UserError
from sparsedial.evaluation.loss import token_losses
from sparsedial.evaluation.scorer import Scorer, windows_at_once
from sparsedial.machine.timing import summarise
from sparsedial.model.checkpoint import load, save_checkpoint
from sparsedial.model.transformer import initialise
from sparsedial.records.evaluation import CheckpointName
from sparsedial.selection import token_losses as token_losses_of
from sparsedial.selection.token_losses import ScoringModel, expected_cost, require_reference, score_tokens, tokens_read
from sparsedial.shape.counts import forward_flops_per_token
from sparsedial.shape.ladder import Ladder
from sparsedial.text.prepare import Text, prepare
from sparsedial.text.reference_losses import STEP_NATS, as_nats, try_losses
from sparsedial.text.tokenizer import byte_tokenizer, train_bpe

CONTEXT = 16
SHAPE = Ladder(vocab_size=256, context=CONTEXT).shape(12, 4)


@pytest.fixture(scope="module")
def text(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Text:
    names = [str(corpus / f"{number:02}.txt") for number in range(5)]
    return prepare(names, folder=tmp_path_factory.mktemp("text"))


def test_each_token_has_the_loss_that_the_model_gives_it(text, tmp_path):
    folder, done = tmp_path / "model", []
    save_checkpoint(initialise(SHAPE, 0), folder, tokenizer=text.tokenizer)
    model = ScoringModel(name=CheckpointName(path=str(folder), digest="a", family="b"), run=None)
    facts = score_tokens(
        text, model, context=CONTEXT, device="cpu", threads=1, report=lambda *counts: done.append(counts)
    )
    found = try_losses(text)
    assert found.facts == facts
    tokens, scorer = torch.from_numpy(text.tokens("train").astype("int64")), Scorer(load(folder))
    for place in (1, 5, CONTEXT, CONTEXT + 1, 100, 1000, text.train_tokens - 1):
        steps = max(0, -(-(place - CONTEXT) // (CONTEXT // 2)))  # windows before the one that scores it
        before = tokens[steps * CONTEXT // 2 : place + 1]
        exact = scorer.losses(before.unsqueeze(0), 1)[1].item()
        assert abs(float(as_nats(found.bytes_T[place])) - exact) <= STEP_NATS / 2 + 1e-4, place
    assert facts.loss == pytest.approx(
        token_losses(scorer, text, "train", context=CONTEXT, stride=CONTEXT // 2).nats_T.mean(), rel=1e-5
    )
    assert done[-1] == (text.train_tokens - 1, text.train_tokens - 1)
    per_token = forward_flops_per_token(SHAPE, CONTEXT)
    assert facts.cost.training_flops == 0
    assert facts.cost.flops == per_token * tokens_read(text, CONTEXT)
    assert facts.cost.scoring_flops == pytest.approx(2 * per_token * text.train_tokens, rel=0.01)
    assert facts.cost.seconds > 0


def test_what_a_reference_model_will_cost_is_counted_as_what_it_cost(text, monkeypatch):
    monkeypatch.setattr(
        token_losses_of, "measure_in_turn", lambda calls, **_: {name: summarise([2.0]) for name in calls}
    )
    cost = expected_cost(text, SHAPE, context=CONTEXT, seed=0, device="cpu", threads=1)
    assert (cost.training_flops, cost.scoring_flops) == (
        0,
        tokens_read(text, CONTEXT) * forward_flops_per_token(SHAPE, CONTEXT),
    )
    at_once = windows_at_once(CONTEXT + 1) * CONTEXT
    assert cost.seconds == pytest.approx(2.0 * tokens_read(text, CONTEXT) / at_once)


def test_a_model_of_other_tokens_or_a_shorter_context_is_refused(text):
    bpe = train_bpe([b"a few words " * 50], 260)
    for shape, tokenizer, context, says in (
        (SHAPE, bpe, CONTEXT, "has the tokenizer"),
        (Ladder(vocab_size=200, context=CONTEXT).shape(12, 0), byte_tokenizer(), CONTEXT, "200 tokens, fewer than"),
        (SHAPE, byte_tokenizer(), 2 * CONTEXT, "reads 16 tokens at a time, fewer than the 32"),
    ):
        with pytest.raises(UserError, match=says) as error:
            require_reference(shape, tokenizer, text, context, "there")
        assert error.value.hint
    require_reference(SHAPE, byte_tokenizer(), text, CONTEXT, "there")
