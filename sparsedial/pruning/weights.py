"""Single weights turned off: set to zero in the matrices of the layers. Nothing gets smaller by it.

B sequences, S positions, D d_model, O outputs and N inputs of a matrix.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import polars
import torch
from torch import Tensor

from sparsedial.errors import UserError
from sparsedial.model.router import Routing
from sparsedial.model.stream import NamedTensor
from sparsedial.model.transformer import Transformer
from sparsedial.model.weights import views_of_block
from sparsedial.pruning.choosing_experts import unreached
from sparsedial.pruning.counts import nearest, require_some
from sparsedial.pruning.cutting import RULES, Density, Rule, Seen, magnitude
from sparsedial.pruning.in_turn import Passage, Turn, require_text_is_known
from sparsedial.pruning.inputs import note_inputs
from sparsedial.pruning.kept import Choice, Chooser, every_layer
from sparsedial.pruning.methods import PATTERNS, Ask
from sparsedial.pruning.shelf import Shelf, shelf_of
from sparsedial.records.prune import KeptParts
from sparsedial.shape.shape import Shape
from sparsedial.shape.tensors import DENSE, EXPERTS, SHARED, Name, Size, tensor_sizes

CUT = ("attention.", DENSE, SHARED, EXPERTS)  # prefixes of parts; routers and tables stay whole
SAME_INPUTS = {  # by part, the one of its layer that multiplies the same
    "attention.key": "attention.query",
    "attention.value": "attention.query",
    "feed_forward.up": "feed_forward.gate",
    "shared.up": "shared.gate",
    "experts.up": "experts.gate",
}
UNSCORED = "unscored"  # among the matrices of a layer: the experts that no token reached
Cut = Callable[[Tensor], Tensor]  # a matrix with the weights that are off at zero. Shapes: [O, N] to [O, N]


@dataclass(frozen=True, eq=False)
class KeptWeights:
    """The weights that stay on, by matrix: what cuts each, and how many stay of it."""

    cuts: Mapping[Name, Cut]
    counts: Mapping[Name, int]

    def share(self, shape: Shape) -> float:
        """The share of all weights of the matrices that are cut."""
        sizes = matrices(shape)
        return sum(self.counts.values()) / sum(size[0] * size[1] for size in sizes.values())

    def shape(self, shape: Shape) -> Shape:
        """The model as it was: zeros are stored as other weights are."""
        return shape

    def stream(self, tensors: Iterable[NamedTensor]) -> Iterator[NamedTensor]:
        """The tensors, with zeros in place of the other weights."""
        for tensor in tensors:
            cut = self.cuts.get(tensor.name)
            yield tensor if cut is None else tensor.mapped(partial(_in_its_type, cut, tensor.dtype))

    def parts(self, shape: Shape) -> KeptParts:
        """The share."""
        return KeptParts(experts=None, layers=every_layer(shape), d_ff=None, weights_share=self.share(shape))


def _in_its_type(cut: Cut, dtype: torch.dtype, values: Tensor) -> Tensor:
    return cut(values.to(torch.promote_types(values.dtype, torch.float32))).to(dtype)


def matrices(shape: Shape) -> dict[Name, Size]:
    """The matrices that weights are turned off in; modules of multi-token prediction stay whole."""
    return {
        name: size
        for name, size in tensor_sizes(shape).items()
        if len(size) == 2 and name.layer is not None and name.layer < shape.layers and name.part.startswith(CUT)
    }


def without_weights_to_turn_off(shape: Shape) -> str | None:
    """Every model has some."""
    return None


def require_share_of_weights(shape: Shape, ask: Ask) -> KeptWeights:
    """As many weights as a share keeps, by magnitude.

    Raises: UserError for a share that keeps no weight of an output or all, or a pattern that does not fit it.
    """
    if ask.pattern is None:
        (narrowest,) = sizes_of_weights(shape, ask)
        require_some(ask.keep, nearest(ask.keep * narrowest), narrowest, "weights of an output")
    else:
        _require_pattern(shape, ask.keep, ask.pattern)
    return _kept_by_magnitude(shape, _density(ask.keep, ask.pattern))


def sizes_of_weights(shape: Shape, ask: Ask) -> Iterable[int]:
    """The number that a share of the weights is rounded to: the fewest of an output, or a pattern's group."""
    return [min(inputs for _, inputs in matrices(shape).values()) if ask.pattern is None else PATTERNS[ask.pattern][1]]


def _density(keep: float, pattern: str | None) -> Density:
    return Density(keep, None if pattern is None else PATTERNS[pattern])


def _require_pattern(shape: Shape, keep: float, pattern: str) -> None:
    off, of = PATTERNS[pattern]
    if abs(keep - (1 - off / of)) > 1e-9:
        raise UserError(f"{pattern} keeps {1 - off / of:g} of the weights, and <keep> is {keep:g}", field="pattern")
    for name, (_, inputs) in matrices(shape).items():
        if inputs % of:
            raise UserError(
                f"{pattern} needs groups of {of} inputs, and {name} has {inputs} inputs",
                hint="leave <pattern> out",
                field="pattern",
            )


def calibrate_weights(
    model: Transformer, windows_WS1: Tensor, asks: Sequence[Ask], shelf: Shelf | None = None
) -> Chooser:
    """Check the calibration, and give what chooses by it: each share reads it anew, in the layers that it has cut.

    Shapes: [W, S+1]
    Raises: UserError for a calibration text that the model knows less of than a uniform guess does.
    """
    shelf = Shelf() if shelf is None else shelf
    require_text_is_known(model, windows_WS1, shelf)
    return partial(choose_weights, model, windows_WS1, shelf)


