"""The manifest says of every document where it came from and where its tokens lie, and of nothing else."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars
import pytest

from sparsedial import store
from sparsedial.errors import UserError
from sparsedial.text import manifest
from sparsedial.text.manifest import COLUMNS, MANIFEST, ManifestWriter, Row, read_manifest, write_scores
from sparsedial.text.prepare import Text, open_text, prepare
from sparsedial.text.sampler import Sampler
from sparsedial.text.splits import SPLITS

from .conftest import prose

Write = Callable[..., Path]


@pytest.fixture(params=["bytes", "bpe:300"])
def sixty(request: pytest.FixtureRequest, many: Path, tmp_path: Path) -> Text:
    """A prepared text of sixty files."""
    return prepare((str(many),), tokenizer=request.param, folder=tmp_path / "text")


def rows_of(text: Text, split: str | None = None) -> list[Row]:
    """The manifest's rows, or those of a split."""
    rows = [Row(**row) for row in text.manifest.select(list(COLUMNS)).collect().to_dicts()]
    return [row for row in rows if split in (None, row.split)]


def test_documents_and_their_end_tokens_tile_each_split_exactly(sixty: Text) -> None:
    for split in SPLITS:
        tokens, place = np.asarray(sixty.tokens(split)), 1  # behind the end token that begins the split
        for row in rows_of(sixty, split):
            assert row.first_token == place
            place += row.tokens + 1
            assert tokens[place - 1] == sixty.tokenizer.end_token
        assert place == len(tokens)
        assert np.count_nonzero(tokens == sixty.tokenizer.end_token) == 1 + len(rows_of(sixty, split))


def test_the_tokens_at_a_documents_place_decode_to_its_text(sixty: Text, many: Path) -> None:
    rows = rows_of(sixty)
    assert len(rows) == sixty.documents == 60
    for row in rows:
        tokens = sixty.tokens(row.split)[row.first_token : row.first_token + row.tokens]
        document = (many / row.source).read_bytes()
        assert sixty.tokenizer.decode(tokens).encode() == document
        assert (row.bytes, row.digest) == (len(document), hashlib.sha256(document).hexdigest())
        assert row.id == row.group == row.source


def test_bytes_sum_to_those_of_the_split(sixty: Text) -> None:
    for split in SPLITS:
        assert sum(row.bytes for row in rows_of(sixty, split)) == sixty.bytes(split) > 0


def test_rows_stand_in_the_order_of_the_corpus(sixty: Text, many: Path) -> None:
    names = sorted(path.relative_to(many).as_posix() for path in many.rglob("*.txt"))
    assert [row.id for row in rows_of(sixty)] == names


def test_a_document_that_was_left_out_has_no_row(folder_of: Write, tmp_path: Path) -> None:
    texts = {f"{number:02}.txt": prose(number, 15) for number in range(60)}
    copies = {f"copy{name}": texts[name] for name in list(texts)[::2]}
    text = prepare((str(folder_of({**texts, **copies})),), folder=tmp_path / "text")
    removed = text.summary().duplicates_removed
    left = 90 - removed.validation - removed.test
    assert len(rows_of(text)) == left < 90
    held_out = [row.digest for row in rows_of(text) if row.split != "train"]
    assert not {row.digest for row in rows_of(text, "train")}.intersection(held_out)


def test_lines_and_parts_have_ids_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": prose(number, 6)}) + "\n\n" for number in range(40)))
    (tmp_path / "book.txt").write_text(prose(99, 400))
    text = prepare((str(tmp_path / "a.jsonl"), str(tmp_path / "book.txt")), folder=tmp_path / "text")
    ids = [row.id for row in rows_of(text)]
    assert ids[:2] == ["a.jsonl:1", "a.jsonl:3"]
    assert ids[40:42] == ["book.txt", "book.txt#1"]
    assert {row.source for row in rows_of(text)} == {"a.jsonl", "book.txt"}
    assert len(set(ids)) == len(ids) > 50


def test_files_of_one_name_are_told_apart_and_stay_in_one_split(folder_of: Write, tmp_path: Path) -> None:
    """In two folders, or packed and not: the group, on which the split hangs, is the name's."""
    names = [f"{number:02}.txt" for number in range(40)]
    folders = [folder_of({name: prose(100 * k + int(name[:2]), 6) for name in names}, name=f"of{k}") for k in range(2)]
    text = prepare(map(str, folders), folder=tmp_path / "text")
    rows = rows_of(text)
    assert [row.id for row in rows] == [row.source for row in rows] == names + [f"{name}~2" for name in names]
    assert [row.group for row in rows] == names + names
    assert [row.split for row in rows[:40]] == [row.split for row in rows[40:]]


