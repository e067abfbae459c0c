"""Saving and restoring everything that the next step depends on; on disk it is whole and verified, or not there."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor
from torch.optim import Optimizer

from sparsedial.model.transformer import Transformer
from sparsedial.records.record import try_read, write
from sparsedial.records.state import Progress, StateFile
from sparsedial.store import Fault, write_atomically

STATE = "state.json"


def training_state(model: Transformer, optimizers: Sequence[Optimizer]) -> dict[str, Tensor]:
    """Weights, buffers and optimizer moments by name, as safetensors keeps them."""
    state = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    for optimizer, name, parameter in _held(model, optimizers):
        for key, value in optimizer.state.get(parameter, {}).items():
            state[f"optimizer.{name}.{key}"] = value
    return state


def restore_state(model: Transformer, optimizers: Sequence[Optimizer], state: Mapping[str, Tensor]) -> None:
    """The inverse of `training_state`; a parameter without moments in `state` has none afterwards."""
    model.load_state_dict(
        {name.removeprefix("model."): tensor for name, tensor in state.items() if name.startswith("model.")}
    )
    for optimizer in optimizers:
        optimizer.state.clear()
    for optimizer, name, parameter in _held(model, optimizers):
        prefix = f"optimizer.{name}."
        moments = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
        if moments:
            optimizer.state[parameter] = {key: value.to(parameter.device, copy=True) for key, value in moments.items()}


def _held(model: Transformer, optimizers: Sequence[Optimizer]) -> Iterator[tuple[Optimizer, str, Tensor]]:
    """Each parameter with its name and the optimizer that moves it."""
    names: dict[Tensor, str] = {parameter: name for name, parameter in model.named_parameters()}
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            yield from ((optimizer, names[parameter], parameter) for parameter in group["params"])


def save_state(home: Path, key: str, model: Transformer, optimizers: Sequence[Optimizer], progress: Progress) -> None:
    """Keep everything that the next step depends on; `progress` holds the run's own numbers.

    `key` names what the state belongs to. The tensors come first under a name of their own, then the small file that
    names them and their digest: a kill in between leaves the state before.

    Raises: UserError where they cannot be written; the state before stays.
    """
    data = save_tensors(
        {name: tensor.detach().cpu().contiguous() for name, tensor in training_state(model, optimizers).items()}
    )
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
