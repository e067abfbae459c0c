"""What a study's steps should be on a GPU, from the card itself, and what of its memory is free."""

from __future__ import annotations

from dataclasses import dataclass

from sparsedial.units import human_bytes

TILE_ROWS = 128  # of a large product's blocks: a step has at least as many tokens as one block a processor needs
LEAST_TOKENS, MOST_TOKENS = 1024, 16384  # of a step; more would make a cell's optimizer steps few
TOKEN_BYTES = 1e6  # of a step's activations, for the widest models of a study's ladder
BFLOAT16 = (8, 0)  # the first compute capability with bfloat16 products
SLOW_SHARE = 4  # cards before them get so many times fewer tokens
# About a processor's dense 16-bit FLOPs per second, by compute capability or its major number. Source: data sheets of
# A100, H100, B200, T4, RTX 4090 and RTX 5090, over their processors; of other cards, some value in between.
PROCESSOR_FLOPS = {(8, 0): 2.9e12, 7: 1.6e12, 8: 1.1e12, 9: 7.5e12, 10: 15e12, 12: 1.2e12}
OTHER_FLOPS = 2e12
SHARED = 0.02  # of the card, that others may hold without a word: the driver and a screen need some


@dataclass(frozen=True, kw_only=True)
class Card:
    """A GPU as PyTorch describes it."""

    memory_bytes: float
    processors: int
    capability: tuple[int, int] | None  # compute capability; None for a card of another maker than NVIDIA

    @property
    def step_tokens(self) -> int:
        """Tokens of an optimizer step: a power of two that gives every processor work and fits the memory."""
        old = self.capability is not None and self.capability < BFLOAT16
        wanted = TILE_ROWS * self.processors / (SLOW_SHARE if old else 1)
        held = min(wanted, self.memory_bytes / TOKEN_BYTES, MOST_TOKENS)
        return max(LEAST_TOKENS, 1 << (int(held).bit_length() - 1))

    @property
    def flops_per_second(self) -> float:
        """About the peak of its 16-bit products: enough to choose what is worth timing, and for nothing else."""
        major = self.capability[0] if self.capability else None
        return self.processors * PROCESSOR_FLOPS.get(self.capability, PROCESSOR_FLOPS.get(major, OTHER_FLOPS))

    @property
    def context(self) -> int:
        """Tokens of a training window: longer where steps are large, so that a batch has 16 to 64 sequences."""
        return 64 if self.step_tokens < 4096 else 128 if self.step_tokens < MOST_TOKENS else 256


def batch_for(card: Card, context: int) -> int:
    """Sequences of a step that fill a card at this context; at least four, the fewest that a study takes."""
    return max(4, card.step_tokens // context)


@dataclass(frozen=True, kw_only=True)
class CardMemory:
    """Bytes of a GPU, as this process sees it."""

    held: int  # by the card
    free: int  # for this process, with what it can give back
    others: int  # that other processes hold

    @property
    def words(self) -> str:
        """What is free, and who has the rest."""
        said = f"{human_bytes(self.free)} of this GPU's {human_bytes(self.held)} are free"
        return f"{said}; other processes hold {human_bytes(self.others)}" if self.others > SHARED * self.held else said
