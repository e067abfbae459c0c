"""How much each expert matters: the published scores, all from one function with three parameters.

E experts, D d_model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

Powers = tuple[int, int]  # a and b of gate^a * ‖output‖^b


@dataclass(frozen=True, kw_only=True)
class Reached:
    """What the calibration showed of one layer's experts: how many tokens reached each, and sums over these tokens."""

    tokens_E: np.ndarray  # integers
    sums: Mapping[Powers, np.ndarray]  # of gate^a * ‖output‖^b over an expert's tokens, [E], float64
    outputs_ED: np.ndarray  # mean output of each expert over all tokens of the layer, routed to it or not; else empty
    inputs_TD: np.ndarray = field(default_factory=lambda: np.empty((0, 0)))  # what the experts read, of some tokens


@dataclass(frozen=True, kw_only=True)
class Score:
    """Over the tokens routed to an expert, the sum or the mean of gate^a * ‖output‖^b.

    The gate is the number that multiplies the output, after normalising and scaling; the norm is Euclidean.
    """

    mean: bool  # of the tokens; else their sum
    gate_power: int
    output_power: int

    @property
    def powers(self) -> Powers:
        """a and b."""
        return self.gate_power, self.output_power

    def of(self, reached: Reached) -> np.ndarray:
        """The score of each expert of a layer; NaN for one that no token reached. Shapes: to [E]"""
        sum_E = reached.sums[self.powers]
        score_E = sum_E / np.maximum(reached.tokens_E, 1) if self.mean else sum_E
        return np.where(reached.tokens_E > 0, score_E, np.nan)


SCORES = {  # their sources are in `methods`
    "frequency": Score(mean=False, gate_power=0, output_power=0),
    "ean": Score(mean=False, gate_power=0, output_power=1),
    "reap": Score(mean=True, gate_power=1, output_power=1),
    "man": Score(mean=True, gate_power=0, output_power=1),
    "msan": Score(mean=True, gate_power=0, output_power=2),
}
POWERS = tuple(dict.fromkeys(score.powers for score in SCORES.values()))


def random_scores(counts: Mapping[int, int], seed: int) -> dict[int, np.ndarray]:
    """A score for each of so many things of each layer, that only the seed decides. Shapes: each [count]"""
    draw = np.random.default_rng(seed)
    return {layer: draw.random(count) for layer, count in counts.items()}
