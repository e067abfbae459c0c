"""The engine: answers several requests at once with one model, each at its own setting of the dial.

B answers that are computed together, V vocabulary.
"""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sparsedial.errors import UserError, about
from sparsedial.machine.energy import Meter
from sparsedial.model.gates import Gates
from sparsedial.model.greedy import Vocabulary
from sparsedial.model.transformer import Transformer
from sparsedial.serving.asks import Ask, Closed, Load, Reason, Scored, Told
from sparsedial.serving.drawing import draw_each, draws_of
from sparsedial.serving.lanes import Lane, place_of
from sparsedial.serving.open_answer import OpenAnswer
from sparsedial.serving.scheduler import ALONE, Piece, Scheduler
from sparsedial.serving.scoring import prompt_scores, score_drawn
from sparsedial.serving.slots import Answer, Beginning
from sparsedial.shape.turned import Turned


@dataclass
class _Total:
    """What the engine has done since its start."""

    read: int = 0
    cached: int = 0
    written: int = 0
    seconds: float = 0.0
    joules: float = 0.0


class Engine:
    """Answers several requests at once with one model, each at its own setting.

    All computing is done in a thread of its own, in turns: answers that wait get a free slot, prompts are read by
    pieces, and each answer that writes gets its next token. It is the token that it would get alone. Answers whose
    settings differ in k alone are steps of one model; for others it is called once each (`lanes`).

    A prompt takes over what a slot of the same setting holds of it. Where several requests with the same beginning
    arrive together, the first one reads it and the others wait for that.

    `slots` answers are written at once, each of at most `length` ids with its prompt. `gates` are the model's own, for
    settings with a share of the neurons. `power` meters each call of the model.

    Raises: UserError where that is more than the model's context, or no slots.
    """

    def __init__(
        self,
        model: Transformer,
        *,
        slots: int,
        length: int,
        vocabulary: Vocabulary,
        power: Meter,
        gates: Gates | None = None,
    ) -> None:
        if slots < 1:
            raise UserError(f"{slots} answers at once are none", field="slots")
        if not 2 <= length <= model.shape.context:
            raise UserError(f"{length} lies outside 2..{model.shape.context}, the model's context", field="length")
        self._model, self._gates, self._vocabulary, self._power = model, gates, vocabulary, power
        self._slots, self._length = slots, length
        self._scheduler, self._lanes = Scheduler(slots, ALONE), dict[Turned, Lane]()
        self._total = _Total()
        self._numbers = 0
        self._open: dict[int, OpenAnswer] = {}  # by number, from when they are asked until they end
        self._news = threading.Condition()  # guards what follows
        self._asked: list[OpenAnswer] = []
        self._leaving: list[int] = []
        self._closing = False
        self._at_work: tuple[Turned, Sequence[Answer]] | None = None  # the lane and answers that are computed
        self._thread = threading.Thread(target=self._run, name="sparsedial-engine", daemon=True)
        self._thread.start()

    def ask(self, ask: Ask, told: Told) -> int:
        """Let a prompt be continued; returns the answer's number. It may be told of before that.

        Raises: UserError for an empty prompt, an id outside the vocabulary, a prompt that leaves no room for a token, a
            setting that the model cannot have, or where the engine is closed.
        """
        if not ask.prompt:
            raise UserError("the prompt has no tokens", hint="give at least one character", field="prompt")
        if min(ask.prompt) < 0 or max(ask.prompt) >= self._model.shape.vocab_size:
            raise UserError(f"a token id lies outside 0..{self._model.shape.vocab_size - 1}", field="prompt")
        if len(ask.prompt) + min(1, ask.tokens) > self._length:
            raise UserError(
                f"the prompt has {len(ask.prompt):,} tokens: with the answer it may have {self._length:,}",
                field="prompt",
            )
        if ask.tokens < 0:
            raise UserError(f"{ask.tokens} tokens are fewer than none", field="tokens")
        with about("setting"):
            place = place_of(ask.turned, self._model.shape, self._gates)
        draws = draws_of(ask.sampling, ask.guide)
        with self._news:
            if self._closing:
                raise Closed
            self._numbers += 1
            answer = Answer(
                number=self._numbers,
                ids=list(ask.prompt),
                most=min(len(ask.prompt) + ask.tokens, self._length),
                lane=place.lane,
                visits=place.visits,
                prompt=len(ask.prompt) if ask.scores_prompt else 0,
            )
            self._open[answer.number] = new = OpenAnswer(answer=answer, told=told, draws=draws, top=ask.top)
            self._asked.append(new)
            self._news.notify()
        return answer.number

    def finish(self, number: int) -> None:
        """End an answer as it is: it is told soon that it has stopped. A number that has ended is ignored."""
        self._leave(number, forgotten=False)

    def forget(self, number: int) -> None:
        """Stop an answer whose asker has gone; it is told nothing more, but for what is just being told."""
        self._leave(number, forgotten=True)

    def _leave(self, number: int, forgotten: bool) -> None:
        with self._news:
            found = self._open.get(number)
            if found is not None:
                found.forgotten |= forgotten
                self._leaving.append(number)
                self._news.notify()

    def load(self) -> Load:
        """What it is doing, and has done since its start."""
        total = self._total
        with self._news:
            busy = len(self._scheduler.running)
            waiting = len(self._asked) + len(self._scheduler.waiting)
        return Load(
            slots=self._slots,
            busy=busy,
            waiting=waiting,
            tokens_read=total.read,
            tokens_cached=total.cached,
            tokens_written=total.written,
            seconds_busy=total.seconds,
            joules=total.joules,
        )

    def close(self) -> None:
        """End all answers as failed, and the thread."""
        with self._news:
            self._closing = True
            self._news.notify()
        self._thread.join()

    @torch.no_grad()
    def _run(self) -> None:
        """The thread: turn after turn while there are answers."""
        try:
            while self._hear():
                try:
                    self._turn()
                except Exception as error:  # of one turn: the other answers go on
                    self._fail(error)
        finally:
            with self._news:
                self._closing = True
            for open_ in list(self._open.values()):
                open_.tell_end("failed", Closed().problem)
            self._open.clear()

    def _hear(self) -> bool:
        """Wait until there is something to do; False where that is to close."""
        with self._news:
            while not (self._open or self._closing):
                self._news.wait()
            for new in self._asked:
                self._scheduler.ask(new.answer)
            self._asked = []
            leaving, self._leaving = self._leaving, []
        for number in leaving:
            if number in self._open:
                answer = self._open[number].answer
                keep = answer.slot is None or self._lane(answer.lane).keeps(answer.slot)
                self._end(self._open[number], "stop", keep=keep)
        return not self._closing

    def _turn(self) -> None:
        """Begin what has a place, read pieces of prompts, and write one token of each answer that can."""
        for beginning in self._scheduler.begin():
            self._begin(beginning)
        for lane, pieces in self._scheduler.pieces().items():
            self._read(lane, pieces)
        for lane, answers in self._scheduler.writing().items():
            self._step(lane, answers)

    def _begin(self, beginning: Beginning) -> None:
        answer = beginning.answer
        open_, self._at_work = self._open[answer.number], (answer.lane, [answer])
        if open_.begun is None:
            open_.begun = time.perf_counter()
            self._total.cached += beginning.shared
            self._total.read += answer.unread
        self._lane(answer.lane).begin(beginning)
        self._at_work = None

    def _read(self, key: Turned, pieces: Sequence[Piece]) -> None:
        lane, answers, wrong = self._lane(key), [piece.answer for piece in pieces], dict[int, UserError]()

        def score(row: int, x_SD: Tensor) -> None:
            try:
                self._score(lane, pieces[row], x_SD)
            except UserError as error:  # of this answer: the others go on
                wrong[row] = error

        hear = score if any(answer.scored < answer.prompt for answer in answers) else None
        logits_BV = self._compute(key, answers, [piece.count for piece in pieces], lambda: lane.read(pieces, hear))
        for row, error in wrong.items():
            self._end_failed(lane, self._open[answers[row].number], error)
        whole = [row for row, answer in enumerate(answers) if not answer.unread and row not in wrong]
        if whole:
            self._write(lane, [answers[row] for row in whole], logits_BV[whole])
        self._at_work = None

    def _score(self, lane: Lane, piece: Piece, x_SD: Tensor) -> None:
        """Score the ids of a prompt that follow those of a piece, by its stream; none that was scored before."""
        answer, open_ = piece.answer, self._open[piece.answer.number]
        start, first = answer.read, max(answer.scored, answer.read + 1)
        last = min(start + piece.count + 1, answer.prompt)
        if first < last:
            x_nD, ids = x_SD[first - 1 - start : last - 1 - start], answer.ids[first:last]
            open_.prompt_scores += prompt_scores(lane.decoder.model, x_nD, ids, open_.top or 0, self._vocabulary)
            answer.scored = last

    def _step(self, key: Turned, answers: Sequence[Answer]) -> None:
        lane = self._lane(key)
        logits_BV = self._compute(key, answers, [1] * len(answers), lambda: lane.step(answers))
        self._write(lane, answers, logits_BV)
        self._at_work = None

    def _lane(self, key: Turned) -> Lane:
        """The lane of a setting; those that the scheduler has given up lose their memory first."""
        if key not in self._lanes:
            for gone in self._lanes.keys() - self._scheduler.lanes.keys():
                del self._lanes[gone]
            self._lanes[key] = Lane(self._model, key, self._gates, self._slots, self._length)
        return self._lanes[key]

    def _compute(
        self, key: Turned, answers: Sequence[Answer], counts: Sequence[int], call: Callable[[], Tensor]
    ) -> Tensor:
        """Call the model on so many ids of each answer; its joules are shared equally among the ids."""
        self._at_work = key, answers
        self._power.begin()
        began = time.perf_counter()
        try:
            logits_BV = call()
            if logits_BV.is_cuda:
                torch.cuda.synchronize(logits_BV.device)
        finally:
            seconds = time.perf_counter() - began
            joules = self._power.joules(seconds)
            self._total.seconds += seconds
            self._total.joules += joules
            share = joules / sum(counts)
            for answer, count in zip(answers, counts, strict=True):
                self._open[answer.number].joules += share * count
        for answer, count in zip(answers, counts, strict=True):
            answer.read += count
        return logits_BV

    def _write(self, lane: Lane, answers: Sequence[Answer], logits_BV: Tensor) -> None:
        """Draw the next token of each answer and tell it; some end with it."""
        opens = [self._open[answer.number] for answer in answers]
        own = [None if each.top is None else logits_BV[row].clone() for row, each in enumerate(opens)]
        tokens = draw_each(self._vocabulary.mask(logits_BV), [each.draws for each in opens])
        for open_, token, own_V in zip(opens, tokens, own, strict=True):
            scored = score_drawn(own_V, token, open_.top, self._vocabulary)
            if isinstance(token, Exception):
                self._end_failed(lane, open_, token)
            elif isinstance(scored, Exception):
                self._end_failed(lane, open_, scored)
            elif len(open_.answer.ids) == open_.answer.most:  # nothing but its prompt was asked for
                self._end(open_, "length")
            elif token in self._vocabulary.ends:
                self._end(open_, "stop", end_token=scored)
            else:
                self._tell(open_, token, scored)

    def _tell(self, open_: OpenAnswer, token: int, scored: Scored | None) -> None:
        """Add a token to an answer, which may be its last one."""
        ids = open_.answer.ids
        ids.append(token)
        self._total.written += 1
        open_.tell(token, scored)
        if len(ids) == open_.answer.most or open_.forgotten:
            self._end(open_, "length")

    def _end(
        self,
        open_: OpenAnswer,
        reason: Reason,
        problem: str | None = None,
        keep: bool = True,
        end_token: Scored | None = None,
    ) -> None:
        """Free an answer's slot, and tell that it has ended."""
        self._scheduler.end(open_.answer, keep)
        del self._open[open_.answer.number]
        open_.tell_end(reason, problem, end_token)

    def _end_failed(self, lane: Lane, open_: OpenAnswer, error: Exception) -> None:
        """End an answer that went wrong by itself; what its slot holds may be no numbers."""
        assert open_.answer.slot is not None
        lane.wipe(open_.answer.slot)
        if not isinstance(error, UserError):
            traceback.print_exception(error)
        self._end(open_, "failed", _problem(error), keep=False)

    def _fail(self, error: Exception) -> None:
        """Fail the answers that were computed; the others of their lane begin again in a new cache."""
        traceback.print_exception(error)
        if self._at_work is None:
            lost, failed = list(self._lanes), [*self._scheduler.running, *self._scheduler.waiting]
        else:
            lost, failed = [self._at_work[0]], self._at_work[1]
            self._at_work = None
        for answer in failed:
            if answer.number in self._open:  # else it ended before
                self._end(self._open[answer.number], "failed", _problem(error), keep=False)
        for key in lost:
            self._lanes.pop(key, None)
            self._scheduler.lose(key)


def _problem(error: Exception) -> str:
    """What went wrong, in one line."""
    if isinstance(error, UserError):
        return error.problem
    first = str(error).partition("\n")[0]
    return f"{type(error).__name__}: {first}" if first else type(error).__name__
