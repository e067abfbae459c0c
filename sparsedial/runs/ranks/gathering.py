"""From the command to ranks that train together: start or find them, gather, lead or follow, and leave in order."""

from __future__ import annotations

import _thread
import contextlib
import itertools
import multiprocessing
import os
import signal
import socket
import threading
import time
import traceback
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from datetime import timedelta
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Any, TypeVar, cast

import torch
from torch import distributed

from sparsedial.errors import UserError
from sparsedial.runs.devices import pick_device
from sparsedial.runs.ranks.board import Board, Ended, Member
from sparsedial.runs.ranks.follow import follow
from sparsedial.runs.ranks.joined import Connection, Finished, Joined, Stopped
from sparsedial.runs.ranks.place import Place
from sparsedial.runs.ranks.watch import GRACE_SECONDS, Watch
from sparsedial.runs.spawned import held_back, without_script
from sparsedial.training.ranks import Ranks
from sparsedial.version import __version__

# Of a message between ranks: while rank 0 writes a state the others wait in one. A rank that has gone is found earlier.
MESSAGE_SECONDS = 2 * 3600.0
CAUSE_SECONDS = 8.0  # to find out why a message failed
REFUSE_SECONDS = 10.0  # to reach rank 0 with bad settings, which it may have left for as well
HERE = "127.0.0.1"
STOPPING = (signal.SIGINT, signal.SIGTERM)

T = TypeVar("T")
_numbers = itertools.count()  # of the gatherings of this process: a script may train several models


def on_ranks(place: Place, device: str, work: Callable[[Joined], T]) -> T:
    """What `work` returns as rank 0; the other ranks do what it orders, and return the same.

    Raises: UserError of any rank, RankLost where one has gone, KeyboardInterrupt where one was asked to stop.
    """
    return _gathered(Board(place, next(_numbers)), device, work, ())


def on_new_ranks(count: int, device: str, work: Callable[[Joined], T]) -> T:
    """The same with this process as rank 0 and new processes on this machine as the others.

    PyTorch's launcher would end all of them as soon as one has failed, before rank 0 could say why; it also prints
    tables of its own, and turns every exit status into 1.
    """
    listening = socket.create_server((HERE, 0))  # where no other machine reaches it
    place = Place(rank=0, count=count, local_rank=0, address=HERE, port=listening.getsockname()[1])
    board = Board(place, 0, listening=listening)
    others = replace(place, served=True)
    with _started(others, device) as processes:
        return _gathered(board, device, work, processes)


def refuse(place: Place, error: UserError) -> None:
    """Tell rank 0 what is wrong with the settings as this rank reads them; if rank 0 reads the same, it says so itself.

    It may then have left already.
    """
    with contextlib.suppress(UserError, RuntimeError):
        board = Board(place, 0, seconds=REFUSE_SECONDS)
        board.end(_ended(place, error))
        board.leave(GRACE_SECONDS)


def _gathered(board: Board, device: str, work: Callable[[Joined], T], processes: Sequence[BaseProcess]) -> T:
    """Join, work, and leave."""
    joined = Joined()
    with _signals(joined), _told(board, joined):
        member = _member(board.place, device)
        members = board.gather(member, processes)
        _require_alike(members)
        watch = Watch(board, members, processes, asked_to_stop=lambda: _ask(joined))
        watch.start()
        joined.connection = Connection(board=board, watch=watch, members=members, backend=_backend(member))
        with contextlib.ExitStack() as leaving:
            with joined.together():  # each waits for all others to come
                joined.ranks = leaving.enter_context(_group(board, joined.connection))
            if board.place.rank:
                return follow(joined)
            if joined.stopping:
                raise KeyboardInterrupt
            answer = work(joined)
            board.post(Finished(answer=answer))
            watch.leave()  # ranks may go from here on
            return answer


