"""The server as OpenAI's clients see it: answers whole and in pieces, usage with the dial, models, health, metrics."""

from __future__ import annotations

import pytest

from sparsedial.errors import UserError
from sparsedial.records.setting import Setting
from sparsedial.serving.asks import Ask
from sparsedial.serving.sampling import Sampling
from sparsedial.shape.turned import parse_turned
from tests.serving.served import NAME, SHAPE, Script, app_of, chat, get, post, streamed, text_of, within

USAGE = {
    "prompt_tokens": len("[user]hi[answer]"),
    "completion_tokens": 12,
    "total_tokens": len("[user]hi[answer]") + 12,
    "dial": {
        "setting": "k=1",
        "setting_reason": "asked",
        "top_k_experts": 1,
        "seconds": 1.5,
        "waited_seconds": 0.25,
        "joules": 2.0,
        "joules_basis": "estimated",
        "cached_prompt_tokens": 3,
    },
}


def test_a_chat_is_answered_with_what_it_took_at_its_setting():
    answer = chat(Script(), dial={"setting": "k=1"})
    assert answer["object"] == "chat.completion"
    assert answer["model"] == f"{NAME}:k=1"
    (choice,) = answer["choices"]
    assert choice["message"] == {"role": "assistant", "content": "Hello, world", "refusal": None}
    assert choice["finish_reason"] == "stop"
    active = answer["usage"]["dial"].pop("active_parameters_per_token")
    assert answer["usage"] == USAGE
    assert active == Setting.of(parse_turned("k=1"), SHAPE).active_parameters


