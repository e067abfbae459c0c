"""Log-probabilities that an engine tells are those of one pass of the model over the whole text, at every setting."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from sparsedial.errors import UserError
from sparsedial.model.gates import Gates
from sparsedial.model.greedy import ALL, Vocabulary
from sparsedial.model.transformer import Transformer
from sparsedial.model.turned import at_setting
from sparsedial.pruning.gates import measured_gates
from sparsedial.serving import engine as engines
from sparsedial.serving.asks import Ask, Scored
from sparsedial.serving.lanes import Lane
from sparsedial.serving.sampling import Sampling
from sparsedial.serving.scheduler import Scheduler
from sparsedial.serving.scoring import LEAST, scores_of
from tests.model.shapes import DENSE, FAMILIES, shaken
from tests.model.test_gates import random_windows
from tests.serving.answering import GREEDY, Heard, alone, asked, engine_of, held
from tests.serving.test_engine import LENGTH, SPARSE, in_pieces, prompts_alike
from tests.serving.test_engine_failures import model_whose_id_is_no_number

NATS = 1e-4
HOT = Sampling(temperature=1.7, top_p=0.8, top_k=30, seed=4)


def scored(ask: Ask, top: int = 3, prompt: bool = True) -> Ask:
    return replace(ask, top=top, scores_prompt=prompt)


def truth(model: Transformer, ids: Sequence[int], turned, gates: Gates | None = None) -> list[list[float]]:
    """The log-probability of every token after each id, by one pass over all of them."""
    with torch.no_grad():
        logits_SV = at_setting(model, turned, gates)(torch.tensor([list(ids)]))[0]
    return logits_SV.double().log_softmax(1).tolist()


def check(model: Transformer, ask: Ask, heard: Heard, vocabulary: Vocabulary = ALL, gates: Gates | None = None) -> None:
    """What was told of an answer is what one pass over its text gives."""
    tokens = heard.wait()
    ids = [*ask.prompt, *tokens]
    rows = truth(model, ids, ask.turned, gates)
    told = [*heard.prompt_scores, *heard.scores]
    first = 1 if ask.scores_prompt else len(ask.prompt)
    assert [one.token for one in told] == ids[first:]
    for at, one in enumerate(told, start=first):
        check_one(one, rows[at - 1], ask.top, vocabulary)
    if heard.end_token is not None:
        check_one(heard.end_token, rows[-1], ask.top, vocabulary)


def check_one(one: Scored, row: list[float], top: int | None, vocabulary: Vocabulary) -> None:
    likeliest = sorted((value for token, value in enumerate(row) if token not in vocabulary.absent), reverse=True)
    assert one.logprob == pytest.approx(row[one.token], abs=NATS)
    assert [value for _, value in one.top] == pytest.approx(likeliest[:top], abs=NATS)
    assert [value for _, value in one.top] == pytest.approx([row[token] for token, _ in one.top], abs=NATS)
    assert len({token for token, _ in one.top}) == top


@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("qwen3_moe", ("default", "default", "k=1", "p=0.5")),
        ("deepseek_v3, groups and YaRN", ("default", "k=1")),
        ("qwen2_moe, windows from the second layer on", ("default",)),
    ],
)
@pytest.mark.parametrize("piece", [7, 256])
def test_what_is_told_is_what_one_pass_over_the_text_gives(family, settings, piece, monkeypatch):
    """Of prompts that begin alike, read by small pieces or whole, some scored and some not, side by side."""
    in_pieces(monkeypatch, piece=piece, lanes=2)
    model, draw = shaken(replace(FAMILIES[family], context=LENGTH)), random.Random(piece)
    vocabulary = Vocabulary(ends=frozenset({5}), absent=(60, 61, 62, 63))
    with engine_of(model, slots=3, vocabulary=vocabulary) as engine:
        open_: list[tuple[Ask, Heard]] = []
        for prompt in prompts_alike(draw):
            ask = asked(prompt, draw.randrange(20), draw.choice(settings), draw.choice([GREEDY, HOT]))
            ask = scored(ask, draw.choice([0, 1, 5]), draw.random() < 0.5) if draw.random() < 0.6 else ask
            open_.append((ask, Heard()))
            engine.ask(*open_[-1])
        for ask, heard in open_:
            assert heard.wait() == alone(model, ask, LENGTH, vocabulary), "as without scores"
            if ask.top is not None:
                check(model, ask, heard, vocabulary)
            else:
                assert (heard.scores, heard.prompt_scores, heard.end_token) == ([], [], None)
        assert engine.load().tokens_cached > 0


def test_a_share_of_the_neurons_has_probabilities_of_its_own():
    model = shaken(replace(DENSE, layers=3, d_ff=200, context=LENGTH))
    gates = measured_gates(model, random_windows(model))
    asks = [scored(asked([3, 1, 4, share], 9, f"neurons=0.{share}")) for share in (9, 5, 5)]
    hearers = [Heard() for _ in asks]
    with engine_of(model, gates=gates) as engine:
        for ask, heard in zip(asks, hearers, strict=True):
            engine.ask(ask, heard)
        for ask, heard in zip(asks, hearers, strict=True):
            check(model, ask, heard, gates=gates)


def test_a_prompt_that_a_slot_holds_is_read_again_where_it_is_scored():
    ask, hearers = asked([7, *range(50)], 4), [Heard() for _ in range(3)]
    with engine_of(SPARSE, slots=2) as engine:
        for heard, each in zip(hearers, (ask, scored(ask), scored(ask, prompt=False)), strict=True):
            engine.ask(each, heard)
            heard.wait()
    assert [heard.spent and heard.spent.cached for heard in hearers] == [0, 0, 50]
    check(SPARSE, scored(ask), hearers[1])
    check(SPARSE, scored(ask, prompt=False), hearers[2])


@pytest.mark.parametrize("prompt", [[9], [9, 8], [number % 64 for number in range(LENGTH)]])
def test_a_prompt_alone_is_scored_and_nothing_is_written(prompt):
    ask, heard = scored(asked(prompt, 0)), Heard()
    with engine_of(SPARSE) as engine:
        engine.ask(ask, heard)
        assert (heard.wait(), heard.reason) == ([], "length")
        check(SPARSE, ask, heard)
        with pytest.raises(UserError, match="with the answer it may have 128"):
            engine.ask(asked([1] * LENGTH, 1), Heard())


def test_the_token_that_ends_a_text_is_scored_beside_it():
    first = alone(SPARSE, asked([5], 1), LENGTH)[0]
    vocabulary, heard = Vocabulary(ends=frozenset({first})), Heard()
    with engine_of(SPARSE, vocabulary=vocabulary) as engine:
        engine.ask(scored(asked([5], 10)), heard)
        assert (heard.wait(), heard.reason) == ([], "stop")
        assert heard.end_token is not None
        assert heard.end_token.token == first
        check(SPARSE, scored(asked([5], 10)), heard)


def test_a_prompt_that_begins_again_is_told_once_and_right(monkeypatch, capsys):
    """Its lane is lost by a failing answer once some of it was read and scored."""
    monkeypatch.setattr(engines, "Scheduler", lambda places, alone: Scheduler(places, 16, 16))
    ask, heard, failing, begin = scored(asked([3, *range(60)], 3)), Heard(), Heard(), Lane.begin
    begun: list[int] = []

    def breaks(lane, beginning):
        begun.append(beginning.answer.ids[0])
        if beginning.answer.ids[0] == 13:
            raise RuntimeError("on fire")
        begin(lane, beginning)

    def read(lane, pieces, hear):
        if 13 not in begun and pieces[0].answer.ids[0] == 3 and pieces[0].answer.read >= 32:
            engine.ask(asked([13], 3), failing)
        return real(lane, pieces, hear)

    real = Lane.read
    monkeypatch.setattr(Lane, "begin", breaks)
    monkeypatch.setattr(Lane, "read", read)
    with engine_of(SPARSE, slots=2) as engine:
        engine.ask(ask, heard)
        failing.wait()
        check(SPARSE, ask, heard)
    assert (begun, failing.reason) == ([3, 13, 3], "failed")
    assert "on fire" in capsys.readouterr().err


def test_a_prompt_of_which_no_number_comes_fails_alone():
    model, beside, broken = model_whose_id_is_no_number(63), Heard(), Heard()
    with engine_of(model, slots=2) as engine:
        with held(engine):
            engine.ask(scored(asked([1, 2, 3], 5)), beside)
            engine.ask(scored(asked([4, 63, 5], 0)), broken)
        assert (broken.wait(), broken.reason) == ([], "failed")
        assert broken.problem is not None
        assert "not numbers" in broken.problem
        assert (len(beside.wait()), beside.reason) == (5, "length")
        check(model, scored(asked([1, 2, 3], 5)), beside)


def test_large_logits_have_finite_probabilities_and_impossible_tokens_the_least_one():
    logits_RV = torch.tensor([[1e30, 0.0, float("-inf"), 1.0], [88.0, 90.0, -700.0, 89.0]])
    first, second = scores_of(logits_RV, [2, 1], 9, Vocabulary(absent=(3,)))
    assert (first.logprob, first.top[:2]) == (LEAST, ((0, 0.0), (1, -float(logits_RV[0, 0]))))
    expected = torch.tensor([-2.0, 0.0, -790.0, -1.0], dtype=torch.float64).log_softmax(0).tolist()
    assert second.logprob == pytest.approx(expected[1], abs=1e-6)
    assert [token for token, _ in second.top] == [1, 0, 2]
    assert [value for _, value in second.top] == pytest.approx([expected[at] for at in (1, 0, 2)], rel=1e-6)


def test_neither_a_penalty_nor_a_bias_changes_what_is_told():
    how = Sampling(temperature=0.0, frequency_penalty=2.0, presence_penalty=2.0, logit_bias=((9, 30.0),))
    ask, plain, heard = scored(asked([5, 6], 20, sampling=how)), Heard(), Heard()
    with engine_of(SPARSE) as engine:
        engine.ask(ask, heard)
        engine.ask(asked([5, 6], 20), plain)
        assert heard.wait() != plain.wait()
        check(SPARSE, ask, heard)
    assert plain.tokens == alone(SPARSE, asked([5, 6], 20), LENGTH)
    assert 1 < heard.tokens.count(9) < 20
