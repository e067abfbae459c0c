"""A connection between a study and a worker of another machine, of which each side notices when the other is gone."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Generator
from multiprocessing.connection import Connection, answer_challenge, deliver_challenge

BEAT_SECONDS = 5.0  # between two signs of life of a worker
SILENT_SECONDS = 60.0  # without one, after which a worker counts as dead; and without an answer of the other machine
GREET_SECONDS = 30.0  # for a greeting

GONE = (EOFError, OSError)  # what is raised where the other side is gone
STRANGE = (*GONE, AssertionError)  # and where it is none of ours: `multiprocessing` asserts what it reads


def connection_of(found: socket.socket) -> Connection:
    """The socket as a connection. Where the other machine answers no more, it fails after a bounded time.

    A machine that loses its power, or its network, closes nothing: the system's own bound would be some hours.
    """
    found.settimeout(None)
    found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    bounded = ("TCP_KEEPIDLE", BEAT_SECONDS), ("TCP_KEEPINTVL", BEAT_SECONDS), ("TCP_KEEPCNT", 12)
    for name, value in (*bounded, ("TCP_USER_TIMEOUT", 1000 * SILENT_SECONDS)):
        with contextlib.suppress(AttributeError, OSError):  # another system than Linux
            found.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), int(value))
    return Connection(found.detach())


@contextlib.contextmanager
def greeting(connection: Connection) -> Generator[None]:
    """After a while within it the connection ends: a stranger may say nothing at all, or one letter now and then."""
    late = threading.Timer(GREET_SECONDS, hang_up, [connection])
    late.daemon = True
    late.start()
    try:
        yield
    finally:
        late.cancel()


def know_each_other(connection: Connection, key: str, *, first: bool) -> None:
    """Show each other that both know the key, without saying it; `first` is whether this side, the study's, asks first.

    Each side proves it otherwise: else a stranger at the study's port would let one worker answer for another.

    Raises: AuthenticationError where the other side does not; one of STRANGE where it is none of ours.
    """
    of_worker, of_study = f"worker {key}".encode(), f"study {key}".encode()
    if first:
        deliver_challenge(connection, of_worker)
        answer_challenge(connection, of_study)
    else:
        answer_challenge(connection, of_worker)
        deliver_challenge(connection, of_study)


def hang_up(connection: Connection) -> None:
    """End a connection from another thread than the one that waits for it, which then reads its end."""
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(connection.fileno())) as same:
        same.shutdown(socket.SHUT_RDWR)
