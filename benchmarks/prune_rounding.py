"""Is a loss beside llm-compressor's another rule, or rounding? `python -m benchmarks.prune_rounding SMOLLM2 WORK TEXT`.

WORK is the folder of `python -m benchmarks.prune_peers … --work WORK`, which holds what both cut and the windows that
both read, and TEXT what it scored, its PROSE. `--only` names sections of it, with commas between. Layer after layer our
rule reads the stream of the model that llm-compressor cut, and chooses the weights of the next layer: `given_theirs` is
the share of weights that only one of both turns off then. `as_cut` is that share of the two models that each cut by
itself. `losses` are those of our cut where the calibration's embeddings are changed by a millionth, drawn anew for each
(one to two minutes each). A section is written to benchmarks/records/prune_rounding.json as it ends.

`--pairs PYTHON`, of llm-compressor's environment, does something else: both programs cut the same checkpoints, whose
embeddings are changed so, and `pairs` has both losses of each draw. Their mean difference is that of the two programs
without the rounding of one run (four minutes a draw). W windows, S positions, V vocabulary, D d_model.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.keeping import keep
from benchmarks.prune_findings_page import over_seeds
from benchmarks.prune_peers import CONTEXT, OURS, PEER, SCORED_TOKENS, Setup, file_name
from sparsedial.model.checkpoint import model_of, save_checkpoint
from sparsedial.model.far import far_model, held
from sparsedial.model.reading import Checkpoint, read_checkpoint
from sparsedial.model.router import Routing
from sparsedial.model.transformer import Block, Transformer
from sparsedial.model.weights import views_of_block
from sparsedial.pruning.cutting import RULES, Density
from sparsedial.pruning.in_turn import Passage
from sparsedial.pruning.inputs import note_inputs
from sparsedial.pruning.quality import nats_of
from sparsedial.pruning.weights import cut_in_turn, matrices, nothing_seen
from sparsedial.pruning.windows import Windows, read_windows
from sparsedial.shape.tensors import Name
from sparsedial.text.tokenizer import load_tokenizer

RECORD = Path(__file__).parent / "records" / "prune_rounding.json"
SECTIONS = {  # the rule, and how many weights stay
    "wanda 2:4": ("wanda", Density(0.5, (2, 4))),
    "sparsegpt": ("sparsegpt", Density(0.5)),
    "sparsegpt 2:4": ("sparsegpt", Density(0.5, (2, 4))),
}
CHANGE = 1e-6  # relative


def main() -> None:
    """Compare the masks, then cut with small changes, and write the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("smollm2", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("text")
    parser.add_argument("--only", default=",".join(SECTIONS))
    parser.add_argument("--draws", type=int, default=4)
    parser.add_argument("--pairs", metavar="PYTHON", help="of an environment with llm-compressor")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--record", type=Path, default=RECORD)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    checkpoint = read_checkpoint(given.smollm2)
    windows_WS1, scored = torch.from_numpy(np.load(given.work / "weights.npy")), _scored(given.smollm2, given.text)
    found = json.loads(given.record.read_text())["sections"] if given.record.exists() else {}
    for section in given.only.split(","):
        if given.pairs:
            row = found.get(section, {}) | {"pairs": _pairs(given, checkpoint, section, scored)}
        else:
            row = found.get(section, {}) | _rounding(given, checkpoint, section, windows_WS1, scored)
        found[section] = row
        print(section, json.dumps(row), flush=True)
        command = "python -m benchmarks.prune_rounding SMOLLM2 WORK TEXT"
        keep(given.record, command, {"change_relative": CHANGE, "sections": found})


def _rounding(
    given: argparse.Namespace, checkpoint: Checkpoint, section: str, windows_WS1: Tensor, scored: Windows
) -> Mapping[str, Any]:
    """The masks of both programs, and the losses of our cuts of slightly changed checkpoints."""
    method, density = SECTIONS[section]
    ours, theirs = (read_checkpoint(given.work / f"{file_name(section)}_{who}") for who in (OURS, PEER))
    draws = range(given.draws)
    return {
        "given_theirs": given_theirs(checkpoint, theirs, windows_WS1, method, density),
        "as_cut": as_cut(ours, theirs),
        "loss_ours": _loss(ours, scored),
        "loss_peer": _loss(theirs, scored),
        "losses": [_loss(_cut(checkpoint, windows_WS1, method, density, seed), scored) for seed in draws],
    }


def _pairs(given: argparse.Namespace, checkpoint: Checkpoint, section: str, scored: Windows) -> Mapping[str, Any]:
    """Losses of both programs' cuts of the same changed checkpoints, and how far ours are from theirs."""
    method, density = SECTIONS[section]
    pattern = density.pattern and ":".join(map(str, density.pattern))
    job = {
        "windows": str((given.work / "weights.npy").resolve()), "method": method, "keep": density.keep,
        "pattern": pattern,
    }  # fmt: skip
    losses: dict[str, list[float]] = {OURS: [], PEER: []}
    for seed in range(given.draws):
        with tempfile.TemporaryDirectory(dir=given.work) as folder:
            whole = _changed(given.smollm2, checkpoint, Path(folder, "whole"), seed)
            setup = Setup(argparse.Namespace(work=Path(folder), peer=given.pairs, threads=given.threads))
            for who, found in losses.items():
                out = setup.pruned(who, section, {**job, "checkpoint": str(whole.resolve())}).out
                found.append(_loss(read_checkpoint(out), scored))
        print(section, seed, losses, flush=True)
    relative = [ours / theirs - 1 for ours, theirs in zip(losses[OURS], losses[PEER], strict=True)]
    return {"ours": losses[OURS], "peer": losses[PEER], "relative": over_seeds(relative)}


def _changed(folder: Path, checkpoint: Checkpoint, out: Path, seed: int) -> Path:
    """The checkpoint with embeddings that are a little changed, as a folder."""
    model = model_of(checkpoint.shape, checkpoint.tensors)
    _change(model.embedding_VD, seed)
    save_checkpoint(model, out, load_tokenizer(folder))
    return out


@torch.no_grad()
def _change(embedding_VD: Tensor, seed: int) -> None:
    embedding_VD.mul_(1 + CHANGE * torch.randn(embedding_VD.shape, generator=torch.Generator().manual_seed(seed)))


@torch.no_grad()
def given_theirs(
    checkpoint: Checkpoint, theirs: Checkpoint, windows_WS1: Tensor, method: str, density: Density
) -> list[float]:
    """By layer, the share of weights that our rule turns off otherwise, where all layers before are theirs."""
    whole, cut = (far_model(each.shape, each.tensors) for each in (checkpoint, theirs))
    shares = []
    for turn in Passage(cut, windows_WS1).turns():
        block = whole.blocks[turn.number]
        assert isinstance(block, Block)
        with held(block):
            views = _matrices(block, turn.number, whole)
            inputs = nothing_seen(views, RULES[method])
            for x_BSD, place in turn.inputs:
                note_inputs(block, x_BSD, place, views, inputs)
            found = {name: RULES[method].cut(view, inputs[name], density) for name, view in views.items()}
            shares.append(_different(found, _matrices(turn.block, turn.number, whole)))
        turn.pass_on(partial(turn.block, routing=Routing()))
    return shares


def as_cut(ours: Checkpoint, theirs: Checkpoint) -> list[float]:
    """By layer, the share of weights that only one of both turns off."""
    models = [far_model(each.shape, each.tensors) for each in (ours, theirs)]
    return [_of_layer(number, *models) for number in range(ours.shape.layers)]


def _of_layer(number: int, ours: Transformer, theirs: Transformer) -> float:
    blocks = [model.blocks[number] for model in (ours, theirs)]
    with held(blocks[0]), held(blocks[1]):  # type: ignore[arg-type]
        return _different(*(_matrices(block, number, ours) for block in blocks))  # type: ignore[arg-type]


def _matrices(block: Block, number: int, model: Transformer) -> dict[Name, Tensor]:
    sizes = matrices(model.shape)
    return {name: view.detach() for name, view in views_of_block(block, number).items() if name in sizes}


def _different(first: Mapping[Name, Tensor], second: Mapping[Name, Tensor]) -> float:
    weights = sum(one.numel() for one in first.values())
    return sum(int(((first[name] == 0) != (second[name] == 0)).sum()) for name in first) / weights


def _cut(checkpoint: Checkpoint, windows_WS1: Tensor, method: str, density: Density, seed: int) -> Transformer:
    """Our cut, calibrated with embeddings that are a little changed; the model itself has its own."""
    model = far_model(checkpoint.shape, checkpoint.tensors)
    _change(model.embedding_VD, seed)
    kept, _ = cut_in_turn(model, windows_WS1, RULES[method], density)
    return model_of(checkpoint.shape, kept.stream(checkpoint.tensors))


def _scored(folder: Path, text: str) -> Windows:
    """The windows that `prune_peers` scores."""
    vocab_size, tokenizer = read_checkpoint(folder).shape.vocab_size, load_tokenizer(folder)
    read = read_windows(
        [text], tokenizer, vocab_size=vocab_size, context=CONTEXT, tokens=5 * SCORED_TOKENS, field="calibrate"
    )
    return read.divided(SCORED_TOKENS)[1]


def _loss(model: Transformer | Checkpoint, scored: Windows) -> float:
    if isinstance(model, Checkpoint):
        model = model_of(model.shape, model.tensors)
    return nats_of(model, {"text": scored})["text"].mean


if __name__ == "__main__":
    main()
