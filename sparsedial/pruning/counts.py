"""How much of a part stays: the number nearest to a share that the model allows, and the rules for experts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping

import numpy as np

from sparsedial.errors import UserError
from sparsedial.pruning.experts import KeptExperts, sparse_layers
from sparsedial.shape.shape import Layer, Shape

Scores = Mapping[int, np.ndarray]  # by layer, of each expert or neuron; NaN where an expert has none
COMPARED = 2  # experts of a group whose sum says which groups a sigmoid router keeps; DeepSeek-V3, section 2.1.2


def nearest(number: float) -> int:
    """Halves are rounded up."""
    return int(np.floor(number + 0.5))


def require_some(keep: float, count: int, every: int, noun: str, least: int = 1) -> None:
    """Check that of things of which all but the least number may go, enough stay and some go.

    Raises: UserError.
    """
    if count < least:
        raise UserError(
            f"{keep:g} keeps {count} of {every} {noun}, and at least {least} must stay",
            hint=f"the least is <keep> {least / every:.4g}",
            field="keep",
        )
    if count >= every:
        hint = f"<keep> {(every - 1) / every:.4g} or less turns some off" if every > 1 else None
        raise UserError(f"{keep:g} of {every} {noun} is all of them", hint=hint, field="keep")


def best(scores_N: np.ndarray, count: int) -> tuple[int, ...]:
    """The numbers of the highest scores, rising; of equal ones the earlier. Shapes: from [N]"""
    return tuple(int(number) for number in np.sort(np.argsort(-scores_N, kind="stable")[:count]))


def least_of_group(shape: Shape, layer: Layer) -> int:
    """The fewest experts that each group of a layer must keep.

    A token must find its top_k in the groups that it chooses from, and a router that compares groups by their two best
    experts needs two in each.
    """
    return max(-(-layer.top_k // shape.kept_groups), COMPARED if shape.gate == "sigmoid" else 1)


def uniform_counts(scores: Scores, shape: Shape, keep: float) -> dict[int, int]:
    """How many experts of each layer stay on: the number nearest to the share that the router allows.

    Raises: UserError where that is below the least, or none would be turned off.
    """
    return {number: _count(shape, layer, keep) for number, layer in sparse_layers(shape).items()}


def _count(shape: Shape, layer: Layer, keep: float) -> int:
    of_group = layer.experts // shape.expert_groups
    count = nearest(keep * of_group)
    _require(shape, keep, count, (least_of_group(shape, layer), of_group), f"a token's {layer.top_k} choices")
    return shape.expert_groups * count


def global_counts(scores: Scores, shape: Shape, keep: float) -> dict[int, int]:
    """How many experts of each layer stay on where those of all layers compete, by their score over their layer's mean.

    One expert of each group goes at a time. Modules of multi-token prediction keep as many as the largest layer.

    Raises: UserError where the share needs more than can go, or none would be turned off.
    """
    groups = shape.expert_groups
    layers = {number: layer for number, layer in sparse_layers(shape).items() if number < shape.layers}
    of_group = {number: layer.experts // groups for number, layer in layers.items()}
    least = {number: least_of_group(shape, layer) for number, layer in layers.items()}
    count = nearest(keep * sum(of_group.values()))
    _require(shape, keep, count, (sum(least.values()), sum(of_group.values())), "a token's choices in all layers")
    ranked = sorted(
        (value, number, rank)
        for number in layers
        for rank, value in enumerate(_slices(scores[number], groups)[: of_group[number] - least[number]])
    )
    gone = Counter(number for _, number, _ in ranked[: sum(of_group.values()) - count])
    kept = {number: groups * (of_group[number] - gone[number]) for number in layers}
    modules = {number: max(kept.values()) for number in sparse_layers(shape) if number >= shape.layers}
    return kept | modules


def _slices(scores_E: np.ndarray, groups: int) -> list[float]:
    """What goes with the worst expert of each group, with the second worst and so on, over the mean score."""
    mean = np.nansum(scores_E) / max(1, np.count_nonzero(~np.isnan(scores_E)))
    relative_GE = _known(scores_E / max(mean, np.finfo(float).tiny)).reshape(groups, -1)
    return np.sort(relative_GE, axis=1).sum(axis=0).tolist()


def _require(shape: Shape, keep: float, count: int, ends: tuple[int, int], needing: str) -> None:
    """Check a number of experts of each group, or of the groups of all layers, against the least and all of them."""
    groups, (least, every) = shape.expert_groups, ends
    in_groups = f" in {groups} groups, of which a token chooses from {shape.kept_groups}" if groups > 1 else ""
    if count < least:
        raise UserError(
            f"{keep:g} keeps {groups * count} of {groups * every} experts{in_groups}; {needing} need at least"
            f" {groups * least}",
            hint=f"the least is <keep> {least / every:.4g}",
            field="keep",
        )
    if count == every:
        raise UserError(
            f"{keep:g} of {groups * every} experts{in_groups} is all of them",
            hint=f"<keep> {(every - 1) / every:.4g} or less turns some off" if every > least else None,
            field="keep",
        )


def keep_best(scores: Scores, counts: Mapping[int, int], groups: int) -> KeptExperts:
    """The experts of the highest scores, so many of each layer and equally many in each group.

    Experts without a score (NaN) go first. Of equal scores the earlier expert stays.
    """
    return KeptExperts({number: _best(scores[number], count, groups) for number, count in counts.items()})


def _best(scores_E: np.ndarray, count: int, groups: int) -> tuple[int, ...]:
    """The `count` best experts of a layer, equally many in each group."""
    known_E = _known(scores_E)
    of_group = len(known_E) // groups
    firsts = range(0, len(known_E), of_group)
    found = [(first, best(known_E[first : first + of_group], count // groups)) for first in firsts]
    return tuple(first + number for first, numbers in found for number in numbers)


def _known(scores_E: np.ndarray) -> np.ndarray:
    """The scores, with the lowest of all in place of one that is not known."""
    return np.where(np.isnan(scores_E), -np.inf, scores_E)


COUNTS: Mapping[str, Callable[[Scores, Shape, float], dict[int, int]]] = {  # by the budget
    "uniform": uniform_counts,
    "global": global_counts,
}
