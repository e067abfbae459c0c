"""Rows that begin alike are read once and score as they do one by one, for every kind of attention."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
import torch

from sparsedial.evaluation import scorer
from sparsedial.evaluation.packing import Costs, Pack, best_size, packs
from sparsedial.evaluation.scorer import Scorer
from sparsedial.model.transformer import initialise
from tests.model.shapes import FAMILIES

BEGIN = list(range(3, 15))
ROWS = [[*BEGIN, *middle, *end] for middle in ([20, 21], [20, 22, 23]) for end in ([30], [31, 32, 33], [31, 32, 34])]
ROWS += [[7, 8, 9], [*BEGIN], [*BEGIN]]


def row_of(pack: Pack, number: int) -> list[int]:
    """A row's ids, found by going back from its last one."""
    at, ids = pack.rows[number][-1], []
    while at >= 0:
        ids.append(pack.ids[at])
        at = pack.before[at]
    return ids[::-1]


@pytest.mark.parametrize("most", [8, 20, 40, 1000])
def test_every_row_is_in_one_pack_and_shared_beginnings_are_there_once(most):
    made = list(packs(ROWS, most))
    assert sorted(number for pack in made for number in pack.rows) == list(range(len(ROWS)))
    for pack in made:
        assert len(pack.ids) <= max(most, max(map(len, ROWS)))
        for number, places in pack.rows.items():
            assert row_of(pack, number) == ROWS[number] == [pack.ids[place] for place in places]
            assert [pack.positions[place] for place in places] == list(range(len(places)))
    if most == 1000:
        different = {tuple(row[: end + 1]) for row in ROWS for end in range(len(row))}
        assert len(made[0].ids) == len(different)


def test_packs_pay_where_rows_begin_alike_and_not_where_they_do_not():
    alike = [[*range(100), number] for number in range(100, 120)]
    apart = [list(range(start, start + 100)) for start in range(0, 2000, 100)]
    assert best_size(alike, 4096, Costs(pair=1e-3)) in (256, 512)
    assert best_size(apart, 4096, Costs(pair=1e-3)) is None


def test_many_small_packs_do_not_pay_where_a_call_of_the_model_costs_more_than_it_reads():
    alike = [[*range(8), number, number + 1] for number in range(100, 400)]
    assert best_size(alike, 64, Costs(pair=1e-3)) == 64
    assert best_size(alike, 64, Costs(pair=1e-3, call=4)) == 64  # a large model
    assert best_size(alike, 64, Costs(pair=1e-3, call=600)) is None  # a tiny one
    assert best_size(alike, 4096, Costs(pair=1e-6, call=600)) == 1024


@pytest.mark.parametrize("name", FAMILIES)
def test_likelihoods_of_packed_rows_are_those_of_rows_side_by_side(name, monkeypatch):
    model = initialise(FAMILIES[name], 0).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
    draw, words = random.Random(0), model.shape.vocab_size
    begin = [draw.randrange(words) for _ in range(6)]
    pairs = [
        ([*begin, *(draw.randrange(words) for _ in range(count))], [draw.randrange(words) for _ in range(2)])
        for count in (0, 1, 3, 3, 4)
    ]
    pairs += [(pairs[2][0], [draw.randrange(words)]), (pairs[2][0], [draw.randrange(words) for _ in range(3)])]
    found = {}
    for size in (None, 8, 16, 64):
        monkeypatch.setattr(scorer, "best_size", lambda *_, size=size: size)
        found[size] = Scorer(model).log_likelihoods(pairs)
    for first, second in pairwise(found.values()):
        for one, other in zip(first, second, strict=True):
            assert one.log_likelihood == pytest.approx(other.log_likelihood, abs=1e-4)
            assert (one.tokens, one.greedy) == (other.tokens, other.greedy)
