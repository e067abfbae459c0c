"""What a dense model in experts loses: `python -m benchmarks.split_experts CHECKPOINT CALIBRATE SCORE [SCORE …]`.

The ways are in WAYS, the shares of a layer's neurons that a token visits in SHARES. Nothing is trained. Growth of the
loss is in nats per token over the dense model, with 95 % intervals over windows. `bytes_share` is what a decoded token
reads of the feed-forward weights: a router comes on top of the experts; a threshold on activations reads all gates and
ups first, one on gates all gates.

Each row is kept in benchmarks/records/split_experts.json as soon as it is known, and a stopped command goes on. The
division is kept in --work, layer by layer.

T tokens, F neurons of a layer, D d_model, E experts.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.keeping import keep
from sparsedial.kernels.reference import activate
from sparsedial.model.attention import rms_norm
from sparsedial.model.checkpoint import load
from sparsedial.model.digests import digest_of
from sparsedial.model.router import Routing
from sparsedial.model.transformer import DenseFeedForward, Transformer
from sparsedial.pruning.counts import best, nearest
from sparsedial.pruning.in_turn import Passage
from sparsedial.pruning.quality import Nats, nats_of
from sparsedial.pruning.shelf import Shelf
from sparsedial.pruning.split_sizes import SplitSizes, numbers_by_layer
from sparsedial.pruning.splitting import Divided, Split, divided
from sparsedial.pruning.windows import Windows, read_windows
from sparsedial.records.record import plain
from sparsedial.text.tokenizer import load_tokenizer

RECORD = Path(__file__).parent / "records" / "split_experts.json"
CONTEXT, CALIBRATION_TOKENS, SCORED_TOKENS = 512, 8192, 4096
SHARES = (0.8, 0.6, 0.5, 0.7, 0.4)
Row = dict[str, Any]
On = Callable[[Tensor, Tensor, Tensor], Tensor]  # x_TD, what w_in makes of it [T, 2F], activations to 0s and 1s [T, F]


@dataclass(frozen=True, kw_only=True, eq=False)
class Lab:
    """A dense model, its neurons divided, and its calibration."""

    model: Transformer
    found: Divided
    windows_WS1: Tensor
    shelf: Shelf

    @property
    def sizes(self) -> SplitSizes:
        return self.found.split.sizes

    @property
    def width(self) -> int:
        """Neurons of a layer."""
        return len(self.found.norms[0])

    def part(self, layer: int) -> DenseFeedForward:
        """A layer's feed-forward."""
        part = self.model.blocks[layer].feed_forward
        assert isinstance(part, DenseFeedForward)
        return part

    def number(self, share: float) -> int:
        """Experts beside the shared part for a share of the neurons."""
        return max(1, nearest(share * self.sizes.parts) - self.sizes.always)

    @cached_property
    def sensed_LDD(self) -> Tensor:
        """The sensitivity that the division was made by."""
        kept = self.shelf.get("sensitivities")
        assert kept is not None
        return kept["by layer"]()

    @cached_property
    def calibrating(self) -> list[Tensor]:
        """Each layer's normed input on some tokens of the calibration. Shapes: each [T, D]"""
        found: list[Tensor] = []
        for turn in Passage(self.model, self.windows_WS1[::8]).turns():
            block, (x_BSD, place) = turn.block, next(turn.inputs)
            attended_BSD = block.attention(x_BSD, block.attention_norm_D, place)
            found.append(rms_norm(attended_BSD, block.feed_forward_norm_D, block.eps).flatten(0, 1))
            turn.pass_on(partial(block, routing=Routing()))
        return found


def chosen(scores_TE: Tensor, number: int, split: Split, layer: int, width: int) -> Tensor:
    """The shared neurons, and those of so many experts by a score. Shapes: to [T, F]"""
    shared, experts = split.members(layer)
    on_TE = torch.zeros_like(scores_TE).scatter_(1, scores_TE.topk(number, dim=1).indices, 1.0)
    on_TF = torch.zeros(len(scores_TE), width)
    on_TF[:, list(shared)] = 1.0
    on_TF[:, torch.tensor(experts).flatten()] = on_TE.repeat_interleave(len(experts[0]), dim=1)
    return on_TF