def _member(place: Place, device: str) -> Member:
    """What this rank runs on; of a GPU, the one that is its own from here on.

    Raises: UserError where this machine has not enough GPUs.
    """
    kind, gpu = pick_device(device), None
    if kind == "cuda":
        count = torch.cuda.device_count()
        number = 0 if count == 1 else place.local_rank  # Slurm may show each task its own GPU alone
        if number >= count:
            raise UserError(
                f"there are {count} GPUs here, and this is rank {number} of the machine, counted from 0",
                hint="start as many ranks on a machine as it has GPUs",
            )
        torch.cuda.set_device(number)
        gpu = str(getattr(cast(Any, torch.cuda).get_device_properties(number), "uuid", number))
    return Member(
        rank=place.rank,
        host=socket.gethostname(),
        device=kind,
        cores=tuple(sorted(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else (0,),
        gpu=gpu,
        versions=f"sparsedial {__version__}, torch {torch.__version__}",
    )


def _require_alike(members: Sequence[Member]) -> None:
    """Raises: UserError where a rank differs from rank 0 in what all must have alike, or shares its GPU."""
    first, cards = members[0], dict[tuple[str, str], int]()
    for one in members:
        for given, wanted in ((one.device, first.device), (one.versions, first.versions)):
            if given != wanted:
                where = f"rank {one.rank} on {one.host}"
                raise UserError(f"{where} has {given}, and rank 0 on {first.host} has {wanted}")
        if one.gpu is not None and cards.setdefault((one.host, one.gpu), one.rank) != one.rank:
            raise UserError(
                f"ranks {cards[one.host, one.gpu]} and {one.rank} on {one.host} have the same GPU",
                hint="start as many ranks on a machine as it has GPUs",
            )


def _backend(member: Member) -> str:
    return "nccl" if member.device == "cuda" else "gloo"


@contextlib.contextmanager
def _group(board: Board, connection: Connection) -> Generator[Ranks]:
    """The group that carries messages of a step. After an error `_told` leaves it, once the others know of it.

    Raises: UserError in a script that has made one of its own.
    """
    if distributed.is_initialized():
        raise UserError(
            "this process belongs to a process group already", hint="train before torch.distributed.init_process_group"
        )
    distributed.init_process_group(
        connection.backend,
        store=board.for_group,
        rank=board.place.rank,
        world_size=board.place.count,
        timeout=timedelta(seconds=MESSAGE_SECONDS),
    )
    group = distributed.group.WORLD
    assert group is not None
    yield Ranks(group, connection.here.device)
    distributed.destroy_process_group()


def _drop_group(joined: Joined) -> None:
    """Leave the group of this run after an error, without the other ranks: they may have gone.

    nccl's communicators are aborted. To destroy them would wait for all ranks, and PyTorch aborts them at exit, where
    no watch ends a process that hangs. gloo has nothing to abort. It waits for messages that were begun: the others
    have begun them too, or have gone, and then they fail.
    """
    if isinstance(joined.ranks, Ranks) and distributed.is_initialized():
        if joined.ranks.device == "cuda":
            cast(Any, distributed).distributed_c10d._abort_process_group()
        else:
            distributed.destroy_process_group()


@contextlib.contextmanager
def _told(board: Board, joined: Joined) -> Generator[None]:
    """The other ranks hear of it where something fails, and rank 0 leaves last: the store may be its own.

    Raises: what ended another rank, where a message has failed for that.
    """
    try:
        yield
    except BaseException as error:
        joined.leaving = True
        cause = _cause(board, joined, error)
        if cause is not None:
            raise cause.exception() from error
        ended = board.end(_ended(board.place, error))
        if board.place.rank and ended.kind == "failed":  # rank 0 shows the trace
            raise ended.exception() from error
        raise
    finally:
        _drop_group(joined)  # the watch still ends this process if that hangs
        if joined.connection is not None:
            joined.connection.watch.leave()
        with contextlib.suppress(RuntimeError):  # the store has gone, with rank 0 or with what started the ranks
            board.leave(GRACE_SECONDS)


def _cause(board: Board, joined: Joined, error: BaseException) -> Ended | None:
    """What another rank ended with, where this one fails for that; None where the error is this rank's own.

    A message fails where a rank leaves it. torchrun ends all ranks where one has failed, by the signal that stops.
    """
    if joined.connection is None:
        return None
    if isinstance(error, KeyboardInterrupt) and not isinstance(error, Stopped):
        found = board.ended()
        return None if found is None or found.kind == "stopped" else found
    return joined.connection.watch.cause(CAUSE_SECONDS) if isinstance(error, RuntimeError) else None


def _ended(place: Place, error: BaseException) -> Ended:
    rank, host = place.rank, socket.gethostname()
    if isinstance(error, UserError):
        return Ended(rank=rank, host=host, kind="refused", error=error)
    if isinstance(error, KeyboardInterrupt):
        return Ended(rank=rank, host=host, kind="stopped")
    return Ended(rank=rank, host=host, kind="failed", trace="".join(traceback.format_exception(error)))


@contextlib.contextmanager
def _signals(joined: Joined) -> Generator[None]:
    """Ctrl-C and the system's request to end are noted, and followed where no other rank would wait for this one."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def note(number: int, frame: FrameType | None) -> None:
        joined.stopping = True
        if joined.speaks and not joined.in_steps and not joined.leaving:
            raise KeyboardInterrupt

    heard = [number for number in STOPPING if signal.getsignal(number) != signal.SIG_IGN]  # as the caller may want it
    before = [signal.signal(number, note) for number in heard]
    try:
        yield
    finally:
        for number, handler in zip(heard, before, strict=True):
            signal.signal(number, handler)


def _ask(joined: Joined) -> None:
    """Another rank was asked to stop while this one, rank 0, works alone."""
    if not joined.stopping:
        _thread.interrupt_main(signal.SIGTERM)


@contextlib.contextmanager
def _started(place: Place, device: str) -> Generator[list[BaseProcess]]:
    """The other ranks, in processes that end with the block."""
    context = multiprocessing.get_context("spawn")
    processes: list[BaseProcess] = []
    try:
        for rank in range(1, place.count):
            mine = replace(place, rank=rank, local_rank=rank)
            process = context.Process(target=_silent_rank, args=(mine, device), daemon=True)
            with held_back(signal.SIGINT), without_script():
                process.start()
            processes.append(process)
        yield processes
    finally:
        end = time.monotonic() + GRACE_SECONDS
        for process in processes:
            process.join(max(0.0, end - time.monotonic()))
            process.kill()
            process.join()


def _silent_rank(place: Place, device: str) -> None:
    """One of the processes that rank 0 has started: what it has to say, rank 0 says."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in (1, 2):
        os.dup2(nowhere, number)
    torch.set_num_interop_threads(1)
    with contextlib.suppress(UserError, KeyboardInterrupt, RuntimeError):
        on_ranks(place, device, _never)


def _never(joined: Joined) -> None:
    raise AssertionError("only rank 0 leads")
