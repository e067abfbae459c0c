"""Exact match and F1 of SQuAD's official script.

lm-eval takes both from `transformers.data.metrics.squad_metrics`, which newer versions of transformers no longer have;
this module stands in for it there.

Source: evaluate-v1.1.py of SQuAD (Rajpurkar et al. 2016, arXiv 1606.05250), evaluate-v2.0.py for empty answers
"""

from __future__ import annotations

import importlib
import re
import string
import sys
import types
from collections import Counter

THEIRS = "transformers.data.metrics"


def normalize_answer(text: str) -> str:
    """Lower case, without punctuation, articles and extra white space."""
    letters = "".join(letter for letter in text.lower() if letter not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", letters).split())


def compute_exact(gold: str, answer: str) -> int:
    """Whether both are equal once normalised."""
    return int(normalize_answer(gold) == normalize_answer(answer))


def compute_f1(gold: str, answer: str) -> float:
    """The harmonic mean of the shares of words that the answer has right, and that it has of the gold one.

    Two that are empty once normalised are equal, as in SQuAD 2.0's script and in lm-eval.
    """
    golds, answers = normalize_answer(gold).split(), normalize_answer(answer).split()
    if not golds or not answers:
        return float(golds == answers)
    common = sum((Counter(golds) & Counter(answers)).values())
    return 2 * common / (len(golds) + len(answers))


def stand_in() -> None:
    """Let lm-eval find these functions where transformers lacks them."""
    try:
        importlib.import_module(f"{THEIRS}.squad_metrics")
    except ImportError:
        module = types.ModuleType(f"{THEIRS}.squad_metrics")
        module.compute_exact, module.compute_f1 = compute_exact, compute_f1  # type: ignore[attr-defined]
        package = types.ModuleType(THEIRS)
        package.squad_metrics = module  # type: ignore[attr-defined]
        sys.modules |= {THEIRS: package, module.__name__: module}
