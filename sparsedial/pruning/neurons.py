"""Neurons of dense feed-forward layers and of shared experts turned off: scores, which stay, the narrower checkpoint.

B sequences, S positions, T tokens (B*S), D d_model, F neurons of a layer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import polars
import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from sparsedial.errors import UserError
from sparsedial.kernels.reference import activate
from sparsedial.model.attention import rms_norm
from sparsedial.model.router import Routing
from sparsedial.model.stream import NamedTensor
from sparsedial.model.transformer import DenseFeedForward, SparseFeedForward, Transformer
from sparsedial.pruning.counts import Scores, best, nearest, require_some
from sparsedial.pruning.gather import modules_held, predict, watching
from sparsedial.pruning.in_turn import Passage
from sparsedial.pruning.kept import Choice, Chooser, every_layer
from sparsedial.pruning.methods import Ask
from sparsedial.pruning.quality import require_known
from sparsedial.pruning.scores import random_scores
from sparsedial.pruning.shelf import Group, Shelf
from sparsedial.records.prune import KeptParts
from sparsedial.shape.shape import Shape, with_layers
from sparsedial.shape.tensors import DENSE, NEURON_AXES, SHARED, resized

AXIS_OF = {f"{prefix}{kind}": axis for prefix in (DENSE, SHARED) for kind, axis in NEURON_AXES.items()}  # by part
FeedForward = DenseFeedForward | SparseFeedForward


@dataclass(frozen=True)
class KeptNeurons:
    """The neurons that stay on, by layer: of a dense one, or of the shared experts of a sparse one.

    Modules of multi-token prediction follow the last layer.
    """

    neurons: Mapping[int, tuple[int, ...]]  # rising

    def share(self, shape: Shape) -> float:
        """The share of all neurons of dense layers and shared experts."""
        return sum(map(len, self.neurons.values())) / sum(widths(shape).values())

    def shape(self, shape: Shape) -> Shape:
        """The model without the other neurons."""
        shared = {
            len(on) // shape.layer(number).d_expert
            for number, on in self.neurons.items()
            if shape.layer(number).is_sparse
        }
        layers = [shape.layer(number) for number in range(shape.layers)]
        narrower = [
            layer if layer.is_sparse else replace(layer, d_ff=len(self.neurons[number]))
            for number, layer in enumerate(layers)
        ]
        (experts,) = shared or {shape.shared_experts}  # a Shape has one number of them for all layers
        return with_layers(replace(shape, shared_experts=experts), narrower)

    def stream(self, tensors: Iterable[NamedTensor]) -> Iterator[NamedTensor]:
        """The tensors without the rows and columns of the other neurons."""
        for tensor in tensors:
            on = None if tensor.name.layer is None else self.neurons.get(tensor.name.layer)
            axis = AXIS_OF.get(tensor.name.part)
            yield tensor if on is None or axis is None else _cut(tensor, list(on), axis)

    def parts(self, shape: Shape) -> KeptParts:
        """The number of each layer; 0 where experts are all that a layer has."""
        counts = tuple(len(self.neurons.get(number, ())) for number in range(shape.layers + shape.mtp_layers))
        return KeptParts(experts=None, layers=every_layer(shape), d_ff=counts, weights_share=None)


def _cut(tensor: NamedTensor, on: list[int], axis: int) -> NamedTensor:
    return tensor.mapped(lambda values: values[on] if axis == 0 else values[:, on], resized(tensor.size, axis, len(on)))


def widths(shape: Shape) -> dict[int, int]:
    """The neurons of each layer that has some; modules of multi-token prediction follow the last layer."""
    layers = {number: shape.layer(number) for number in range(shape.layers + shape.mtp_layers)}
    found = {number: layer.d_ff or shape.shared_experts * layer.d_expert for number, layer in layers.items()}
    return {number: width for number, width in found.items() if width}


def without_neurons_to_turn_off(shape: Shape) -> str | None:
    """Why a model has none."""
    if shape.dense_feed_forwards or shape.shared_experts > 1:
        return None
    return "has no dense feed-forward layer, and no shared experts that could be fewer"


def uniform_counts(scores: Scores, shape: Shape, keep: float) -> dict[int, int]:
    """How many neurons of each layer stay on: the number nearest to the share.

    Of shared experts as many neurons stay as a whole number of them has, since a Shape says how many there are; those
    of one stay at least.

    Raises: UserError where no neuron of a dense layer stays, or none goes at all.
    """
    every = widths(shape)
    shared = min(max(1, nearest(keep * shape.shared_experts)), shape.shared_experts)
    layers = {number: shape.layer(number) for number in every}
    counts = {
        number: shared * layer.d_expert if layer.is_sparse else nearest(keep * layer.d_ff)
        for number, layer in layers.items()
    }
    dense = [width for number, width in every.items() if not layers[number].is_sparse]
    if not all(counts.values()):
        require_some(keep, 0, min(dense), "neurons of a layer")
    if counts == every:
        most, noun = (max(dense), "neurons of a layer") if dense else (shared, "shared experts")
        require_some(keep, most, most, noun)
    return counts


def global_counts(scores: Scores, shape: Shape, keep: float) -> dict[int, int]:
    """How many neurons of each layer stay on where those of all dense layers compete, by score over their layer's mean.

    One neuron of each stays at least. Modules of multi-token prediction keep as many as the widest layer.

    Raises: UserError where none stays or goes, or where there are shared experts.
    """
    every = widths(shape)
    if any(shape.layer(number).is_sparse for number in every):
        raise UserError("shared experts are as wide in each layer", hint="leave <budget> out", field="budget")
    main = {number: width for number, width in every.items() if number < shape.layers}
    total = sum(main.values())
    count = nearest(keep * total)
    require_some(keep, count, total, "neurons", least=len(main))
    ranked = sorted((value, number) for number in main for value in _relative(scores[number])[:-1])
    gone = Counter(number for _, number in ranked[: total - count])
    kept = {number: width - gone[number] for number, width in main.items()}
    return kept | {number: max(kept.values()) for number in every if number >= shape.layers}


def _relative(scores_F: np.ndarray) -> list[float]:
    """Scores over their mean, rising; the last one is the best, which stays."""
    return np.sort(scores_F / max(float(scores_F.mean()), np.finfo(float).tiny)).tolist()


COUNTS = {"uniform": uniform_counts, "global": global_counts}  # by the budget


def require_share_of_neurons(shape: Shape, ask: Ask) -> KeptNeurons:
    """As many neurons as a share keeps, where none is better than another of its layer and all layers are alike.

    Raises: UserError for a share that keeps no neuron of a layer or all of them, or a budget that does not fit.
    """
    alike = {number: np.arange(1.0, 1 + width) for number, width in widths(shape).items()}
    return keep_neurons(alike, COUNTS[ask.budget](alike, shape, ask.keep))


def sizes_of_neurons(shape: Shape, ask: Ask) -> Iterable[int]:
    """The numbers that a share of the neurons is rounded to: widths and shared experts, or all neurons together."""
    main = [shape.layer(number) for number in range(shape.layers)]
    each = [layer.d_ff or shape.shared_experts for layer in main]
    return [size for size in each if size] if ask.budget == "uniform" else [sum(layer.d_ff for layer in main)]


def calibrate_neurons(
    model: Transformer, windows_WS1: Tensor, asks: Sequence[Ask], shelf: Shelf | None = None
) -> Chooser:
    """Read the calibration once, and give what scores every neuron and chooses.

    Shapes: [W, S+1]
    Raises: UserError for a calibration text that the model knows less of than a uniform guess does.
    """
    seen = watch_neurons(model, windows_WS1, shelf)
    require_known(seen.loss, model.shape)
    return partial(choose_neurons, model.shape, seen)


def choose_neurons(shape: Shape, seen: Activity, ask: Ask) -> Choice:
    """Score every neuron by its mean |activation| and choose."""
    activations, norms = seen.activations, seen.norms
    found = {number: activations[number] * norms[number] for number in activations}
    scores = random_scores(widths(shape), ask.seed) if ask.how.drawn else found
    counts = COUNTS[ask.budget](scores, shape, ask.keep)
    kept = keep_neurons(scores, counts)
    whole = [number for number, width in widths(shape).items() if counts[number] == width]
    return Choice(
        kept=kept,
        controls=tuple(keep_neurons(random_scores(widths(shape), seed), counts) for seed in ask.controls),
        scores=_table(activations, norms, found, kept),
        notes=_of_shared(shape, whole),
    )


def _of_shared(shape: Shape, whole: Sequence[int]) -> tuple[str, ...]:
    if any(shape.layer(number).is_sparse for number in whole):
        return ("shared experts stayed whole: they can only become fewer, and one stays",)
    return ()


def keep_neurons(scores: Scores, counts: Mapping[int, int]) -> KeptNeurons:
    """The neurons of the highest scores, so many of each layer; of equal ones the earlier."""
    return KeptNeurons({number: best(scores[number], count) for number, count in counts.items()})


def _table(activations: Scores, norms: Scores, scores: Scores, kept: KeptNeurons) -> polars.DataFrame:
    """A row for each neuron."""
    layers = [
        {
            "layer": np.full(len(score_F), number),
            "neuron": np.arange(len(score_F)),
            "mean_activation": activations[number],
            "outgoing_norm": norms[number],
            "activation": score_F,
            "kept": np.isin(np.arange(len(score_F)), kept.neurons[number]),
        }
        for number, score_F in scores.items()
    ]
    return polars.concat(map(polars.DataFrame, layers))


@dataclass(frozen=True, kw_only=True, eq=False)
class Activity:
    """What a calibration showed of the neurons of each layer that has some which every token visits."""

    loss: float  # of the text, nats per token
    activations: Scores  # mean |activation|, each [F]
    norms: Scores  # of what a neuron writes into the stream, Euclidean, each [F]


@torch.no_grad()
def watch_neurons(model: Transformer, windows_WS1: Tensor, shelf: Shelf | None = None) -> Activity:
    """Read each window once. The mean is over all tokens that a layer reads.

    The activation is the number that multiplies the outgoing weights: silu(gate) * up, times the gate of the shared
    experts where they have one.

    Shapes: [W, S+1]
    """
    passage, known = Passage(model, windows_WS1, shelf), widths(model.shape)
    groups: dict[int, Group] = {}
    for turn in passage.turns():
        if turn.number not in known:
            turn.pass_on(partial(turn.block, routing=Routing()))
            continue
        seen = Seen(turn.block.feed_forward)
        with watching([seen.hook()]):
            turn.pass_on(partial(turn.block, routing=Routing()))
        groups[turn.number] = turn.found(seen.tensors)
    modules = {number: Seen(model.every_block[number].feed_forward) for number in known if number >= model.shape.layers}
    with modules_held(model), watching([seen.hook() for seen in modules.values()]):
        end = passage.end(partial(_behind, passage, modules))
    groups |= {number: _named(end, number) for number in modules}
    return Activity(
        loss=float(end["loss"]()),
        activations={number: group["mean activation"]().numpy() for number, group in groups.items()},
        norms={number: group["outgoing norm"]().numpy() for number, group in groups.items()},
    )


class Seen:
    """Sums up the |activations| of a feed-forward part, while it computes as it always does."""

    def __init__(self, part: FeedForward) -> None:
        self._part, self._tokens, self._total_F = part, 0, torch.zeros((), dtype=torch.float64)

    def hook(self) -> RemovableHandle:
        """Begin."""
        return self._part.register_forward_pre_hook(self._add)

    def _add(self, part: FeedForward, given: tuple) -> None:
        x_BSD, norm_D, eps, _ = given
        found_TF = activations_of(part, rms_norm(x_BSD, norm_D, eps).flatten(0, 1)).abs()
        self._total_F = self._total_F + found_TF.sum(0, dtype=torch.float64)
        self._tokens += len(found_TF)

    def tensors(self) -> dict[str, Tensor]:
        """What was seen, by name. Shapes: each [F]"""
        norm_F = _dense_of(self._part).w_out_FD.detach().double().norm(dim=1)
        return {"mean activation": (self._total_F / self._tokens).cpu(), "outgoing norm": norm_F.cpu()}


def _behind(passage: Passage, modules: Mapping[int, Seen]) -> dict[str, Tensor]:
    """The loss of the text, and what was seen of the modules of multi-token prediction."""
    loss = passage.loss(partial(predict, passage.model, Routing()))
    seen = {f"{number}.{name}": found for number, each in modules.items() for name, found in each.tensors().items()}
    return {"loss": loss, **seen}


def _named(group: Group, number: int) -> Group:
    """The tensors of one module of multi-token prediction."""
    return {name.removeprefix(f"{number}."): values for name, values in group.items() if name.startswith(f"{number}.")}


def _dense_of(part: FeedForward) -> DenseFeedForward:
    dense = part if isinstance(part, DenseFeedForward) else part.shared
    assert dense is not None
    return dense


def activations_of(part: FeedForward, x_TD: Tensor) -> Tensor:
    """What multiplies the outgoing weights of each neuron. Shapes: the normed stream [T, D] to [T, F]"""
    found_TF = activate(x_TD @ _dense_of(part).w_in_DH)
    if isinstance(part, SparseFeedForward) and part.w_shared_gate_D1 is not None:
        return torch.sigmoid(x_TD @ part.w_shared_gate_D1) * found_TF
    return found_TF
