"""Loss spikes: seen against the losses just before, so that a run can go back and leave the batch out.

Left out is the batch at which the loss rose. Where an earlier update was the cause, by too high a rate say, the next
batch rises too, and so on: the events of a run tell, and after MOST_SKIPPED it goes on as it is.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

WINDOW = 64  # losses that a new one is held against
LEAST_NATS = 0.3  # above their median: less is no spike however calm they were
SNAPSHOT_STEPS = 64  # between two states that a run can go back to
MOST_SKIPPED = 20  # batches of a run: more are no accident


def is_spike(loss: float, gradient_norm: float, before: Sequence[float], sigmas: float) -> bool:
    """Whether a loss stands so many robust standard deviations above the last ones, or is not a number.

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
