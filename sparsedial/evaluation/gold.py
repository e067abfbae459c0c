"""What likelihoods say of the right answers: for models that are too small to be right."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsedial.evaluation.choices import first_of, right_choices

if TYPE_CHECKING:
    from sparsedial.evaluation.harness import HarnessModel

Sample = Mapping[str, Any]  # lm-eval's record of one item


@dataclass(frozen=True)
class Gold:
    """Values for each item; None where a task has no such thing."""

    chance: float | None = None  # the share of items that guessing gets right
    bits_per_byte: list[float] | None = None  # of the right answer
    ranks: list[float] | None = None  # of the right choice by its log-likelihood; 1 is the first
    margins: list[float] | None = None  # of the right choice over the best wrong one, in nats

    @classmethod
    def of(cls, task: Any, samples: Sequence[Sample], model: HarnessModel) -> Gold:
        """Of a task's answers. A right answer that the model was to write is scored by the model now."""
        kind = task.OUTPUT_TYPE
        if kind == "loglikelihood":
            return cls(bits_per_byte=[_bits(nats_of(sample)[0], _continuations(sample)[0]) for sample in samples])
        if kind == "generate_until":
            return cls(bits_per_byte=_of_written(task, samples, model))
        return _of_choices(task, samples) if kind == "multiple_choice" else cls()


def nats_of(sample: Sample) -> list[float]:
    """The log-likelihood of each continuation of an item that was scored."""
    return [float(answers[0][0]) for answers in sample["resps"]]


def _of_choices(task: Any, samples: Sequence[Sample]) -> Gold:
    bits, ranks, margins, chances = [], [], [], []
    for sample in samples:
        right = right_choices(task, sample["doc"])
        nats, texts = nats_of(sample)[: len(task.doc_to_choice(sample["doc"]))], _continuations(sample)
        gold = max(right, key=nats.__getitem__)  # the likeliest of several right ones
        bits.append(_bits(nats[gold], texts[gold]))
        wrong = [value for number, value in enumerate(nats) if number not in right]
        if not wrong:  # each choice is a way to say the answer
            continue
        ranks.append(1.0 + sum(value > nats[gold] for value in wrong))
        margins.append(nats[gold] - max(wrong))
        chances.append(len(right) / len(nats))
    if len(ranks) < len(samples):
        return Gold(bits_per_byte=bits)
    return Gold(chance=float(np.mean(chances)), bits_per_byte=bits, ranks=ranks, margins=margins)


def _of_written(task: Any, samples: Sequence[Sample], model: HarnessModel) -> list[float] | None:
    """Bits per byte of the right answers after their prompts; None where a task's items state none as text."""
    targets = [_text(sample["target"]) for sample in samples]
    answers = [f"{task.config.target_delimiter}{target}" for target in targets if target]
    if len(answers) < len(samples):
        return None
    prompts = [sample["arguments"][0][0] for sample in samples]
    found = model.scores_of(list(zip(prompts, answers, strict=True)))
    return found and [_bits(nats, answer) for nats, answer in zip(found, answers, strict=True)]


def _text(target: Any) -> str | None:
    """A right answer as text; None where it is none."""
    target = first_of(target)
    return target.strip() if isinstance(target, str) else None


def _continuations(sample: Sample) -> list[str]:
    return [continuation for _, continuation in sample["arguments"]]


def _bits(nats: float, text: str) -> float:
    """Bits per byte of an answer with this log-likelihood."""
    return -nats / math.log(2) / len(text.encode())