def test_a_stream_adds_up_to_the_whole_and_ends_with_its_usage():
    events = streamed(Script(), stream_options={"include_usage": True}, dial={"top_k_experts": 1})
    assert events[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert text_of(events) == "Hello, world"
    assert [event["usage"] for event in events[:-2]] == [None] * (len(events) - 2)
    assert events[-2]["choices"] == []
    assert events[-2]["usage"]["completion_tokens"] == 12
    assert events[-2]["usage"]["dial"]["setting"] == "k=1"
    assert events[-2]["usage"]["dial"]["joules"] == 2.0
    assert events[-1] == "[DONE]"
    reasons = [choice["finish_reason"] for event in events[:-1] for choice in event["choices"]]
    assert reasons == [None] * (len(reasons) - 1) + ["stop"]
    assert len({event["id"] for event in events[:-1]}) == 1


def test_without_being_asked_a_stream_has_no_usage():
    assert all(event["usage"] is None for event in streamed(Script())[:-1])


def test_a_text_goes_on_and_each_prompt_has_its_own_answers():
    engine = Script()
    answer = post(app_of(engine), "completions", {"prompt": ["ab", "cde"], "n": 2, "max_tokens": 5, "seed": 7}).json()
    assert answer["object"] == "text_completion"
    assert [(one["index"], one["text"], one["finish_reason"]) for one in answer["choices"]] == [
        (index, "Hello", "length") for index in range(4)
    ]
    assert [bytes(ask.prompt) for ask in engine.asks] == [b"ab", b"ab", b"cde", b"cde"]
    assert [ask.sampling.seed for ask in engine.asks] == [7, 8, 9, 10]
    usage = answer["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (5, 20)
    assert (usage["dial"]["joules"], usage["dial"]["seconds"]) == (8.0, 1.5)
    assert usage["dial"]["cached_prompt_tokens"] == 6, "of each prompt once"


@pytest.mark.parametrize(
    ("prompt", "ids"),
    [("ab", [(97, 98)]), ([97, 98], [(97, 98)]), (["a", "b"], [(97,), (98,)]), ([[97], [98, 99]], [(97,), (98, 99)])],
)
def test_a_prompt_is_text_or_ids_one_or_several(prompt, ids):
    engine = Script()
    assert post(app_of(engine), "completions", {"prompt": prompt}).status_code == 200
    assert [ask.prompt for ask in engine.asks] == ids
    assert {ask.tokens for ask in engine.asks} == {16}, "as OpenAI has it"


def test_both_streams_of_texts_carry_every_answer():
    events = streamed(Script(), "completions", {"prompt": ["a", "b"]}, stop=[", "])
    assert [text_of(events, index) for index in (0, 1)] == ["Hello", "Hello"]


def test_what_a_request_says_nothing_of_is_as_openai_has_it():
    engine = Script()
    chat(engine)
    chat(engine)
    first, second = engine.asks
    assert (first.sampling.temperature, first.sampling.top_p, first.sampling.top_k) == (1.0, 1.0, None)
    assert first.sampling.seed != second.sampling.seed
    assert first.tokens == 64 - len(first.prompt)
    assert first.turned == parse_turned("k=2")


def test_the_engine_is_asked_for_what_the_request_says():
    engine = Script()
    given = {"temperature": 0.5, "top_p": 0.9, "top_k": 7, "seed": -1, "max_completion_tokens": 9, "max_tokens": 3}
    given |= {"frequency_penalty": -0.5, "presence_penalty": 2, "logit_bias": {"7": -100, "65": 1.5}}
    given |= {"logprobs": True, "top_logprobs": 4}
    chat(engine, model=f"{NAME}:k=1,skip=0", user="me", metadata={}, tools=[], **given)
    assert engine.asks == [
        Ask(
            prompt=tuple(b"[user]hi[answer]"),
            tokens=9,
            sampling=Sampling(
                temperature=0.5,
                top_p=0.9,
                top_k=7,
                seed=2**62 - 1,
                frequency_penalty=-0.5,
                presence_penalty=2.0,
                logit_bias=((7, -100.0), (65, 1.5)),
            ),
            turned=parse_turned("k=1,skip=0"),
            top=4,
        )
    ]


def test_messages_are_written_by_the_template_with_their_roles():
    engine = Script()
    parts = [{"type": "text", "text": "h"}, {"type": "text", "text": "i"}]
    messages = [
        {"role": "developer", "content": "be brief"},
        {"role": "user", "content": parts, "name": "me"},
        {"role": "assistant", "content": "yes", "refusal": None, "tool_calls": None, "annotations": []},
        {"role": "user", "content": "why?"},
    ]
    chat(engine, messages=messages, max_tokens=1)
    assert bytes(engine.asks[0].prompt) == b"[system]be brief[user]hi[assistant]yes[user]why?[answer]"


def test_a_character_that_two_tokens_make_is_sent_whole():
    engine = Script(text="naïve ☃!".encode())
    events = streamed(engine)
    pieces = [choice["delta"]["content"] for event in events[1:-1] for choice in event["choices"]]
    assert "".join(pieces) == "naïve ☃!"
    assert not any("\ufffd" in piece for piece in pieces)
    assert chat(Script(text="naïve ☃!".encode()), max_tokens=3)["choices"][0]["message"]["content"] == "na\ufffd"


def test_a_stop_string_ends_an_answer_before_it_and_nothing_of_it_is_sent():
    engine = Script(text=b"one\n\nUser: two", ends=False)
    events = streamed(engine, stop="\n\nUser:", stream_options={"include_usage": True})
    pieces = [choice["delta"]["content"] for event in events[:-1] for choice in event["choices"]]
    assert "".join(pieces) == "one"
    assert not any("\n" in piece for piece in pieces)
    assert events[-3]["choices"][0]["finish_reason"] == "stop"
    assert engine.finished == [1], "the engine is told, so that it says what the answer took"
    assert events[-2]["usage"]["completion_tokens"] == len("one\n\nUser:")


def test_what_only_began_like_a_stop_string_is_sent_at_the_end():
    assert chat(Script(text=b"one\n\nUs"), stop=["\n\nUser:"])["choices"][0]["message"]["content"] == "one\n\nUs"


def test_the_models_are_the_measured_settings():
    data = get(app_of(Script()), "/v1/models").json()["data"]
    assert [model["id"] for model in data] == [f"{NAME}:{name}" for name in ("k=2", "k=1", "k=1,skip=0", "k=2,p=0.5")]
    assert [model["default"] for model in data] == [True, False, False, False]
    assert data[1]["dial"]["top_k_experts"] == 1
    assert [model["loss"] for model in data] == [2.0] * 4, "as the test's file has it"
    assert data[1]["loss_increase"] == {"mean": 0.010, "low": pytest.approx(0.002), "high": 0.018}
    one = get(app_of(Script()), f"/v1/models/{NAME}:k=1").json()
    assert one == data[1]
    assert get(app_of(Script()), f"/v1/models/{NAME}").json()["dial"] == data[0]["dial"]
    other = get(app_of(Script()), f"/v1/models/{NAME}:skip=1").json()
    assert (other["loss_increase"], other["dial"]["skip_layers"]) == (None, [1])
    by_layer = get(app_of(Script()), f"/v1/models/{NAME}:k=2/1").json()
    assert by_layer["dial"]["top_k_experts"] == [2, 1]
    assert get(app_of(Script()), "/v1/models/huge").status_code == 404


def test_without_measurements_the_models_are_the_usual_settings():
    app = app_of(Script(), measured=UserError("not measured", hint="measure it"))
    data = get(app, "/v1/models").json()["data"]
    assert [model["id"] for model in data] == [f"{NAME}:k=2", f"{NAME}:k=1"]
    assert [model["loss_increase"] for model in data] == [None, None]
    assert all(model["loss_increase_reason"] for model in data)


def test_health_and_metrics_say_what_the_engine_does():
    assert get(app_of(Script()), "/health").json() == {"status": "ok", "model": NAME}
    assert within(app_of(Script()), lambda client: client.head("/health")).status_code == 200
    answer = get(app_of(Script(waiting=5)), "/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert "\nsparsedial_answers_waiting 5\n" in answer.text
    assert "\nsparsedial_prompt_tokens_read_total 100\n" in answer.text
    assert "# TYPE sparsedial_joules_total counter\nsparsedial_joules_total 2.25\n" in answer.text


def test_the_page_is_what_the_server_was_given_or_its_endpoints():
    assert "POST /v1/chat/completions" in get(app_of(Script()), "/").text
    app = app_of(Script(), assets={"": (b"<p>page", "text/html"), "chat.js": (b"//", "text/javascript")})
    assert get(app, "/").text == "<p>page"
    script = get(app, "/chat.js")
    assert (script.text, script.headers["content-type"]) == ("//", "text/javascript; charset=utf-8")
    assert "default-src 'self'" in script.headers["content-security-policy"]
