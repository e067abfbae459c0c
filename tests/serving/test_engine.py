"""Several requests at once: each gets the text that it gets alone, at its own setting."""

from __future__ import annotations

import random
import threading
import time
from dataclasses import replace
from functools import partial

import pytest
import torch

from sparsedial.errors import UserError
from sparsedial.machine.energy import CountingMeter
from sparsedial.model.greedy import Vocabulary
from sparsedial.pruning.gates import measured_gates
from sparsedial.serving import engine as engines
from sparsedial.serving.asks import Ask
from sparsedial.serving.lanes import Lane
from sparsedial.serving.sampling import Sampling
from sparsedial.serving.scheduler import Scheduler
from tests.model.shapes import DENSE, FAMILIES, shaken
from tests.model.test_gates import random_windows
from tests.serving.answering import GREEDY, Heard, alone, asked, engine_of, held

LENGTH = 128
SPARSE = shaken(replace(FAMILIES["qwen3_moe"], context=LENGTH))
SPARSE_SETTINGS = ("default", "default", "k=1", "k=1", "p=0.5", "k=1,p=0.5", "skip=0", "k=3", "k=1,skip=1")
SAMPLED = Sampling(temperature=1.0, top_p=0.9, seed=3)


def prompts_alike(draw: random.Random, vocab_size: int = 64) -> list[list[int]]:
    """Prompts of which some begin alike."""
    roots = [[draw.randrange(vocab_size) for _ in range(90)] for _ in range(2)]
    return [
        [
            *draw.choice(roots)[: draw.randrange(1, 90)],
            *(draw.randrange(vocab_size) for _ in range(draw.randrange(1, 9))),
        ]
        for _ in range(20)
    ]


def in_pieces(monkeypatch: pytest.MonkeyPatch, **how: int) -> None:
    """Engines have other limits from now on."""
    monkeypatch.setattr(engines, "Scheduler", partial(Scheduler, **how))


@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("qwen3_moe", SPARSE_SETTINGS),
        ("deepseek_v3, groups and YaRN", ("default", "k=1", "p=0.5", "skip=1")),
        ("qwen2_moe, windows from the second layer on", ("default", "k=1")),
        ("glm4_moe, first layer dense", ("default", "k=1", "skip=1")),
    ],
)
@pytest.mark.parametrize("piece", [7, 256])
def test_each_request_gets_the_text_that_it_gets_alone(family, settings, piece, monkeypatch):
    """Requests arrive and are forgotten at random; prompts are read by small pieces, or whole; two lanes at most."""
    in_pieces(monkeypatch, piece=piece, lanes=2)
    model, draw = shaken(replace(FAMILIES[family], context=LENGTH)), random.Random(piece)
    vocabulary = Vocabulary(ends=frozenset({5}), absent=(60, 61, 62, 63))
    with engine_of(model, slots=3, vocabulary=vocabulary) as engine:
        open_: list[tuple[Ask, Heard]] = []
        for seed, prompt in enumerate(prompts_alike(draw)):
            sampling = draw.choice([GREEDY, Sampling(temperature=1.2, top_k=draw.choice([None, 20]), seed=seed)])
            ask, heard = asked(prompt, draw.randrange(1, 40), draw.choice(settings), sampling), Heard()
            number = engine.ask(ask, heard)
            if draw.random() < 0.2:
                time.sleep(draw.random() * 0.005)
                engine.forget(number)
            else:
                open_.append((ask, heard))
            time.sleep(draw.random() * 0.003)
        for ask, heard in open_:
            assert heard.wait() == alone(model, ask, LENGTH, vocabulary)
            whole = len(heard.tokens) == min(ask.tokens, LENGTH - len(ask.prompt))
            assert heard.reason == ("length" if whole else "stop")
        assert engine.load().tokens_cached > 0


