"""Texts and tokenizers that `prune` is given and that do not suit the checkpoint."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

import sparsedial
from sparsedial.cli.main import main
from sparsedial.records.prune import Pruned
from tests.pruning.planted import saved, with_dead_experts

pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return saved(with_dead_experts("softmax", (1, 3, 4, 6)), tmp_path / "whole")


def prune(checkpoint: Path, text: str, out: str = "smaller") -> Pruned:
    return sparsedial.prune(checkpoint, keep=0.5, calibrate=text, out=checkpoint.parent / out)


def test_a_text_that_the_model_hardly_foretells_is_said_to_be_foreign_with_its_loss(checkpoint, text, tmp_path):
    """Between two thirds of a uniform guess and all of it."""
    draw = random.Random(0)
    mixed = [draw.choice("abcdefgh") if draw.random() < 0.2 else letter for letter in Path(text).read_text()]
    (tmp_path / "mixed.txt").write_text("".join(mixed))
    answer = prune(checkpoint, str(tmp_path / "mixed.txt"))
    loss = answer.before.loss[str(tmp_path / "mixed.txt")].loss
    assert 0.65 * 5.545 < loss < 5.545
    (said,) = [words for words in answer.warnings if "the model foretells little of" in words]
    assert f"its loss there is {loss:.2f} nats per token, and a uniform guess has 5.55" in said
    assert not any("foretells little" in words for words in prune(checkpoint, text, "known").warnings)


@pytest.mark.parametrize(
    "words", [["prune", "--keep", "0.5", "--calibrate", "TEXT", "--out", "OUT"], ["evaluate", "--text", "TEXT"],
              ["dial", "--measure", "--text", "TEXT"], ["generate", "abc"]], ids=lambda words: words[0]
)  # fmt: skip
def test_a_checkpoint_without_its_tokenizer_is_told_where_it_belongs(checkpoint, text, capsys, words):
    (checkpoint / "sparsedial.json").unlink()
    (checkpoint / "tokenizer.json").unlink()
    names = {"TEXT": text, "OUT": str(checkpoint.parent / "out")}
    command, *rest = (names.get(word, word) for word in words)
    assert main([command, str(checkpoint), *rest]) == 2
    said = capsys.readouterr()
    assert f"error: {checkpoint} has no tokenizer.json" in said.err
    assert "hint: copy it there from where the checkpoint came from" in said.err
    assert said.out == ""
    assert sorted(path.name for path in checkpoint.parent.iterdir()) == ["both.txt", "whole"]
