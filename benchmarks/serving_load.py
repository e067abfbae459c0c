"""A server of OpenAI's API in processes of its own, and clients that ask it at once, as their clocks see it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import httpx

from benchmarks.answering import ROOT

START_SECONDS, ANSWER_SECONDS = 600.0, 600.0


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a client saw of one answer."""

    first_seconds: float  # from the request to the first text
    seconds: float  # from the request to the end
    tokens: int
    text: str
    usage: Mapping[str, Any]


class Server:
    """A program that serves a checkpoint; it stands still unless it is `going`, since it may wait by spinning."""

    def __init__(self, words: Sequence[str], port: int, log: Path, environment: Mapping[str, str] | None = None):
        with log.open("w") as file:
            self._process = subprocess.Popen(
                [*words], cwd=ROOT, env=environment, stdout=file, stderr=file, process_group=0
            )
        self.address, self._log = f"http://127.0.0.1:{port}/v1", log
        self.model = str(self._started()["data"][0]["id"]).partition(":")[0]  # ours without its setting
        os.killpg(self._process.pid, signal.SIGSTOP)

    def _started(self) -> dict[str, Any]:
        """Its models, once it answers."""
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until and self._process.poll() is None:
            with suppress(httpx.HTTPError):
                return httpx.get(f"{self.address}/models").raise_for_status().json()
            time.sleep(0.2)
        raise RuntimeError(f"the server did not start:\n{self._log.read_text()[-2000:]}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *reason: Any) -> None:
        os.killpg(self._process.pid, signal.SIGCONT)
        os.killpg(self._process.pid, signal.SIGTERM)
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    @contextmanager
    def going(self) -> Iterator[None]:
        """Let the program and its children go on; afterwards they are stopped."""
        os.killpg(self._process.pid, signal.SIGCONT)
        try:
            yield
        finally:
            os.killpg(self._process.pid, signal.SIGSTOP)

    def version(self) -> str:
        """That of vLLM, which says it."""
        with self.going():
            return httpx.get(f"{self.address.removesuffix('/v1')}/version").raise_for_status().json()["version"]

    def ask(self, clients: Sequence[Sequence[Mapping[str, Any]]]) -> tuple[float, list[list[Answer]]]:
        """Let every client send its requests one after another, all clients at once; seconds of all and the answers."""
        with self.going():
            return asyncio.run(self._together(clients))

    async def _together(self, clients: Sequence[Sequence[Mapping[str, Any]]]) -> tuple[float, list[list[Answer]]]:
        async with httpx.AsyncClient(timeout=ANSWER_SECONDS) as http:
            began = time.perf_counter()
            answers = await asyncio.gather(*(self._in_turn(http, requests) for requests in clients))
            return time.perf_counter() - began, answers

    async def _in_turn(self, http: httpx.AsyncClient, requests: Sequence[Mapping[str, Any]]) -> list[Answer]:
        return [await self._answer(http, request) for request in requests]

    async def _answer(self, http: httpx.AsyncClient, request: Mapping[str, Any]) -> Answer:
        body = {"model": self.model, "stream": True, "stream_options": {"include_usage": True}, **request}
        began, first, text, usage = time.perf_counter(), None, "", {}
        async with http.stream("POST", f"{self.address}/completions", json=body) as reply:
            if reply.status_code != 200:
                raise RuntimeError((await reply.aread()).decode())
            async for line in reply.aiter_lines():
                if not line.startswith("data: {"):
                    continue
                chunk = json.loads(line.removeprefix("data: "))
                usage = chunk.get("usage") or usage
                piece = "".join(choice["text"] for choice in chunk.get("choices", ()))
                first = first or (time.perf_counter() - began if piece else None)
                text += piece
        seconds = time.perf_counter() - began
        return Answer(
            first_seconds=first or seconds, seconds=seconds, tokens=usage["completion_tokens"], text=text, usage=usage
        )


def free_port() -> int:
    """A port that nobody uses now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]
