"""Plain files that are whole, or not there."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sparsedial.errors import UserError
from sparsedial.store import check_writable, digest, lock, read_json, require_free, whole_folder, write_json


def test_a_record_comes_back_as_it_was(tmp_path: Path):
    write_json(tmp_path / "a.json", {"loss": 1.5, "names": ["x"], "nothing": None})
    assert read_json(tmp_path / "a.json") == {"schema_version": 1, "loss": 1.5, "names": ["x"], "nothing": None}


def test_whether_a_file_can_be_written_is_said_beforehand_and_leaves_nothing(tmp_path: Path):
    check_writable(tmp_path / "new" / "a.json")
    assert list((tmp_path / "new").iterdir()) == []
    (tmp_path / "file").write_text("x")
    for path, says in (
        (tmp_path, "it is a folder"),
        (tmp_path / "file" / "a", "cannot write"),
        (Path("/proc/x/a"), "cannot write /proc/x/a"),
    ):
        with pytest.raises(UserError, match=says):
            check_writable(path)


def test_nan_is_never_written(tmp_path: Path):
    with pytest.raises(ValueError, match="Out of range"):
        write_json(tmp_path / "a.json", {"loss": float("nan")})
    assert not (tmp_path / "a.json").exists()


@pytest.mark.parametrize("damage", [lambda text: text[:-20], lambda text: text.replace("1.5", "1.4")])
def test_a_truncated_or_edited_record_is_refused(tmp_path: Path, damage):
    path = tmp_path / "a.json"
    write_json(path, {"loss": 1.5})
    path.write_text(damage(path.read_text()))
    with pytest.raises(UserError, match=str(path)):
        read_json(path)


def test_equal_values_have_equal_digests_whatever_their_order():
    assert digest({"a": 1, "b": [2.0]}) == digest({"b": [2.0], "a": 1})
    assert digest({"a": 1}) != digest({"a": 2})


@contextlib.contextmanager
def in_another_process(holder: str, folder: Path) -> Iterator[None]:
    """A process that is inside `lock` or `whole_folder`, where it makes a file `old`; it is killed at the end."""
    code = (
        f"import sys, time; from pathlib import Path; from sparsedial.store import {holder}\n"
        f"with {holder}(Path(sys.argv[1])) as part:\n"
        "    if part: (part / 'old').touch()\n"
        "    print('held', flush=True); time.sleep(60)"
    )
    other = subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE)
    assert other.stdout is not None
    with other.stdout:
        assert other.stdout.readline() == b"held\n"
        yield
        other.kill()
        other.wait()


def test_a_folder_is_held_by_one_process_and_freed_when_it_is_killed(tmp_path: Path):
    with in_another_process("lock", tmp_path), pytest.raises(UserError, match="in use"), lock(tmp_path):
        pass
    with lock(tmp_path):
        pass


def test_a_new_folder_is_written_by_one_process_and_what_a_killed_one_left_is_removed(tmp_path: Path):
    new = tmp_path / "new"
    with in_another_process("whole_folder", new):
        with pytest.raises(UserError, match="in use"), whole_folder(new):
            pass
        assert [path.name for path in tmp_path.glob(".new.partial/*")] == ["old"], "the other's work is still there"
    with whole_folder(new) as partial:
        (partial / "whole").touch()
    assert [path.name for path in new.iterdir()] == ["whole"]
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


def test_what_has_come_into_a_free_folder_is_not_removed(tmp_path: Path):
    new = tmp_path / "new"
    new.mkdir()
    with pytest.raises(UserError, match=r"cannot write .*not empty"), whole_folder(new):
        (new / "notes").write_text("mine")
    assert [path.read_text() for path in tmp_path.rglob("*") if path.is_file()] == ["mine"]
    (new / "notes").unlink()
    with whole_folder(new) as partial:
        (partial / "whole").touch()
    with whole_folder(new) as partial:
        (partial / "next").touch()
    assert [path.name for path in new.iterdir()] == ["next"], "one that held something is replaced"


def test_a_folder_where_a_disk_is_mounted_is_not_free(tmp_path: Path, monkeypatch):
    require_free(tmp_path)
    monkeypatch.setattr(Path, "is_mount", lambda self: self == tmp_path)
    with pytest.raises(UserError, match="where a disk is mounted") as refused:
        require_free(tmp_path)
    assert str(tmp_path / "result") in (refused.value.hint or "")


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes anywhere")
def test_a_read_only_folder_is_one_clear_line(tmp_path: Path):
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match="cannot write"):
        write_json(tmp_path / "a.json", {})


def test_a_full_disk_is_one_clear_line_and_keeps_the_old_file():
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    with pytest.raises(UserError, match="cannot write"):
        write_json(Path("/dev/full/a.json"), {})


def test_json_on_disk_is_plain(tmp_path: Path):
    write_json(tmp_path / "a.json", {"loss": 1.5})
    assert json.loads((tmp_path / "a.json").read_text())["loss"] == 1.5


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"schema_version": 1, "norm_eps": NaN}', "it holds NaN, which is not a number"),
        ('{"schema_version": 1, "norm_eps": [-Infinity]}', "it holds -Infinity, which is not a number"),
        ('{"schema_version": 1, "norm_eps": 1e999}', "it holds 1e999, which is not a number"),
        ('{"schema_version": 1, "norm_eps": ' + "[" * 100_000 + "]" * 100_000 + "}", "it is nested too deeply"),
        ('{"schema_version": 1, "norm_eps": ' + "9" * 5000 + "}", "limit"),
        ("\xff\xfe", "not readable as JSON"),
        ("[1]", "not a sparsedial file"),
    ],
)
def test_what_is_no_json_of_ours_is_one_clear_line(tmp_path: Path, text, says):
    (tmp_path / "a.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=says):
        read_json(tmp_path / "a.json")
    if "limit" not in says:
        with pytest.raises(UserError, match=str(tmp_path)):
            read_json(tmp_path / "a.json" / "b.json")


def test_a_file_of_someone_else_is_not_overwritten(tmp_path: Path):
    for name, text, replaced in (("mine.json", "mine", False), ("empty.json", "", True), ("list.json", "[1]", False)):
        path = tmp_path / name
        path.write_text(text)
        if replaced:
            write_json(path, {"loss": 1.5})
        else:
            for refuses in (check_writable, lambda path: write_json(path, {})):
                with pytest.raises(UserError, match="is not a file of sparsedial's"):
                    refuses(path)
            assert path.read_text() == text
    write_json(tmp_path / "empty.json", {"loss": 1.4})
    assert read_json(tmp_path / "empty.json")["loss"] == 1.4
    (tmp_path / "empty.json").write_text(json.dumps({"a": "x" * 100, "schema_version": 1}))  # sorted and cut by hand
    write_json(tmp_path / "empty.json", {"loss": 1.3})


def test_a_file_is_no_folder_to_lock(tmp_path: Path):
    (tmp_path / "text.txt").write_text("a text")
    with pytest.raises(UserError, match=r"text\.txt is a file"), lock(tmp_path / "text.txt"):
        pass
    assert (tmp_path / "text.txt").read_text() == "a text"
