"""What a rank knows of the others: its share of threads, whose meter counts, who has gone, and why it all ended."""

from __future__ import annotations

import signal
import socket
import threading
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from torch import distributed

from sparsedial.errors import RankLost, UserError
from sparsedial.runs.ranks import follow, gathering, watch
from sparsedial.runs.ranks.board import Board, Ended, Member, gone
from sparsedial.runs.ranks.gathering import _require_alike
from sparsedial.runs.ranks.joined import Connection, Joined, Order
from sparsedial.runs.ranks.place import Place
from sparsedial.runs.ranks.watch import Watch
from sparsedial.runs.run_store import RunStore
from sparsedial.runs.state import Tally, saved_states
from sparsedial.training.ranks import ALONE, Ranks

FIRST = Member(rank=0, host="a", device="cpu", cores=(0, 1, 2, 3), gpu=None, versions="1")
FOUR = (FIRST, *(replace(FIRST, rank=rank, host="a" if rank < 3 else "b") for rank in (1, 2, 3)))


def joined(rank: int, members: tuple[Member, ...] = FOUR, first: float = 0.0) -> Joined:
    """A rank among these, whose messages with others are given."""
    board: Any = SimpleNamespace(place=SimpleNamespace(rank=rank))
    ranks: Any = SimpleNamespace(
        index=rank, count=len(members), first=lambda figure: first, sums=lambda figures: [4 * one for one in figures]
    )
    connection = Connection(board=board, watch=Watch(board, members), members=members, backend="gloo")
    return Joined(ranks=ranks, connection=connection)


def test_the_ranks_of_a_host_share_its_threads_and_each_has_one_at_least():
    assert Joined().threads_of(8) == 8
    assert [joined(rank).threads_of(9) for rank in range(4)] == [3, 3, 3, 9]
    assert joined(0).threads_of(2) == 1
    bound = tuple(replace(one, cores=(one.rank,)) for one in FOUR)  # as Slurm does it: each has its own cores already
    assert [joined(rank, bound).threads_of(1) for rank in range(4)] == [1, 1, 1, 1]
    assert joined(0, tuple(replace(one, cores=(9, one.rank % 2)) for one in FOUR)).threads_of(6) == 2


def test_processors_are_metered_once_on_each_host_and_every_gpu_by_its_rank():
    assert Joined().meters
    assert [joined(rank).meters for rank in range(4)] == [True, False, False, True]
    assert joined(0).metered_words("RAPL") == "RAPL, and the same of 1 other hosts"
    cards = tuple(replace(one, device="cuda", gpu=str(one.rank)) for one in FOUR)
    assert all(joined(rank, cards).meters for rank in range(4))
    assert joined(0, cards).metered_words("NVML") == "NVML, and the same of 3 other GPUs"
    assert joined(0, FOUR[:3]).metered_words("RAPL") == Joined().metered_words("RAPL") == "RAPL"


def test_rank_0s_clock_says_when_a_state_is_due_and_any_rank_may_ask_to_stop():
    assert joined(0).agreed(2.0, True) == (8.0, True, False)
    assert joined(3).agreed(2.0, True) == (8.0, False, False)
    assert joined(1).agreed(2.0, True) == (0.0, False, False)
    asked = joined(3)
    asked.stopping = True
    assert asked.agreed(0.0, False) == (0.0, False, True)
    told: Any = joined(1)
    told.ranks.sums = lambda figures: [0.0, 0.0, 1.0]
    assert told.agreed(0.0, False) == (0.0, False, True), "another rank was asked"
    assert Joined().agreed(2.0, True) == (2.0, True, False)


def test_the_record_names_hosts_with_their_ranks():
    record = joined(0).record()
    assert record is not None
    assert [(host.name, host.ranks) for host in record.hosts] == [("a", 3), ("b", 1)]
    assert (record.count, record.mesh.data, record.backend) == (4, 4, "gloo")
    assert Joined().record() is None


def test_only_the_rank_that_writes_looks_at_saved_states(tmp_path):
    """It removes them at the end, maybe while another rank makes its record."""
    store = RunStore(tmp_path)
    store.unfinished("run").mkdir(parents=True)
    (store.unfinished("run") / "state.json").write_text("four")
    live: Any = SimpleNamespace(tally=Tally(), store=store, job=SimpleNamespace(hash="run"))
    for rank, size in enumerate((4, None)):
        live.joined = joined(rank)
        assert saved_states(live).bytes == size


