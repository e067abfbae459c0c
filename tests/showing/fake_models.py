"""A small server that answers as the server of a checkpoint does, slowly and as a test says, for the chat page."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from sparsedial.showing.chat_page import assets

SAFE = {"Content-Security-Policy": "default-src 'self'", "X-Content-Type-Options": "nosniff"}
TOTAL = 134_515_008  # parameters
WHOLE = {"top_k_experts": None, "top_p_experts": None, "neurons_share": None, "skip_layers": []}


def entry(name: str, active: int, added: float | None, **of: Any) -> dict[str, Any]:
    """A setting as `/v1/models` lists it."""
    sparsity = {"experts": 0.0, "parameters": 1 - active / TOTAL, "activation_ratio": 1.0}
    interval = None if added is None else {"mean": added, "low": added * 0.6, "high": added * 1.4}
    return {
        "id": f"tiny:{name}",
        "object": "model",
        "max_model_len": 2048,
        "dial": {"name": name, **WHOLE, **of, "sparsity": sparsity, "active_parameters": active},
        "loss_increase": {"mean": 0.0, "low": None, "high": None} if added == 0 else interval,
        "loss": 2.29 + (added or 0.0),
    }


MODELS = [
    entry("default", TOTAL, 0.0),
    entry("neurons=0.5", 107_972_928, 0.0977, neurons_share=0.5),
    entry("neurons=0.7", 118_589_760, 0.02, neurons_share=0.7),
    entry("neurons=0.35", 100_010_304, None, neurons_share=0.35),
]


@dataclass
class Fake:
    """What the server does; a test changes it between requests."""

    text: dict[str, str] = field(default_factory=dict)  # by setting; words are sent one by one
    pace: dict[str, float] = field(default_factory=dict)  # seconds a word
    wait: float = 0.0  # seconds before the first
    key: str | None = None
    template: bool = True
    refuse: tuple[int, dict[str, Any]] | None = None  # status and error of the next request
    breaks: int | None = None  # ends the stream after so many words
    fails: str | None = None  # an error within the stream, after two words
    cached: int = 0
    asked: list[dict[str, Any]] = field(default_factory=list)
    left: int = 0  # answers whose asker has gone


def fake_app(fake: Fake) -> FastAPI:
    """The page and the two endpoints that it uses."""
    app = FastAPI()

    @app.get("/v1/models")
    def models(request: Request) -> Response:
        return _locked(fake, request) or JSONResponse({"object": "list", "data": MODELS})

    @app.post("/v1/{kind:path}")
    async def answer(kind: str, request: Request) -> Response:
        body = await request.json()
        refused = _locked(fake, request) or _refused(fake, kind)
        if refused is not None:
            return refused
        fake.asked.append(body)
        return StreamingResponse(_written(fake, kind, body), media_type="text/event-stream")

    @app.get("/{name:path}")
    def file(name: str) -> Response:
        found = assets().get(name)
        if found is None:
            return Response("no such file", status_code=404)
        return Response(found[0], media_type=found[1], headers=SAFE)

    return app


def _locked(fake: Fake, request: Request) -> Response | None:
    if fake.key is None or request.headers.get("authorization") == f"Bearer {fake.key}":
        return None
    return JSONResponse({"error": {"message": "the API key is wrong"}}, status_code=401)


def _refused(fake: Fake, kind: str) -> Response | None:
    if not fake.template and kind == "chat/completions":
        error = {"message": "this checkpoint has no chat template", "code": "no_chat_template"}
        return JSONResponse({"error": error}, status_code=400)
    if fake.refuse is None:
        return None
    (status, error), fake.refuse = fake.refuse, None
    return JSONResponse({"error": error}, status_code=status)


async def _written(fake: Fake, kind: str, body: dict[str, Any]) -> AsyncIterator[str]:
    setting = body["dial"]["setting"]
    words, pace = fake.text.get(setting, "It is so.").split(" "), fake.pace.get(setting, 0.0)
    chat = kind == "chat/completions"

    def chunk(**of: Any) -> str:
        return f"data: {json.dumps({'object': 'chunk', 'choices': [], **of})}\n\n"

    def choice(text: str | None, reason: str | None = None) -> dict[str, Any]:
        part = {"delta": {} if text is None else {"content": text}} if chat else {"text": text or ""}
        return {"index": 0, **part, "finish_reason": reason}

    try:
        yield chunk(choices=[{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}])
        await asyncio.sleep(fake.wait)
        for number, word in enumerate(words):
            if number == fake.breaks:
                fake.breaks = None
                return
            if number == 2 and fake.fails:
                yield chunk(error={"message": fake.fails})
                fake.fails = None
                return
            await asyncio.sleep(pace)
            yield chunk(choices=[choice(f" {word}" if number else word)])
        yield chunk(choices=[choice(None, "stop")])
        yield chunk(usage=_usage(fake, setting, len(words), pace))
        yield "data: [DONE]\n\n"
    except (asyncio.CancelledError, GeneratorExit):
        fake.left += 1
        raise


def _usage(fake: Fake, setting: str, tokens: int, pace: float) -> dict[str, Any]:
    seconds = 0.2 + fake.wait + pace * tokens
    of = next(one for one in MODELS if one["dial"]["name"] == setting)["dial"]
    dial = {
        "setting": setting,
        "top_k_experts": None,
        "active_parameters_per_token": of["active_parameters"],
        "seconds": seconds,
        "joules": 4.5 * seconds,
        "joules_basis": "estimated",
        "cached_prompt_tokens": fake.cached,
    }
    return {"prompt_tokens": 40, "completion_tokens": tokens, "total_tokens": 40 + tokens, "dial": dial}
