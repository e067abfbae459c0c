"""A folder from a Shape and a stream, without a model: whole or not there, and what pruning will do in miniature."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest
import torch

from sparsedial.errors import UserError
from sparsedial.model import transformer
from sparsedial.model.checkpoint import load, save_checkpoint
from sparsedial.model.reading import Checkpoint, read_checkpoint
from sparsedial.model.router import route
from sparsedial.model.stream import NamedTensor
from sparsedial.model.transformer import Transformer
from sparsedial.model.weights import stream_of
from sparsedial.model.writing import write_checkpoint
from sparsedial.shape.config import read_config
from sparsedial.text.tokenizer import byte_tokenizer
from tests.model.shapes import DENSE, FAMILIES, SPARSE, UNEQUAL, shaken
from tests.model.test_families import CLOSE, theirs_from, theirs_fused

IDS = torch.randint(64, (2, 17), generator=torch.Generator().manual_seed(0))
Kept = Mapping[int, Sequence[int]]  # by layer, the experts that stay


def files_of(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.mark.parametrize("shape", [SPARSE, UNEQUAL, FAMILIES["deepseek_v3"]])
@pytest.mark.parametrize("shard_bytes", [20_000, 4e9])
def test_a_folder_read_and_written_is_the_same(tmp_path: Path, shape, shard_bytes):
    save_checkpoint(shaken(shape), tmp_path / "c", byte_tokenizer(), shard_bytes)
    checkpoint = read_checkpoint(tmp_path / "c")
    write_checkpoint(tmp_path / "d", shape, checkpoint.tensors, byte_tokenizer(), shard_bytes)
    write_checkpoint(tmp_path / "e", shape, reversed(checkpoint.tensors), byte_tokenizer(), shard_bytes)
    assert files_of(tmp_path / "d") == files_of(tmp_path / "e") == files_of(tmp_path / "c")


def failing(stream: Sequence[NamedTensor], error: Exception) -> list[NamedTensor]:
    def values() -> torch.Tensor:
        raise error

    return [*stream[:-1], dataclasses.replace(stream[-1], values=values)]


@pytest.mark.parametrize(
    ("error", "raised", "says"),
    [
        (OSError(28, "No space left on device"), UserError, "cannot write .*No space left"),
        (UserError("the source: cut short"), UserError, "the source: cut short"),
        (KeyboardInterrupt("stop"), KeyboardInterrupt, "stop"),
    ],
)
def test_a_folder_that_cannot_be_finished_is_not_there(tmp_path: Path, error, raised, says):
    stream = stream_of(shaken(DENSE))
    with pytest.raises(raised, match=says):
        write_checkpoint(tmp_path / "c", DENSE, failing(stream, error))
    assert list(tmp_path.iterdir()) == []
    write_checkpoint(tmp_path / "c", DENSE, stream)
    before = files_of(tmp_path / "c")
    with pytest.raises(raised, match=says):
        write_checkpoint(tmp_path / "c", DENSE, failing(stream, error))
    assert [folder.name for folder in tmp_path.iterdir()] == ["c"]
    assert files_of(tmp_path / "c") == before


def test_a_stream_of_another_shape_is_a_fault_of_the_program(tmp_path: Path):
    stream = stream_of(shaken(SPARSE))
    for wrong in (stream[1:], [*stream, stream[0]], stream_of(shaken(dataclasses.replace(SPARSE, experts=6)))):
        with pytest.raises(ValueError, match="the stream is not of this shape"):
            write_checkpoint(tmp_path / "c", SPARSE, wrong)
    assert list(tmp_path.iterdir()) == []


def without_experts(checkpoint: Checkpoint, kept: Kept) -> Iterator[NamedTensor]:
    """The stream of a folder without the experts that do not stay."""
    for tensor in checkpoint.tensors:
        name = tensor.name
        experts = kept[name.layer] if name.layer is not None else []
        if name.part in ("router", "routing_bias"):
            yield tensor.mapped(lambda rows, experts=experts: rows[experts], (len(experts), *tensor.size[1:]))
        elif name.expert is None:
            yield tensor
        elif name.expert in experts:
            yield dataclasses.replace(tensor, name=dataclasses.replace(name, expert=experts.index(name.expert)))


def mask_experts(model: Transformer, kept: Kept, monkeypatch: pytest.MonkeyPatch) -> Transformer:
    """The model with a routing logit of minus infinity for every expert that does not stay."""
    turns = itertools.cycle(kept[layer] for layer in range(model.shape.layers))

    def masked(logits_TE: torch.Tensor, *rest: object) -> object:
        hidden_TE = torch.full_like(logits_TE, float("-inf"))
        experts = next(turns)
        hidden_TE[:, experts] = logits_TE[:, experts]
        return route(hidden_TE, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(transformer, "route", masked)
    for layer in model.sparse_feed_forwards:
        layer.kernel = "reference"
    return model


@pytest.mark.parametrize("experts_are_fused", [False, True])
@pytest.mark.parametrize("family", ["mixtral", "olmoe", "qwen3_moe", "glm4_moe"])
@torch.no_grad()
def test_experts_are_dropped_from_a_stream_without_a_model(tmp_path: Path, monkeypatch, family, experts_are_fused):
    shape = FAMILIES[family]
    kept = {0: [0, 2, 3, 4, 6, 7], 1: [1, 2, 3, 5, 6, 7]}
    if experts_are_fused:
        theirs_fused(shape, tmp_path / "whole")
    else:
        save_checkpoint(shaken(shape), tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(Transformer, "__init__", None)  # no model is built
        smaller = dataclasses.replace(shape, experts=6)
        write_checkpoint(tmp_path / "less", smaller, without_experts(read_checkpoint(tmp_path / "whole"), kept))
    assert read_config(tmp_path / "less") == smaller
    ours, theirs = load(tmp_path / "less")(IDS), theirs_from(tmp_path / "less")(IDS).logits
    whole = load(tmp_path / "whole")
    assert (whole(IDS) - ours).abs().max() > 1e-3  # the dropped experts were in use
    masked = mask_experts(whole, kept, monkeypatch)(IDS)
    torch.testing.assert_close(ours, masked, **CLOSE)
    torch.testing.assert_close(theirs, masked, **CLOSE)
