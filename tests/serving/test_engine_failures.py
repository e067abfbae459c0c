"""What goes wrong with one answer of an engine is not the others' trouble."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest
import torch

from sparsedial.errors import UserError
from sparsedial.model.greedy import Vocabulary
from sparsedial.model.transformer import Transformer
from sparsedial.serving import engine as engines
from sparsedial.serving.lanes import Lane
from sparsedial.serving.sampling import Sampling
from sparsedial.serving.scheduler import Scheduler
from tests.model.shapes import FAMILIES, shaken
from tests.serving.answering import GREEDY, Heard, alone, asked, engine_of, held

LENGTH = 128
SPARSE = shaken(replace(FAMILIES["qwen3_moe"], context=LENGTH))
SAMPLED = Sampling(temperature=1.0, top_p=0.9, seed=3)


def model_whose_id_is_no_number(token: int) -> Transformer:
    model = shaken(replace(FAMILIES["qwen3_moe"], context=LENGTH))
    with torch.no_grad():
        model.embedding_VD[token] = float("nan")
    return model


@pytest.mark.parametrize("sampling", [GREEDY, SAMPLED])
def test_logits_that_are_no_numbers_fail_that_answer_alone_and_leave_nothing(sampling):
    """The next prompt in its slot is read beside a longer text, so with what is there at later positions, unseen."""
    model, never = model_whose_id_is_no_number(63), Vocabulary(absent=(63,))
    broken, beside, after = Heard(), Heard(), [Heard(), Heard()]
    with engine_of(model, slots=2, vocabulary=never) as engine:
        ask = asked(list(range(40)), 60, sampling=sampling)
        engine.ask(ask, beside)
        engine.ask(asked([*range(20, 60), 63, 5], 9, sampling=sampling), broken)
        assert broken.wait() == []
        assert (broken.reason, beside.wait()) == ("failed", alone(model, ask, LENGTH, never))
        assert broken.problem == "the model's logits are not numbers, so no token can be drawn"
        later = [asked([*ask.prompt, *beside.tokens[:-1], 4, 5, 6], 9), asked([7, 8, 9], 9)]
        with held(engine):
            for ask, heard in zip(later, after, strict=True):
                engine.ask(ask, heard)
        assert [heard.wait() for heard in after] == [alone(model, ask, LENGTH, never) for ask in later]
        assert [heard.spent and heard.spent.cached for heard in after] == [99, 0]


def test_a_prompt_that_is_forgotten_before_its_end_leaves_nothing_that_is_no_number(monkeypatch):
    model, never, real = model_whose_id_is_no_number(63), Vocabulary(absent=(63,)), Lane.read
    after, left = [Heard(), Heard()], threading.Event()

    class Beside(Heard):
        """The other prompt is asked while this is being written, however slow the machine is."""

        def token(self, token, scored=None):
            super().token(token, scored)
            if len(self.tokens) == 1:
                engine.ask(asked([*range(20, 60), 63, *range(59)], 9), Heard())

    beside = Beside()

    def leaving(lane, pieces, hear):
        for piece in pieces:
            if 63 in piece.answer.ids:
                engine.forget(piece.answer.number)
                left.set()
        return real(lane, pieces, hear)

    monkeypatch.setattr(engines, "Scheduler", lambda places, alone: Scheduler(places, 64, 64))
    monkeypatch.setattr(Lane, "read", leaving)
    with engine_of(model, slots=2, vocabulary=never) as engine:
        ask = asked(list(range(40)), 60)
        engine.ask(ask, beside)
        beside.wait()
        assert left.wait(30)
        later = [asked([*ask.prompt, *beside.tokens[:-1], 4, 5, 6], 9), asked([7, 8, 9], 9)]
        with held(engine):
            for each, heard in zip(later, after, strict=True):
                engine.ask(each, heard)
        assert [heard.wait() for heard in after] == [alone(model, each, LENGTH, never) for each in later]


@pytest.mark.parametrize("part", ["read", "step"])
def test_an_error_fails_those_that_took_part_and_the_others_go_on(part, monkeypatch, capsys):
    """Those of its own lane in a new cache."""
    sound, real = {"k=1": Heard(), "p=0.5": Heard(), "default": Heard()}, getattr(Lane, part)
    broken_lanes = []

    def breaks(lane: Lane, taking_part, *more):
        answers = [getattr(each, "answer", each) for each in taking_part]
        if lane in broken_lanes or any(answer.ids[0] == 13 for answer in answers):
            broken_lanes.append(lane)
            raise RuntimeError("the machine is on fire\nat length")
        return real(lane, taking_part, *more)

    monkeypatch.setattr(Lane, part, breaks)
    broken = Heard()
    with engine_of(SPARSE, slots=4) as engine:
        asks = {setting: asked([4, 5, 6], 100, setting) for setting in sound}
        if part == "step":
            del sound["k=1"], sound["default"]  # they would be steps of the same call
        for setting, heard in sound.items():
            engine.ask(asks[setting], heard)
        for heard in sound.values():
            heard.some.wait()
        engine.ask(asked([13, 14, 15], 9), broken)
        assert broken.wait() == [] or part == "step"
        assert (broken.reason, broken.problem) == ("failed", "RuntimeError: the machine is on fire")
        for setting, heard in sound.items():
            assert heard.wait() == alone(SPARSE, asks[setting], LENGTH)
    assert "the machine is on fire\nat length" in capsys.readouterr().err


def test_a_lane_that_cannot_be_made_fails_those_that_ask_for_it(monkeypatch, capsys):
    make = engines.Lane

    def making(model, setting, *others):
        if setting.top_p is not None:
            raise MemoryError
        return make(model, setting, *others)

    monkeypatch.setattr(engines, "Lane", making)
    failing, sound = [Heard(), Heard()], Heard()
    with engine_of(SPARSE) as engine:
        ask = asked([1, 2], 60)
        engine.ask(ask, sound)
        for heard in failing:
            engine.ask(asked([1, 2], 3, "p=0.5"), heard)
        assert [heard.wait() for heard in failing] == [[], []]
        assert {(heard.reason, heard.problem) for heard in failing} == {("failed", "MemoryError")}
        assert sound.wait() == alone(SPARSE, ask, LENGTH)
    assert "MemoryError" in capsys.readouterr().err


class Raising(Heard):
    """An asker that breaks when it is told something."""

    def token(self, token: int, scored: object = None) -> None:
        raise ConnectionError("nobody is there")


def test_an_asker_that_raises_ends_its_own_answer_only(capsys):
    raising, sound = Raising(), Heard()
    with engine_of(SPARSE, slots=1) as engine:
        engine.ask(asked([1], 60), raising)
        engine.ask(asked([2], 9), sound)
        assert sound.wait() == alone(SPARSE, asked([2], 9), LENGTH)
    assert not raising.done.is_set()
    assert "nobody is there" in capsys.readouterr().err


def test_an_error_of_no_call_fails_all_and_the_engine_goes_on(monkeypatch, capsys):
    first, second = Heard(), Heard()
    with engine_of(SPARSE, slots=1) as engine:
        with monkeypatch.context() as broken:
            broken.setattr(Scheduler, "pieces", lambda scheduler: 1 / 0)
            engine.ask(asked([1, 2, 3], 9), first)
            first.wait()
        engine.ask(asked([1, 2, 3], 9), second)
        assert second.wait() == alone(SPARSE, asked([1, 2, 3], 9), LENGTH)
    assert (first.reason, first.problem) == ("failed", "ZeroDivisionError: division by zero")
    assert "ZeroDivisionError" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_engine_whose_thread_breaks_leaves_nobody_waiting(monkeypatch):
    monkeypatch.setattr(engines.Engine, "_hear", lambda engine: 1 / 0)
    heard = Heard()
    with engine_of(SPARSE) as engine:
        engine._thread.join()
        with pytest.raises(UserError, match="the server is closing"):
            engine.ask(asked([1], 3), heard)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_answers_of_an_engine_whose_thread_breaks_fail(monkeypatch):
    heard = Heard()
    with engine_of(SPARSE) as engine:
        engine.ask(asked([1], 120), heard)
        heard.some.wait()
        monkeypatch.setattr(engines.Engine, "_hear", lambda engine: 1 / 0)
        heard.wait()
    assert (heard.reason, heard.problem) == ("failed", "the server is closing")
