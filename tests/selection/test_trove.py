"""The pipeline that is written for datatrove leaves out the same documents; its local executor runs it."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import polars
import pytest

import sparsedial
from sparsedial.errors import UserError

from .planted import plant

SENTENCES = "One is here. Two is here. Three is here. Four is here. Five is here."


def write_lines(folder: Path, files: int, **planted) -> Path:
    """A planted text as JSON lines in several files."""
    texts = list(plant(folder / "planted", **planted).texts.values())
    (folder / "text").mkdir()
    for file in range(files):
        lines = [json.dumps({"text": f"{text}\n{SENTENCES}"}) for text in texts[file::files]]
        if file == 1:
            lines.append(json.dumps({"text": "{ too short }"}))
        (folder / "text" / f"{file}.jsonl").write_text("\n".join(lines) + "\n")
    return folder / "text"


def kept_by(pipeline: Path) -> set[str]:
    """Run a pipeline; the names of the documents that stay."""
    path = os.pathsep.join(sys.path)
    subprocess.run(
        [sys.executable, str(pipeline)], check=True, capture_output=True, env={**os.environ, "PYTHONPATH": path}
    )
    files = (pipeline.parent / "kept").glob("*.jsonl.gz")
    return {json.loads(line)["id"] for file in files for line in gzip.open(file, "rt")}


def test_the_local_executor_keeps_the_same_documents(tmp_path):
    pytest.importorskip("datatrove", reason="datatrove is not installed")
    text = write_lines(tmp_path, files=3)
    settings = {"near": 0.7, "quality": "c4"}
    sparsedial.select(text, out=tmp_path / "kept", **settings)
    made = sparsedial.select(text, out=tmp_path / "trove", emit="datatrove", **settings)
    rows = polars.read_parquet(tmp_path / "kept" / "documents.parquet")
    assert len(rows.filter("kept")) < 0.8 * len(rows)
    assert kept_by(Path(made.file)) == set(rows.filter("kept")["id"])


def test_a_script_says_what_was_asked_for(tmp_path):
    (tmp_path / "te'xt").mkdir()
    made = sparsedial.select(tmp_path / "te'xt", out=tmp_path / "new", emit="datatrove", near=0.7, quality="c4,gopher")
    script = Path(made.file).read_text()
    compile(script, made.file, "exec")
    named = dict(line.partition("  #")[0].split(" = ") for line in script.splitlines() if " = " in line[:12])
    assert json.loads(named["SOURCES"].replace("'te'xt'", "")) == [str(tmp_path / "te'xt")]
    assert named["NEAR"] == "0.7"
    assert named["QUALITY"] == "['gopher', 'c4']"
    assert str(tmp_path / "new" / "datatrove_pipeline.py") in made.command


@pytest.mark.parametrize("setting", [{"keep": 0.5}, {"spans": 0.5}, {"tasks": "gsm8k"}, {"emit": "datatroves"}])
def test_what_a_script_cannot_do_is_refused(setting, tmp_path):
    with pytest.raises(UserError):
        sparsedial.select(tmp_path, out=tmp_path / "new", **{"emit": "datatrove", **setting})
    assert not (tmp_path / "new").exists()