def test_each_request_gets_its_own_share_of_the_neurons():
    model = shaken(replace(DENSE, layers=3, d_ff=200, context=LENGTH))
    gates = measured_gates(model, random_windows(model))
    with engine_of(model, gates=gates) as engine:
        asks = [asked([3, 1, 4, share], 30, f"neurons=0.{share}") for share in (9, 5, 2, 5)] + [asked([3, 1], 30)]
        hearers = [Heard() for _ in asks]
        for ask, heard in zip(asks, hearers, strict=True):
            engine.ask(ask, heard)
        texts = [heard.wait() for heard in hearers]
    assert texts == [alone(model, ask, LENGTH, gates=gates) for ask in asks]


def test_a_continued_text_is_what_it_is_without_a_slot_that_holds_it():
    """At a fewer experts in between, whose keys and values are others."""
    prompt = [7, *range(50)]
    with engine_of(SPARSE, slots=2) as engine:
        for setting, cached in (("default", False), ("k=1", False), ("default", True), ("k=1", True)):
            ask, heard = asked(prompt, 20, setting, SAMPLED), Heard()
            engine.ask(ask, heard)
            assert heard.wait() == alone(SPARSE, ask, LENGTH)
            assert heard.spent is not None
            assert heard.spent.cached == (len(prompt) - 1 if cached else 0)
            ask, heard = asked([*prompt, *heard.tokens, 9], 5, setting), Heard()
            engine.ask(ask, heard)
            assert heard.wait() == alone(SPARSE, ask, LENGTH)
            assert heard.spent is not None
            assert heard.spent.cached >= len(prompt) + 19
        load = engine.load()
        assert load.tokens_read + load.tokens_cached == 4 * (2 * len(prompt) + 21)


def test_an_end_token_ends_a_text_and_is_none_of_it():
    first = alone(SPARSE, asked([5], 1), LENGTH)[0]
    heard = Heard()
    with engine_of(SPARSE, vocabulary=Vocabulary(ends=frozenset({first}))) as engine:
        engine.ask(asked([5], 10), heard)
        assert (heard.wait(), heard.reason, heard.problem) == ([], "stop", None)


@pytest.mark.parametrize(("prompt", "tokens", "written"), [(10, 3, 3), (10, 100, 10), (19, 100, 1), (10, 10, 10)])
def test_a_text_ends_with_its_slot_or_with_the_tokens_asked_for(prompt, tokens, written):
    ask, heard = asked(list(range(prompt)), tokens), Heard()
    with engine_of(SPARSE, length=20) as engine:
        engine.ask(ask, heard)
        assert heard.wait() == alone(SPARSE, ask, 20)
        assert (len(heard.tokens), heard.reason) == (written, "length")


@pytest.mark.parametrize(
    ("ask", "field", "what"),
    [
        (asked([], 3), "prompt", "the prompt has no tokens"),
        (asked([1, 64], 3), "prompt", "lies outside 0..63"),
        (asked([-1], 3), "prompt", "lies outside 0..63"),
        (asked([1] * 20, 3), "prompt", "the prompt has 20 tokens: with the answer it may have 20"),
        (asked([1], -1), "tokens", "-1 tokens"),
        (asked([1], 3, "k=9"), "setting", "k=9 lies outside"),
        (asked([1], 3, "skip=7"), "setting", "no layer 7"),
        (asked([1], 3, "neurons=0.5"), "setting", "every layer has experts"),
    ],
)
def test_what_cannot_be_answered_is_refused_before_it_waits(ask, field, what):
    with engine_of(SPARSE, length=20) as engine, pytest.raises(UserError, match=what) as refused:
        engine.ask(ask, Heard())
    assert refused.value.field == field


def test_a_share_of_the_neurons_without_gates_is_refused():
    with engine_of(shaken(DENSE)) as engine, pytest.raises(UserError, match="needs the gates") as refused:
        engine.ask(asked([1], 3, "neurons=0.5"), Heard())
    assert refused.value.field == "setting"


@pytest.mark.parametrize(("slots", "length", "field"), [(0, 20, "slots"), (2, 1, "length"), (2, 129, "length")])
def test_an_engine_without_room_is_refused(slots, length, field):
    with pytest.raises(UserError) as refused, engine_of(SPARSE, slots, length):
        pass
    assert refused.value.field == field