def test_a_rank_that_does_not_see_the_text_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(follow, "SEE_SECONDS", 0.0)
    order = Order(group=(), text_folder=tmp_path / "text", text_digest="", runs_folder=tmp_path)
    with pytest.raises(UserError, match="text that rank 0 has prepared is not there") as error:
        follow._seen(order)
    assert str(tmp_path / "text") in str(error.value)
    assert "must see the folder" in str(error.value.hint)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"device": "cuda"}, "rank 3 on b has cuda, and rank 0 on a has cpu"),
        ({"versions": "2"}, "rank 3 on b has 2, and rank 0 on a has 1"),
    ],
)
def test_ranks_that_differ_are_refused(changes, says):
    _require_alike(FOUR)
    with pytest.raises(UserError, match=says):
        _require_alike((*FOUR[:3], replace(FOUR[3], **changes)))


def test_two_ranks_of_a_host_cannot_have_one_gpu():
    cards = tuple(replace(one, device="cuda", gpu=str(one.rank % 3)) for one in FOUR)
    _require_alike(cards)  # the fourth is on another host
    with pytest.raises(UserError, match="ranks 1 and 2 on a have the same GPU"):
        _require_alike((*cards[:2], replace(cards[2], gpu="1"), cards[3]))


def test_what_ended_a_rank_is_raised_by_the_others_with_its_place():
    refused = Ended(rank=2, host="b", kind="refused", error=UserError("no room on <out>", hint="free some"))
    assert str(refused.exception()) == "rank 2 on b: no room on out"
    assert refused.exception().on_command_line() == ("rank 2 on b: no room on --out", "free some")
    field = Ended(rank=2, host="b", kind="refused", error=UserError("is none", field="device"))
    assert field.exception().on_command_line()[0] == "rank 2 on b: --device: is none"
    assert str(replace(refused, rank=0).exception()) == "no room on out"
    assert isinstance(Ended(rank=1, host="b", kind="stopped").exception(), KeyboardInterrupt)
    lost = gone(FOUR[3], "has gone").exception()
    assert (type(lost), str(lost)) == (RankLost, "rank 3 on b has gone")
    assert "rank 1 on b failed:\nTrace" in str(Ended(rank=1, host="b", kind="failed", trace="Trace").exception())


def test_a_script_that_trains_twice_meets_twice_at_one_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = Place(rank=0, count=2, local_rank=0, address="127.0.0.1", port=free.getsockname()[1])
    first, second = Board(place, 0), Board(place, 1)
    first.end(Ended(rank=0, host="a", kind="stopped"))
    assert first.ended() is not None
    assert second.ended() is None


def test_a_rank_that_comes_after_the_first_was_stopped_does_not_wait_for_it(monkeypatch):
    monkeypatch.setattr("sparsedial.runs.ranks.board.JOIN_SECONDS", 0.0)
    place = Place(rank=0, count=2, local_rank=0, address="127.0.0.1", port=0)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        place = replace(place, port=listening.getsockname()[1])
        first = Board(place, 0, listening=listening)
    with pytest.raises(UserError, match="rank 1 of 2 did not come"):
        first.gather(FOUR[0])
    first.end(Ended(rank=0, host="a", kind="stopped"))
    second = Board(replace(place, rank=1), 0)
    with pytest.raises(KeyboardInterrupt):
        second.gather(FOUR[1])


class Beating:
    """A board whose ranks beat as long as they are told to."""

    def __init__(self, rank: int) -> None:
        self.place, self.count, self.silent = SimpleNamespace(rank=rank), 0, set[int]()
        self.said: Ended | None = None

    def beat(self) -> None:
        self.count += 1

    def beats(self, ranks: list[int]) -> list[bytes]:
        return [b"0" if rank in self.silent else str(self.count).encode() for rank in ranks]

    def asked_to_stop(self) -> bool:
        return False

    def end(self, ended: Ended) -> Ended:
        self.said = ended
        return ended

    def ended(self) -> Ended | None:
        return self.said


def looked(board: Any, monkeypatch, seconds: float, processes: Any = ()) -> Ended | None:
    """What a watch finds out in so many seconds, at two looks a second."""
    now = [0.0]
    monkeypatch.setattr(watch.time, "monotonic", lambda: now[0])
    watching = Watch(board, FOUR, processes)
    while now[0] < seconds and watching.ended is None:
        watching._look()
        now[0] += watch.BEAT_SECONDS
    return watching.ended


