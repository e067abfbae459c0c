"""What a study's steps should be on a GPU, from the card itself."""

from __future__ import annotations

from dataclasses import dataclass

TILE_ROWS = 128  # of a large product's blocks: a step has at least as many tokens as one block a processor needs
LEAST_TOKENS, MOST_TOKENS = 1024, 16384  # of a step; more would make a cell's optimizer steps few
TOKEN_BYTES = 1e6  # of a step's activations, for the widest models of a study's ladder
SLOW_SHARE = 4  # cards before bfloat16 products (compute capability 8.0) get so many times fewer tokens


@dataclass(frozen=True, kw_only=True)
class Card:
    """A GPU as PyTorch describes it."""

    memory_bytes: float
    processors: int
    capability: tuple[int, int]  # compute capability

    @property
    def step_tokens(self) -> int:
        """Tokens of an optimizer step: a power of two that gives every processor work and fits the memory."""
        wanted = TILE_ROWS * self.processors / (SLOW_SHARE if self.capability < (8, 0) else 1)
        held = min(wanted, self.memory_bytes / TOKEN_BYTES, MOST_TOKENS)
        return max(LEAST_TOKENS, 1 << (int(held).bit_length() - 1))

    @property
    def context(self) -> int:
        """Tokens of a training window: longer where steps are large, so that a batch has 16 to 64 sequences."""
        return 64 if self.step_tokens < 4096 else 128 if self.step_tokens < MOST_TOKENS else 256


def batch_for(card: Card, context: int) -> int:
    """Sequences of a step that fill a card at this context; at least four, the fewest that a study takes."""
    return max(4, card.step_tokens // context)
