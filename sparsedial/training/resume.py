"""Saving and restoring everything that the next step depends on; on disk it is whole and verified, or not there."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor
from torch.optim import Optimizer

from sparsedial.model.transformer import Transformer
from sparsedial.records.record import try_read, write
from sparsedial.records.state import Progress, StateFile
from sparsedial.store import Fault, write_atomically
from sparsedial.training.held import Held, held_by
from sparsedial.training.ranks import ALONE, Alone, Ranks

STATE = "state.json"


def training_state(model: Transformer, optimizers: Sequence[Optimizer]) -> dict[str, Tensor]:
    """Weights, buffers and optimizer moments by name, as safetensors keeps them.

    Of several ranks, with the moments of what this one owns: rows of a moment where it owns rows of a weight.
    """
    return _weights(model) | {_stored(*label[:2]): value for label, value in _moments(model, optimizers)}


def whole_state(model: Transformer, optimizers: Sequence[Optimizer], ranks: Alone | Ranks = ALONE) -> dict[str, Tensor]:
    """At rank 0 what one device alone would hold, in the host's memory; all ranks call this together.

    The others' moments come one by one, so no rank but the first holds more than before.
    """
    state, weights = _weights(model), dict(model.named_parameters())
    for (name, key, first), value in ranks.collect(list(_moments(model, optimizers))):
        stored, size = _stored(name, key), weights[name].shape
        if value.dim() == 0 or value.shape == size:
            state[stored] = value
        else:
            rows = state.setdefault(stored, torch.empty(size, dtype=value.dtype))
            rows[first : first + len(value)] = value
    return {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}


def restore_state(model: Transformer, optimizers: Sequence[Optimizer], state: Mapping[str, Tensor]) -> None:
    """The inverse of `training_state` and of `whole_state`, from which each rank takes what it owns.

    A parameter without moments in `state` has none afterwards.
    """
    model.load_state_dict({name.removeprefix("model."): state[name] for name in state if name.startswith("model.")})
    for optimizer in optimizers:
        optimizer.state.clear()
    for held in held_by(model, optimizers):
        prefix = _stored(held.name, "")
        keys = [name.removeprefix(prefix) for name in state if name.startswith(prefix)]
        if keys:
            held.optimizer.state[held.tensor] = {key: _owned(state[prefix + key], held) for key in keys}


def _owned(moment: Tensor, held: Held) -> Tensor:
    """A copy of what belongs to a parameter, of its own moment or of the whole weight's."""
    if moment.dim() and moment.shape != held.tensor.shape:
        moment = moment[held.first : held.first + len(held.tensor)]
    return moment.to(held.tensor.device, copy=True)


def _weights(model: Transformer) -> dict[str, Tensor]:
    return {f"model.{name}": tensor for name, tensor in model.state_dict().items()}


def _moments(model: Transformer, optimizers: Sequence[Optimizer]) -> Iterator[tuple[tuple[str, str, int], Tensor]]:
    """All moments of this rank, each with its weight's name, its own, and the first row."""
    for held in held_by(model, optimizers):
        for key, value in held.optimizer.state.get(held.tensor, {}).items():
            yield (held.name, key, held.first), value


def _stored(weight: str, key: str) -> str:
    return f"optimizer.{weight}.{key}"


def save_state(
    home: Path,
    key: str,
    model: Transformer,
    optimizers: Sequence[Optimizer],
    progress: Progress,
    ranks: Alone | Ranks = ALONE,
) -> None:
    """Keep everything that the next step depends on; `progress` holds the run's own numbers.

    `key` names what the state belongs to. The tensors come first under a name of their own, then the small file that
    names them and their digest: a kill in between leaves the state before. Ranks call this together: the first writes
    what one alone would, with its own `progress`, so that any number of ranks can go on from it.

    Raises: UserError, on all ranks, where they cannot be written; the state before stays.
    """
    state = whole_state(model, optimizers, ranks)
    ranks.at_first(lambda: _write(home, key, state, progress))


def _write(home: Path, key: str, tensors: Mapping[str, Tensor], progress: Progress) -> None:
    data = save_tensors(dict(tensors))
    name = f"step-{progress.next_step}.safetensors"
    write_atomically(home / name, data)
    sha256 = hashlib.sha256(data).hexdigest()
    state = StateFile(key=key, tensors=name, sha256=sha256, next_step=progress.next_step, progress=progress)
    write(home / STATE, state)
    for old in home.glob("step-*.safetensors"):
        if old.name != name:
            old.unlink()


def load_state(
    home: Path, key: str, model: Transformer, optimizers: Sequence[Optimizer], most_steps: float = float("inf")
) -> Progress | None:
    """Bring model and optimizers back to where `save_state` left them; gives the run's own numbers.

    None where there is no such state, one beyond `most_steps`, or one that was cut short, edited or written by
    another version: the run then starts anew.
    """
    state = try_read(home / STATE, StateFile)
    if isinstance(state, Fault) or state.key != key or state.next_step > most_steps:
        return None
    data = _content(home / state.tensors)
    if data is None or hashlib.sha256(data).hexdigest() != state.sha256:
        return None
    restore_state(model, optimizers, load_tensors(data))
    return state.progress


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


def forget_state(home: Path) -> None:
    """Drop the state of a run that has ended."""
    shutil.rmtree(home, ignore_errors=True)
