"""What must hold of a checkpoint before `prune` reads a weight of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sparsedial.errors import UserError
from sparsedial.machine.hardware import machine_bytes
from sparsedial.model.stream import NamedTensor
from sparsedial.pruning.methods import Ask
from sparsedial.pruning.parts import PARTS, what_goes
from sparsedial.pruning.sizing import require_size, shares_of
from sparsedial.pruning.target import Target
from sparsedial.shape.counts import total_parameters
from sparsedial.shape.shape import Shape
from sparsedial.units import human_bytes

VALUE_BYTES = 4  # weights are float32 while models compute
SPLIT_MODELS = 3  # that splitting holds at once: the dense one, the split one, and a rival of it


def require_memory(shape: Shape, asks: Sequence[Ask], target: Target) -> None:
    """Raises: UserError for a model that this machine does not hold beside what is cut from it.

    That is one model; of several asks all that are smaller, since these are timed in turns. What a target leaves is not
    known yet where it is not a share.
    """
    needed, has = memory_for(shape, asks, target), machine_bytes()
    if needed > has:
        beside = needed > memory_for(shape, (), target)
        takes = "the model and what is cut from it take" if beside else "the model takes"
        raise UserError(
            f"{takes} {human_bytes(needed)} of memory, and this machine has {human_bytes(has)}",
            hint="fewer <strengths> are held at once"
            if len(asks) > 1
            else "<layer_by_layer> holds one layer at a time",
            field="checkpoint",
        )


def memory_for(shape: Shape, asks: Sequence[Ask], target: Target) -> int:
    """Bytes of the weights that are held at once, as `require_memory` counts them."""
    cut = [(ask, _cut(shape, ask)) for ask in asks] if target.kind == "keep" else []
    sizes = {one: total_parameters(one, with_mtp=True) for _, one in cut if one is not None}
    timed = {one for ask, one in cut if one is not None and PARTS[ask.how.part].shrinks}
    beside = max([0, *sizes.values(), sum(sizes[one] for one in timed)])
    return VALUE_BYTES * (total_parameters(shape, with_mtp=True) + beside)


def _cut(shape: Shape, ask: Ask) -> Shape | None:
    """What a share leaves; None where that depends on which layers go."""
    if ask.how.part == "layers" and len(shape.kinds) > 1:
        return None
    return PARTS[ask.how.part].require(shape, ask).shape(shape)


def require_memory_to_split(shape: Shape) -> None:
    """Raises: UserError for a model that this machine does not hold as often as splitting and measuring it does."""
    whole, held = SPLIT_MODELS * VALUE_BYTES * total_parameters(shape), machine_bytes()
    if whole > held:
        raise UserError(
            f"splitting holds {SPLIT_MODELS} models of its size at once, which take {human_bytes(whole)} of memory, and"
            f" this machine has {human_bytes(held)}",
            hint="it has no <layer_by_layer>: split it on a machine with more memory",
            field="checkpoint",
        )


def require_part(shape: Shape, ask: Ask, checkpoint: Path) -> None:
    """Raises: UserError where a model lacks the part."""
    lacking = PARTS[ask.how.part].lacking(shape)
    if lacking:
        raise UserError(f"{checkpoint} {lacking}", hint=f"what a <method> can turn off in it: {what_goes(shape)}")


def require_target(target: Target, shape: Shape, tensors: Sequence[NamedTensor], ask: Ask) -> None:
    """Refuse a target that no scores can help to keep.

    Raises: UserError.
    """
    if target.kind == "keep":
        PARTS[ask.how.part].require(shape, ask)
    elif target.how.searched:
        shares_of(shape, ask)
    else:
        require_size(target, shape, tensors, ask)