def test_a_name_that_is_no_text_has_a_row_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "caf\udce9.txt"  # a byte that is not UTF-8, as Python gives it
    path.write_text(prose(1, 5))
    text = prepare((str(path),), folder=tmp_path / "text", whole=True)
    assert [row.id for row in rows_of(text)] == ["caf\\udce9.txt"]


def test_a_manifest_may_have_more_columns_and_must_have_its_own(sixty: Text, tmp_path: Path) -> None:
    frame = sixty.manifest.collect()
    frame.with_columns(loss=polars.lit(1.5)).write_parquet(tmp_path / "scored.parquet")
    assert read_manifest(tmp_path / "scored.parquet").collect()["loss"].to_list() == [1.5] * 60
    frame.drop("tokens").write_parquet(tmp_path / "short.parquet")
    with pytest.raises(UserError, match=r"short\.parquet: not a manifest .* column tokens is None, not Int64"):
        read_manifest(tmp_path / "short.parquet")
    frame.cast({"bytes": polars.String}).write_parquet(tmp_path / "words.parquet")
    with pytest.raises(UserError, match=r"words\.parquet: .* column bytes is String, not Int64"):
        read_manifest(tmp_path / "words.parquet")
    for name, content in (("prose.parquet", b"not a table at all"), ("none.parquet", None)):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=f"{name}: not readable as a manifest"):
            read_manifest(tmp_path / name)


def test_scores_stand_beside_the_known_columns_and_are_null_where_there_is_none(sixty: Text, tmp_path: Path) -> None:
    path, own = tmp_path / "scored.parquet", sixty.manifest.collect()
    loss = [None if row["split"] == "test" else float(number) for number, row in enumerate(own.to_dicts())]
    written = write_scores(path, sixty.manifest, {"loss": loss, "quality": np.linspace(0, 1, 60)})
    assert (written.bytes, written.sha256) == (path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest())
    scored = read_manifest(path).collect()
    assert scored.columns == [*COLUMNS, "loss", "quality"]
    assert scored["loss"].to_list() == loss
    assert 0 < scored["loss"].null_count() < 60
    assert scored.select(list(COLUMNS)).equals(own)
    assert sixty.manifest.collect().equals(own)


def test_a_later_score_leaves_earlier_ones_and_foreign_columns_as_they_are(sixty: Text, tmp_path: Path) -> None:
    path = tmp_path / "scored.parquet"
    write_scores(
        path, sixty.manifest.with_columns(license=polars.lit("free")), {"loss": [1.0] * 60, "length": [2.0] * 60}
    )
    write_scores(path, read_manifest(path), {"loss": [None] * 60, "rank": range(60)})  # over the file that is read
    scored = read_manifest(path).collect()
    assert scored.columns == [*COLUMNS, "license", "loss", "length", "rank"]
    assert scored.row(7)[-4:] == ("free", None, 2.0, 7.0)
    assert scored["loss"].dtype == polars.Float64


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ([1.0] * 59, "loss: 59 numbers for 60 documents"),
        ([1.0] * 59 + [np.nan], "loss: holds a number that is not finite"),
        (np.full(60, np.inf), "loss: holds a number that is not finite"),
    ],
    ids=["short", "no number", "infinite"],
)
def test_scores_are_finite_and_one_a_row(sixty: Text, tmp_path: Path, values: list[float], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        write_scores(tmp_path / "scored.parquet", sixty.manifest, {"loss": values})
    assert not list(tmp_path.glob("*scored*"))


def test_a_score_cannot_take_the_place_of_a_known_column(sixty: Text, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="bytes is a column of every manifest"):
        write_scores(tmp_path / "scored.parquet", sixty.manifest, {"bytes": [1.0] * 60})


def test_the_documentation_names_the_columns_in_their_order() -> None:
    table = (Path(__file__).parents[2] / "docs" / "text.md").read_text().partition("| column |")[2].partition("\n\n")[0]
    assert [line.split("`")[1] for line in table.splitlines() if line.startswith("| `")] == list(COLUMNS)


def test_a_text_that_an_older_version_prepared_opens_without_a_manifest(many: Path, tmp_path: Path) -> None:
    """Its tokens and digest are the same, so a study on it goes on; it is not prepared again."""
    new = prepare((str(many),), tokenizer="bpe:300", folder=tmp_path / "text")
    shutil.copytree(tmp_path / "text", tmp_path / "old")
    record = store.read_json(tmp_path / "old" / "text.json")
    store.write_json(tmp_path / "old" / "text.json", {key: value for key, value in record.items() if key != "manifest"})
    (tmp_path / "old" / MANIFEST).unlink()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "old").rglob("*")}
    old = prepare((str(many),), tokenizer="bpe:300", folder=tmp_path / "old")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "old").rglob("*")} == before
    assert old.digest == new.digest
    assert old.summary() == new.summary()
    with pytest.raises(UserError, match="wrote no manifest"):
        _ = old.manifest
    assert open_text(tmp_path / "old").digest == new.digest


