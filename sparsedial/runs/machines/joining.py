"""A worker of another machine: it finds a running study by its folder, is let in, and trains what it is given."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from functools import cache, partial
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING

from sparsedial.errors import UserError
from sparsedial.records.launch import JOIN_FILE, Admission, Hello, Meeting, packed, unpacked
from sparsedial.records.record import read, try_read
from sparsedial.records.study import STUDY_FILE, Study
from sparsedial.runs.machines.channel import (
    BEAT_SECONDS,
    GONE,
    STRANGE,
    connection_of,
    greeting,
    hang_up,
    know_each_other,
)
from sparsedial.runs.run_store import RunStore
from sparsedial.runs.worker import Alive, Order, answer
from sparsedial.store import Fault

if TYPE_CHECKING:
    from sparsedial.text.prepare import Text

DIAL_SECONDS = 10.0  # for one address
LOOK_SECONDS = 1.0  # between two looks into the folder of a study that has not begun
LOOPBACK = "127.0.0.1"
RUNS = "runs"  # in a study's folder


class NotBegun(UserError):
    """No study runs in a folder, as long as none has begun there."""


def find_meeting(folder: Path) -> Meeting:
    """Where the study of a folder lets workers in.

    Raises: NotBegun where the folder is not here, or no study lets workers in there now; UserError where its study has
        ended.
    """
    if not folder.is_dir():
        raise NotBegun(
            f"{folder}: no such folder on this machine ({socket.gethostname()})",
            hint="this machine must see the file system on which the study's folder lies; <wait> waits for the study",
        )
    file = folder / JOIN_FILE
    if not file.exists() and not isinstance(try_read(folder / STUDY_FILE, Study), Fault):
        raise UserError(f"{folder}: its study has ended", hint="nothing is left to train; report.html there says more")
    if not file.exists():
        raise NotBegun(
            f"{folder}: no study is running there that lets workers in",
            hint="start it with `sparsedial study … --on join`, with the same <out>; <wait> waits for it",
        )
    return read(file, Meeting)


def await_meeting(folder: Path, seconds: float, note: Callable[[str], None]) -> Meeting:
    """Where the study of a folder lets workers in; waits so long for it to begin.

    Raises: UserError as `find_meeting` does.
    """
    end, waits = time.monotonic() + seconds, False
    while True:
        try:
            return find_meeting(folder)
        except NotBegun:
            left = end - time.monotonic()
            if left <= 0:
                raise
        if not waits:
            note(f"waiting for a study to begin in {folder}")
            waits = True
        time.sleep(min(LOOK_SECONDS, left))


def dial(meeting: Meeting, hello: Hello) -> Connection:
    """A connection to a study that has let this worker in.

    Raises: UserError where it cannot be reached, or lets this worker not in.
    """
    own = [LOOPBACK] if meeting.host == socket.gethostname() else []
    addresses = list(dict.fromkeys([*meeting.addresses, *own]))
    problems: list[str] = []
    for address in addresses:
        try:
            connection = connection_of(socket.create_connection((address, meeting.port), DIAL_SECONDS))
        except OSError as error:
            problems.append(f"{address}: {error.strerror or error}")
            continue
        try:
            reply = _greet(connection, meeting.key, hello)
        except AuthenticationError:
            reply = Admission(refused="it has another key")
        except STRANGE as error:
            problems.append(f"{address}: hung up {error}".strip())
            connection.close()
            continue
        if reply.refused is None:
            return connection
        connection.close()
        raise UserError(
            f"the study on {meeting.host} does not let this worker in: {reply.refused}",
            hint="its workers need the environment that the study has, and its folder",
        )
    raise UserError(
        f"the study on {meeting.host}, port {meeting.port}, cannot be reached ({'; '.join(problems)})",
        hint="it may have ended without a word, or a firewall is between the two machines",
    )


def _greet(connection: Connection, key: str, hello: Hello) -> Admission:
    with greeting(connection):
        know_each_other(connection, key, first=False)
        connection.send_bytes(packed(hello))
        return unpacked(connection.recv_bytes(), Admission) or Admission(refused="it is of another version")


def serve(connection: Connection, folder: Path, leave: Connection) -> int:
    """Train groups for a study until it ends, or until `leave` says something or is closed; gives the number of runs.

    A run that is unfinished then saves its state.
    """
    from sparsedial.text.prepare import open_text

    @cache
    def text(name: str) -> Text:
        return open_text(folder / name)

    say, store, runs = _saying(connection, leave), RunStore(folder / RUNS), 0
    with contextlib.suppress(*GONE), contextlib.closing(connection):
        while True:
            order: Order = connection.recv()
            say(answer(order.group, partial(text, order.text), store, say))
            runs += len(order.group)
    return runs


def _saying(connection: Connection, leave: Connection) -> Callable[[object], None]:
    """What says something to the study; in a thread it also says from now on that the worker is alive.

    The thread hangs up when the worker is to leave. Training hears nothing then but that it cannot say how far it is.
    """
    lock = threading.Lock()

    def say(message: object) -> None:
        try:
            with lock:
                connection.send(message)
        except OSError as error:  # of which a machine that answers no more is another kind
            raise BrokenPipeError from error

    def beat() -> None:
        with contextlib.suppress(OSError):
            while not leave.poll(BEAT_SECONDS):
                say(Alive())
        hang_up(connection)

    threading.Thread(target=beat, daemon=True).start()
    return say
