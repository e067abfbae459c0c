"""The loss of a split by domain: each token counts once, for the document that it stands in."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from sparsedial.evaluation.loss import evaluate_text, token_losses
from sparsedial.evaluation.scorer import Scorer
from sparsedial.evaluation.split_domains import split_domain_losses
from sparsedial.model.transformer import initialise
from sparsedial.shape.ladder import Ladder
from sparsedial.text.prepare import Text, prepare

CONTEXT = 16
WORDS = {"code": "if for in def", "prose": "the ship came home"}


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Text:
    folder = tmp_path_factory.mktemp("domains")
    for name, words in WORDS.items():
        (folder / "text" / name).mkdir(parents=True)
        for number in range(60):
            draw = random.Random(f"{name}{number}")
            (folder / "text" / name / f"{number}.txt").write_text(" ".join(draw.choices(words.split(), k=40)))
    return prepare((str(folder / "text"),), folder=folder / "prepared")


@pytest.fixture(scope="module")
def scorer(text: Text) -> Scorer:
    return Scorer(initialise(Ladder(vocab_size=text.tokenizer.vocab_size, context=CONTEXT).shape(16, 0), 0))


def domains_of(text: Text) -> dict[str, str]:
    return {source: Path(source).parts[0] for source in text.manifest.collect()["source"]}


def test_the_mean_over_all_domains_is_the_loss_of_the_split(text, scorer):
    domains = domains_of(text)
    found = split_domain_losses(scorer, text, "test", domains, context=CONTEXT)
    whole = evaluate_text(scorer.model, text, "test", context=CONTEXT)
    rows = text.manifest.collect().filter(split="test")
    scored = whole.tokens
    counts = dict.fromkeys(WORDS, 0)
    for source, first, tokens in rows.select("source", "first_token", "tokens").iter_rows():
        counts[domains[source]] += max(0, min(scored, first + tokens) - max(0, first - 1))
    assert sum(counts.values()) == scored
    assert found.keys() == {name for name, count in counts.items() if count}
    mean = sum(found[name] * count for name, count in counts.items() if count) / scored
    assert mean == pytest.approx(whole.loss, rel=1e-6)


def test_a_token_counts_for_its_own_document(text, scorer):
    domains = domains_of(text)
    nats = token_losses(scorer, text, "test", context=CONTEXT).nats_T
    whole = len(nats) // CONTEXT * CONTEXT
    owner = np.full(len(nats) + 1, "", dtype=object)
    rows = text.manifest.collect().filter(split="test").select("source", "first_token", "tokens")
    for source, first, tokens in rows.iter_rows():
        owner[first : first + tokens + 1] = domains[source]
    owner = owner[1 : whole + 1]
    found = split_domain_losses(scorer, text, "test", domains, context=CONTEXT)
    for name, loss in found.items():
        assert loss == pytest.approx(float(nats[:whole][owner == name].mean()), rel=1e-5)


def test_with_fewer_tokens_evenly_spread_windows_are_scored(text, scorer):
    few = split_domain_losses(scorer, text, "test", domains_of(text), context=CONTEXT, max_tokens=4 * CONTEXT)
    assert 1 <= len(few) <= 2
    assert all(0 < loss < 10 for loss in few.values())
