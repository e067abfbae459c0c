"""What each of the processes that train one model holds and sends, counted without weights and without a process."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain

import torch
from torch import Tensor

from sparsedial.model.transformer import Transformer
from sparsedial.model.working import Working
from sparsedial.records.dry_run import RankBytes, RankCosts, RankMemory
from sparsedial.runs.card_memory import counted_bytes
from sparsedial.runs.job import Job
from sparsedial.training.messages import AHEAD, VALUE_BYTES, Message, in_order, messages
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
    sent = messages(in_order(parts, model), count, job.device)
    row_bytes = sent[0].slot * VALUE_BYTES
    sent_bytes = len(sent) * count * row_bytes
    reduced = sum(layer.load_E.nbytes for layer in model.sparse_feed_forwards) + FIGURES_BYTES
    buffers = _bytes({id(buffer): buffer for buffer in chain(model.buffers(), working.model.buffers())})
    weights = _bytes({id(one): one for one in chain(model.parameters(), working.model.parameters())})
    whole = _gradient_bytes(job, model, working)
    on_cpu = job.device == "cpu"  # there each rank sends its gradients to their owners, which add them up
    rows = 2 * (count - 1) if on_cpu else count + 1  # of a message: those that are sent, and those that arrive
    return tuple(
        RankCosts(
            rank=rank,
            parameters=sum(part.values for part in owned_by(rank, parts).values()),
            memory_bytes=RankMemory(
                weights=weights,
                gradients=_most_gradient_bytes(rank, sent, parts, whole, on_cpu),
                optimizer=_moment_bytes(job, model, owned_by(rank, parts)),
                activations=float(counted_bytes(job, count).activations),
                buffers=buffers + min(AHEAD, len(sent)) * rows * row_bytes,
            ),
            bytes_per_step=RankBytes(
                all_gather=sent_bytes,
                reduce_scatter=0 if on_cpu else sent_bytes,
                all_reduce=reduced,
                all_to_all=sent_bytes if on_cpu else 0,
            ),
            step_seconds=None,
            step_seconds_reason=NOT_TIMED,
        )
        for rank in range(count)
    )


def _bytes(tensors: Mapping[int, Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors.values())


def _gradient_bytes(job: Job, model: Transformer, working: Working) -> list[int]:
    """Of each weight's gradient: in the weight's type, or in that of the copy that AdamW writes on a GPU."""
    pairs = zip(model.named_parameters(), working.model.parameters(), strict=True)
    return [
        (copied if job.device != "cpu" and not by_muon(name, weight, job.recipe) else weight).nbytes
        for (name, weight), copied in pairs
    ]


def _most_gradient_bytes(
    rank: int, sent: Sequence[Message], parts: Sequence[Part], whole: Sequence[int], on_cpu: bool
) -> int:
    """The most gradients that a rank holds at once, where they come in the order of their messages.

    They are the whole ones until their messages have arrived, and the sums of what it owns of divided weights: what
    `Exchange` holds. `whole` gives the bytes of the whole ones.
    """
    own, values = owned_by(rank, parts), Counter[int]()
    for part in parts:
        values[part.weight] += part.values
    divided = {weight: part.values for weight, part in own.items() if part.values < values[weight]}
    sums = {weight: whole[weight] * kept // values[weight] for weight, kept in divided.items()}
    come, held, most = set[int](), 0, 0
    for number in range(len(sent) + AHEAD):
        if number < len(sent):
            new = {piece.weight for piece in sent[number].pieces} - come
            come, held = come | new, held + sum(whole[weight] for weight in new)
            most = max(most, held)
        if number < AHEAD:
            continue
        message = sent[number - AHEAD]  # what is longest under way is taken before one more goes
        here = [piece.weight for piece in message.pieces if piece.owner == rank]
        gone = {weight for weight in message.last_of if weight not in own or weight in divided}
        later = gone.intersection(here) if on_cpu else set[int]()  # a CPU adds its own gradients to what has come
        held -= sum(whole[weight] for weight in gone - later)
        for weight in here:
            held += sums.pop(weight, 0)
            most = max(most, held)
            held -= whole[weight] if weight in later else 0
    return most


def _moment_bytes(job: Job, model: Transformer, own: Mapping[int, Part]) -> int:
    """Of all moments that a rank holds."""
    muon = [by_muon(name, weight, job.recipe) for name, weight in model.named_parameters()]
    return sum(
        part.values * MUON_BYTES if muon[weight] else part.values * ADAMW_BYTES + STEP_BYTES
        for weight, part in own.items()
    )
