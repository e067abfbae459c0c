"""Who is let in by a study on several machines: strangers are not, and keep nobody out."""

from __future__ import annotations

import contextlib
import socket
import stat
import threading
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection, Pipe

import pytest
from msgspec.structs import replace

from sparsedial.errors import UserError
from sparsedial.records.launch import JOIN_FILE
from sparsedial.runs.machines import channel
from sparsedial.runs.machines import site as site_module
from sparsedial.runs.machines.joining import dial, find_meeting
from tests.runs.house import PATIENCE, House, hello_of


def test_who_does_not_know_the_key_is_not_let_in(house: House, monkeypatch):
    monkeypatch.setattr(channel, "GREET_SECONDS", 5.0)
    meeting = find_meeting(house.folder)
    assert stat.S_IMODE((house.folder / JOIN_FILE).stat().st_mode) == 0o600
    with pytest.raises(UserError, match="does not let this worker in: it has another key"):
        dial(replace(meeting, key="0" * 64), hello_of("b"))
    stranger = socket.create_connection(("127.0.0.1", meeting.port))
    stranger.sendall(b"GET / HTTP/1.1\r\\n\\r\\n")
    silent = [socket.create_connection(("127.0.0.1", meeting.port)) for _ in range(6)]
    house.join("c")  # whoever says nothing keeps nobody waiting
    assert [worker.host for worker in house.site.joined] == ["c"]
    stranger.close()
    for one in silent:
        one.close()


def test_strangers_that_fill_the_door_are_hung_up_after_a_while(house: House, monkeypatch):
    """Also one that says a letter now and then; the next worker then comes in."""
    monkeypatch.setattr(channel, "GREET_SECONDS", 1.0)
    meeting = find_meeting(house.folder)
    with contextlib.ExitStack() as opened:
        for _ in range(site_module.MOST_GREETED + 1):
            stranger = opened.enter_context(socket.create_connection(("127.0.0.1", meeting.port), timeout=60))
            stranger.sendall(b"\0")
        with contextlib.suppress(ConnectionError):
            while stranger.recv(1024):  # the last one gets a place once another has lost its own
                pass
    monkeypatch.setattr(channel, "GREET_SECONDS", PATIENCE)
    house.join("c")
    assert [worker.host for worker in house.site.joined] == ["c"]


def test_one_who_is_gone_before_the_door_opens_closes_it_to_nobody(house: House, monkeypatch):
    accept, failed = socket.socket.accept, []

    def failing(door: socket.socket):
        if not failed:
            failed.append(door)
            raise ConnectionAbortedError
        return accept(door)

    monkeypatch.setattr(socket.socket, "accept", failing)
    house.join("c")
    assert len(failed) == 1


def test_a_stranger_cannot_let_one_worker_answer_for_another():
    """It may have got the port of a study that was killed, and does not know the key."""
    believed: list[str] = []

    def work(connection: Connection, name: str) -> None:
        with contextlib.suppress(*channel.STRANGE, AuthenticationError):
            channel.know_each_other(connection, "key", first=False)
            believed.append(name)
        connection.close()

    with contextlib.ExitStack() as opened:
        (first, its), (second, other) = Pipe(), Pipe()
        ends = [(its, "first"), (other, "second")]
        threads = [threading.Thread(target=work, args=end) for end in ends]
        for thread in threads:
            thread.start()
            opened.callback(thread.join, PATIENCE)
        first.send_bytes(b"#CHALLENGE#" + bytes(20))
        first.recv_bytes()
        first.send_bytes(b"#WELCOME#")
        second.send_bytes(first.recv_bytes())  # what the first worker asks is asked of the second
        first.send_bytes(second.recv_bytes())
        second.close()
        first.recv_bytes()
        first.close()
    assert believed == []
