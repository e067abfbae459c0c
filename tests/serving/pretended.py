"""A scheduler's answers without a model: what a slot holds is a list, and the next token follows from all of it."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field

from sparsedial.serving.scheduler import Scheduler
from sparsedial.serving.slots import Answer
from sparsedial.shape.turned import DEFAULT

WORDS = 50
END = 0  # ends an answer
Value = tuple[int, tuple[int, ...] | None]  # what is kept of an id depends on the number of experts


def next_token(values: list[Value], lane: object) -> int:
    """Some token that depends on all that the answer has read; the same in each process, as `hash` is not."""
    return zlib.crc32(repr((values, lane)).encode()) % WORDS


def alone(prompt: list[int], tokens: int, lane: object = DEFAULT, visits: tuple[int, ...] | None = None) -> list[int]:
    """What an answer is without others."""
    ids = list(prompt)
    while len(ids) < len(prompt) + tokens:
        token = next_token([(each, visits) for each in ids], lane)
        if token == END:
            break
        ids.append(token)
    return ids[len(prompt) :]


@dataclass
class Pretended:
    """Turns of a scheduler, and what happened in them."""

    scheduler: Scheduler
    caches: dict[object, list[list[Value]]] = field(default_factory=dict)
    begun: list[int] = field(default_factory=list)  # numbers of answers
    copied: list[tuple[int, int, int]] = field(default_factory=list)  # from slot, to slot, so many
    pieces: list[dict[int, int]] = field(default_factory=list)  # of each turn: ids read of each answer
    steps: list[list[int]] = field(default_factory=list)  # of each turn: numbers of those that write
    ended: dict[int, list[int]] = field(default_factory=dict)  # what each answer wrote
    prompts: dict[int, int] = field(default_factory=dict)
    asked: int = 0

    def ask(
        self, prompt: list[int], tokens: int = 4, lane: object = DEFAULT, visits: tuple[int, ...] | None = None
    ) -> Answer:
        self.asked += 1
        answer = Answer(number=self.asked, ids=list(prompt), most=len(prompt) + tokens, lane=lane, visits=visits)  # type: ignore[arg-type]
        self.prompts[answer.number] = len(prompt)
        self.scheduler.ask(answer)
        return answer

    def turn(self) -> None:
        scheduler = self.scheduler
        for beginning in scheduler.begin():
            lane = beginning.answer.lane
            for gone in self.caches.keys() - scheduler.lanes.keys():
                del self.caches[gone]
            slots = self.caches.setdefault(lane, [[] for _ in range(scheduler.places)])
            assert len(self.caches) <= 4
            slots[beginning.slot] = slots[beginning.source][: beginning.shared]
            self.begun.append(beginning.answer.number)
            if beginning.slot != beginning.source:
                self.copied.append((beginning.source, beginning.slot, beginning.shared))
        pieces = [piece for of_lane in scheduler.pieces().values() for piece in of_lane]
        self.pieces.append({piece.answer.number: piece.count for piece in pieces})
        for piece in pieces:
            self._read(piece.answer, piece.count)
            if not piece.answer.unread:
                self._write(piece.answer)
        writing = [answer for of_lane in scheduler.writing().values() for answer in of_lane]
        self.steps.append([answer.number for answer in writing])
        for answer in writing:
            self._read(answer, 1)
            self._write(answer)

    def _values(self, answer: Answer) -> list[Value]:
        assert answer.slot is not None
        return self.caches[answer.lane][answer.slot]

    def _read(self, answer: Answer, count: int) -> None:
        held = self._values(answer)
        assert held == [(each, answer.visits) for each in answer.ids[: answer.read]], "a slot holds what is said of it"
        held += [(each, answer.visits) for each in answer.ids[answer.read :][:count]]
        answer.read += count

    def _write(self, answer: Answer) -> None:
        token = next_token(self._values(answer), answer.lane)
        if token != END:
            answer.ids.append(token)
        if token == END or len(answer.ids) == answer.most:
            self.end(answer)

    def end(self, answer: Answer) -> None:
        self.ended[answer.number] = answer.ids[self.prompts[answer.number] :]
        self.scheduler.end(answer)

    def run(self, turns: int = 1000) -> None:
        """Turn until nothing is left."""
        for _ in range(turns):
            if not (self.scheduler.running or self.scheduler.waiting):
                return
            self.turn()
        raise AssertionError("answers are left")
