"""Scores of a model on probes: bits per byte of the right answers, exact match, and what guessing would reach."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence

from sparsedial.evaluation.scorer import Continuation, Scorer
from sparsedial.evaluation.statistics import (
    NO_BETTER,
    interval,
    p_of_chance,
    p_of_chance_by_group,
    share_interval,
)
from sparsedial.records.probes import ProbeKind, ProbeScore, ProbeScores
from sparsedial.records.quantities import Interval
from sparsedial.text.probes import Item, items
from sparsedial.text.tokenizer import Tokenizer

LINE = "\n"  # stands before a prompt, which begins a line

Answered = tuple[Item, Continuation]


def probe_scores(scorer: Scorer, tokenizer: Tokenizer, seed: int) -> ProbeScores:
    """The scores of a model on all levels of a seed's probes.

    Items that do not fit the model's context are left out, and so is a level without any item.
    """
    asked = {item: _ids(item, tokenizer) for item in items(seed)}
    most = scorer.model.shape.context + 1  # the last token is not read
    fitting = {item: ids for item, ids in asked.items() if len(ids[0]) + len(ids[1]) <= most}
    answers = scorer.log_likelihoods(list(fitting.values()))
    levels: defaultdict[tuple[ProbeKind, str], list[Answered]] = defaultdict(list)
    for item, answer in zip(fitting, answers, strict=True):
        levels[item.kind, item.level].append((item, answer))
    scores: ProbeScores = {}
    for (kind, level), answered in levels.items():
        scores.setdefault(kind, {})[level] = score(answered)
    return scores


def _ids(item: Item, tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    """The ids of a prompt and of its answer, as they are in one line."""
    prompt = tokenizer.encode((LINE + item.prompt).encode()).tolist()
    whole = tokenizer.encode((LINE + item.prompt + item.answer).encode()).tolist()
    return prompt, whole[len(prompt) :]


def score(answered: Sequence[Answered]) -> ProbeScore:
    """The score of one level from its items and the likelihoods of their right answers."""
    asked = [item for item, _ in answered]
    bits = [-one.log_likelihood / math.log(2) / len(item.answer.encode()) for item, one in answered]
    right, guessed, groups = [float(one.greedy) for _, one in answered], chance(asked), [item.group for item in asked]
    by_group = p_of_chance_by_group(right, groups, guessed)
    p_value = p_of_chance(round(sum(right)), len(asked), guessed) if by_group is None else by_group
    return ProbeScore(
        items=len(asked),
        answer_bits_per_byte=interval(bits, groups),
        exact=_share(right, groups),
        chance=guessed,
        p_value=p_value,
        at_chance=p_value > NO_BETTER,
    )


def _share(right: Sequence[float], groups: Sequence[str]) -> Interval:
    """The share of right items: a model may get those of one group, as 3+4 and 4+3, right or wrong together.

    Where all or none are right it is the exact interval of so many groups, else that of a bootstrap over groups.
    """
    count = len(set(groups))
    if count == len(right) or len(set(right)) == 1:
        return share_interval(round(sum(right) / len(right) * count), count)
    return interval(right, groups)


def chance(asked: Sequence[Item]) -> float:
    """The share of items that the best constant answer gets right, with one answer for each thing that is asked for."""
    answers: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for item in asked:
        answers[item.asked][item.answer] += 1
    return sum(max(counted.values()) for counted in answers.values()) / len(asked)
