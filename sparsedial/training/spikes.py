"""Loss spikes: detected against the losses just before, so that a run can go back and leave a batch out.

The batch at which the loss rose is left out. Where an earlier update was the cause, for example by too high a rate, the
loss rises at the next batch too, and so on. The run's events show this; after MOST_SKIPPED it continues as it is.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

WINDOW = 64  # losses that a new one is held against
LEAST_NATS = 0.3  # above their median: a smaller rise is not a spike, however small the spread
SNAPSHOT_STEPS = 64  # between two states that a run can go back to
MOST_SKIPPED = 20  # batches of a run: more than these are not accidents


def is_spike(loss: float, gradient_norm: float, before: Sequence[float], sigmas: float) -> bool:
    """Whether a loss is more than `sigmas` robust standard deviations above the last ones, or not a number.

    Source: going back and skipping, Chowdhery et al. 2022 (arXiv 2204.02311), section 5.1; the rule is ours
    """
    if not (math.isfinite(loss) and math.isfinite(gradient_norm)):
        return True
    last = before[-WINDOW:]
    if len(last) < WINDOW // 2:
        return False
    middle = statistics.median(last)
    spread = 1.4826 * statistics.median(abs(value - middle) for value in last)
    return loss > middle + max(sigmas * spread, LEAST_NATS)
