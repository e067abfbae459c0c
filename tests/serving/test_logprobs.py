"""Log-probabilities in OpenAI's forms, as its clients read them: of texts and chats, whole and in pieces."""

from __future__ import annotations

from typing import Any

import pytest

from sparsedial.serving.entries import Entry
from sparsedial.serving.logprobs import text_logprobs
from sparsedial.text.token_bytes import TokenBytes
from tests.serving.served import NAME, Script, app_of, chat, post, streamed, text_of
from tests.serving.test_openai_client import CHAT, USAGE, asked


def texts(engine: Script, **more: Any) -> Any:
    """The choices of a completion."""
    response = post(app_of(engine), "completions", more)
    assert response.status_code == 200, response.text
    return response.json()["choices"]


def test_a_text_has_the_log_probability_of_each_token_and_of_the_likeliest():
    (choice,) = texts(Script(text=b"Hello"), prompt="ab", logprobs=1, max_tokens=2)
    assert choice["text"] == "He"
    assert choice["logprobs"] == {
        "tokens": ["H", "e"],
        "token_logprobs": [-72 / 8, -101 / 8],
        "top_logprobs": [{"G": -72 / 16, "H": -72 / 8}, {"d": -101 / 16, "e": -101 / 8}],
        "text_offset": [2, 3],
    }
    (choice,) = texts(Script(text=b"Hello"), prompt="ab", logprobs=0, max_tokens=1)
    assert choice["logprobs"]["top_logprobs"] == [{"H": -72 / 8}], "the token itself is always there"
    assert texts(Script(), prompt="ab", logprobs=False)[0]["logprobs"] is None


def test_a_repeated_prompt_has_them_too_but_for_its_first_token():
    engine = Script(text=b"Hello")
    how = {"echo": True, "logprobs": 2, "max_tokens": 1}
    (first,), (_, second) = texts(engine, prompt="ab", **how), texts(engine, prompt=[[100], [99]], **how)
    assert (first["text"], second["text"]) == ("abH", "cH")
    assert first["logprobs"] == {
        "tokens": ["a", "b", "H"],
        "token_logprobs": [None, -98 / 8, -72 / 8],
        "top_logprobs": [None, {"a": -98 / 16, "b": -98 / 8}, {"G": -72 / 16, "H": -72 / 8}],
        "text_offset": [0, 1, 2],
    }
    assert second["logprobs"]["text_offset"] == [0, 1]
    assert [(ask.top, ask.scores_prompt) for ask in engine.asks] == [(2, True)] * 3


def test_no_request_reads_the_whole_tokenizer(monkeypatch: pytest.MonkeyPatch):
    app = app_of(Script(text=b"Hello"))

    def read_again(*given: Any) -> None:
        raise AssertionError("a tokenizer of 50 thousand tokens takes 0.1 s")

    monkeypatch.setattr(TokenBytes, "__init__", read_again)
    for more in ({}, {"logprobs": 1}):
        assert post(app, "completions", {"prompt": "ab", **more}).status_code == 200


def test_a_prompt_alone_is_repeated_and_scored():
    engine = Script()
    (choice,) = texts(engine, prompt="a☃", echo=True, logprobs=1, max_tokens=0)
    assert (choice["text"], choice["finish_reason"], engine.asks[0].tokens) == ("a☃", "length", 0)
    assert choice["logprobs"]["tokens"] == ["a", "bytes:\\xe2", "bytes:\\x98", "bytes:\\x83"]
    assert choice["logprobs"]["text_offset"] == [0, 1, 1, 1]
    whole = "x" * 64  # as long as the context
    assert texts(engine, prompt=whole, echo=True, max_tokens=0)[0]["text"] == whole


def test_a_prompt_is_repeated_without_them_too():
    engine = Script()
    choices = texts(engine, prompt="ab", echo=True, n=2, max_tokens=5, stop="b")
    assert [(choice["text"], choice["logprobs"]) for choice in choices] == [("abHello", None)] * 2
    assert [(ask.top, ask.scores_prompt) for ask in engine.asks] == [(None, False)] * 2
    events = streamed(engine, "completions", {"prompt": "ab"}, echo=True, max_tokens=5)
    assert text_of(events) == "abHello"