def routed(lab: Lab, share: float, split: Split | None = None, *, by_layer: bool = False) -> Iterator[On]:
    """The experts that the router chooses, as many in every layer or by what each costs."""
    split = split or lab.found.split
    numbers = [lab.number(share)] * lab.model.shape.layers
    if by_layer:
        growths = [lab.found.growths[layer].tolist() for layer in range(lab.model.shape.layers)]
        numbers = list(numbers_by_layer(growths, numbers[0]))
    for layer, number in enumerate(numbers):
        w_DE = split.routers[layer]

        def on(x_TD: Tensor, _h: Tensor, _a: Tensor, w_DE=w_DE, number=number, layer=layer) -> Tensor:
            return chosen(x_TD @ w_DE, number, split, layer, lab.width)

        yield on


def perfect(lab: Lab, share: float) -> Iterator[On]:
    """The experts that do most for each token, as only the finished layer knows."""
    for layer in range(lab.model.shape.layers):
        felt_FD = lab.part(layer).w_out_FD @ lab.sensed_LDD[layer]
        experts_EM = torch.tensor(lab.found.split.members(layer)[1])

        def on(_x: Tensor, _h: Tensor, a_TF: Tensor, felt_FD=felt_FD, experts_EM=experts_EM, layer=layer) -> Tensor:
            done_TE = torch.stack([(a_TF[:, of] @ felt_FD[of]).square().sum(1) for of in experts_EM], dim=1)
            return chosen(done_TE, lab.number(share), lab.found.split, layer, lab.width)

        yield on


def removed(lab: Lab, share: float) -> Iterator[On]:
    """The same neurons for every token, by `--method activation`."""
    for layer in range(lab.model.shape.layers):
        on_F = torch.zeros(lab.width)
        on_F[list(best(lab.found.scores[layer], nearest(share * lab.width)))] = 1.0
        yield lambda _x, _h, a_TF, on_F=on_F: on_F.expand_as(a_TF)


def above(lab: Lab, share: float, *, by_gates: bool) -> Iterator[On]:
    """The neurons above a threshold, one for each layer, that this share of the calibration's are above.

    By |activation| times outgoing norm as in TEAL, or by |gate|, the norm and the mean |up| as in CATS.
    """
    for layer in range(lab.model.shape.layers):
        part = lab.part(layer)
        seen_TH = lab.calibrating[layer] @ part.w_in_DH
        norm_F = part.w_out_FD.norm(dim=1)
        if by_gates:
            norm_F = norm_F * seen_TH.chunk(2, dim=1)[1].abs().mean(0)

        def strength(h_TH: Tensor, norm_F=norm_F) -> Tensor:
            return (functional.silu(h_TH.chunk(2, dim=1)[0]) if by_gates else activate(h_TH)).abs() * norm_F

        every = strength(seen_TH).flatten().sort().values
        threshold = every[nearest((1 - share) * len(every))]
        yield lambda _x, h_TH, _a, strength=strength, threshold=threshold: (strength(h_TH) >= threshold).float()


@dataclass(frozen=True, kw_only=True)
class Way:
    """How a token's neurons are chosen."""

    on: Callable[[Lab, float], Iterator[On]]
    shares: tuple[float, ...]
    bytes_share: Callable[[float, float], float]  # by the share, and a router's size over the feed-forward's


WAYS: Mapping[str, Way] = {
    "experts": Way(on=routed, shares=SHARES[:3], bytes_share=lambda share, router: share + router),
    "removed": Way(on=removed, shares=SHARES[:3], bytes_share=lambda share, _: share),
    "experts, numbers by layer": Way(
        on=partial(routed, by_layer=True), shares=SHARES[:3], bytes_share=lambda share, router: share + router
    ),
    "thresholds on gates": Way(
        on=partial(above, by_gates=True), shares=SHARES, bytes_share=lambda share, _: (1 + 2 * share) / 3
    ),
    "thresholds on activations": Way(
        on=partial(above, by_gates=False), shares=SHARES, bytes_share=lambda share, _: (2 + share) / 3
    ),
    "experts, chosen perfectly": Way(on=perfect, shares=SHARES[:3], bytes_share=lambda share, router: share + router),
    "drawn experts": Way(
        on=lambda lab, share: routed(lab, share, lab.found.drawn),
        shares=SHARES[:3],
        bytes_share=lambda share, router: share + router,
    ),
}


