"""Who is begun, read and written when; without a model."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Iterable

from sparsedial.serving.scheduler import Scheduler
from sparsedial.shape.turned import DEFAULT
from tests.serving.pretended import Pretended, alone


def pretended(places: int = 2, alone: int = 1000, piece: int = 8, lanes: int = 2) -> Pretended:
    return Pretended(Scheduler(places, alone, piece, lanes))


def prompt(length: int, seed: int = 0) -> list[int]:
    return random.Random(seed).choices(range(1, 50), k=length)


def writes_long(length: int = 2, tokens: int = 40, lanes: Iterable[object] = (DEFAULT,)) -> list[int]:
    """A prompt after which no end comes for long, whichever of the lanes it is in."""
    prompts = (prompt(length, seed) for seed in range(1000))
    return next(each for each in prompts if all(len(alone(each, tokens, lane)) == tokens for lane in lanes))


def test_the_scheduler_needs_no_pytorch():
    code = "import sys, sparsedial.serving.scheduler; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_answers_are_what_they_are_alone_and_begin_in_the_order_of_their_asking():
    played = pretended(places=3)
    prompts = [prompt(3 + seed, seed) for seed in range(9)]
    for each in prompts:
        played.ask(each, 6)
    played.turn()
    assert played.begun == [1, 2, 3]
    played.run()
    assert played.begun == sorted(played.begun)
    assert [played.ended[number + 1] for number in range(9)] == [alone(each, 6) for each in prompts]


def test_a_long_prompt_is_read_by_pieces_while_others_write_each_turn():
    played, long = pretended(piece=8), prompt(50, 1)
    played.ask(writes_long(), 40)
    played.turn()
    played.ask(long, 3)
    for _ in range(7):
        played.turn()
    assert [turn.get(2, 0) for turn in played.pieces] == [0, 8, 8, 8, 8, 8, 8, 2]
    assert all(1 in turn for turn in played.steps)
    played.run()
    assert played.ended[2] == alone(long, 3)


def test_a_prompt_is_read_at_once_where_none_writes_up_to_a_limit():
    played = pretended(alone=30)
    played.ask(prompt(50), 1)
    played.run()
    assert played.pieces == [{1: 30}, {1: 20}]


def test_a_short_prompt_does_not_wait_for_a_long_one_nor_a_long_one_for_short_ones():
    played = pretended(places=5, piece=8)
    for _ in range(2):
        played.ask(writes_long(), 60)
    played.turn()
    played.ask(prompt(60, 60), 1)
    for number in range(8):  # more short prompts come than can be read beside it
        short = [played.ask(prompt(4, 2 * number + each), 1).number for each in range(2)]
        played.turn()
        assert played.pieces[-1][3] == 4
        assert sum(played.pieces[-1].values()) == 8
        assert number or played.pieces[-1][short[0]] == 4
    played.run()


def test_equal_prompts_are_read_one_after_the_other_and_more_ids_at_once_where_few_write():
    played = pretended(places=6, alone=30, piece=8)
    played.ask(writes_long(), 60)
    played.turn()
    for number in range(5):
        played.ask(prompt(20, number), 1)
    played.turn()
    assert played.pieces[-1] == {2: 20, 3: 10}  # 8 for each of five that read, but no more than while none writes
    played.turn()
    assert played.pieces[-1] == {3: 10, 4: 20}
    played.run()


def test_a_prompt_of_one_id_is_not_read_before_its_first_step():
    played = pretended()
    played.ask([5], 3)
    played.run()
    assert not any(played.pieces)
    assert played.ended[1] == alone([5], 3)


def test_the_lane_that_was_idle_for_longest_makes_room():
    played = pretended()
    for lane in ("a", "b", "a", "c"):
        played.ask(prompt(5), 2, lane)
        played.run()
    assert set(played.scheduler.lanes) == {"a", "c"}


def test_an_answer_whose_lane_finds_no_room_lets_others_pass_but_not_for_ever():
    """Two lanes are kept busy: the one that is idle first takes no more, until the third has its answer."""
    played, begun = pretended(places=3), []
    long = writes_long(lanes="abc")
    played.ask(long, 30, "a")
    played.ask(long, 12, "b")
    played.turn()
    waits = played.ask(long, 3, "c")
    late = [played.ask(long, 3, lane) for lane in ("b", "a")]
    for turn in range(40):
        played.turn()
        begun.append((waits in played.scheduler.running, *(each in played.scheduler.running for each in late)))
        if turn % 3 == 0:
            played.ask(long, 8, "a" if turn % 2 else "b")
        if waits.number in played.ended:
            break
    assert begun[0] == (False, False, True), "the one of an open lane passes"
    assert waits.number in played.ended
    assert late[0].number not in played.ended, "the closing lane's waits behind it"
    assert len(begun) <= 12 + 5
    played.run()
    assert len(played.ended) == played.asked


def test_a_lane_closes_for_each_missing_one_not_for_each_answer_that_waits():
    played, long = pretended(places=4), writes_long(lanes="abcd")
    for lane, tokens in (("a", 10), ("b", 20)):
        played.ask(long, tokens, lane)
    played.turn()
    for lane in ("c", "c", "b", "d", "b"):
        played.ask(long, 2, lane)
    played.turn()
    assert [answer.number for answer in played.scheduler.running if answer.number > 2] == []
    assert played.begun == [1, 2, 5], "for c the lane a closes, and for d b too"
    played.run()
    assert len(played.ended) == 7


def test_an_answer_that_is_forgotten_leaves_its_place_wherever_it_is():
    played = pretended(places=2, piece=4)
    writing, reading, waiting = played.ask(writes_long(), 40), None, None
    played.turn()
    reading, waiting, last = played.ask(prompt(30, 1)), played.ask(prompt(20, 2)), played.ask(prompt(9, 3), 3)
    played.turn()
    assert 1 < reading.unread < 30
    for answer in (waiting, reading, writing):
        played.scheduler.end(answer)
    played.run()
    assert played.ended == {last.number: alone(prompt(9, 3), 3)}


def test_answers_of_a_lost_lane_begin_again_and_go_on():
    played = pretended(places=2, piece=4)
    first, second = played.ask(writes_long(), 20), played.ask(prompt(20, 4), 5)
    for _ in range(3):
        played.turn()
    played.caches[first.lane] = [["broken"], ["broken"]]  # type: ignore[list-item]
    played.scheduler.lose(first.lane)
    played.run()
    assert played.ended == {1: alone(writes_long(), 20), 2: alone(prompt(20, 4), 5)}
    assert second.cached == 0


def test_whatever_comes_and_goes_each_answer_is_what_it_is_alone():
    """Random prompts that begin alike, lanes, numbers of experts, cancellings and losses, over many turns."""
    for seed in range(40):
        draw = random.Random(seed)
        played = pretended(places=draw.choice([1, 2, 5]), piece=draw.choice([3, 40]), lanes=draw.choice([1, 2]))
        roots, wanted, open_ = [prompt(draw.choice([40, 90]), number) for number in range(3)], {}, []
        for _ in range(60):
            for _ in range(draw.choice([0, 0, 1, 3])):
                root = draw.choice(roots)
                ids = [*root[: draw.randint(1, len(root))], *prompt(draw.randint(0, 5), draw.randrange(9))]
                how = draw.choice("abc"), draw.choice([None, (1,), (2,)])
                tokens = draw.randint(1, 12)
                answer = played.ask(ids, tokens, *how)
                wanted[answer.number] = alone(ids, tokens, *how)
                open_.append(answer)
            played.turn()
            open_ = [answer for answer in open_ if answer.number not in played.ended]
            if open_ and draw.random() < 0.1:
                gone = open_.pop(draw.randrange(len(open_)))
                played.scheduler.end(gone)
                del wanted[gone.number]
            if open_ and draw.random() < 0.05:
                played.scheduler.lose(draw.choice(open_).lane)
        played.run()
        assert played.ended == wanted
