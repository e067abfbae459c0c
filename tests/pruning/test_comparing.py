"""Methods side by side: none on the front is beaten, and an order is resolved only where chance could not make it."""

from __future__ import annotations

import numpy as np
import pytest

from sparsedial.evaluation.compare import loss_difference
from sparsedial.evaluation.domains import Units
from sparsedial.pruning.comparing import axis_of, front, order_of, surely_above
from sparsedial.pruning.quality import Nats
from sparsedial.records.evaluation import SURE
from sparsedial.records.quantities import Interval
from tests.pruning.test_windows import windows


def nats(*per_token: float) -> Nats:
    """A loss on each of some windows."""
    text = windows(len(per_token))
    return Nats(text, np.array(per_token) * text.context)


def test_what_another_beats_in_both_is_not_on_the_front():
    points = [(10, 1.0), (8, 2.0), (8, 1.5), (6, 3.0), (9, 2.5), (10, 1.0), (10, 1.1)]
    assert front(points) == (0, 2, 3, 5), "two equal points both stay"


@pytest.mark.parametrize(
    ("parts", "axis"),
    [
        ({"neurons", "layers"}, "active_parameters"),
        ({"experts"}, "weight_bytes"),
        ({"experts", "layers"}, "weight_bytes"),
        ({"weights"}, "share"),
        ({"weights", "neurons"}, "weight_bytes"),
    ],
)
def test_points_are_compared_by_what_gets_less(parts, axis):
    assert axis_of(parts) == axis


def test_the_order_is_that_of_the_loss_and_resolved_where_every_gap_is():
    spread = np.linspace(-1, 1, 40)
    good, better, worst = nats(*(2.5 + spread)), nats(*(2.4 + spread)), nats(*(4 + 0.1 * spread))
    found = order_of("experts", 0.5, {"worst": worst, "good": good, "better": better})
    assert (found.order, found.resolved) == (("better", "good", "worst"), True)
    assert [gap.mean for gap in found.gaps] == pytest.approx([0.1, 1.5])
    noisy = nats(*(2.45 + np.tile([-1, 1], 20)))
    found = order_of("experts", 0.5, {"worst": worst, "noisy": noisy, "better": better})
    assert (found.order, found.resolved) == (("better", "noisy", "worst"), False)
    assert found.gaps[0].low < 0 < found.gaps[0].high
    assert found.gaps[1].low > 0


def test_equal_losses_and_a_single_window_resolve_nothing():
    assert not order_of("layers", 0.5, {"one": nats(2, 3), "other": nats(2, 3)}).resolved
    assert not order_of("layers", 0.5, {"one": nats(2), "other": nats(3)}).resolved
    alone = order_of("layers", 0.5, {"one": nats(2)})
    assert (alone.order, alone.gaps, alone.resolved) == (("one",), (), True)
    assert surely_above(Interval(mean=0.5, low=None, high=None), windows=6), "the same in all of them"


def test_what_a_paired_test_of_so_few_windows_cannot_tell_from_chance_resolves_nothing():
    """`evaluate` calls no difference of five documents sure, though all are alike in sign, and one of six."""
    spread = np.linspace(0, 0.1, 6)
    for count, sure in ((5, False), (6, True)):
        low, high = nats(*(2 + spread[:count])), nats(*(3 + 2 * spread[:count]))
        paired = loss_difference(*(Units(one.nats_W, np.full(count, 8), None) for one in (low, high)))
        assert paired is not None
        assert (paired.p_value < SURE) == sure
        found = order_of("experts", 0.5, {"low": low, "high": high})
        assert (found.gaps[0].low > 0, found.resolved) == (True, sure)
        reason = found.unresolved_reason
        assert reason is None if sure else "5 windows are too few" in str(reason)