def choose_weights(model: Transformer, windows_WS1: Tensor, shelf: Shelf, ask: Ask) -> Choice:
    """Calibrate and choose the weights of every matrix. Shapes: [W, S+1]"""
    density = _density(ask.keep, ask.pattern)
    rule, unscored = RULES.get(ask.method), ()
    if rule is not None:
        kept, unscored = cut_in_turn(model, windows_WS1, rule, density, shelf_of(shelf, ask))
    elif ask.how.drawn:
        kept = _kept_at_random(model.shape, density, ask.seed)
    else:
        kept = _kept_by_magnitude(model.shape, density)
    fate = "without inputs their weights went by magnitude"
    return Choice(
        kept=kept,
        controls=tuple(_kept_at_random(model.shape, density, seed) for seed in ask.controls),
        scores=_table(kept, model.shape),
        unscored=unscored,
        notes=(unreached(unscored, fate),) if unscored else (),
    )


def _table(kept: KeptWeights, shape: Shape) -> polars.DataFrame:
    """A row for each matrix."""
    sizes = matrices(shape)
    columns = {
        "layer": [name.layer for name in sizes],
        "expert": [name.expert for name in sizes],
        "matrix": [name.part for name in sizes],
        "weights": [size[0] * size[1] for size in sizes.values()],
        "kept": [kept.counts[name] for name in sizes],
    }
    return polars.DataFrame(columns, schema_overrides={"expert": polars.Int64})


def _kept_by_magnitude(shape: Shape, density: Density) -> KeptWeights:
    sizes = matrices(shape)
    counts = {name: density.count(size, by_row=False) for name, size in sizes.items()}
    return KeptWeights(dict.fromkeys(sizes, partial(magnitude, density=density)), counts)


def _kept_at_random(shape: Shape, density: Density, seed: int) -> KeptWeights:
    sizes = matrices(shape)
    cuts = {name: partial(_at_random, density, seed, name) for name in sizes}
    return KeptWeights(cuts, {name: density.count(size) for name, size in sizes.items()})


def _at_random(density: Density, seed: int, name: Name, w_ON: Tensor) -> Tensor:
    draw = torch.Generator().manual_seed(zlib.crc32(f"{seed} {name}".encode()))
    return w_ON * density.largest(torch.rand(w_ON.shape, generator=draw))


@torch.no_grad()
def cut_in_turn(
    model: Transformer, windows_WS1: Tensor, rule: Rule, density: Density, shelf: Shelf | None = None
) -> tuple[KeptWeights, tuple[tuple[int, int], ...]]:
    """Cut layer after layer, each by the inputs that it has in the model whose earlier layers are cut already.

    Also gives the experts that no token reached, as layer and number; they are cut by magnitude.

    Shapes: [W, S+1]
    """
    passage, sizes, unscored = Passage(model, windows_WS1, shelf), matrices(model.shape), []
    cuts: dict[Name, Cut] = {}
    for turn in passage.turns(changing=True):
        group = turn.found(partial(_cut_layer, turn, sizes, rule, density))
        cuts |= {name: partial(_replaced, group[str(name)]) for name in sizes if name.layer == turn.number}
        unscored += [(turn.number, expert) for expert in group[UNSCORED]().int().tolist()]
        turn.pass_on(partial(turn.block, routing=Routing()))
    passage.end()
    alone = {name for name in sizes if (name.layer, name.expert) in unscored}
    counts = {
        name: density.count((size[0], size[1]), by_row=False)
        if name in alone
        else rule.count((size[0], size[1]), density)
        for name, size in sizes.items()
    }
    return KeptWeights(cuts, counts), tuple(unscored)


def _cut_layer(turn: Turn, sizes: Mapping[Name, Size], rule: Rule, density: Density) -> dict[str, Tensor]:
    """Cut the matrices of a layer in its memory; all of them by name, and the experts that no token reached."""
    of_layer = views_of_block(turn.block, turn.number)
    views = {name: view.detach() for name, view in of_layer.items() if name in sizes}
    inputs = nothing_seen(views, rule)
    for x_BSD, place in turn.inputs:
        note_inputs(turn.block, x_BSD, place, views, inputs)
    gone = [name.expert for name in views if name.part == "experts.down" and not inputs[name].tokens]
    for name, view_ON in views.items():
        seen = inputs[name]
        view_ON.copy_(rule.cut(view_ON, seen, density) if seen.tokens else magnitude(view_ON, density))
    return {UNSCORED: torch.tensor(gone, dtype=torch.float32), **{str(name): view for name, view in views.items()}}


def nothing_seen(views: Mapping[Name, Tensor], rule: Rule) -> dict[Name, Seen]:
    """What will be seen of each matrix's inputs, nothing so far; shared where inputs are."""
    own = {name: rule.seen(view.shape[1]) for name, view in views.items() if name.part not in SAME_INPUTS}
    others = {name: Name(SAME_INPUTS[name.part], name.layer, name.expert) for name in views if name not in own}
    return own | {name: own[first] for name, first in others.items()}


def _replaced(values: Callable[[], Tensor], w_ON: Tensor) -> Tensor:
    """Other values for a matrix; those that are as they were keep all their digits."""
    values_ON = values()
    return torch.where(values_ON == w_ON.to(values_ON.dtype), w_ON, values_ON.to(w_ON.dtype))
