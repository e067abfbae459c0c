"""A connection between a study and a worker of another machine, of which each side notices when the other is gone."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Generator
from multiprocessing.connection import Connection, answer_challenge, deliver_challenge

BEAT_SECONDS = 5.0  # between two signs of life of a worker
SILENT_SECONDS = 60.0  # without one, after which a worker counts as dead; and without an answer of the other machine
GREET_SECONDS = 30.0  # for one part of a greeting

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
    """Within it a read fails where nothing comes for a while: a stranger may say nothing at all."""
    _read_within(connection, GREET_SECONDS)
    yield
    _read_within(connection, 0)


def _read_within(connection: Connection, seconds: float) -> None:
    """Let reads fail after some seconds; 0 is never."""
    with socket.socket(fileno=os.dup(connection.fileno())) as same:
        same.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", int(seconds), 0))


def know_each_other(connection: Connection, key: str, *, first: bool) -> None:
    """Show each other that both know the key, without saying it; `first` is whether this side asks first.

    Raises: AuthenticationError where the other side does not; one of STRANGE where it is none of ours.
    """
    asking = [deliver_challenge, answer_challenge]
    for ask in asking if first else reversed(asking):
        ask(connection, key.encode())


def hang_up(connection: Connection) -> None:
    """End a connection from another thread than the one that waits for it, which then reads its end."""
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(connection.fileno())) as same:
        same.shutdown(socket.SHUT_RDWR)