class Counter(CountingMeter):
    """A meter whose counter goes on by one joule whenever it is read, and which keeps what it gave."""

    def __init__(self) -> None:
        self.given: list[float] = []
        self._now = 0.0
        super().__init__("a test", self._next, [1e9])

    def _next(self) -> list[float]:
        self._now += 1.0
        return [self._now]

    def joules(self, seconds: float) -> float:
        assert seconds > 0
        self.given.append(super().joules(seconds))
        return self.given[-1]


def test_joules_of_all_answers_are_those_that_the_meter_counted():
    meter, hearers = Counter(), [Heard() for _ in range(6)]
    with engine_of(SPARSE, slots=3, power=meter) as engine:
        for number, heard in enumerate(hearers):
            engine.ask(asked(list(range(3 + 9 * number)), 5 + number, ("default", "k=1", "p=0.5")[number % 3]), heard)
        for heard in hearers:
            heard.wait()
        total = engine.load().joules
    joules = [heard.spent.joules for heard in hearers if heard.spent is not None]
    assert sum(joules) == pytest.approx(sum(meter.given))
    assert total == pytest.approx(sum(meter.given))
    assert all(each > 0 for each in joules)


def test_the_ids_of_a_call_share_its_joules_equally():
    meter, hearers = Counter(), [Heard(), Heard()]
    with engine_of(SPARSE, slots=2, power=meter) as engine:
        with held(engine):
            for heard, length in zip(hearers, (6, 2), strict=True):
                engine.ask(asked(list(range(length)), 2), heard)
        for heard in hearers:
            heard.wait()
    assert [heard.spent.joules for heard in hearers if heard.spent] == pytest.approx([6 / 8 + 1 / 2, 2 / 8 + 1 / 2])


def test_seconds_count_from_the_asking_the_wait_included():
    first, second = Heard(), Heard()
    with engine_of(SPARSE, slots=1) as engine:
        began = time.perf_counter()
        engine.ask(asked([1], 60), first)
        engine.ask(asked([2], 3), second)
        second.wait()
        passed = time.perf_counter() - began
    assert first.spent is not None
    assert second.spent is not None
    assert 0 <= first.spent.waited < first.spent.seconds < second.spent.seconds <= passed
    assert 0.8 * first.spent.seconds < second.spent.waited < second.spent.seconds


def test_a_forgotten_answer_is_told_nothing_more_and_its_place_is_free():
    first, second = Heard(), Heard()
    with engine_of(SPARSE, slots=1) as engine:
        number = engine.ask(asked([1], 120), first)
        first.some.wait()
        engine.ask(asked([2], 3), second)
        engine.forget(number)
        engine.forget(number)
        engine.forget(99)
        assert second.wait() == alone(SPARSE, asked([2], 3), LENGTH)
        assert not first.done.is_set()
        assert len(first.tokens) < 120
        assert (engine.load().busy, engine.load().waiting) == (0, 0)


def test_a_finished_answer_stops_where_it_is_and_says_what_it_took():
    first, second = Heard(), Heard()
    with engine_of(SPARSE, slots=1) as engine:
        number = engine.ask(asked([1], 120), first)
        first.some.wait()
        waiting = engine.ask(asked([2], 120), second)
        engine.finish(waiting)
        engine.finish(number)
        engine.finish(99)
        assert second.wait() == []
        assert 0 < len(first.wait()) < 120
        assert (first.reason, second.reason) == ("stop", "stop")
        assert first.spent is not None
        assert first.spent.joules > 0
        again = Heard()
        engine.ask(asked([1], 120), again)
        assert again.wait() == alone(SPARSE, asked([1], 120), LENGTH)


