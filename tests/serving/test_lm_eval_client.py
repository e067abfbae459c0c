"""What lm-eval's client asks and reads of the server is as likely as our scorer says in process."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("lm_eval", reason="lm-eval is not installed")

from lm_eval.models.openai_completions import LocalCompletionsAPI

from sparsedial.evaluation.scorer import Continuation, Scorer
from sparsedial.model.greedy import Vocabulary
from sparsedial.model.turned import at_setting
from sparsedial.shape.turned import parse_turned
from tests.model.shapes import shaken
from tests.serving.answering import alone, asked, engine_of
from tests.serving.served import NAME, SHAPE, app_of, post
from tests.serving.test_scored import NATS

MODEL = shaken(replace(SHAPE, context=64))
CONTEXTS = [b"the cat", b"the cat sat on a mat that is longer than others", b"\n"]
CHOICES = [b" sat", b"!", " ☃ on".encode()]


def pairs() -> list[tuple[list[int], list[int]]]:
    """Contexts with choices, and each with what the model would write itself."""
    given = [(list(context), list(choice)) for context in CONTEXTS for choice in CHOICES]
    return [*given, *((list(one), alone(MODEL, asked(list(one), 4), 64)) for one in CONTEXTS)]


def told(vocabulary: Vocabulary, setting: str, batch: int) -> list[Continuation]:
    """What the client makes of the server's answers."""
    client: Any = SimpleNamespace(model=f"{NAME}:{setting}")
    rows, found = pairs(), []
    with engine_of(MODEL, slots=3, length=64, vocabulary=vocabulary) as engine:
        app = app_of(engine)  # type: ignore[arg-type]
        for at in range(0, len(rows), batch):
            part = rows[at : at + batch]
            ids = [[*context, *continuation] for context, continuation in part]
            answer = post(app, "completions", LocalCompletionsAPI._create_payload(client, ids, generate=False))
            assert answer.status_code == 200, answer.text
            lengths = [len(context) for context, _ in part]
            found += LocalCompletionsAPI.parse_logprobs(answer.json(), tokens=ids, ctxlens=lengths)
    return [Continuation(nats, len(row), greedy) for (nats, greedy), (_, row) in zip(found, rows, strict=True)]


@pytest.mark.parametrize("batch", [1, 5])
@pytest.mark.parametrize("setting", ["k=2", "k=1"])
def test_continuations_are_as_likely_as_in_process(setting: str, batch: int):
    expected = Scorer(at_setting(MODEL, parse_turned(setting), None)).log_likelihoods(pairs())
    found = told(Vocabulary(), setting, batch)
    assert [one.log_likelihood for one in found] == pytest.approx([one.log_likelihood for one in expected], abs=NATS)
    assert [one.greedy for one in found] == [one.greedy for one in expected]
    assert {one.greedy for one in expected} == {True, False}


def test_no_token_of_a_choice_is_lost_where_the_text_would_end_behind_it():
    """The client leaves out the last entry, whatever it is."""
    after = {alone(MODEL, asked([*context, *choice], 1), 64)[0] for context, choice in pairs()}
    inside = set(chain(*(choice for _, choice in pairs())))
    assert after - inside, "some text ends at once"
    found = told(Vocabulary(ends=frozenset(after)), "k=2", 5)
    expected = Scorer(MODEL).log_likelihoods(pairs())
    assert [one.log_likelihood for one in found] == pytest.approx([one.log_likelihood for one in expected], abs=NATS)
