"""Experts chosen by what a calibration shows of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial

import numpy as np
import polars
from torch import Tensor

from sparsedial.model.transformer import Transformer
from sparsedial.pruning.counts import COUNTS, keep_best
from sparsedial.pruning.experts import KeptExperts, sparse_layers
from sparsedial.pruning.gather import gather
from sparsedial.pruning.in_turn import require_text_is_known
from sparsedial.pruning.kept import Choice, Chooser
from sparsedial.pruning.merging import Merged, merge_alike
from sparsedial.pruning.methods import HC_SMOE, NAEE, Ask
from sparsedial.pruning.quality import require_known
from sparsedial.pruning.scores import SCORES, Reached, random_scores
from sparsedial.pruning.sequential import keep_in_turn
from sparsedial.pruning.shelf import Shelf, shelf_of
from sparsedial.pruning.subsets import keep_nearest, tokens_compared
from sparsedial.shape.shape import Shape
from sparsedial.units import count_words


def without_experts_to_turn_off(shape: Shape) -> str | None:
    """Why a model has none."""
    return None if sparse_layers(shape) else "is dense: it has no experts to turn off"


def require_share_of_experts(shape: Shape, ask: Ask) -> KeptExperts:
    """As many experts as a share keeps, where none is better than another of its layer and all layers are alike.

    Raises: UserError for a share that the router does not allow, whatever the scores.
    """
    alike = {number: np.arange(1.0, 1 + layer.experts) for number, layer in sparse_layers(shape).items()}
    return keep_best(alike, COUNTS[ask.budget](alike, shape, ask.keep), shape.expert_groups)


def sizes_of_experts(shape: Shape, ask: Ask) -> Iterable[int]:
    """The numbers of experts that a share of them is rounded to: of a group, or of a group in all layers together."""
    main = [layer for number, layer in sparse_layers(shape).items() if number < shape.layers]
    of_group = [layer.experts // shape.expert_groups for layer in main]
    return of_group if ask.budget == "uniform" else [sum(of_group)]


def calibrate_experts(
    model: Transformer, windows_WS1: Tensor, asks: Sequence[Ask], shelf: Shelf | None = None
) -> Chooser:
    """Read the calibration once, and give what scores every expert and chooses.

    Where each layer is scored behind layers that are cut, nothing of the whole model is needed: the text is checked.

    Shapes: [W, S+1]
    Raises: UserError for a calibration text that the model knows less of than a uniform guess does.
    """
    shelf = Shelf() if shelf is None else shelf
    if all(ask.in_turn for ask in asks):
        require_text_is_known(model, windows_WS1, shelf)
        return partial(choose_experts, model, windows_WS1, shelf, {})
    methods = {ask.method for ask in asks}
    inputs = tokens_compared(model.shape) if NAEE in methods else 0
    gathered = gather(model, windows_WS1, shelf, outputs=HC_SMOE in methods, inputs=inputs)
    require_known(gathered.loss, model.shape)
    return partial(choose_experts, model, windows_WS1, shelf, gathered.reached)


def choose_experts(
    model: Transformer, windows_WS1: Tensor, shelf: Shelf, reached: Mapping[int, Reached], ask: Ask
) -> Choice:
    """Score every expert by what a calibration showed, and choose; in turn each layer is scored anew.

    Shapes: [W, S+1]
    """
    shape = model.shape
    sizes = {layer: sizes.experts for layer, sizes in sparse_layers(shape).items()}
    score = SCORES.get(ask.method)
    scores = random_scores(sizes, ask.seed) if score is None else {at: score.of(seen) for at, seen in reached.items()}
    counts = COUNTS[ask.budget](scores, shape, ask.keep)
    kept: KeptExperts | Merged
    if ask.method == HC_SMOE:
        kept = merge_alike(reached, counts, shape.expert_groups)
    elif ask.method == NAEE:
        kept = keep_nearest(model, reached, counts)
    elif ask.sequential and score is not None:
        reached, kept = keep_in_turn(model, windows_WS1, score, counts, shelf_of(shelf, ask))
    else:
        kept = keep_best(scores, counts, shape.expert_groups)
    unscored = _unscored(reached)
    return Choice(
        kept=kept,
        controls=tuple(keep_best(random_scores(sizes, seed), counts, shape.expert_groups) for seed in ask.controls),
        scores=_table(reached, _into(kept), shape.expert_groups),
        unscored=unscored,
        notes=(_fate(unscored, isinstance(kept, Merged)),) if unscored and not ask.how.drawn else (),
    )


def _into(kept: KeptExperts | Merged) -> Mapping[int, Mapping[int, int]]:
    """By layer and expert, the one that it stays as or is merged into; those that are removed are missing."""
    if isinstance(kept, KeptExperts):
        return {layer: {expert: expert for expert in on} for layer, on in kept.experts.items()}
    return {
        layer: {member: leader for leader, members in clusters.items() for member in members}
        for layer, clusters in kept.clusters.items()
    }


def _unscored(reached: Mapping[int, Reached]) -> tuple[tuple[int, int], ...]:
    """Experts that no calibration token reached, as layer and number."""
    return tuple(
        (layer, int(expert)) for layer, seen in reached.items() for expert in np.flatnonzero(seen.tokens_E == 0)
    )


def _fate(unscored: Sequence[tuple[int, int]], merged: bool) -> str:
    they, were = ("it", "was") if len(unscored) == 1 else ("they", "were")
    fate = f"without a share {they} {were} merged" if merged else f"without a score {they} went first"
    return unreached(unscored, fate)


def unreached(unscored: Sequence[tuple[int, int]], fate: str) -> str:
    """What to say of experts that no calibration token reached, given as layer and number."""
    which = "; ".join(
        f"layer {layer}: {', '.join(str(expert) for at, expert in unscored if at == layer)}"
        for layer in dict.fromkeys(layer for layer, _ in unscored)
    )
    return f"no calibration token reached {count_words(len(unscored), 'expert')}, so {fate}: {which}"


def _table(reached: Mapping[int, Reached], into: Mapping[int, Mapping[int, int]], groups: int) -> polars.DataFrame:
    """A row for each expert: how many tokens reached it, its scores by all methods, whether it stays."""
    return polars.concat(_of_layer(layer, seen, into[layer], groups) for layer, seen in reached.items())


def _of_layer(layer: int, seen: Reached, into: Mapping[int, int], groups: int) -> polars.DataFrame:
    experts = len(seen.tokens_E)
    columns = {
        "layer": [layer] * experts,
        "expert": range(experts),
        "group": [expert * groups // experts for expert in range(experts)],
        "tokens": seen.tokens_E,
        **{name: score.of(seen) for name, score in SCORES.items()},  # null without a token
        "kept": [into.get(expert) == expert for expert in range(experts)],
        "into": [into.get(expert) for expert in range(experts)],  # null for one that is removed
    }
    return polars.DataFrame(columns, nan_to_null=True)
