"""The best of each family along budgets: the numbers stay what they were when every budget counted all shapes anew."""

from __future__ import annotations

import pytest

from sparsedial.verbs.dial.questions import questions

STATE = {"max_total_parameters": "30B", "device": "h100", "devices": "8", "price": "2.5"}
PLACE = 12  # the budget that was asked for, amid those around it


@pytest.mark.parametrize(
    ("budget", "dense", "sparse", "crossover"),
    [
        ({"flops": "3e18"}, 3.323890704586321, 3.1387366428361627, 1.3218745780516726e17),
        ({"seconds": "5d"}, 2.2463407462905, 2.095865295930976, None),
    ],
)
def test_families_race_as_they_did_before_counts_were_kept(budget, dense, sparse, crossover):
    asks = questions("abnar")
    race = asks["crossover"]({**STATE, **budget})
    assert race.dense_loss[PLACE] == pytest.approx(dense, rel=1e-12)
    assert race.sparse_loss[PLACE] == pytest.approx(sparse, rel=1e-12)
    assert (race.crossover and race.crossover.value) == (crossover and pytest.approx(crossover, rel=1e-12))
    dial = asks["dial"]({**STATE, **budget})
    assert dial.positions[dial.best].predicted_loss.mean == race.sparse_loss[PLACE]
