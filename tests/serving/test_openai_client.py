"""OpenAI's own client reads what the server sends, and gives its errors as it gives OpenAI's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import httpx
import pytest

from tests.serving.served import ADDRESS, ASKED, NAME, Script, app_of

openai = pytest.importorskip("openai", reason="OpenAI's client is not installed: pip install openai")

CHAT: dict[str, Any] = {"model": NAME, **ASKED}
USAGE = {"stream_options": {"include_usage": True}}


def asked(engine: Script, talk: Callable[[Any], Coroutine[Any, Any, Any]], wanted: str | None = None) -> Any:
    """What a conversation of the client with a server gives, which may want a key that the client lacks."""

    async def run() -> Any:
        transport = httpx.ASGITransport(app=app_of(engine, key=wanted))
        async with (
            httpx.AsyncClient(transport=transport) as inner,
            openai.AsyncOpenAI(base_url=f"{ADDRESS}/v1", api_key="any", http_client=inner, max_retries=0) as client,
        ):
            return await talk(client)

    return asyncio.run(run())


def test_a_chat_with_several_answers_and_its_dial():
    answer = asked(
        Script(),
        lambda client: client.chat.completions.create(**CHAT, n=2, extra_body={"dial": {"top_k_experts": 1}}),
    )
    assert [choice.message.content for choice in answer.choices] == ["Hello, world"] * 2
    assert [choice.finish_reason for choice in answer.choices] == ["stop", "stop"]
    assert answer.usage.completion_tokens == 24
    assert answer.usage.dial["setting"] == "k=1"


def test_a_streamed_chat_is_put_together_by_the_client():
    async def talk(client: Any) -> Any:
        async with client.chat.completions.stream(**CHAT, **USAGE, extra_body={"dial": {"setting": "k=1"}}) as stream:
            deltas = [event.delta async for event in stream if event.type == "content.delta"]
            return deltas, await stream.get_final_completion()

    deltas, whole = asked(Script(text="naïve ☃".encode()), talk)
    assert "".join(deltas) == whole.choices[0].message.content == "naïve ☃"
    assert whole.choices[0].message.role == "assistant"
    assert whole.usage.dial["setting"] == "k=1"


def test_texts_whole_and_streamed():
    async def talk(client: Any) -> Any:
        whole = await client.completions.create(model=f"{NAME}:k=1", prompt=["a", "b"], max_tokens=5)
        stream = await client.completions.create(model=NAME, prompt="a", stream=True, stop=", ", **USAGE)
        return whole, [event async for event in stream]

    whole, events = asked(Script(), talk)
    assert [choice.text for choice in whole.choices] == ["Hello", "Hello"]
    assert [choice.finish_reason for choice in whole.choices] == ["length", "length"]
    assert "".join(choice.text for event in events for choice in event.choices) == "Hello"
    assert events[-1].usage.dial["setting"] == "k=2"


def test_models_are_listed_with_their_dial():
    async def talk(client: Any) -> Any:
        return [model async for model in client.models.list()], await client.models.retrieve(f"{NAME}:k=1,skip=0")

    listed, one = asked(Script(), talk)
    assert [model.id for model in listed][1] == f"{NAME}:k=1"
    assert listed[1].dial["top_k_experts"] == 1
    assert one.dial["skip_layers"] == [0]


@pytest.mark.parametrize(
    ("more", "kind", "param"),
    [
        ({"extra_body": {"dial": {"top_k_expert": 1}}}, "BadRequestError", "dial.top_k_expert"),
        ({"model": "gpt"}, "NotFoundError", "model"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "BadRequestError", "tools"),
    ],
)
def test_errors_are_those_that_the_client_knows(more, kind, param):
    with pytest.raises(getattr(openai, kind)) as error:
        asked(Script(), lambda client: client.chat.completions.create(**{**CHAT, **more}))
    assert error.value.param == param


def test_a_wrong_key_too_many_that_wait_and_a_failure():
    with pytest.raises(openai.AuthenticationError):
        asked(Script(), lambda client: client.models.retrieve(NAME), wanted="secret")
    with pytest.raises(openai.RateLimitError):
        asked(Script(waiting=10**6), lambda client: client.chat.completions.create(**CHAT))
    with pytest.raises(openai.InternalServerError):
        asked(Script(problem="it broke"), lambda client: client.chat.completions.create(**CHAT))


def test_a_failure_within_a_stream_is_raised_where_it_comes():
    async def talk(client: Any) -> Any:
        async for event in await client.chat.completions.create(**CHAT, stream=True):
            said.append(event.choices[0].delta.content)

    said: list[str] = []
    with pytest.raises(openai.APIError, match="it broke"):
        asked(Script(text=b"Hel", problem="it broke"), talk)
    assert "".join(said) == "Hel"
