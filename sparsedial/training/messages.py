"""Which values of weights cross together: the messages in which ranks send gradients, and new weights back.

A message has a slot for each rank. What a rank owns lies in its slots, one part after the other, and messages are as
many as it takes for none to be large. The slots are equally long, so those of a rank that owns less are not full.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from sparsedial.model.transformer import Transformer
from sparsedial.training.owners import Part

MESSAGE_BYTES = {"cpu": 2**22, "cuda": 2**25}  # at most: no rank holds a second copy of all gradients
VALUE_BYTES = 4  # messages are in float32
AHEAD = 2  # messages that are under way at once, at most


@dataclass(frozen=True)
class Piece:
    """Values of a weight that lie together in a message."""

    weight: int
    first: int  # of its values
    size: int
    owner: int
    place: int  # in the owner's slot


@dataclass(frozen=True)
class Message:
    """What one message carries."""

    slot: int  # values for each rank
    pieces: Sequence[Piece]
    last_of: frozenset[int]  # weights of which no later message has a piece


def slots(parts: Sequence[Part], count: int, device: str) -> tuple[int, int]:
    """How many messages carry these parts of weights between devices of a kind, and the values of a slot."""
    held = [0] * count
    for part in parts:
        held[part.owner] += part.values
    longest = max(held)
    number = math.ceil(longest * count * VALUE_BYTES / MESSAGE_BYTES[device])
    slot = math.ceil(longest / max(1, number))
    return math.ceil(longest / max(1, slot)), slot


def messages(parts: Sequence[Part], count: int, device: str) -> list[Message]:
    """The messages that carry these parts of weights, in their order, between devices of a kind."""
    number, slot = slots(parts, count, device)
    pieces, lasts = defaultdict[int, list[Piece]](list), dict[int, int]()
    filled = [0] * count
    for part in parts:
        first = part.first
        while first < part.last:
            message, place = divmod(filled[part.owner], slot)
            size = min(part.last - first, slot - place)
            pieces[message].append(Piece(part.weight, first, size, part.owner, place))
            lasts[part.weight] = max(message, lasts.get(part.weight, 0))
            filled[part.owner] += size
            first += size
    return [
        Message(slot, pieces[message], frozenset(weight for weight, last in lasts.items() if last == message))
        for message in range(number)
    ]


def in_order(parts: Sequence[Part], model: Transformer) -> list[Part]:
    """The parts in the order in which a backward pass gives their gradients: from the head down to the embedding.

    Those of multi-token prediction come last, since not every step has a gradient for them.
    """
    names = [name for name, _ in model.named_parameters()]

    def place(part: Part) -> tuple[bool, bool, bool, int, int]:
        name = names[part.weight]
        return name.startswith("predictions."), name == "embedding_VD", "." in name, -part.weight, part.first

    return sorted(parts, key=place)
