"""Saving and restoring everything that the next step depends on; on disk it is whole and verified, or not there."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor
from torch.optim import Optimizer

from sparsedial.errors import UserError
from sparsedial.model.digests import sha256_of
from sparsedial.model.shards import write_file
from sparsedial.model.transformer import Transformer
from sparsedial.records.record import try_read, write
from sparsedial.records.state import Progress, StateFile
from sparsedial.store import Fault, replacing
from sparsedial.training.held import Held, held_by
from sparsedial.training.ranks import ALONE, Alone, Ranks

STATE = "state.json"


def training_state(model: Transformer, optimizers: Sequence[Optimizer]) -> dict[str, Tensor]:
    """Weights, buffers and optimizer moments by name, as safetensors keeps them.

    Of several ranks, with the moments of what this one owns: a part of a moment where it owns a part of a weight.
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
            state[stored] = value.cpu()  # now, so that a GPU does not hold all ranks' moments
        else:
            values = state.setdefault(stored, torch.empty(size, dtype=value.dtype)).view(-1)
            values[first : first + value.numel()] = value.view(-1)
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
    size = held.tensor.shape
    if moment.dim() and moment.shape != size:
        moment = moment.view(-1)[held.first : held.first + size.numel()].view(size)
    return moment.to(held.tensor.device, copy=True)


def _weights(model: Transformer) -> dict[str, Tensor]:
    return {f"model.{name}": tensor for name, tensor in model.state_dict().items()}


def _moments(model: Transformer, optimizers: Sequence[Optimizer]) -> Iterator[tuple[tuple[str, str, int], Tensor]]:
    """All moments of this rank, each with its weight's name, its own, and the first value."""
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
    name = f"step-{progress.next_step}.safetensors"
    with replacing(home / name) as partial:
        write_file(partial, tensors)
        sha256 = sha256_of(partial)
    state = StateFile(key=key, tensors=name, sha256=sha256, next_step=progress.next_step, progress=progress)
    write(home / STATE, state)
    for old in home.glob("step-*.safetensors"):
        if old.name != name:
            old.unlink()


def load_state(
    home: Path,
    key: str,
    model: Transformer,
    optimizers: Sequence[Optimizer],
    most_steps: float = float("inf"),
    ranks: Alone | Ranks = ALONE,
) -> Progress | None:
    """Bring model and optimizers back to where `save_state` left them; gives the run's own numbers.

    None where there is no such state, one beyond `most_steps`, or one that was cut short, edited or written by
    another version: the run then starts anew. Ranks call this together; each reads the file, and takes of moments what
    it owns.

    Raises: UserError, on all ranks, where they do not find the same state.
    """
    state = _found(home, key, most_steps)
    step = -1 if state is None else state.next_step
    if any(ranks.sums([ranks.first(step) != step])):
        raise UserError(
            f"the ranks do not all find the same saved state in {home}",
            hint="give all machines one shared folder (<out>), or remove the state to start anew",
        )
    if state is None:
        return None
    with safe_open(home / state.tensors, framework="pt") as file:
        restore_state(model, optimizers, _Stored(file))
    return state.progress


def _found(home: Path, key: str, most_steps: float) -> StateFile | None:
    """The state that can be continued."""
    state = try_read(home / STATE, StateFile)
    if isinstance(state, Fault) or state.key != key or state.next_step > most_steps:
        return None
    try:
        return state if sha256_of(home / state.tensors) == state.sha256 else None
    except OSError:
        return None


@dataclass(frozen=True)
class _Stored(Mapping[str, Tensor]):
    """The tensors of a file, each read when it is asked for."""

    file: Any

    def __getitem__(self, name: str) -> Tensor:
        return self.file.get_tensor(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.file.keys())

    def __len__(self) -> int:
        return len(self.file.keys())


def forget_state(home: Path) -> None:
    """Drop the state of a run that has ended."""
    shutil.rmtree(home, ignore_errors=True)