def test_who_comes_while_a_long_prompt_is_read_does_not_wait_for_all_of_it(monkeypatch):
    """Nor does the end of the server, which waits for one call of the model."""
    model, long, short = shaken(replace(FAMILIES["qwen3_moe"], context=2048)), Heard(), Heard()
    real, written = Lane.read, list[list[int]]()

    def reading(lane, pieces, hear):
        if len(pieces) == 1 and pieces[0].answer.read == 0 and len(pieces[0].answer.ids) == 1500:
            engine.ask(asked([1, 2, 3], 1), short)
        return real(lane, pieces, hear)

    def ended(*what):
        written.append(list(long.tokens))
        Heard.ended(short, *what)

    monkeypatch.setattr(Lane, "read", reading)
    monkeypatch.setattr(short, "ended", ended)
    with engine_of(model) as engine:
        engine.ask(asked([7] * 1500, 1), long)
        short.wait()
        assert len(long.wait()) == 1
    assert written == [[]]


def test_an_engine_that_is_closed_has_ended_all_answers_and_its_thread():
    hearers, threads = [Heard() for _ in range(4)], threading.active_count()
    with engine_of(SPARSE, slots=2) as engine:
        for heard in hearers:
            engine.ask(asked([1], 120), heard)
        hearers[0].some.wait()
        assert threading.active_count() == threads + 1
        engine.close()
        assert threading.active_count() == threads
        assert [heard.reason for heard in hearers] == ["failed"] * 4
        assert {heard.problem for heard in hearers} == {"the server is closing"}
        with pytest.raises(UserError, match="the server is closing"):
            engine.ask(asked([1], 3), Heard())


def test_an_idle_engine_waits_without_looking_around(monkeypatch):
    heard, looks = Heard(), []
    with engine_of(SPARSE) as engine:
        engine.ask(asked([1], 3), heard)
        heard.wait()
        time.sleep(0.05)  # until it is idle
        hear = engine._news.wait
        monkeypatch.setattr(engine._news, "wait", lambda *seconds: (looks.append(1), hear(*seconds)))
        time.sleep(0.1)
        assert looks == []


def test_the_engines_thread_computes_as_the_main_one_does(monkeypatch):
    """With as many threads of PyTorch and of the compiled kernel, and without gradients."""
    seen, heard, step = [], Heard(), Lane.step
    before = torch.get_num_threads()

    def watched(lane: Lane, answers):
        kernel = lane.decoder._kernel
        seen.append((torch.get_num_threads(), kernel and kernel.threads, torch.is_grad_enabled()))
        return step(lane, answers)

    monkeypatch.setattr(Lane, "step", watched)
    torch.set_num_threads(3)
    try:
        with engine_of(SPARSE) as engine:
            engine.ask(asked([1], 3), heard)
            heard.wait()
    finally:
        torch.set_num_threads(before)
    assert set(seen) == {(3, 3, False)}
    assert torch.is_grad_enabled()


def test_settings_that_differ_in_k_alone_are_steps_of_one_decoder(monkeypatch):
    rows, step = [], Lane.step

    def watched(lane: Lane, answers):
        rows.append(len(answers))
        return step(lane, answers)

    monkeypatch.setattr(Lane, "step", watched)
    hearers = [Heard() for _ in range(5)]
    with engine_of(SPARSE, slots=5) as engine:
        for heard, setting in zip(hearers, ("default", "k=1", "k=1/2", "k=2/1,p=1", "p=1"), strict=True):
            engine.ask(asked([1, 2], 60, setting), heard)
        for heard in hearers:
            heard.wait()
        assert len(engine._lanes) == 1
    assert max(rows) == 5


def test_lanes_beyond_the_limit_lose_their_memory():
    with engine_of(SPARSE) as engine:
        for share in range(10, 90, 7):
            ask, heard = asked([1, 2], 3, f"p=0.{share}"), Heard()
            engine.ask(ask, heard)
            assert heard.wait() == alone(SPARSE, ask, LENGTH)
            assert len(engine._lanes) <= 4


def test_what_was_asked_from_many_threads_is_answered():
    texts: dict[int, list[int]] = {}
    with engine_of(SPARSE, slots=2) as engine:

        def ask(number: int) -> None:
            heard = Heard()
            engine.ask(asked([number], 10), heard)
            texts[number] = heard.wait()

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert texts == {number: alone(SPARSE, asked([number], 10), LENGTH) for number in range(8)}