def test_the_token_that_ends_a_text_is_the_last_one_of_a_text_and_none_of_a_chat():
    """lm-eval leaves out the last entry, as that of the token which was written."""
    (choice,) = texts(Script(text=b"", ends=True), prompt="ab", echo=True, logprobs=1, max_tokens=1)
    assert choice["logprobs"]["tokens"] == ["a", "b", "<|endoftext|>"]
    assert choice["finish_reason"] == "stop"
    content = chat(Script(text=b"Hi"), logprobs=True)["choices"][0]["logprobs"]["content"]
    assert [one["token"] for one in content] == ["H", "i"]


def test_a_chat_has_them_with_the_bytes_of_each_token():
    choice = chat(Script(text="H☃".encode()), logprobs=True, top_logprobs=1, max_tokens=2)["choices"][0]
    assert choice["logprobs"] == {
        "content": [
            {
                "token": "H",
                "logprob": -72 / 8,
                "bytes": [72],
                "top_logprobs": [{"token": "G", "logprob": -72 / 16, "bytes": [71]}],
            },
            {
                "token": "\\xe2",
                "logprob": -226 / 8,
                "bytes": [226],
                "top_logprobs": [{"token": "\\xe1", "logprob": -226 / 16, "bytes": [225]}],
            },
        ],
        "refusal": None,
    }
    (one, _) = chat(Script(text=b"Hi"), logprobs=True)["choices"][0]["logprobs"]["content"]
    assert one["top_logprobs"] == []


@pytest.mark.parametrize("n", [1, 2])
def test_pieces_of_a_chat_carry_them_and_add_up_to_the_whole(n: int):
    how = {"logprobs": True, "top_logprobs": 2, "n": n, "stop": ["rl"]}
    whole = chat(Script(text="Héllo, world".encode()), **how)["choices"]
    events = streamed(Script(text="Héllo, world".encode()), **how)
    for index in range(n):
        pieces = [one for event in events[:-1] for one in event["choices"] if one["index"] == index]
        content = [entry for one in pieces for entry in (one["logprobs"] or {"content": []})["content"]]
        assert content == whole[index]["logprobs"]["content"]
        assert bytes(byte for entry in content for byte in entry["bytes"]).decode() == "Héllo, wo"
        for one in pieces[1:]:
            own = bytes(byte for entry in (one["logprobs"] or {"content": []})["content"] for byte in entry["bytes"])
            assert own.decode() == one["delta"]["content"]


def test_pieces_of_a_text_carry_them_the_prompts_first():
    how = {"logprobs": 1, "echo": True, "max_tokens": 3}
    (whole,) = texts(Script(), prompt="ab", **how)
    events = streamed(Script(), "completions", {"prompt": "ab"}, **how)
    pieces = [event["choices"][0] for event in events[:-1]]
    assert pieces[0]["logprobs"]["tokens"][:2] == ["a", "b"]
    for field in ("tokens", "token_logprobs", "top_logprobs", "text_offset"):
        assert [one for piece in pieces if piece["logprobs"] for one in piece["logprobs"][field]] == whole["logprobs"][
            field
        ]
    assert text_of(events) == whole["text"]


def test_of_tokens_that_are_written_alike_the_likeliest_one_is_named():
    top = ((b"\xe2", -0.5), (b"a", -1.0), (b"a", -2.0))
    told = text_logprobs([Entry(data=b"a", logprob=-2.0, top=top, offset=0)])
    assert told is not None
    assert told.top_logprobs == ({"bytes:\\xe2": -0.5, "a": -1.0},)


def test_openais_client_reads_them_whole_and_puts_streams_together():
    async def talk(client: Any) -> Any:
        whole = await client.chat.completions.create(**CHAT, logprobs=True, top_logprobs=2)
        async with client.chat.completions.stream(**CHAT, **USAGE, logprobs=True, top_logprobs=2) as stream:
            async for _ in stream:
                pass
            put_together = await stream.get_final_completion()
        text = await client.completions.create(model=NAME, prompt="ab", echo=True, max_tokens=0, logprobs=1)
        return whole, put_together, text

    whole, put_together, text = asked(Script(text="naïve ☃".encode()), talk)
    content = whole.choices[0].logprobs.content
    assert bytes(byte for one in content for byte in one.bytes).decode() == "naïve ☃"
    assert put_together.choices[0].logprobs.content == content
    assert text.choices[0].logprobs.token_logprobs == [None, -98 / 8]
