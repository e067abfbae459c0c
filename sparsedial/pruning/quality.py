"""The loss of a model on windows of a text, and how much it grew. W windows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sparsedial.errors import UserError
from sparsedial.evaluation.domains import Units
from sparsedial.evaluation.scorer import Scorer
from sparsedial.evaluation.statistics import interval
from sparsedial.model.router import Routing
from sparsedial.model.transformer import Transformer
from sparsedial.pruning.windows import Windows
from sparsedial.records.domains import DomainLoss
from sparsedial.records.evaluation import LEAST_UNITS
from sparsedial.records.quantities import Interval
from sparsedial.shape.shape import Shape
from sparsedial.units import count_words, signed

# Of a uniform guess's loss, from which on little of a text is foretold. A model of 10 M parameters that was trained on
# prose and code has 0.49 on prose and 0.71 to 0.82 on noise (benchmarks/records/foreign_text.json).
FOREIGN_SHARE = 0.65


@dataclass(frozen=True, eq=False)
class Nats:
    """One model's loss on each window of a text."""

    windows: Windows
    nats_W: np.ndarray  # summed over the window's tokens

    @property
    def mean(self) -> float:
        """The loss, nats per token."""
        return float(self.nats_W.sum()) / self.windows.tokens

    @property
    def record(self) -> DomainLoss:
        """Loss and bits per byte, with intervals over windows."""
        assert self.windows.bytes_W is not None
        tokens_W = np.full(len(self.nats_W), self.windows.context)
        return Units(self.nats_W, tokens_W, self.windows.bytes_W).loss(float(self.nats_W.sum()), "windows")

    def above(self, before: Nats) -> Interval:
        """How much the loss is above another model's on the same windows, nats per token."""
        return _over_windows((self.nats_W - before.nats_W) / self.windows.context)


def _over_windows(values_W: np.ndarray) -> Interval:
    return interval(values_W.tolist(), range(len(values_W)))


def nats_of(model: Transformer, texts: Mapping[str, Windows], routing: Routing | None = None) -> dict[str, Nats]:
    """A model's loss on each window of each text."""
    scorer = Scorer(model, routing=routing)
    return {name: Nats(windows, _nats(scorer, windows)) for name, windows in texts.items()}


def mean_nats(found: Sequence[Mapping[str, Nats]]) -> dict[str, Nats]:
    """The mean loss of several models on each window of the same texts."""
    return {
        name: Nats(nats.windows, np.mean([each[name].nats_W for each in found], axis=0))
        for name, nats in found[0].items()
    }


def _nats(scorer: Scorer, windows: Windows) -> np.ndarray:
    rows = [row.tolist() for row in windows.ids_WS1]
    return -np.array([found.log_likelihood for found in scorer.log_likelihoods([(row[:1], row[1:]) for row in rows])])


def too_few(windows: int) -> str | None:
    """What to say of differences over so many windows, where chance cannot be told from them."""
    if windows >= LEAST_UNITS:
        return None
    verb = "is" if windows == 1 else "are"
    return (
        f"{count_words(windows, 'window')} {verb} too few to tell a difference of losses from chance: it takes"
        f" {LEAST_UNITS}, so score more tokens, or windows of a smaller context"
    )


def parted(increases: Mapping[str, Interval], windows: Mapping[str, int]) -> str | None:
    """What to say where two texts' losses grew by amounts whose intervals do not meet.

    An increase over several windows that has no interval is the same in all of them; too few windows say nothing.
    """
    known = [(name, grown, *_ends(grown)) for name, grown in increases.items() if windows[name] >= LEAST_UNITS]
    for name, grown, low, _ in known:
        for other, less, _, high in known:
            if low > high:
                return (
                    f"the loss grew by {grown.mean:.3f} nats per token on {name} and by {less.mean:.3f} on {other}:"
                    " what stays on suits the one more than the other"
                )
    return None


def _ends(grown: Interval) -> tuple[float, float]:
    return (grown.mean, grown.mean) if grown.low is None or grown.high is None else (grown.low, grown.high)


def no_better(name: str, over_control: Interval, part: str) -> str | None:
    """What to say where a text's loss is not surely below the mean of random choices of as much of a part."""
    if over_control.high is None or over_control.high < 0:
        return None
    return (
        f"on {name} the loss is {signed(over_control.mean)} nats per token beside random choices of as many {part}: no"
        " better than chance"
    )


def foreign(name: str, loss: float, shape: Shape) -> str | None:
    """What to say of a calibration text of which a model foretells little, by its loss, nats per token."""
    guess = math.log(shape.vocab_size)
    if loss < FOREIGN_SHARE * guess:
        return None
    return (
        f"the model foretells little of {name}: its loss there is {loss:.2f} nats per token, and a uniform guess has"
        f" {guess:.2f}. What noise or foreign text needs may not be what the model is used for"
    )


def require_known(loss: float, shape: Shape) -> None:
    """Check the loss of a calibration text, nats per token.

    Raises: UserError where it is above that of a uniform guess, or no number.
    """
    guess = math.log(shape.vocab_size)
    if not math.isfinite(loss):
        raise UserError(
            "the model's loss on the calibration text is not a number: its weights are damaged, or its configuration is"
            " another model's",
            field="checkpoint",
        )
    if loss > guess:
        raise UserError(
            f"the model's loss on it is {loss:.3f} nats per token, above the {guess:.3f} of a uniform guess",
            hint="the text is foreign to this model: give text like what it was trained on",
            field="calibrate",
        )