class Counted:
    """How many neurons took part, of how many."""

    def __init__(self) -> None:
        self.on = self.every = 0.0

    def forward(
        self, part: DenseFeedForward, on: On, x_BSD: Tensor, norm_D: Tensor, eps: float, routing: object
    ) -> Tensor:
        """A dense layer in which only chosen neurons write."""
        x_TD = rms_norm(x_BSD, norm_D, eps).flatten(0, 1)
        h_TH = x_TD @ part.w_in_DH
        a_TF = activate(h_TH)
        on_TF = on(x_TD, h_TH, a_TF)
        self.on, self.every = self.on + float(on_TF.sum()), self.every + on_TF.numel()
        return x_BSD + ((a_TF * on_TF) @ part.w_out_FD).view_as(x_BSD)


@torch.no_grad()
def row_of(lab: Lab, name: str, share: float, text: str, windows: Windows, whole: Nats) -> Row:
    """One way at one share on one text."""
    counted, way = Counted(), WAYS[name]
    ways = list(way.on(lab, share))
    for layer, on in enumerate(ways):
        lab.part(layer).forward = partial(counted.forward, lab.part(layer), on)
    nats = nats_of(lab.model, {text: windows})[text]
    for layer in range(len(ways)):
        del lab.part(layer).forward
    reached = counted.on / counted.every
    router = lab.sizes.experts / (3 * lab.width)
    growth = nats.above(whole)
    return {
        "experts": lab.sizes.experts,
        "always": lab.sizes.always,
        "way": name,
        "share": share,
        "text": text,
        "neurons_share": reached,
        "bytes_share": way.bytes_share(reached, router),
        "loss_increase": plain(growth),
    }


def _named(text: str) -> str:
    return "/".join(Path(text).parts[-2:])


def main() -> None:
    """Measure what is not known yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("calibrate")
    parser.add_argument("score", nargs="+")
    parser.add_argument("--experts", type=int, default=96)
    parser.add_argument("--always", type=int, default=32)
    parser.add_argument("--ways", nargs="*", default=list(WAYS), choices=list(WAYS))
    parser.add_argument("--shares", nargs="*", type=float, default=list(SHARES))
    parser.add_argument("--work", type=Path, default=Path("/tmp/split_experts"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    model, tokenizer = load(given.checkpoint).eval(), load_tokenizer(given.checkpoint)
    read = partial(read_windows, tokenizer=tokenizer, vocab_size=model.shape.vocab_size, context=CONTEXT)
    calibration = read([given.calibrate], tokens=CALIBRATION_TOKENS, field="calibrate")
    facts = {
        "checkpoint": digest_of(given.checkpoint),
        "calibration": {"text": _named(given.calibrate), "tokens": calibration.tokens},
        "context": CONTEXT,
    }
    rows, wholes = _known(facts)
    sizes = SplitSizes.of(given.experts, given.always, None)
    sizes.require_fits(model.shape)
    ids_WS1, shelf = torch.from_numpy(calibration.ids_WS1), Shelf(given.work / f"{sizes.experts}-{sizes.always}")
    lab = Lab(model=model, found=divided(model, ids_WS1, sizes, 0, shelf), windows_WS1=ids_WS1, shelf=shelf)
    texts = {_named(name): read([name], tokens=SCORED_TOKENS, field="score") for name in given.score}

    def put() -> None:
        command = "python -m benchmarks.split_experts SMOLLM2 TRAIN SCORE …"
        keep(RECORD, command, {**facts, "whole_nats": wholes, "rows": rows})

    for text, windows in texts.items():
        if text not in wholes:
            wholes[text] = nats_of(model, {text: windows})[text].nats_W.tolist()
            put()
        whole = Nats(windows, np.array(wholes[text]))
        for share in given.shares:
            for name in given.ways:
                key = (sizes.experts, sizes.always, name, share, text)
                if share not in WAYS[name].shares or any(_key(row) == key for row in rows):
                    continue
                began = time.perf_counter()
                rows.append(row_of(lab, name, share, text, windows, whole))
                put()
                print(*key, rows[-1]["loss_increase"], f"{time.perf_counter() - began:.0f} s", flush=True)


def _key(row: Row) -> tuple[int, int, str, float, str]:
    return row["experts"], row["always"], row["way"], row["share"], row["text"]


def _known(facts: Mapping[str, Any]) -> tuple[list[Row], dict[str, list[float]]]:
    """The rows on file, and the dense model's nats by window, if they are of this checkpoint and calibration."""
    found = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    if any(found.get(name) != fact for name, fact in facts.items()):
        return [], {}
    return found["rows"], found["whole_nats"]


if __name__ == "__main__":
    main()
