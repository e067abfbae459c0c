"""What each of the processes that train one model holds and sends, counted without weights and without a process."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain

import torch
from torch import Tensor

from sparsedial.model.transformer import Transformer
from sparsedial.model.working import Working
from sparsedial.records.dry_run import RankBytes, RankCosts, RankMemory
from sparsedial.runs.card_memory import counted_bytes
from sparsedial.runs.job import Job
from sparsedial.training.exchange import VALUE_BYTES, slots
from sparsedial.training.muon_matrices import by_muon
from sparsedial.training.owners import ADAMW_BYTES, MUON_BYTES, Part, owned_by, owners

STEP_BYTES = 4  # of AdamW's count of a weight's steps, or of rows of one
FIGURES_BYTES = 16  # loss and norm
NOT_TIMED = "not measured: no step was taken by several ranks"


def rank_costs(job: Job, count: int) -> tuple[RankCosts, ...]:
    """The costs of each rank, in bytes; all but those of activations are exact.

    Raises: UserError where the ranks cannot divide the batch evenly.
    """
    with torch.device("meta"):
        model = Transformer(job.shape)
    working = Working(model, job.recipe.dtype)
    parts = owners(model, job.recipe, count)
    number, slot = slots(parts, count, job.device)
    message = count * slot * VALUE_BYTES
    sent = number * message
    reduced = sum(layer.load_E.nbytes for layer in model.sparse_feed_forwards) + FIGURES_BYTES
    buffers = _bytes({id(buffer): buffer for buffer in chain(model.buffers(), working.model.buffers())})
    weights = _bytes({id(one): one for one in chain(model.parameters(), working.model.parameters())})
    gradients = _gradient_bytes(job, model, working)
    on_cpu = job.device == "cpu"  # there each rank sends its gradients to their owners, which add them up
    return tuple(
        RankCosts(
            rank=rank,
            parameters=sum(part.values for part in owned_by(rank, parts).values()),
            memory_bytes=RankMemory(
                weights=weights,
                gradients=gradients,
                optimizer=_moment_bytes(job, model, owned_by(rank, parts)),
                activations=float(counted_bytes(job, count).activations),
                buffers=buffers + message + (message if on_cpu else slot * VALUE_BYTES),
            ),
            bytes_per_step=RankBytes(
                all_gather=sent,
                reduce_scatter=0 if on_cpu else sent,
                all_reduce=reduced,
                all_to_all=sent if on_cpu else 0,
            ),
            step_seconds=None,
            step_seconds_reason=NOT_TIMED,
        )
        for rank in range(count)
    )


def _bytes(tensors: Mapping[int, Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors.values())


def _gradient_bytes(job: Job, model: Transformer, working: Working) -> int:
    """Of all weights after a backward pass: in the weights' type, or in that of copies that AdamW writes on a GPU."""
    pairs = zip(model.named_parameters(), working.model.parameters(), strict=True)
    return sum(
        (copied if job.device != "cpu" and not by_muon(name, weight, job.recipe) else weight).nbytes
        for (name, weight), copied in pairs
    )


def _moment_bytes(job: Job, model: Transformer, own: Mapping[int, Part]) -> int:
    """Of all moments that a rank holds."""
    muon = [by_muon(name, weight, job.recipe) for name, weight in model.named_parameters()]
    return sum(
        part.values * MUON_BYTES if muon[weight] else part.values * ADAMW_BYTES + STEP_BYTES
        for weight, part in own.items()
    )
