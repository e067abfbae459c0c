"""A socket that listens, and the server behind it, until Ctrl-C."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import socket
from collections.abc import Callable
from typing import Any

import uvicorn

from sparsedial.errors import UserError

KEPT_SECONDS, STOPPED_SECONDS = 30, 3  # of a connection that says nothing; of answers that end when the server does


def listen(host: str, port: int) -> socket.socket:
    """A listening socket: who connects from now on waits until it is served. Port 0 picks a free port.

    Raises: UserError where the port is in use, or the host is no address of this machine.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family)
    except UnicodeError as error:
        raise UserError(f"cannot listen on '{host}', port {port}: that is no name of a host", field="host") from error
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise UserError(f"{port} is in use", hint="0 picks a free port", field="port") from error
        why = str(error.strerror).partition(" (")[0]  # behind it stands the address again
        raise UserError(f"cannot listen on '{host}', port {port}: {why}", field="host") from error


def address_of(listening: socket.socket) -> str:
    """Where browsers and programs of this machine find it."""
    host, port = listening.getsockname()[:2]
    named = str({"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host))
    return f"http://[{named}]:{port}" if ":" in named else f"http://{named}:{port}"


def is_loopback(listening: socket.socket) -> bool:
    """Whether only programs of this machine reach it."""
    return ipaddress.ip_address(listening.getsockname()[0]).is_loopback


class _Server(uvicorn.Server):
    """Where it is stopped, what it waits for ends first: open answers would go on for minutes."""

    def __init__(self, config: uvicorn.Config, ending: Callable[[], object] | None) -> None:
        super().__init__(config)
        self._ending = ending

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self._ending is not None:
            await asyncio.to_thread(self._ending)
        await super().shutdown(sockets)


def run(app: Any, listening: socket.socket, ending: Callable[[], object] | None = None) -> None:
    """Serve an application until Ctrl-C; `ending` is then called before open answers are waited for."""
    config = uvicorn.Config(
        app,
        log_level="error",
        access_log=False,
        lifespan="off",  # there is nothing to begin and end; a second Ctrl-C would break it off with a traceback
        timeout_keep_alive=KEPT_SECONDS,
        timeout_graceful_shutdown=STOPPED_SECONDS,
    )
    _Server(config, ending).run(sockets=[listening])
