"""Which answers are begun, read and written next: first come, first served, as far as slots and lanes allow.

It computes nothing and knows no model. Who does asks it in each turn for what begins, then for pieces of prompts, then
for those that write, and says what has been read and what has ended.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from sparsedial.serving.slots import Answer, Beginning, Slots
from sparsedial.shape.turned import Turned

MOST_LANES = 4  # each has a cache of its own
PIECE = 128  # ids of prompts that are read in a turn while as many or more write, so that these go on
ALONE = 512  # while none writes: who comes then waits for no more; 4 % slower than all at once (SmolLM2-135M, CPU)


@dataclass(frozen=True)
class Piece:
    """So many of an answer's unread ids."""

    answer: Answer
    count: int


@dataclass(eq=False)
class Lane:
    """The slots of answers that are steps of one model."""

    slots: Slots
    used: int = 0  # when an answer was last admitted; larger is later


class Scheduler:
    """Answers that wait, and those that have one of the places, at most `places` at once in at most `lanes` lanes.

    Of prompts it has `piece` ids read in a turn while others write, as many times that as more read than write, and
    `alone` at most, or while none writes.
    """

    def __init__(self, places: int, alone: int, piece: int = PIECE, lanes: int = MOST_LANES) -> None:
        self.places, self._alone, self._piece, self._most_lanes = places, alone, piece, lanes
        self.waiting: list[Answer] = []
        self.running: list[Answer] = []
        self.lanes: dict[Turned, Lane] = {}
        self._admitted = 0

    def ask(self, answer: Answer) -> None:
        """Let an answer wait for a place."""
        self.waiting.append(answer)

    def begin(self) -> Iterator[Beginning]:
        """Admit answers that wait, and yield what begins; each must be done before the next one is asked for."""
        if self.waiting:
            self._admit()
        for answer in self.running:
            if answer.slot is None:
                beginning = self.lanes[answer.lane].slots.begin(answer)
                if beginning is not None:
                    yield beginning

    def _admit(self) -> None:
        """Give places to answers that wait.

        An answer whose lane is missing, where none can be made, lets those after it pass. One lane takes no more of
        them, though: the one that will be idle first, which then makes room.
        """
        closing: set[Turned] = set()
        missing: set[Turned] = set()
        for answer in list(self.waiting):
            if len(self.running) == self.places:
                return
            if answer.lane in closing | missing:
                continue
            if answer.lane not in self.lanes and not self._open(answer.lane):
                missing.add(answer.lane)
                if still_open := set(self.lanes) - closing:
                    closing.add(min(still_open, key=self._most_to_write))
                continue
            self.waiting.remove(answer)
            self.running.append(answer)
            self._admitted += 1
            self.lanes[answer.lane].used = self._admitted

    def _most_to_write(self, lane: Turned) -> int:
        """How many tokens the longest answer of a lane still has."""
        return max(answer.most - len(answer.ids) for answer in self.running if answer.lane == lane)

    def _open(self, lane: Turned) -> bool:
        """Make a lane, if need be in place of the one that has been idle for longest; whether that was possible."""
        if len(self.lanes) == self._most_lanes:
            idle = set(self.lanes) - {answer.lane for answer in self.running}
            if not idle:
                return False
            del self.lanes[min(idle, key=lambda lane: self.lanes[lane].used)]
        self.lanes[lane] = Lane(Slots(self.places))
        return True

    def pieces(self) -> Mapping[Turned, list[Piece]]:
        """The pieces of prompts that are read now, lane by lane.

        Half of them are of the prompt that came first, the others of the shortest ones: so a short prompt is soon read
        beside a long one, equal ones are read one after the other, and none waits for ever.
        """
        reading = [answer for answer in self.running if answer.slot is not None and answer.unread > 1]
        if not reading:
            return {}
        writing = sum(answer.writes for answer in self.running)
        left = min(self._alone, self._piece * max(1, len(reading) // writing)) if writing else self._alone
        counts, first = dict.fromkeys(reading, 0), reading[0]
        counts[first] = min(first.unread, (left + 1) // 2)
        left -= counts[first]
        for answer in sorted(reading, key=lambda answer: answer.unread - counts[answer]):
            more = min(answer.unread - counts[answer], left)
            counts[answer] += more
            left -= more
        found: dict[Turned, list[Piece]] = {}
        for answer, count in counts.items():
            if count:
                found.setdefault(answer.lane, []).append(Piece(answer, count))
        return found

    def writing(self) -> Mapping[Turned, list[Answer]]:
        """Those that the next step continues, lane by lane."""
        found: dict[Turned, list[Answer]] = {}
        for answer in self.running:
            if answer.writes:
                found.setdefault(answer.lane, []).append(answer)
        return found

    def end(self, answer: Answer, keep: bool = True) -> None:
        """Free an answer's place; its slot keeps what was read for those that begin alike, or nothing."""
        if answer.slot is not None:
            self.lanes[answer.lane].slots.end(answer, keep)
        (self.waiting if answer in self.waiting else self.running).remove(answer)

    def lose(self, lane: Turned) -> None:
        """Forget what a lane's slots hold; its answers begin again with what they have read and written."""
        if lane in self.lanes:
            self.lanes[lane].slots = Slots(self.places)
        for answer in self.running:
            if answer.lane == lane:
                answer.slot, answer.read = None, 0
