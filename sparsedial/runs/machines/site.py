"""Where workers of other machines join a running study: it knows them, lets them in, and notices when they are gone."""

from __future__ import annotations

import contextlib
import queue
import secrets
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path

from sparsedial.records.launch import JOIN_FILE, Admission, Hello, Meeting, Setup, packed, unpacked
from sparsedial.records.record import write
from sparsedial.runs.executor import Group
from sparsedial.runs.machines.channel import GONE, SILENT_SECONDS, STRANGE, connection_of, greeting, know_each_other
from sparsedial.runs.machines.setup import refusal, warning

OTHER_VERSION = "it is of another version"
MOST_BYTES = 1 << 16  # of a greeting
MOST_GREETED = 64  # at the same time: each is a thread and an open file of the study's
DOOR_SECONDS = 0.1  # after somebody could not be let through the door
ELSEWHERE = "192.0.2.1", 9  # an address that nobody has, for documentation (RFC 5737)


@dataclass(eq=False)
class RemoteWorker:
    """A worker of another machine, and the group that it trains."""

    connection: Connection
    host: str
    process: int
    group: Group = ()
    heard: float = 0.0  # when it last said something


class Site:
    """Lets workers in that show the key of the study's folder, until it is closed.

    `note` is told who came and who went. The machine's own workers are not among them.
    """

    def __init__(self, folder: Path, setup: Setup, note: Callable[[str], None]) -> None:
        self.folder, self._setup, self._note = folder, setup, note
        self.joined: list[RemoteWorker] = []
        self._arrived = queue.SimpleQueue[RemoteWorker | str]()  # a string is a note
        self.doorbell, self._bell = Pipe(duplex=False)  # readable when somebody has arrived
        self._key = secrets.token_hex(32)
        self._lock, self._open = threading.Lock(), False
        self._said = frozenset[str]()
        self._places = threading.Semaphore(MOST_GREETED)

    def __enter__(self) -> Site:
        self._open = True
        self._door = socket.create_server(("", 0), backlog=128)
        self._closing, self._close = Pipe(duplex=False)
        host, port = socket.gethostname(), self._door.getsockname()[1]
        meeting = Meeting(host=host, addresses=_addresses(host), port=port, key=self._key)
        write(self.folder / JOIN_FILE, meeting, private=True)
        threading.Thread(target=self._watch_door, daemon=True).start()
        return self

    def __exit__(self, *reason: object) -> None:
        """Let nobody in any more, and end all workers: a busy one saves its state."""
        (self.folder / JOIN_FILE).unlink(missing_ok=True)
        self._close.close()
        with self._lock:
            self._open = False
        self.admit()
        while self.joined:
            self.joined.pop().connection.close()

    def admit(self) -> None:
        """Take in who has arrived since the last time; says so."""
        while self.doorbell.poll():
            self.doorbell.recv_bytes()
            arrived = self._arrived.get()
            if isinstance(arrived, RemoteWorker):
                if arrived.host not in {worker.host for worker in self.joined}:
                    self._note(f"{arrived.host} has joined")
                arrived.heard = time.monotonic()
                self.joined.append(arrived)
            else:
                self._note(arrived)

    def wait_for(self, count: int, seconds: float) -> int:
        """Wait until so many workers are here, or so many seconds are over; gives the number that are."""
        end = time.monotonic() + seconds
        while self.present() < count and (left := end - time.monotonic()) > 0:
            self.doorbell.poll(left)
        return len(self.joined)

    def present(self) -> int:
        """The number of workers that have joined and are still there."""
        self.admit()
        for worker in [worker for worker in self.joined if not worker.group]:
            self._drain(worker)
        return len(self.joined)

    def _drain(self, worker: RemoteWorker) -> None:
        try:
            while worker.connection.poll():
                worker.connection.recv()
                worker.heard = time.monotonic()
        except GONE:
            self.remove(worker, "has left")

    def silent(self) -> list[RemoteWorker]:
        """Workers of which nothing is waiting to be read, and nothing was for too long."""
        return [
            worker
            for worker in self.joined
            if time.monotonic() - worker.heard > SILENT_SECONDS and not worker.connection.poll()
        ]

    def remove(self, worker: RemoteWorker, why: str) -> None:
        """Forget a worker; it ends when it notices."""
        self.joined.remove(worker)
        worker.connection.close()
        self._note(f"a worker of {worker.host} {why}")

    def _watch_door(self) -> None:
        """In a thread: greet everybody who comes, each in a thread of its own, since one may say nothing."""
        with self._door, self._closing:
            while self._closing not in wait([self._door, self._closing]):
                self._places.acquire()
                try:
                    found, _ = self._door.accept()
                except OSError:  # who came is gone again, or this process has too many files open
                    self._places.release()
                    time.sleep(DOOR_SECONDS)
                    continue
                threading.Thread(target=self._greet_in_place, args=(found,), daemon=True).start()

    def _greet_in_place(self, found: socket.socket) -> None:
        try:
            self._greet(found)
        finally:
            self._places.release()

    def _greet(self, found: socket.socket) -> None:
        connection = connection_of(found)
        try:
            with greeting(connection):
                know_each_other(connection, self._key, first=True)
                hello = unpacked(connection.recv_bytes(MOST_BYTES), Hello)
                refused = OTHER_VERSION if hello is None else refusal(self._setup, hello.setup)
                connection.send_bytes(packed(Admission(refused=refused)))
        except AuthenticationError:
            return self.tell("somebody with another key was not let in", connection)
        except STRANGE:
            return connection.close()
        if hello is None or refused is not None:
            name = "somebody" if hello is None else f"a worker of {hello.host}"
            return self.tell(f"{name} was not let in: {refused}", connection)
        differs = warning(self._setup, hello.setup)
        if differs is not None:
            self.tell(
                f"losses of {hello.host} are rounded otherwise, which can move them as another seed does: {differs}"
            )
        return self._arrive(RemoteWorker(connection=connection, host=hello.host, process=hello.process))

    def tell(self, words: str, connection: Connection | None = None) -> None:
        """Say something once, and hang up."""
        if connection is not None:
            connection.close()
        with self._lock:
            said, self._said = words in self._said, self._said | {words}
        if not said:
            self._arrive(words)

    def _arrive(self, arrived: RemoteWorker | str) -> None:
        """Ring for the thread that holds the workers; after the end nobody does."""
        with self._lock:
            if self._open:
                self._arrived.put(arrived)
                self._bell.send_bytes(b"!")
            elif isinstance(arrived, RemoteWorker):
                arrived.connection.close()


def _addresses(host: str) -> tuple[str, ...]:
    """Names and numbers by which other machines may find this one, the likely ones first."""
    found = [host]
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.connect(ELSEWHERE)  # sends nothing, but chooses one of this machine's addresses
        found.append(asking.getsockname()[0])
    return tuple(dict.fromkeys(found))
