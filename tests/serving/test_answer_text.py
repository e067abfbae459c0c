"""Each token's log-probability is sent with the text that it belongs to, however that is cut, held back or cut off."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from sparsedial.serving.answer_text import AnswerText, Before, Ended, Event, PromptScores, Token
from sparsedial.serving.asks import Scored
from sparsedial.serving.entries import Entry, places_of
from sparsedial.text.token_bytes import TokenBytes
from sparsedial.text.tokenizer import END, Tokenizer, byte_tokenizer, load_tokenizer, train_bpe
from tests.serving.served import SPENT
from tests.text.sentencepiece import write_tokenizer

BYTES = byte_tokenizer()


def scored(token: int) -> Scored:
    return Scored(token=token, logprob=-1.0 - token, top=((token, -1.0 - token),))


def heard(
    text: str,
    stops: tuple[str, ...] = (),
    before: str = "",
    tokenizer: Tokenizer = BYTES,
    end_token: int | None = None,
    echo: bool = False,
) -> list[tuple[str, list[Entry]]]:
    """The pieces of an answer that the model writes token by token, until a stop string is complete."""
    prompt, ids = (tokenizer.encode(each.encode()).tolist() for each in (before, text))
    answer = AnswerText(tokenizer, prompt, Before(text=before, echo=echo), stops, TokenBytes(tokenizer))
    end = Ended(reason="stop", spent=SPENT, problem=None, end_token=None if end_token is None else scored(end_token))
    events: list[Event] = [PromptScores([scored(token) for token in prompt[1:]])] if echo else []
    return [answer.hear(event) for event in (*events, *(Token(token, scored(token)) for token in ids), end)]


def test_a_character_of_several_tokens_has_their_entries_in_its_piece():
    pieces = heard("a☃b")
    assert [text for text, _ in pieces] == ["a", "", "", "☃", "b", ""]
    assert [[entry.data for entry in entries] for _, entries in pieces] == [
        [b"a"], [], [], [b"\xe2", b"\x98", b"\x83"], [b"b"], [],
    ]  # fmt: skip
    assert [entry.offset for _, entries in pieces for entry in entries] == [0, 1, 1, 1, 2]


def test_what_a_stop_string_cuts_off_has_no_entries_and_what_is_held_back_sends_them_later():
    pieces = heard("one\n\nUs\n\nUser: two", ("\n\nUser:",))
    assert "".join(text for text, _ in pieces) == "one\n\nUs"
    assert b"".join(entry.data for _, entries in pieces for entry in entries) == b"one\n\nUs"
    assert [(text, len(entries)) for text, entries in pieces][:9] == [
        ("o", 1), ("n", 1), ("e", 1), ("", 0), ("", 0), ("", 0), ("", 0), ("\n\nUs", 4), ("", 0),
    ]  # fmt: skip


def test_a_token_of_which_a_stop_string_leaves_some_letters_keeps_its_entry():
    tokenizer = train_bpe([b"abcabcabcabc" * 9], 262)
    ids = tokenizer.encode(b"abcabc").tolist()
    assert len(ids) < 6, "a token has several letters"
    pieces = heard("abcabc", ("b",), tokenizer=tokenizer)
    assert "".join(text for text, _ in pieces) == "a"
    (entry,) = [entry for _, entries in pieces for entry in entries]
    assert (entry.logprob, entry.offset) == (-1.0 - ids[0], 0)


def test_the_token_that_ends_a_text_is_marked_and_left_out_where_a_stop_string_ends_it():
    (*_, (text, (entry,))) = heard("ab", end_token=0)
    assert (text, entry.data, entry.ends, entry.offset) == ("", END.encode(), True, 2)
    stopped = [entry for _, entries in heard("ab", ("b",), end_token=0) for entry in entries]
    assert [entry.data for entry in stopped] == [b"a"]


def test_a_repeated_prompt_comes_first_and_stop_strings_are_not_looked_for_in_it():
    (before, first), (text, entries), *_ = heard("dé", ("b",), before="abé", echo=True)[1:]
    assert (before, text) == ("abéd", "")
    assert [(entry.data, entry.offset) for entry in first] == [
        (b"a", 0), (b"b", 1), (b"\xc3", 2), (b"\xa9", 2), (b"d", 3),
    ]  # fmt: skip
    assert [entry.logprob for entry in first] == [None, *(-1.0 - byte for byte in "bé".encode()), -1.0 - ord("d")]
    assert entries == []


def test_without_repeating_it_the_prompt_counts_in_the_offsets():
    assert [entry.offset for _, entries in heard("xy", before="abé") for entry in entries] == [3, 4]


@pytest.mark.parametrize("seed", range(40))
def test_entries_come_in_order_each_with_the_first_letter_of_its_text(seed: int):
    draw = random.Random(seed)
    text = "".join(draw.choices("ab\né☃", k=40))
    stops = tuple("".join(draw.choices("ab\né", k=draw.randint(2, 6))) for _ in range(draw.randint(0, 3)))
    said, all_entries = "", list[Entry]()
    for piece, entries in heard(text, stops):
        for entry in entries:
            assert len(said) <= entry.offset < len(said + piece)
        said += piece
        all_entries += entries
    assert text.startswith(said)
    assert b"".join(entry.data for entry in all_entries) == said.encode()


@pytest.mark.parametrize("kind", ["metaspace", "sequence"])
def test_tokens_of_a_prompt_have_their_places_though_its_first_space_and_special_tokens_are_no_text(
    kind: str, tmp_path: Path
):
    tokenizer = load_tokenizer(write_tokenizer(tmp_path, kind))
    words, text = TokenBytes(tokenizer), "the cat sat"
    ids = [1, *tokenizer.encode(text.encode()).tolist()]
    assert list(places_of(text, ids, words)) == [0, 0, 3, 7]
    assert list(places_of("<s>" + text, ids, words))[:2] == [0, 3]
    assert list(places_of(text, [*ids, 2], words))[-1] == len(text)
