"""A reference model's losses: a byte each, with a known error, read at the places of the tokens that they are of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sparsedial.errors import UserError
from sparsedial.records.evaluation import CheckpointName
from sparsedial.records.record import read, write
from sparsedial.records.token_selection import (
    REFERENCE_FILE,
    ReferenceLossesFile,
    ReferenceModelCost,
    TokenSelection,
)
from sparsedial.text.prepare import Text, prepare
from sparsedial.text.reference_losses import BYTES_FILE, MOST, STEP_NATS, as_bytes, as_nats, open_losses, write_losses
from sparsedial.text.sampler import Sampler


def stored(text: Text, nats: np.ndarray, pieces: int = 3) -> TokenSelection:
    """Losses of the train tokens after the first, beside the text; and a selection by them."""
    written, name = write_losses(text, np.array_split(nats, pieces)), CheckpointName(path="", digest="", family="")
    facts = ReferenceLossesFile(
        reference=name,
        run=None,
        text_digest=text.digest,
        context_tokens=32,
        stride_tokens=16,
        tokens=written.tokens,
        loss=written.loss,
        step_nats=STEP_NATS,
        tokens_above=written.tokens_above,
        sha256=written.sha256,
        cost=ReferenceModelCost(training_flops=5.0, scoring_flops=7.0, seconds=1.5),
    )
    write(text.folder / REFERENCE_FILE, facts)
    return TokenSelection(share=0.6, reference=name, losses_sha256=written.sha256)


@pytest.fixture
def text(corpus: Path, tmp_path: Path) -> Text:
    return prepare([str(corpus / f"{number:02}.txt") for number in range(6)], folder=tmp_path / "text")


def test_a_byte_is_off_by_at_most_half_a_step_and_what_is_larger_is_the_largest():
    nats = np.linspace(0, MOST * STEP_NATS, 10_001)
    assert np.abs(as_nats(as_bytes(nats)) - nats).max() <= STEP_NATS / 2 + 1e-6
    assert as_nats(as_bytes(np.array([16.0, 1e9, np.inf]))).tolist() == [MOST * STEP_NATS] * 3


def test_the_losses_of_windows_are_those_of_the_tokens_that_they_predict(text):
    """Each token's stored loss names the token."""
    selection = stored(text, text.tokens("train")[1:] * STEP_NATS)
    losses = open_losses(text, selection)
    sampler = Sampler(text=text, seed=3, sequences=4, context=32)
    for step in (0, 7, 1000):
        found = losses.of_windows(sampler.first_tokens(step), 32)
        assert (found.shape, found.dtype) == ((4, 32), np.float32)
        assert (found / STEP_NATS).tolist() == sampler.batch(step)[:, 1:].tolist()


def test_what_is_stored_says_its_mean_and_how_many_losses_were_too_large(text):
    nats = np.ones(text.train_tokens - 1)
    nats[5:9] = 17.0
    stored(text, nats)
    facts = read(text.folder / REFERENCE_FILE, ReferenceLossesFile)
    assert facts.loss == pytest.approx(nats.mean())
    assert (facts.tokens, facts.tokens_above) == (text.train_tokens, 4)


def test_positions_without_a_loss_and_losses_of_others_are_refused(text):
    selection = stored(text, np.ones(text.train_tokens - 1))
    another = TokenSelection(share=0.6, reference=selection.reference, losses_sha256="0")
    with pytest.raises(UserError, match="losses of another reference model"):
        open_losses(text, another)
    path = text.folder / BYTES_FILE
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(UserError, match=f"holds {text.train_tokens - 3} bytes instead of {text.train_tokens}"):
        open_losses(text, selection)
    facts = read(text.folder / REFERENCE_FILE, ReferenceLossesFile)
    write(text.folder / REFERENCE_FILE, ReferenceLossesFile(**{**dict(facts), "text_digest": "another"}))
    with pytest.raises(UserError, match="losses of another text"):
        open_losses(text, selection)
    (text.folder / REFERENCE_FILE).unlink()
    with pytest.raises(UserError, match=REFERENCE_FILE):
        open_losses(text, selection)


def test_a_loss_that_is_no_number_and_too_few_losses_leave_no_file(text):
    with pytest.raises(UserError, match="not a number"):
        write_losses(text, [np.array([1.0, np.nan])])
    with pytest.raises(ValueError, match="2 losses for"):
        write_losses(text, [np.ones(1)])
    assert not list(text.folder.glob(f"*{BYTES_FILE}*"))
