"""`train` leaves a folder that other tools open, and `generate` goes on from it."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

import sparsedial
from sparsedial.cli.main import main
from sparsedial.text.tokenizer import load_tokenizer
from tests.model.shapes import SPARSE

PROMPT = "the expert loss of a token, näher 東京"


@pytest.fixture(scope="module", params=["bytes", "bpe:300"])
def folder(request, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a run of a few steps leaves: experts, multi-token prediction, the vocabulary of the tokenizer."""
    shape = asdict(replace(SPARSE, mtp_layers=1))
    del shape["vocab_size"]
    record = sparsedial.train(
        text=(str(corpus / "00.txt"), str(corpus / "01.txt"), str(corpus / "02.txt")),
        tokenizer=request.param,
        shape=shape,
        recipe={"steps": 3, "batch": 2, "learning_rate": 0.01},
        device="cpu",
        threads=1,
        out=tmp_path_factory.mktemp("train"),
    )
    return Path(record["checkpoint"])


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@torch.no_grad()
def test_transformers_opens_what_train_left(folder: Path):
    """The same ids from its tokenizer, the same logits from its model."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    theirs, ours = AutoTokenizer.from_pretrained(folder), load_tokenizer(folder)
    ids = ours.encode(PROMPT.encode()).tolist()
    assert theirs(PROMPT).input_ids == ids
    assert theirs.decode(ids) == ours.decode(ids) == PROMPT
    assert theirs.eos_token_id == ours.end_token
    given = torch.tensor([ids[:32]])
    logits = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()(given).logits
    torch.testing.assert_close(sparsedial.load(folder)(given), logits, atol=1e-5, rtol=1e-5)


def test_the_command_drafts_and_says_what_became_of_the_drafts(folder: Path, capsys):
    said, words = [], ["generate", str(folder), "the loss", "--tokens", "12", "--temperature", "0", "--json"]
    for flags in ([], ["--speculate"]):
        assert main([*words, *flags]) == 0
        said.append(json.loads(capsys.readouterr().out))
    plain, drafted = said
    assert plain["drafts"] is None
    made, accepted = drafted["drafts"].values()
    assert made + accepted in (11, 12)  # a pass gives a token and, where the draft was right, that; the first is free
    assert (drafted["text"], drafted["tokens"]) == (plain["text"], plain["tokens"])
