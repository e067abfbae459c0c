"""A prepared text is whole, split by document, found again, and never believed when damaged."""

from __future__ import annotations

import errno
import gzip
import itertools
import json
import os
import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sparsedial import store
from sparsedial.errors import UserError
from sparsedial.text import documents, shards, splits
from sparsedial.text.prepare import Text, open_text, prepare
from sparsedial.text.splits import SPLITS

from .conftest import prose

Write = Callable[..., Path]


def texts_of(text: Text, split: str) -> list[str]:
    """The documents of a split, read back from its tokens."""
    tokens = np.asarray(text.tokens(split))
    ends = np.flatnonzero(tokens == text.tokenizer.end_token)
    return [text.tokenizer.decode(tokens[start + 1 : end]) for start, end in itertools.pairwise(ends)]


@pytest.mark.parametrize("tokenizer", ["bytes", "bpe:300"])
def test_every_document_stands_whole_in_exactly_one_split(many: Path, tmp_path: Path, tokenizer: str) -> None:
    text = prepare((str(many),), tokenizer=tokenizer, folder=tmp_path / "text")
    found = [document for split in SPLITS for document in texts_of(text, split)]
    originals = [path.read_text() for path in many.rglob("*.txt")]
    assert sorted(found) == sorted(originals)
    assert text.documents == 60
    assert sum(map(text.bytes, SPLITS)) == sum(len(one.encode()) for one in originals)
    for split in SPLITS:
        assert text.tokens(split)[0] == text.tokens(split)[-1] == text.tokenizer.end_token
        assert text.bytes(split) == sum(len(one.encode()) for one in texts_of(text, split))
    assert text.bytes("train") > 0.85 * sum(map(text.bytes, SPLITS))


def test_the_digest_names_the_content_and_not_the_place(many: Path, tmp_path: Path, folder_of: Write) -> None:
    first = prepare((str(many),), folder=tmp_path / "one")
    moved = many.rename(tmp_path / "elsewhere")
    packed = moved / "part0" / "00.txt"
    (moved / "part0" / "00.txt.gz").write_bytes(gzip.compress(packed.read_bytes()))
    packed.unlink()
    assert prepare((str(moved),), folder=tmp_path / "two").digest == first.digest
    (moved / "part1" / "01.txt").write_text("another text")
    assert prepare((str(moved),), folder=tmp_path / "two").digest != first.digest


def test_one_file_is_cut_into_at_least_twenty_documents(tmp_path: Path) -> None:
    (tmp_path / "book.txt").write_text(prose(3, 400))
    text = prepare((str(tmp_path / "book.txt"),), folder=tmp_path / "text")
    assert text.documents >= 20
    assert text.summary().split_by == "part of a document"
    assert min(len(texts_of(text, split)) for split in ("validation", "test")) >= 1
    parts = [part for split in SPLITS for part in texts_of(text, split)]
    book = (tmp_path / "book.txt").read_text()
    assert "".join(sorted(parts, key=book.index)) == book