def test_a_rank_without_a_sign_of_life_is_given_up_after_a_minute(monkeypatch):
    board = Beating(0)
    assert looked(board, monkeypatch, 200) is None
    board.silent = {3}
    assert looked(board, monkeypatch, 59) is None
    found = looked(board, monkeypatch, 70)
    assert found is not None
    assert (found.rank, found.host, found.kind) == (3, "b", "lost")
    board = Beating(2)  # which watches rank 0 alone
    board.silent = {3}
    assert looked(board, monkeypatch, 200) is None
    board.silent = {0}
    assert getattr(looked(board, monkeypatch, 200), "rank", None) == 0


def test_a_process_that_rank_0_has_started_is_missed_at_once(monkeypatch):
    processes = [
        SimpleNamespace(exitcode=None),
        SimpleNamespace(exitcode=-signal.SIGKILL),
        SimpleNamespace(exitcode=None),
    ]
    found = looked(Beating(0), monkeypatch, 1, processes)
    assert str(found and found.exception()) == "rank 2 on a was killed by signal 9"


@pytest.mark.parametrize(
    ("kind", "error", "says", "status"),
    [
        ("stopped", None, ["stopped; run the same command again to continue"], 130),
        ("refused", UserError("is bad", hint="give <out>"), ["error: rank 2 on b: is bad", "hint: give --out"], 2),
        ("failed", None, ["error: rank 2 on b failed:", "a trace"], 1),
    ],
)
def test_rank_0_says_in_words_why_it_gives_up(monkeypatch, capfd, kind, error, says, status):
    left = list[int]()
    monkeypatch.setattr(watch.os, "_exit", left.append)
    board: Any = Beating(0)
    Watch(board, FOUR)._give_up(Ended(rank=2, host="b", kind=kind, error=error, trace="a trace"))
    assert capfd.readouterr().err.splitlines() == says
    assert left == [status]


@pytest.mark.parametrize(("device", "leaves"), [("cuda", "abort"), ("cpu", "destroy")])
def test_after_an_error_the_group_is_left_without_the_others_while_the_watch_looks(monkeypatch, device, leaves):
    """nccl's would wait for them; they know of the error by then."""
    one, did = joined(1), list[str]()
    assert one.connection is not None
    board: Any = one.connection.board
    board.end = lambda ended: did.append(f"told {ended.kind}") or ended
    board.leave = lambda seconds: did.append("left")
    one.ranks = Ranks(None, device)  # type: ignore[arg-type]
    monkeypatch.setattr(one.connection.watch, "leave", lambda: did.append("unwatched"))
    monkeypatch.setattr(distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed, "destroy_process_group", lambda: did.append("destroy"))
    monkeypatch.setattr(distributed.distributed_c10d, "_abort_process_group", lambda: did.append("abort"))
    with pytest.raises(UserError), gathering._told(board, one):
        raise UserError("is bad")
    assert did == ["told refused", leaves, "unwatched", "left"]


def test_a_group_that_a_script_has_made_itself_is_left_to_it(monkeypatch):
    one = joined(1)
    one.ranks = ALONE
    monkeypatch.setattr(distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed, "destroy_process_group", lambda: pytest.fail("it is not ours"))
    gathering._drop_group(one)


def test_a_store_that_does_not_answer_is_not_waited_for(monkeypatch):
    """As of a machine that is lost without a word: the look that asks it never returns."""
    held, given_up = threading.Event(), list[Ended]()
    board: Any = Beating(2)
    monkeypatch.setattr(board, "beats", lambda ranks: held.wait() and [])
    monkeypatch.setattr(watch, "LOST_SECONDS", 0.1)
    monkeypatch.setattr(watch, "GRACE_SECONDS", 0.0)
    monkeypatch.setattr(watch, "BEAT_SECONDS", 0.01)
    monkeypatch.setattr(Watch, "_give_up", lambda self, ended: given_up.append(ended))
    watching = Watch(board, FOUR)
    watching.start()
    try:
        watching.join(60)
        assert [(one.rank, one.kind) for one in given_up] == [(0, "lost")]
    finally:
        watching.leave()
        held.set()
