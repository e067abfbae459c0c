"""Ids stand for all of the text, their bytes add up, and other tools read the same tokenizer."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from sparsedial.errors import UserError
from sparsedial.text.tokenizer import Tokenizer, bpe_size, byte_tokenizer, load_tokenizer, train_bpe

HARD = [
    "plain words, and more words\n\n\tindented  twice   thrice",
    "été 文字 🙂 e\u0301 \u00a0 \u2028 \x01\x7f",
    "a text that spells out <|endoftext|> </s> and goes on",
    " leading and trailing ",
    "x",
]


@pytest.fixture(scope="module")
def bpe() -> Tokenizer:
    return train_bpe([text.encode() * 5 for text in HARD], 400)


@pytest.fixture(params=["bytes", "bpe"])
def tokenizer(request: pytest.FixtureRequest, bpe: Tokenizer) -> Tokenizer:
    return byte_tokenizer() if request.param == "bytes" else bpe


@pytest.mark.parametrize("text", HARD)
def test_decoding_gives_back_every_text_and_the_lengths_add_up(tokenizer: Tokenizer, text: str) -> None:
    data = text.encode()
    ids, lengths = tokenizer.encode_with_lengths(data)
    assert np.array_equal(ids, tokenizer.encode(data))
    assert tokenizer.decode(ids) == text
    assert tokenizer.keeps(data, ids)
    assert len(ids) == len(lengths)
    assert lengths.sum() == len(data)
    assert ids.max() < tokenizer.vocab_size
    assert tokenizer.end_token not in ids


def test_the_lengths_of_a_bpe_are_the_bytes_of_each_token(bpe: Tokenizer) -> None:
    data = "été models 文".encode()
    ids, lengths = bpe.encode_with_lengths(data)
    ends = np.cumsum(lengths)
    for number in range(1, len(ids)):
        assert bpe.backend.decode(ids[:number].tolist()) == data[: ends[number - 1]].decode(errors="replace")


def test_byte_ids_are_the_bytes() -> None:
    assert byte_tokenizer().encode("é".encode()).tolist() == [0xC3, 0xA9]
    assert byte_tokenizer().decode([104, 105, 0, 255]) == "hi\ufffd"
    assert byte_tokenizer().decode([104, 256, 105, 1023]) == "hi"


def test_a_bpe_has_the_size_asked_for_where_the_text_allows_and_is_the_same_each_time(bpe: Tokenizer) -> None:
    texts = [text.encode() * 5 for text in HARD]
    assert train_bpe(texts, 300).vocab_size == 300
    assert train_bpe(texts, 400).digest == bpe.digest != train_bpe(texts, 300).digest
    assert train_bpe([b"ab"], 5000).vocab_size < 300
    assert len(bpe.encode(b"words, and more words")) < 21


def test_a_saved_tokenizer_loads_as_itself(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert loaded == tokenizer
    assert loaded.encode(b"some words").tolist() == tokenizer.encode(b"some words").tolist()


def test_transformers_reads_the_same_tokenizer_even_beside_a_model_config(tokenizer: Tokenizer, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    tokenizer.save(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen3"}))
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert theirs.eos_token_id == tokenizer.end_token
    assert len(theirs) == tokenizer.vocab_size
    for text in HARD:
        if "<|endoftext|>" in text:
            continue  # there a text may spell special tokens on purpose; in a corpus it may not
        ids = theirs(text, add_special_tokens=False)["input_ids"]
        assert ids == tokenizer.encode(text.encode()).tolist()
        assert theirs.decode(ids) == text


def test_a_published_tokenizer_is_read_and_its_bytes_add_up(shared_data: Path, tmp_path: Path) -> None:
    olmo = load_tokenizer(shared_data / "tokenizers" / "olmo_gpt_neox" / "tokenizer.json.gz")
    for text in HARD:
        ids, lengths = olmo.encode_with_lengths(text.encode())
        assert lengths.sum() == len(text.encode())  # e + accent is one character after its normalisation
        assert olmo.keeps(text.encode(), ids)
        assert olmo.end_token not in ids
    assert olmo.dtype == np.uint16
    olmo.save(tmp_path)
    assert load_tokenizer(tmp_path).digest == olmo.digest


def word_level(folder: Path, **changes: object) -> Path:
    import tokenizers

    made = tokenizers.Tokenizer(tokenizers.models.WordLevel({"</s>": 0, "?": 1, "one": 2, "two": 3}, unk_token="?"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    content = {**json.loads(made.to_str()), **changes}
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(content))
    return path


def test_a_tokenizer_that_loses_text_is_noticed_and_still_covers_every_byte(tmp_path: Path) -> None:
    words = load_tokenizer(word_level(tmp_path))
    data = "one  été two ".encode()
    ids, lengths = words.encode_with_lengths(data)
    assert ids.tolist() == [2, 1, 3]
    assert lengths.tolist() == [3, 7, 5]
    assert not words.keeps(data, ids)


@pytest.mark.parametrize("setting", ["bpe", "bpe:", "bpe:12", "bpe:4e3", "bpe:-5"])
def test_a_bpe_setting_without_a_usable_size_is_refused(setting: str) -> None:
    with pytest.raises(UserError, match=f"tokenizer: cannot read '{setting}'"):
        bpe_size(setting)


def test_bpe_sizes_are_read_and_other_settings_left_alone() -> None:
    assert bpe_size("bpe:4096") == 4096
    assert bpe_size("bpe:4k") == 4000
    assert bpe_size("bytes") is None


def test_what_is_no_tokenizer_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    with pytest.raises(UserError, match="no such file"):
        load_tokenizer(path)
    for content, problem in (
        ("{", "not readable as JSON"),
        ("[]", "not a JSON object"),
        ('{"a": 1}', "not a tokenizer"),
    ):
        path.write_text(content)
        with pytest.raises(UserError, match=problem):
            load_tokenizer(path)
    (tmp_path / "x.json.gz").write_bytes(gzip.compress(b"{}" * 99)[:-9])
    with pytest.raises(UserError, match="not readable"):
        load_tokenizer(tmp_path / "x.json.gz")


def test_a_tokenizer_without_an_end_token_is_refused_until_its_settings_name_one(tmp_path: Path) -> None:
    import tokenizers

    made = tokenizers.Tokenizer(tokenizers.models.WordLevel({"stop": 0, "one": 1}, unk_token="stop"))
    made.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(UserError, match="no token that ends a document"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": {"content": "stop"}}')
    assert load_tokenizer(tmp_path).end_token == 0
    shutil.rmtree(tmp_path)