def test_files_that_are_too_large_to_be_held_out_whole_are_cut(
    folder_of: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(splits, "HELD_OUT_MOST_BYTES", 2048)  # each file has more, and is less than a twentieth
    text = prepare((str(folder_of({f"{number:02}.txt": prose(number, 30) for number in range(40)})),), folder=tmp_path)
    assert text.summary().split_by == "part of a document"
    for split in ("validation", "test"):
        assert 0.9 * 2048 <= text.bytes(split) <= 1.1 * 2048


def test_copies_of_train_documents_do_not_judge(folder_of: Write, tmp_path: Path) -> None:
    texts = {f"{number:02}.txt": prose(number, 15) for number in range(60)}
    copies = {f"copy{name}": texts[name].replace("\n\n", "\n \n") for name in list(texts)[::2]}
    text = prepare((str(folder_of({**texts, **copies})),), folder=tmp_path / "text")
    train = {" ".join(one.split()) for one in texts_of(text, "train")}
    for split in ("validation", "test"):
        assert not train & {" ".join(one.split()) for one in texts_of(text, split)}
    assert text.summary().duplicates_removed.total == 90 - text.documents > 0
    assert text.summary().duplicates_in_train > 15


def test_overlap_that_no_duplicate_explains_is_measured(folder_of: Write, tmp_path: Path) -> None:
    preamble = "".join(prose(999, 8))
    apart = {f"{number:02}.txt": prose(number, 10) for number in range(60)}
    clean = prepare((str(folder_of(apart, "clean")),), folder=tmp_path / "a").overlap
    stained = prepare(
        (str(folder_of({name: preamble + text for name, text in apart.items()}, "stained")),), folder=tmp_path / "b"
    ).overlap
    assert clean.validation == clean.test == 0
    share = len(preamble.encode()) / np.mean([len((preamble + text).encode()) for text in apart.values()])
    for pair in ("validation", "test", "test_in_validation"):
        assert stained[pair] == pytest.approx(share, abs=0.1)


def test_preparing_again_finds_the_text_and_writes_nothing(many: Path, tmp_path: Path) -> None:
    first = prepare((str(many),), folder=tmp_path / "text")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "text").rglob("*")}
    assert prepare((str(many),), folder=tmp_path / "text").digest == first.digest
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "text").rglob("*")} == before
    assert prepare((str(many),), tokenizer="bpe:300", folder=tmp_path / "text").digest != first.digest


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A book and the text made of it."""
    folder = tmp_path_factory.mktemp("prepared")
    (folder / "book.txt").write_text(prose(7, 40))
    prepare((str(folder / "book.txt"),), tokenizer="bpe:260", folder=folder / "text")
    return folder


@pytest.mark.parametrize(
    "file",
    ["train.bin", "validation.bin", "test.lengths.bin", "documents.parquet", "tokenizer/tokenizer.json", "text.json"],
)
@pytest.mark.parametrize("damage", ["cut", "edited", "removed"])
def test_a_damaged_shard_is_named_and_made_again(prepared: Path, tmp_path: Path, file: str, damage: str) -> None:
    whole = open_text(prepared / "text")
    shutil.copytree(prepared / "text", tmp_path / "text")
    path = tmp_path / "text" / file
    data = bytearray(path.read_bytes())
    if damage == "cut":
        path.write_bytes(data[:-5])
    elif damage == "edited":
        path.write_bytes(data.replace(b"260", b"261") if path.suffix == ".json" and b"260" in data else data[::-1])
    else:
        path.unlink()
    with pytest.raises(UserError, match=file.split("/")[0].replace(".", r"\.")):
        open_text(tmp_path / "text")
    again = prepare((str(prepared / "book.txt"),), tokenizer="bpe:260", folder=tmp_path / "text")
    assert again.digest == whole.digest
    assert open_text(tmp_path / "text").digest == whole.digest


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda facts: facts.pop("overlap"), "lacks the field 'overlap'"),
        (lambda facts: facts["splits"].pop("test"), "lacks the field 'splits.test'"),
        (lambda facts: facts["splits"]["train"].update(tokens="many"), "splits.train.tokens: expected a whole number"),
        (lambda facts: facts.update(kind="study"), "kind: "),
    ],
)
def test_a_text_json_of_other_fields_is_named_and_made_again(
    prepared: Path, tmp_path: Path, change: Callable[[dict], object], says: str
) -> None:
    shutil.copytree(prepared / "text", tmp_path / "text")
    facts = store.read_json(tmp_path / "text" / "text.json")
    change(facts)
    store.write_json(tmp_path / "text" / "text.json", facts)
    with pytest.raises(UserError) as error:
        open_text(tmp_path / "text")
    assert str(tmp_path / "text" / "text.json") in error.value.problem
    assert says in error.value.problem
    prepare((str(prepared / "book.txt"),), tokenizer="bpe:260", folder=tmp_path / "text")
    assert open_text(tmp_path / "text").facts == open_text(prepared / "text").facts


def test_a_text_json_keeps_its_keys_and_their_order(prepared: Path) -> None:
    """Texts that were prepared earlier open, and those of today open in earlier versions."""
    keys = """schema_version kind request tokenizer sources source_digest python_version files_left_out split_by
    documents_cut duplicates_removed duplicates_in_train splits manifest overlap documents_changed_by_tokenizer
    skipped probes selection digest record_digest"""
    facts = json.loads((prepared / "text" / "text.json").read_text())
    assert list(facts) == keys.split()
    assert list(facts["splits"]) == list(SPLITS)
    assert list(facts["splits"]["test"]) == ["documents", "bytes", "tokens", "sha256", "lengths_sha256"]


def test_leftovers_of_a_killed_process_are_removed(many: Path, tmp_path: Path) -> None:
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / ".train.bin.1.partial").write_bytes(b"half")
    prepare((str(many),), folder=tmp_path / "text")
    assert not list((tmp_path / "text").glob(".*partial"))


def test_a_full_disk_is_an_error_with_the_file_and_leaves_no_half_shard(
    many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(shards.os, "fsync", full)
        with pytest.raises(UserError, match="No space left"):
            prepare((str(many),), folder=tmp_path / "text")
    assert not list((tmp_path / "text").rglob("*partial"))
    assert not (tmp_path / "text" / "train.bin").exists()
    assert prepare((str(many),), folder=tmp_path / "text").documents == 60


def test_a_folder_that_cannot_be_written_is_an_error(many: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="file is a file"):
        prepare((str(many),), folder=tmp_path / "file")


@pytest.mark.parametrize(
    ("texts", "problem"),
    [
        ({"a.txt": " \n\n"}, ": no text in 1 file"),
        ({"a.txt": "a few words"}, "11 bytes are too few"),
        ({f"{number}.txt": prose(1, 20) for number in range(30)}, "none of 30 documents is left"),
    ],
    ids=["empty", "tiny", "all the same"],
)
def test_text_that_cannot_be_split_is_refused(
    folder_of: Write, tmp_path: Path, texts: dict[str, str], problem: str
) -> None:
    with pytest.raises(UserError, match=problem):
        prepare((str(folder_of(texts)),), folder=tmp_path / "text")
    assert not (tmp_path / "text").exists()


def test_a_file_that_changes_while_it_is_read_is_refused(
    many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    readings: list[int] = []
    original = documents.documents

    def changing(*arguments: object) -> object:
        readings.append(1)
        if len(readings) == 3:
            (many / "part2" / "59.txt").write_text("something else")
        return original(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr("sparsedial.text.reading.documents", changing)
    with pytest.raises(UserError, match=r"part2/59\.txt changed while"):
        prepare((str(many),), folder=tmp_path / "text")


def test_a_change_during_the_training_of_a_bpe_is_refused_too(
    many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    readings: list[int] = []
    original = documents.documents

    def shrinking(*arguments: object) -> object:
        readings.append(1)
        if len(readings) == 2:
            (many / "part2" / "59.txt").unlink()
            (many / "part2" / "59.txt").write_text(" ")
        return original(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr("sparsedial.text.reading.documents", shrinking)
    with pytest.raises(UserError, match="became shorter"):
        prepare((str(many),), tokenizer="bpe:300", folder=tmp_path / "text")


def test_a_tokenizer_that_loses_text_is_refused(many: Path, tmp_path: Path) -> None:
    import tokenizers

    made = tokenizers.Tokenizer(tokenizers.models.WordLevel({"</s>": 0, "?": 1, "the": 2}, unk_token="?"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(
        UserError, match=r"tokenizer\.json: \d+ of \d+ held-out documents differ after encoding and decoding"
    ):
        prepare((str(many),), tokenizer=str(tmp_path / "tokenizer.json"), folder=tmp_path / "text")


def test_the_whole_of_a_text_can_be_prepared_for_evaluation(tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text("a few words")
    text = prepare((str(tmp_path / "short.txt"),), folder=tmp_path / "text", whole=True)
    assert (text.train_tokens, text.validation_tokens, text.test_tokens) == (0, 0, 13)
    assert text.bytes("test") == 11
    assert text.overlap.test is None
    assert open_text(tmp_path / "text").digest == text.digest


def test_json_lines_are_one_document_each(tmp_path: Path) -> None:
    lines = [json.dumps({"text": prose(number, 5), "id": number}) for number in range(80)]
    (tmp_path / "d.jsonl.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    text = prepare((str(tmp_path / "d.jsonl.gz"),), folder=tmp_path / "text")
    assert text.documents == 80
    assert text.summary().split_by == "document"


def test_the_standard_library_is_prepared_by_module_with_little_overlap(tmp_path: Path) -> None:
    text = prepare((), folder=tmp_path / "text")
    summary = text.summary()
    assert summary.split_by == "module"
    assert summary.bytes > 5e6
    assert summary.python_version
    assert 0 < summary.overlap.validation < 0.2
    for split in ("validation", "test"):
        assert 0.02 < text.bytes(split) / summary.bytes < 0.06


def test_real_text_outside_the_package_is_prepared(shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "text" / "code_python" / "test.jsonl.gz"
    text = prepare((str(source),), tokenizer="bpe:512", folder=tmp_path / "text")
    assert text.documents + text.summary().duplicates_removed.total >= 46
    assert text.tokenizer.vocab_size == 512
    assert text.train_tokens < text.bytes("train") / 1.5


def test_memory_does_not_grow_with_the_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "PART_BYTES", 2**16)
    peaks = []
    for megabytes in (2, 8):
        letters = np.random.default_rng(0).integers(97, 123, megabytes * 2**20, dtype=np.uint8)
        letters[::13] = ord(" ")
        (tmp_path / "long.txt").write_bytes(letters.tobytes())
        tracemalloc.start()
        prepare((str(tmp_path / "long.txt"),), folder=tmp_path / str(megabytes))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 2 * 2**20  # the larger text is 6 MB longer; what a document leaves behind is small
