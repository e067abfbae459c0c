"""Answers in a form that a request asks for: every one keeps to it, and the others do not notice."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer as Backend
from tokenizers.models import BPE

from sparsedial.errors import UserError
from sparsedial.model.greedy import Vocabulary
from sparsedial.serving.drawing import draw_each, draws_of
from sparsedial.serving.guide import Guide, Guides
from sparsedial.serving.sampling import Sampling
from sparsedial.text.token_bytes import TokenBytes
from sparsedial.text.tokenizer import END, Tokenizer, byte_tokenizer, train_bpe
from tests.model.shapes import FAMILIES, shaken
from tests.serving.answering import GREEDY, Heard, alone, asked, engine_of
from tests.serving.served import ASKED, Script, app_of, chat, post, streamed

pytest.importorskip("llguidance", reason="it is part of the extra `serve`")

BYTES = byte_tokenizer()
ENDS = frozenset({BYTES.end_token, 7})  # as of checkpoints that may end a text in two ways
PLACE = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 5},
        "rank": {"type": "integer", "minimum": -9, "maximum": 99},
        "kind": {"enum": ["sea", None]},
    },
    "required": ["name", "rank", "kind"],
    "additionalProperties": False,
}
FORM = {"type": "json_schema", "json_schema": {"name": "place", "schema": PLACE, "strict": True}}


def guide_of(schema: dict[str, Any], tokenizer: Tokenizer = BYTES, more: int = 0) -> Guide:
    """A guide for answers of a model whose vocabulary has some ids more than its tokenizer."""
    words, vocab_size = TokenBytes(tokenizer), tokenizer.vocab_size + more
    ends = ENDS if tokenizer is BYTES else {tokenizer.end_token}
    return Guides(tokenizer, words, Vocabulary(ends=frozenset(ends)), vocab_size).json(schema)


def written(guide: Guide, vocab_size: int, ends: frozenset[int], seed: int, most: int = 400) -> list[int]:
    """What is drawn from noise, with a guide, until an end token."""
    draws, noise = draws_of(Sampling(temperature=1.0, seed=seed), guide), torch.Generator().manual_seed(seed)
    ids: list[int] = []
    while len(ids) < most:
        (token,) = draw_each(3 * torch.randn(1, vocab_size, generator=noise), [draws])
        if isinstance(token, Exception):
            raise token
        if token in ends:
            return ids
        ids.append(token)
    raise AssertionError(f"no end after {most} tokens")


def keeps(text: str) -> bool:
    place = json.loads(text)
    assert re.fullmatch(r'\{"name": ".*", "rank": -?\d+, "kind": (null|"sea")\}', text), "as json.dumps writes it"
    return len(place["name"]) <= 5 and -9 <= place["rank"] <= 99 and place["kind"] in ("sea", None)


def test_whatever_the_model_says_the_answer_keeps_to_its_schema():
    places = [bytes(written(guide_of(PLACE), 256, ENDS, seed)).decode() for seed in range(20)]
    assert all(keeps(text) for text in places)
    assert {json.loads(text)["kind"] for text in places} == {"sea", None}
    assert len(set(places)) == 20


@pytest.mark.parametrize("more", [0, 9])
def test_tokens_of_several_characters_and_ids_that_are_no_tokens(more):
    tokenizer = train_bpe([b'{"name": "abc", "rank": 12, "kind": null} ' * 9], 290)
    ends, seen = frozenset({tokenizer.end_token}), set[int]()
    for seed in range(20):
        ids = written(guide_of(PLACE, tokenizer, more), tokenizer.vocab_size + more, ends, seed)
        assert keeps(tokenizer.decode(ids))
        seen |= set(ids)
    assert max(seen) < tokenizer.vocab_size
    assert {len(TokenBytes(tokenizer)[token]) for token in seen} > {1, 2}


def test_an_answer_may_end_by_any_end_token_where_its_form_is_complete_and_nowhere_else():
    guide, logits_V = guide_of({"enum": ["a", "ab"]}), torch.zeros(256)

    def allowed() -> set[int]:
        return set(guide.allowed(logits_V).isfinite().nonzero().flatten().tolist())

    for byte, before in zip(b'"a"', [b'"', b"a", b'"b'], strict=True):
        assert allowed() == set(before)
        guide.wrote(byte)
    assert allowed() == ENDS
    assert logits_V.isfinite().all(), "the logits of the model stay what they are"
    with pytest.raises(UserError, match="the form cannot be kept: "):
        guide.wrote(ord("x"))


def test_penalties_and_the_bias_count_within_the_form():
    draws = draws_of(replace(GREEDY, logit_bias=((ord("b"), 9.0),)), guide_of({"enum": ["a", "b"]}))
    assert bytes(draw_each(torch.zeros(1, 256), [draws])[0] for _ in range(3)) == b'"b"'


def test_where_no_token_goes_on_the_answer_fails_and_says_so():
    few = Tokenizer(
        name="few", vocab_size=3, end_token=2, digest="", backend=Backend(BPE({"a": 0, "b": 1, END: 2}, []))
    )
    draws = draws_of(GREEDY, guide_of({"type": "object"}, few))
    (error,) = draw_each(torch.zeros(1, 3), [draws])
    assert isinstance(error, UserError)
    assert "no token of this checkpoint's vocabulary goes on" in error.problem


def test_a_checkpoint_without_an_end_token_cannot_end_a_form():
    with pytest.raises(UserError, match="has no end token"):
        Guides(BYTES, TokenBytes(BYTES), Vocabulary(ends=frozenset({256})), 256).json(PLACE)


def test_answers_with_and_without_a_form_are_written_together():
    model = shaken(replace(FAMILIES["qwen3_moe"], context=128, vocab_size=256))
    vocabulary = Vocabulary(ends=ENDS)
    plain = [asked([65, 66, 67 + row], 60, setting, GREEDY) for row, setting in enumerate(("default", "k=1"))]
    formed = [replace(ask, guide=guide_of(PLACE)) for ask in plain]
    with engine_of(model, slots=4, vocabulary=vocabulary) as engine:
        heard = [Heard() for _ in plain + formed]
        for ask, one in zip(plain + formed, heard, strict=True):
            engine.ask(ask, one)
        tokens = [one.wait() for one in heard]
    assert tokens[:2] == [alone(model, ask, 128, vocabulary) for ask in plain]
    assert all(keeps(bytes(ids).decode()) for ids in tokens[2:])
    assert [one.reason for one in heard[2:]] == ["stop", "stop"]


def test_log_probabilities_are_those_of_the_model_without_the_form():
    model = shaken(replace(FAMILIES["qwen3_moe"], context=128, vocab_size=256))
    with engine_of(model, vocabulary=Vocabulary(ends=ENDS)) as engine:
        engine.ask(replace(asked([65], 3), guide=guide_of(PLACE), top=1), heard := Heard())
        heard.wait()
    (likeliest, logprob), *_ = heard.scores[0].top
    assert heard.scores[0].token == ord("{") != likeliest
    assert heard.scores[0].logprob < logprob < 0


@pytest.mark.parametrize("path", ["chat/completions", "completions"])
def test_each_answer_to_a_request_has_a_guide_of_its_own(path):
    engine, body = Script(), {"prompt": "a"} if path == "completions" else ASKED
    assert post(app_of(engine), path, {**body, "n": 2, "response_format": FORM}).status_code == 200
    first, second = (ask.guide for ask in engine.asks)
    assert first is not None
    assert second is not None
    for guide in (first, second):  # each is at its beginning
        assert keeps(bytes(written(guide, 256, ENDS, seed=1)).decode())


def test_a_null_in_a_schema_is_a_value():
    engine, nothing = Script(), {"type": "json_schema", "json_schema": {"schema": {"const": None}, "name": None}}
    chat(engine, response_format=nothing)
    guide = engine.asks[0].guide
    assert guide is not None
    assert bytes(written(guide, 256, ENDS, seed=0)) == b"null"


def test_a_special_token_does_not_stand_for_its_name_nor_its_name_for_it():
    """A reader of the ids would miss a part of the text, or the text would end within it."""
    tokenizer = train_bpe([b"abc " * 9], 290)
    tokenizer.backend.add_special_tokens(["tool"])
    tokenizer = replace(tokenizer, vocab_size=tokenizer.vocab_size + 1)
    special, (quote,) = tokenizer.backend.token_to_id("tool"), tokenizer.encode(b'"').tolist()
    guide = guide_of({"type": "string"}, tokenizer)
    guide.wrote(quote)
    assert not guide.allowed(torch.zeros(tokenizer.vocab_size))[special].isfinite()
    ids = written(
        guide_of({"enum": [f"a {END}"]}, tokenizer), tokenizer.vocab_size, frozenset({tokenizer.end_token}), 0
    )
    assert tokenizer.decode(ids) == f'"a {END}"'


def test_any_object_will_do_where_no_schema_is_given():
    engine = Script()
    streamed(engine, response_format={"type": "json_object"})
    (ask,) = engine.asks
    assert ask.guide is not None
    ask.guide.wrote(ord("{"))
    assert ask.guide.allowed(torch.zeros(256)).isfinite().nonzero().flatten().tolist() == sorted(b'"}')


@pytest.mark.parametrize("form", [None, {"type": "text"}])
def test_without_a_form_there_is_no_guide(form):
    engine = Script()
    chat(engine, response_format=form)
    assert engine.asks[0].guide is None


@pytest.mark.parametrize(
    ("form", "param", "says"),
    [
        ({"type": "xml"}, "type", "'xml' is not known; known are text, json_object, json_schema"),
        ({"type": "json_schema"}, "json_schema", "json_schema is given with the type json_schema"),
        ({"type": "json_object", "json_schema": {"schema": {}}}, "json_schema", "and with no other"),
        ({"type": "json_schema", "json_schema": {"name": "a"}}, "json_schema.schema", "lacks the field"),
        ({"type": "json_schema", "json_schema": {"schema": {"type": "object"}}, "stirct": True}, "stirct", "no field"),
        (
            {"type": "json_schema", "json_schema": {"schema": {"type": "objekt"}}},
            "json_schema.schema",
            "cannot be kept to: Invalid type: objekt",
        ),
        (
            {"type": "json_schema", "json_schema": {"schema": {"pattern": "(?<=a)b", "type": "string"}}},
            "json_schema.schema",
            "regex parse error: (?<=a)b error: look-around, including look-ahead and look-behind, is not supported",
        ),
        (
            {"type": "json_schema", "json_schema": {"schema": {"type": "array", "uniqueItems": True}}},
            "json_schema.schema",
            'Unimplemented keys: ["uniqueItems"]',
        ),
    ],
)
def test_a_form_that_cannot_be_kept_is_refused_before_anything_is_written(form, param, says):
    engine = Script()
    answer = post(app_of(engine), body={**ASKED, "response_format": form})
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, f"response_format.{param}"), error
    assert says in error["message"]
    assert "\n" not in error["message"]
    assert engine.asks == []


def test_a_server_without_the_library_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "llguidance", None)
    error = post(app_of(Script()), body={**ASKED, "response_format": {"type": "json_object"}}).json()["error"]
    assert (error["param"], error["code"]) == ("response_format", "unsupported_parameter")
    assert "pip install 'sparsedial[serve]'" in error["message"]


def test_openais_client_sends_a_class_as_the_form():
    openai = pytest.importorskip("openai", reason="OpenAI's client is not installed: pip install openai")
    pydantic = pytest.importorskip("pydantic")
    from tests.serving.test_openai_client import CHAT
    from tests.serving.test_openai_client import asked as asked_by_client

    class Place(pydantic.BaseModel):
        name: str
        rank: int

    engine = Script(text=b'{"name": "Como", "rank": 3}')
    answer = asked_by_client(engine, lambda client: client.chat.completions.parse(**CHAT, response_format=Place))
    assert answer.choices[0].message.parsed == Place(name="Como", rank=3)
    assert engine.asks[0].guide is not None
    assert openai is not None
