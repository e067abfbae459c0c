"""The slots of one cache: which sequence each of them holds, and where a new one begins so that little is read twice.

It moves no values: it says what is to be moved.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from sparsedial.model.beginnings import LEAST_SHARED, common
from sparsedial.shape.turned import Turned


@dataclass(eq=False, kw_only=True)
class Answer:
    """A prompt, and what is written after it."""

    number: int
    ids: list[int]  # the prompt, then what was written
    most: int  # it is complete with so many ids
    lane: Turned  # answers of one lane are steps of one model
    visits: tuple[int, ...] | None = None  # experts in each layer, where they are not those of the lane's model
    slot: int | None = None  # where it is, once it was begun
    prompt: int = 0  # ids of the prompt, where these are scored
    scored: int = 1  # of them, whose probability is known; the first one has none
    read: int = 0  # ids that its slot holds
    cached: int | None = None  # ids that were not read, since a slot held them when it was begun

    @property
    def unread(self) -> int:
        """Ids that its slot does not hold yet."""
        return len(self.ids) - self.read

    @property
    def spared(self) -> int:
        """Ids at its beginning that it can do without reading: not the last one, and none that tells the next score."""
        return len(self.ids) - 1 if self.scored >= self.prompt else self.scored - 1

    @property
    def writes(self) -> bool:
        """Whether one more id gives the next token."""
        return self.slot is not None and self.unread == 1


@dataclass(eq=False)
class Slot:
    """A place for one sequence. When its answer has ended, what was read of it stays until another one begins there."""

    number: int
    ids: list[int] = field(default_factory=list)  # of the sequence; of an answer that is going on, unread ones too
    visits: tuple[int, ...] | None = None
    answer: Answer | None = None
    used: int = 0  # when it was begun or ended; larger is later

    @property
    def held(self) -> int:
        """How many of the ids it holds."""
        return len(self.ids) if self.answer is None else self.answer.read


@dataclass(frozen=True, kw_only=True)
class Beginning:
    """An answer begins in its slot with so many ids, which another slot holds, or this one itself."""

    answer: Answer
    slot: int
    source: int
    shared: int


class Slots:
    """As many slots as there may be answers at once, so that one of them is always free."""

    def __init__(self, count: int) -> None:
        self._slots, self._clock = [Slot(number) for number in range(count)], 0

    def begin(self, answer: Answer) -> Beginning | None:
        """Give an answer a slot; None where it had better wait for another that is just reading what both begin with.

        What it has in common with what a slot holds is taken over, without its last id, which gives the next token. A
        prompt that is scored takes over nothing: a cache holds no probabilities.
        Keys and values depend on the number of experts, so that must be the same. A slot that would lose nothing by it,
        or is the next to be overwritten, is taken itself; else its beginning is copied to that one.
        """
        oldest = min((slot for slot in self._slots if slot.answer is None), key=lambda slot: slot.used)
        coming = [(self._shared(slot, answer), slot) for slot in self._slots]
        source, shared = oldest, 0
        for alike, slot in coming:
            ready = min(alike, slot.held)
            lost = slot.answer is not None or ready < len(slot.ids)
            if ready >= LEAST_SHARED and (ready > shared or (ready == shared and not lost)):
                source, shared = slot, ready
        if max(alike for alike, _ in coming) - shared >= LEAST_SHARED:
            return None
        at_no_loss = source.answer is None and shared == len(source.ids)
        slot = source if at_no_loss else oldest
        beginning = Beginning(answer=answer, slot=slot.number, source=source.number, shared=shared)
        self._hold(slot, answer, shared)
        return beginning

    def _shared(self, slot: Slot, answer: Answer) -> int:
        """How many of the ids that an answer need not read a slot holds, or will."""
        return min(common(slot.ids, answer.ids), answer.spared) if slot.visits == answer.visits else 0

    def _hold(self, slot: Slot, answer: Answer, shared: int) -> None:
        slot.ids, slot.visits, slot.answer, slot.used = answer.ids, answer.visits, answer, self._tick()
        answer.slot, answer.read = slot.number, shared
        if answer.cached is None:
            answer.cached = shared

    def end(self, answer: Answer, keep: bool) -> None:
        """Free an answer's slot, which keeps what was read or nothing."""
        assert answer.slot is not None
        slot = self._slots[answer.slot]
        slot.ids, slot.answer = answer.ids[: answer.read if keep else 0], None
        slot.used = self._tick() if keep else 0

    def _tick(self) -> int:
        self._clock += 1
        return self._clock
