"""What can be turned off, and by which method: one registry, and what is asked of it. Nothing here needs torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

PartName = Literal["experts", "layers", "neurons", "weights"]
PART_NAMES: tuple[PartName, ...] = ("experts", "layers", "neurons", "weights")
BUDGETS = ("uniform", "global")


@dataclass(frozen=True, kw_only=True)
class Method:
    """A rule that says what of a part matters."""

    part: PartName
    source: str
    budgets: tuple[str, ...] = ("uniform",)  # whether layers can compete by it
    in_turn: Literal["never", "asked", "always"] = "never"  # calibrates each layer behind layers that are cut already
    drawn: bool = False  # decides by chance


@dataclass(frozen=True, kw_only=True)
class Ask:
    """How much of a part stays, and how that is chosen."""

    method: str
    keep: float = 1.0  # share of the part; all of it until a target says how much
    budget: str = "uniform"
    sequential: bool = False
    pattern: str | None = None
    seed: int = 0  # of random choices

    @property
    def how(self) -> Method:
        """What the method is."""
        return METHODS[self.method]

    @property
    def in_turn(self) -> bool:
        """Whether each layer is calibrated behind layers that are cut already."""
        return self.sequential or self.how.in_turn == "always"

    @property
    def controls(self) -> range:
        """The seeds of the random choices that a choice is compared with; none where it is drawn itself."""
        return range(0) if self.how.drawn else range(self.seed, self.seed + DRAWS)


DRAWS = 3  # a single random choice may be lucky
# Of each group of neighbouring inputs: how many weights are off, and how many there are.
PATTERNS: Mapping[str, tuple[int, int]] = {"2:4": (2, 4), "4:8": (4, 8)}

HC_SMOE, NAEE = "hc-smoe", "naee"
METHODS: Mapping[str, Method] = {
    "reap": Method(
        part="experts", source="REAP, arXiv 2510.13999: router-weighted activation", budgets=BUDGETS, in_turn="asked"
    ),
    "frequency": Method(
        part="experts",
        source="how often an expert is chosen; a rival in arXiv 2510.13999",
        budgets=BUDGETS,
        in_turn="asked",
    ),
    "ean": Method(
        part="experts", source="activation norm, a rival in arXiv 2510.13999", budgets=BUDGETS, in_turn="asked"
    ),
    "man": Method(part="experts", source="mean activation norm, arXiv 2606.15716", budgets=BUDGETS, in_turn="asked"),
    "msan": Method(
        part="experts", source="mean squared activation norm, arXiv 2606.15716", budgets=BUDGETS, in_turn="asked"
    ),
    NAEE: Method(
        part="experts",
        source="Not All Experts are Equal, arXiv 2402.14800: what the layer writes together",
    ),
    HC_SMOE: Method(part="experts", source="HC-SMoE, arXiv 2410.08589: experts are merged"),
    "random": Method(part="experts", source="the control", budgets=BUDGETS, drawn=True),
    "block-influence": Method(part="layers", source="ShortGPT, arXiv 2403.03853"),
    "random-layers": Method(part="layers", source="the control", drawn=True),
    "activation": Method(
        part="neurons",
        source="ours: mean |activation| times the norm of the outgoing weights",
        budgets=BUDGETS,
    ),
    "random-neurons": Method(part="neurons", source="the control", budgets=BUDGETS, drawn=True),
    "magnitude": Method(part="weights", source="|weight|, by matrix; the rival in arXiv 2301.00774 and 2306.11695"),
    "wanda": Method(part="weights", source="Wanda, arXiv 2306.11695", in_turn="always"),
    "sparsegpt": Method(part="weights", source="SparseGPT, arXiv 2301.00774", in_turn="always"),
    "random-weights": Method(part="weights", source="the control", drawn=True),
}
DEFAULT = "reap"


def methods_of(part: PartName) -> tuple[str, ...]:
    """The names of the methods that turn a part off."""
    return tuple(name for name, method in METHODS.items() if method.part == part)
