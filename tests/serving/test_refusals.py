"""What a server does not do is refused by name, in OpenAI's form; who may not come in gets no answer."""

from __future__ import annotations

import json

import pytest

from sparsedial.errors import UserError
from sparsedial.serving import app as server
from sparsedial.serving.asks import Closed
from sparsedial.serving.service import MOST_WAITING
from tests.serving.served import ASKED, NAME, Script, app_of, get, post, streamed

PROMPT = {"prompt": "a"}


@pytest.mark.parametrize(
    ("change", "param", "code", "says"),
    [
        ({"dial": {"top_k_expert": 2}}, "dial.top_k_expert", "unknown_dial_field", "did you mean 'top_k_experts'?"),
        ({"dial": {"setting": "k=9"}}, "dial.setting", "invalid_dial", "k=9 lies outside 1.."),
        ({"dial": {"setting": "kk"}}, "dial.setting", "invalid_dial", "cannot read 'kk'"),
        ({"dial": {"setting": ""}}, "dial.setting", "invalid_dial", "cannot read ''"),
        ({"model": f"{NAME}:"}, "model", "invalid_dial", "cannot read ''"),
        ({"dial": {"top_k_experts": 0}}, "dial.top_k_experts", "invalid_dial", "k=0 lies outside 1.."),
        ({"dial": {"top_k_experts": []}}, "dial.top_k_experts", "invalid_value", "length >= 1"),
        ({"dial": {"top_k_experts": "two"}}, "dial.top_k_experts", "invalid_value", "found text"),
        ({"dial": {"top_p_experts": 1.5}}, "dial.top_p_experts", "invalid_dial", "p=1.5 is not above 0 and at most 1"),
        ({"dial": {"neurons_share": 0.5}}, "dial.neurons_share", "invalid_dial", "every layer has experts"),
        ({"dial": {"skip_layers": [99]}}, "dial.skip_layers", "invalid_dial", "there is no layer 99"),
        ({"dial": {"skip_layers": [-1]}}, "dial.skip_layers[0]", "invalid_value", ">= 0"),
        ({"dial": {"top_k_experts": 1, "max_loss_increase": 0.1}}, "dial.top_k_experts", "invalid_dial", "both choose"),
        ({"dial": {"setting": "k=1", "skip_layers": [0]}}, "dial.skip_layers", "invalid_dial", "both choose"),
        ({"dial": {"max_loss_increase": -1}}, "dial.max_loss_increase", "invalid_value", "expected a number > 0"),
        (
            {"dial": {"at_least_tokens_per_second": 900}},
            "dial.at_least_tokens_per_second",
            "invalid_dial",
            "the nearest is k=1,skip=0 with 80 tokens/s",
        ),
        ({"dial": "k=2"}, "dial", "invalid_value", "found text"),
        ({"model": "gpt"}, "model", "model_not_found", f"this server has {NAME}"),
        ({"model": f"{NAME}:k=9"}, "model", "invalid_dial", "k=9 lies outside 1.."),
        ({"model": f"{NAME}:k=1", "dial": {"setting": "k=1"}}, "dial", "invalid_dial", "both choose"),
        ({"prompt": "a"}, "prompt", "unknown_field", "no field is named 'prompt'; /v1/completions has it"),
        ({"banana": 1}, "banana", "unknown_field", "stream_options, messages, max_completion_tokens"),
        ({"temprature": 1}, "temprature", "unknown_field", "did you mean 'temperature'?"),
        ({"temperature": -1}, "temperature", "invalid_value", "temperature=-1 is below 0"),
        ({"top_p": 0}, "top_p", "invalid_value", "top_p=0 is not above 0 and at most 1"),
        ({"top_k": 0}, "top_k", "invalid_value", "below 1"),
        ({"n": 9}, "n", "invalid_value", "n=9 lies outside 1..8"),
        ({"max_tokens": 0}, "max_tokens", "invalid_value", "below 1"),
        ({"max_completion_tokens": -5}, "max_completion_tokens", "invalid_value", "below 1"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop", "invalid_value", "up to 4"),
        ({"stop": ""}, "stop", "invalid_value", "empty"),
        ({"stream_options": {"usage": True}}, "stream_options.usage", "unknown_field", "include_usage"),
        ({"messages": []}, "messages", "invalid_value", "no messages"),
        ({"messages": None}, "messages", "invalid_value", "the request lacks the field 'messages'"),
        (
            {"messages": [{"role": "tool", "content": "x"}]},
            "messages[0].role",
            "invalid_value",
            "'tool' is not known; known are system, developer, user, assistant",
        ),
        ({"messages": [{"role": "user"}]}, "messages[0].content", "invalid_value", "lacks the field"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "messages[0].content[0].type",
            "invalid_value",
            "'image_url' is not known; known are text",
        ),
        (
            {"messages": [{"role": "user", "content": "a" * 60}]},
            "messages",
            "context_length_exceeded",
            "it may have 64",
        ),
        ({"tools": [{}]}, "tools", "unsupported_parameter", "not built"),
        ({"logprobs": 3}, "logprobs", "invalid_value", "expected true or false"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "invalid_value", "lies outside 0..20"),
        ({"logprobs": True, "top_logprobs": -1}, "top_logprobs", "invalid_value", "lies outside 0..20"),
        ({"top_logprobs": 2}, "top_logprobs", "invalid_value", "needs logprobs"),
        ({"echo": True}, "echo", "unknown_field", "/v1/completions has it"),
        ({"logit_bias": {"256": 1}}, "logit_bias", "invalid_value", "'256' is no id of 0..255"),
        ({"logit_bias": {"-1": 1}}, "logit_bias", "invalid_value", "'-1' is no id"),
        ({"logit_bias": {"5": 101}}, "logit_bias", "invalid_value", "outside -100..100"),
        ({"presence_penalty": 2.5}, "presence_penalty", "invalid_value", "presence_penalty=2.5 lies outside -2..2"),
        ({"frequency_penalty": -3}, "frequency_penalty", "invalid_value", "lies outside -2..2"),
        ({"reasoning_effort": "low"}, "reasoning_effort", "unsupported_parameter", "not built"),
    ],
    ids=json.dumps,
)
def test_a_bad_field_is_named_and_nothing_is_written(change, param, code, says):
    engine = Script()
    answer = post(app_of(engine), body={**ASKED, **change})
    assert answer.status_code == (404 if code == "model_not_found" else 400)
    error = answer.json()["error"]
    assert (error["param"], error["code"], error["type"]) == (param, code, "invalid_request_error")
    assert says in error["message"]
    assert engine.asks == []


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"prompt": []}, "prompt"),
        ({"prompt": ["a", 1]}, "prompt"),
        ({"prompt": [[1], "a"]}, "prompt"),
        ({"prompt": ["a"] * 65}, "prompt"),
        ({"prompt": [-1]}, "prompt"),
        ({"prompt": [[1], [2**40]]}, "prompt"),
        ({"suffix": "b"}, "suffix"),
        ({"logprobs": 21}, "logprobs"),
        ({"logprobs": -1}, "logprobs"),
        ({"logprobs": True}, "logprobs"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"echo": 1}, "echo"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": -1, "echo": True}, "max_tokens"),
        ({"prompt": "a" * 65, "max_tokens": 0, "echo": True}, "prompt"),
        ({"best_of": 3}, "best_of"),
        ({"messages": []}, "messages"),
        ({"prompt": ["a"] * 20, "n": 4}, "n"),
    ],
)
def test_a_bad_field_of_a_completion_is_named(change, param):
    answer = post(app_of(Script()), "completions", {**PROMPT, **change})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


