"""Text that no study can use is refused in one clear line, before anything is trained."""

from __future__ import annotations

from pathlib import Path

import pytest

from sparsedial.cli.main import main


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("empty.txt", b"", "empty"),
        ("tiny.txt", b"just a line\n", "too"),
        ("binary.txt", bytes(range(256)) * 50, "binary"),
        ("latin.txt", "été ".encode("latin-1") * 500, "UTF-8"),
        ("broken.jsonl", b'{"text": "a"}\n{"text": \n', "broken.jsonl"),
    ],
)
def test_bad_text_is_refused(tmp_path: Path, capsys, name, content, says):
    (tmp_path / name).write_bytes(content)
    assert main(["study", str(tmp_path / name), "--budgets", "6e9,1.2e10", "--out", str(tmp_path / "out")]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    errors = [line for line in captured.err.splitlines() if line.startswith("error: ")]
    assert says.lower() in errors[0].lower()


def test_a_text_too_small_for_the_budget_is_refused(tmp_path: Path, corpus: Path, capsys):
    (tmp_path / "small.txt").write_text("\n\n".join(f"paragraph {n} of a small text" for n in range(60)))
    assert main(["study", str(tmp_path / "small.txt"), "--budgets", "6e9,1.2e10", "--out", str(tmp_path / "out")]) == 2
    assert "error: " in capsys.readouterr().err
