"""A selection is read as a text: held-out text as it was, train without what is left out, and nothing else believed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import polars
import pytest

from sparsedial import store
from sparsedial.errors import UserError
from sparsedial.text.corpus import open_corpus
from sparsedial.text.manifest import write_manifest
from sparsedial.text.prepare import Text, prepare
from sparsedial.verbs.select.select import select
from sparsedial.verbs.select.settings import SelectSettings
from tests.text.test_prepare import texts_of

from .conftest import prose

Write = Callable[..., Path]


@pytest.fixture
def corpus(folder_of: Write) -> Path:
    """Sixty documents, and near copies of forty of them."""
    texts = {f"{number:02}.txt": prose(number, 15) for number in range(60)}
    return folder_of({**texts, **{f"copy{name}": text + " more" for name, text in list(texts.items())[:40]}})


@pytest.fixture
def kept(corpus: Path, tmp_path: Path) -> Path:
    select(SelectSettings(text=(str(corpus),), out=tmp_path / "kept", keep=0.7))
    return tmp_path / "kept"


def bytes_of(text: Text) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in text.folder.glob("*.bin")}


def test_held_out_text_is_the_same_byte_by_byte_and_train_is_what_stays(corpus, kept, tmp_path):
    full = prepare((str(corpus),), folder=tmp_path / "full")
    part = prepare((str(kept),), folder=tmp_path / "part")
    for name, data in bytes_of(full).items():
        assert (bytes_of(part)[name] == data) == (name != "train.bin")
    rows = polars.read_parquet(kept / "documents.parquet")
    stays = rows.filter(polars.col("kept") & (polars.col("split") == "train"))["id"].to_list()
    assert texts_of(part, "train") == [(corpus / name).read_text() for name in stays]
    left_out = rows.filter(~polars.col("kept") & (polars.col("split") == "train")).height
    assert part.facts.selection is not None
    assert part.facts.selection.documents_left_out == left_out > 40
    assert full.facts.selection is None
    assert full.facts.source_digest == part.facts.source_digest


def test_with_a_trained_tokenizer_held_out_documents_are_the_same(corpus, kept, tmp_path):
    texts = [
        prepare((str(source),), tokenizer="bpe:300", folder=tmp_path / str(at))
        for at, source in enumerate((corpus, kept))
    ]
    for split in ("validation", "test"):
        assert texts_of(texts[0], split) == texts_of(texts[1], split)


def test_a_book_in_one_file_is_selected_from_in_its_parts(tmp_path):
    book = tmp_path / "book.txt"
    book.write_text(prose(3, 400))
    select(SelectSettings(text=(str(book),), out=tmp_path / "kept", keep=0.5))
    full, part = (prepare((str(source),), folder=tmp_path / source.stem[:2]) for source in (book, tmp_path / "kept"))
    assert bytes_of(full)["test.bin"] == bytes_of(part)["test.bin"]
    assert part.train_tokens / full.train_tokens == pytest.approx(0.5, abs=0.05)


def test_the_same_selection_finds_its_text_again_and_another_does_not(corpus, kept, tmp_path):
    first = prepare((str(kept),), folder=tmp_path / "text")
    before = (tmp_path / "text" / "train.bin").stat().st_mtime_ns
    assert prepare((str(kept),), folder=tmp_path / "text").digest == first.digest
    assert (tmp_path / "text" / "train.bin").stat().st_mtime_ns == before
    select(SelectSettings(text=(str(corpus),), out=tmp_path / "other", keep=0.3))
    assert prepare((str(tmp_path / "other"),), folder=tmp_path / "text").digest != first.digest


def test_deleting_a_selection_leaves_the_text(corpus, kept, tmp_path):
    before = {path: path.read_bytes() for path in corpus.rglob("*.txt")}
    prepare((str(kept),), folder=tmp_path / "text")
    shutil.rmtree(kept)
    assert {path: path.read_bytes() for path in corpus.rglob("*.txt")} == before


def refused(kept: Path, tmp_path: Path) -> str:
    with pytest.raises(UserError) as caught:
        prepare((str(kept),), folder=tmp_path / "text")
    assert caught.value.hint is not None
    assert "select" in caught.value.hint or "delete" in caught.value.hint
    assert "\n" not in caught.value.problem
    return caught.value.problem


def test_a_changed_original_is_named(corpus, kept, tmp_path):
    (corpus / "07.txt").write_text("another text")
    assert "07.txt was changed since" in refused(kept, tmp_path)


def test_a_missing_original_is_named(corpus, kept, tmp_path):
    (corpus / "07.txt").unlink()
    assert "has 08.txt where 07.txt was" in refused(kept, tmp_path)


def test_a_new_document_is_named(corpus, kept, tmp_path):
    (corpus / "zz.txt").write_text("one more")
    assert "has zz.txt where its end was" in refused(kept, tmp_path)


def test_a_missing_last_original_is_named(corpus, kept, tmp_path):
    (corpus / "copy39.txt").unlink()
    assert "no longer holds copy39.txt" in refused(kept, tmp_path)


def test_originals_that_are_gone_are_named(corpus, kept, tmp_path):
    corpus.rename(tmp_path / "moved")
    assert f"{corpus}: no such file or folder" in refused(kept, tmp_path)


def test_an_edited_manifest_is_refused(kept, tmp_path):
    rows = polars.read_parquet(kept / "documents.parquet")
    rows.with_columns(kept=True).write_parquet(kept / "documents.parquet")
    assert "documents.parquet" in refused(kept, tmp_path)


def test_a_manifest_of_another_text_is_refused(kept, tmp_path, folder_of: Write):
    other = folder_of({f"{number}.txt": prose(500 + number, 15) for number in range(60)}, "other")
    select(SelectSettings(text=(str(other),), out=tmp_path / "theirs"))
    shutil.copy(tmp_path / "theirs" / "documents.parquet", kept)
    assert "documents.parquet" in refused(kept, tmp_path)


def test_a_missing_manifest_is_refused(kept, tmp_path):
    (kept / "documents.parquet").unlink()
    assert "documents.parquet" in refused(kept, tmp_path)


@pytest.mark.parametrize("edit", [lambda record: {**record, "sources": []}, lambda record: {"schema_version": 1}])
def test_an_edited_record_is_refused(kept, tmp_path, edit):
    record = json.loads((kept / "select.json").read_text())
    (kept / "select.json").write_text(json.dumps(edit(record)))
    assert "select.json" in refused(kept, tmp_path)


@pytest.mark.parametrize("change", ["held out", "split"])
def test_a_manifest_that_leaves_out_held_out_text_is_refused(kept, tmp_path, change):
    """Even where the record was made to fit."""
    rows = polars.read_parquet(kept / "documents.parquet")
    held_out = polars.col("split") == "test"
    kept_now = polars.col("kept") & ~held_out if change == "held out" else polars.col("kept")
    split = (
        polars.when(held_out).then(polars.lit("train")).otherwise("split") if change == "split" else polars.col("split")
    )
    made = write_manifest(kept / "documents.parquet", rows.with_columns(kept=kept_now, split=split))
    record = store.read_json(kept / "select.json")
    record["manifest"] |= {"digest": made.sha256, "bytes": made.bytes}
    store.write_json(kept / "select.json", {name: value for name, value in record.items() if name != "schema_version"})
    assert "its splits are not those of this text" in refused(kept, tmp_path)


def test_a_selection_is_read_alone_and_to_train_on(corpus, kept, tmp_path):
    with pytest.raises(UserError, match="a selection is a text of its own"):
        prepare((str(corpus), str(kept)), folder=tmp_path / "text")
    with pytest.raises(UserError, match="to train on"):
        prepare((str(kept),), folder=tmp_path / "text", whole=True)
    with pytest.raises(UserError, match="to train on"):
        open_corpus((str(kept),))
    with pytest.raises(UserError, match="to train on"):
        select(SelectSettings(text=(str(kept),), out=tmp_path / "again"))


def test_a_text_is_named_as_the_user_did_even_by_a_link(corpus, tmp_path):
    """A file's name decides its split, so a link keeps its own."""
    (tmp_path / "real.txt").write_text(prose(3, 400))
    (tmp_path / "link.txt").symlink_to(tmp_path / "real.txt")
    select(SelectSettings(text=(str(tmp_path / "link.txt"),), out=tmp_path / "kept"))
    full, part = (prepare((str(tmp_path / name),), folder=tmp_path / f"of-{name}") for name in ("link.txt", "kept"))
    assert full.digest == part.digest


def test_a_folder_with_a_select_json_of_somebody_else_is_a_folder(corpus, tmp_path):
    (corpus / "select.json").write_text('{"theirs": 1}')
    assert prepare((str(corpus),), folder=tmp_path / "text").facts.selection is None