@pytest.mark.parametrize("prompt", [[-1], [2**70], [[65], [-1]]], ids=json.dumps)
def test_ids_that_no_tokenizer_reads_are_refused_by_the_engine(prompt):
    outside = UserError("a token id lies outside 0..255", field="prompt")
    answer = post(app_of(Script(refuses=outside)), "completions", {"prompt": prompt})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "prompt")


def test_a_server_that_is_closing_does_not_blame_the_request():
    answer = post(app_of(Script(refuses=Closed())))
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "engine_failed")


def test_values_that_ask_for_nothing_are_no_fault():
    nothing = {"suffix": "", "echo": False, "best_of": 1, "logprobs": None, "frequency_penalty": 0.0, "logit_bias": {}}
    nothing |= {"tool_choice": "auto", "tools": [], "response_format": {"type": "text"}}
    assert post(app_of(Script()), "completions", {**PROMPT, **nothing, "user": "me"}).status_code == 200


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b'{"a":' * 5000, b'"x"'])
def test_a_body_that_is_no_json_object_is_refused(body):
    answer = post(app_of(Script()), body=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_json")


def test_a_request_without_a_body_or_by_another_method_is_told_what_is_taken():
    assert "has no body" in post(app_of(Script()), body=b"").json()["error"]["message"]
    answer = get(app_of(Script()), "/v1/completions")
    assert answer.status_code == 405
    assert answer.json()["error"]["message"].endswith("no such endpoint; this address takes POST")


def test_an_id_beyond_the_vocabulary_is_named():
    error = post(app_of(Script()), "completions", {"prompt": [3, 256]}).json()["error"]
    assert error["message"] == "prompt: id 256 lies outside 0..255"


def test_a_budget_needs_measurements_and_the_error_says_how_they_are_made():
    app = app_of(Script(), measured=UserError("no such file", hint="`sparsedial dial tiny --measure` makes it"))
    error = post(app, body={**ASKED, "dial": {"max_loss_increase": 0.01}}).json()["error"]
    assert (error["code"], error["param"]) == ("dial_not_measured", "dial.max_loss_increase")
    assert "`sparsedial dial tiny --measure` makes it" in error["message"]
    assert post(app, body={**ASKED, "dial": {"top_k_experts": 1}}).status_code == 200


@pytest.mark.parametrize(
    ("dial", "setting", "reason"),
    [
        ({"at_least_tokens_per_second": 25}, "k=1", "lowest loss that keeps at least 25 tokens/s"),
        ({"at_most_joules_per_100_tokens": 2}, "k=1,skip=0", "lowest loss that keeps at most 2 J per 100 tokens"),
        ({"max_loss_increase": 0.01}, "k=1", "cheapest that keeps loss_increase ≤ 1 %"),
        ({"top_k_experts": 1, "skip_layers": [0]}, "k=1,skip=0", "asked"),
        ({"top_p_experts": 0.5}, "k=2,p=0.5", "asked"),
        ({}, "k=2", "default"),
        (None, "k=2", "default"),
    ],
)
def test_a_dial_becomes_one_setting_with_the_reason(dial, setting, reason):
    used = post(app_of(Script()), body={**ASKED, "dial": dial}).json()["usage"]["dial"]
    assert (used["setting"], used["setting_reason"]) == (setting, reason)


@pytest.mark.parametrize(
    ("field", "param"), [("prompt", "messages"), ("tokens", "max_tokens"), ("setting", "dial"), (None, None)]
)
def test_what_the_engine_does_not_take_is_about_a_field_of_the_request(field, param):
    answer = post(app_of(Script(refuses=UserError("it cannot", hint="so", field=field))))
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
    assert answer.json()["error"]["message"].endswith("it cannot; so")


def test_a_checkpoint_without_a_template_continues_texts_only():
    app = app_of(Script(), template=None)
    assert post(app).json()["error"]["code"] == "no_chat_template"
    assert post(app, "completions", PROMPT).status_code == 200
    failing = app_of(Script(), template="{{ raise_exception('no system message') }}")
    assert "no system message" in post(failing).json()["error"]["message"]


def test_too_many_that_wait_are_sent_away_for_a_while():
    answer = post(app_of(Script(waiting=MOST_WAITING)))
    assert answer.status_code == 429
    assert int(answer.headers["retry-after"]) > 0
    assert answer.json()["error"]["type"] == "rate_limit_error"
    assert post(app_of(Script(waiting=MOST_WAITING - 1))).status_code == 200


def test_a_body_beyond_the_limit_is_refused(monkeypatch):
    monkeypatch.setattr(server, "MOST_BODY", 1000)
    assert post(app_of(Script()), body={**ASKED, "user": "a" * 1000}).status_code == 413
    assert post(app_of(Script()), body={**ASKED, "user": "a" * 800}).status_code == 200


def test_a_failure_of_the_engine_is_an_error_and_within_a_stream_its_last_event():
    answer = post(app_of(Script(problem="logits are not numbers")))
    assert (answer.status_code, answer.json()["error"]["type"]) == (500, "server_error")
    events = streamed(Script(problem="logits are not numbers"))
    assert "logits are not numbers" in events[-1]["error"]["message"]


def test_what_is_not_there_is_said_in_the_same_form():
    for path in ("/v1/embeddings", "/nowhere"):
        answer = get(app_of(Script()), path)
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "no_such_endpoint")
    wrong = get(app_of(Script()), "/v1/completions")
    assert (wrong.status_code, wrong.headers.get("allow")) == (405, "POST")


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example:8000", "localhost.evil.example", "", "[::1", "a@b"]
)
def test_a_name_of_another_site_that_leads_here_gets_no_answer(host):
    answer = post(app_of(Script()), host=host)
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "foreign_host")