def test_a_full_disk_is_an_error_with_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / f".{MANIFEST}.1.partial").symlink_to("/dev/full")
    monkeypatch.setattr(manifest.os, "getpid", lambda: 1)
    writer = ManifestWriter(tmp_path)
    writer.add(Row("a", "a", "a", "train", 1, 1, 1, "0"))
    with pytest.raises(UserError, match=rf"cannot write .*{MANIFEST}: .*No space left"):
        writer.close()
    assert list(tmp_path.iterdir()) == []


def test_a_million_documents_take_the_memory_of_their_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are packed as they come: in Python no more is held than a chunk, and packed a row is its own bytes."""
    monkeypatch.setattr(manifest, "CHUNK", 2**10)
    peaks = []
    for rows in (2**12, 2**14):
        writer = ManifestWriter(tmp_path)
        tracemalloc.start()
        for number in range(rows):
            name = f"corpus.jsonl:{number}"
            writer.add(Row(name, "corpus.jsonl", name, "train", 700, 7 * number, 6, f"{number:064}"))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        packed = sum(frame.estimated_size() for frame in writer._packed)
        assert packed / rows < 320
    assert peaks[1] < peaks[0] + 2**17


@pytest.mark.skipif(sys.platform != "linux", reason="reads what Linux says of threads")
def test_no_thread_that_preparing_a_text_leaves_takes_ctrl_c(many: Path, tmp_path: Path) -> None:
    """The main thread may hold it back while it starts workers."""
    code = (
        "import pathlib, signal; from sparsedial.text.prepare import prepare;"
        f"prepare([{str(many)!r}], folder=pathlib.Path({str(tmp_path / 'text')!r}));"
        "states = [path.read_text() for path in pathlib.Path('/proc/self/task').glob('*/status')];"
        "blocked = [int(state.partition('SigBlk:')[2].split()[0], 16) for state in states];"
        "print(len(blocked), sum(not mask >> (signal.SIGINT - 1) & 1 for mask in blocked))"
    )
    folder, environment = Path(__file__).parents[2], {**os.environ, "OMP_NUM_THREADS": "1"}
    found = subprocess.run(
        [sys.executable, "-c", code], check=True, cwd=folder, env=environment, capture_output=True, text=True
    )
    threads, listening = map(int, found.stdout.split())
    assert threads > 1
    assert listening == 1


def test_training_on_a_text_loads_no_polars(sixty: Text) -> None:
    """It takes a second and 40 MB of every worker."""
    code = (
        "import sys; from pathlib import Path; from sparsedial.text.prepare import open_text;"
        "from sparsedial.text.sampler import Sampler;"
        f"Sampler(text=open_text(Path({str(sixty.folder)!r})), seed=0, sequences=8, context=64).batch(0);"
        "sys.exit('polars' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


@pytest.mark.parametrize("step", [0, 3, 1000])
def test_the_documents_of_a_window_are_those_whose_tokens_it_holds(sixty: Text, step: int) -> None:
    sampler = Sampler(text=sixty, seed=1, sequences=8, context=400, ranks=2)
    train = [(number, row) for number, row in enumerate(rows_of(sixty)) if row.split == "train"]
    for rank in range(2):
        starts, found = sampler.first_tokens(step, rank), sampler.documents(step, rank)
        for start, documents in zip(starts, found, strict=True):
            window = set(range(start, start + 401))
            held = [n for n, row in train if window.intersection(range(row.first_token, row.first_token + row.tokens))]
            assert documents.tolist() == held


def test_documents_are_found_at_the_very_ends_of_a_window(sixty: Text) -> None:
    """One that begins at an end token has nothing of the document before; one that ends there, nothing of the next."""
    train = [(number, row) for number, row in enumerate(rows_of(sixty)) if row.split == "train"]
    (first, one), (second, other) = train[3], train[4]
    end = one.first_token + one.tokens  # of the first, its end token
    for start, expected in ((end, [second]), (end - 1, [first, second]), (end - 5, [first]), (end - 6, [first])):
        assert documents_at(sixty, start, context=5) == expected
    assert documents_at(sixty, end - 4, context=5) == [first, second]
    assert other.tokens > 10


def documents_at(text: Text, start: int, context: int) -> list[int]:
    """The documents of the window that begins at a token."""

    @dataclasses.dataclass(frozen=True)
    class At(Sampler):
        def first_tokens(self, step: int, rank: int = 0) -> np.ndarray:
            return np.array([start])

    (found,) = At(text=text, seed=0, sequences=1, context=context).documents(0)
    return found.tolist()