def test_names_of_this_machine_are_let_in_and_any_name_where_others_may_come():
    for host in ("localhost:9000", "127.0.0.1", "[::1]:8000", "LOCALHOST", "127.0.1.1:8000"):
        assert post(app_of(Script()), host=host).status_code == 200
    assert post(app_of(Script(), loopback=False), host="box.lan:8000").status_code == 200


def test_a_page_of_another_site_gets_no_answer():
    app = app_of(Script())
    assert post(app, origin="https://evil.example").json()["error"]["code"] == "foreign_origin"
    assert post(app, origin="null").status_code == 403
    assert post(app, origin="http://127.0.0.1:8000").status_code == 200


def test_a_key_is_asked_for_everywhere_but_for_the_page_and_health():
    app = app_of(Script(), key="secret", assets={"chat.js": (b"//", "text/javascript")})
    for header in ({}, {"authorization": "Bearer wrong"}, {"authorization": "Basic secret"}):
        assert post(app, **header).json()["error"]["code"] == "invalid_api_key"
        assert get(app, "/v1/models", **header).status_code == 401
        assert get(app, "/metrics", **header).status_code == 401
        assert get(app, "/health", **header).status_code == 200
        assert get(app, "/chat.js", **header).status_code == 200
    assert post(app, authorization="Bearer secret", host="box.lan").status_code == 200
