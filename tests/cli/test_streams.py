"""Standard streams that are closed, full, broken or of another locale, and Ctrl-C at any moment: one line, no trace."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

COMMAND = f"{shlex.quote(sys.executable)} -m sparsedial"
COUNT = f"{COMMAND} count deepseek-v3"


def shell(line: str, **variables: str) -> subprocess.CompletedProcess[str]:
    plain = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}  # buffers as usual
    return subprocess.run(
        line, shell=True, executable="/bin/bash", capture_output=True, text=True, env={**plain, **variables}
    )


@pytest.mark.parametrize(
    ("line", "status", "says"),
    [
        (f"{COUNT} >&-", 1, "error: standard output is closed, so the answer could not be printed\n"),
        (f"{COUNT} >/dev/full", 1, "error: cannot write to standard output: No space left on device\n"),
        (f"{COUNT} >/dev/full 2>/dev/full", 1, ""),
        (f"{COMMAND} count nowhere.json 2>/dev/full", 2, ""),
        (f"{COMMAND} count nowhere.json >&- <&-", 2, "error: nowhere.json: no such file\n"),
        (f"set -o pipefail; {COMMAND} --help | true", 1, ""),
    ],
)
def test_an_answer_that_cannot_be_printed_is_one_line(line, status, says):
    if "/dev/full" in line and not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    done = shell(line)
    assert "Traceback" not in done.stderr
    assert (done.returncode, done.stderr) in ((status, says), (0, "") if "true" in line else (status, says))


def test_a_full_standard_error_ends_no_work(tmp_path: Path):
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    for number in range(12):
        (tmp_path / f"{number}.txt").write_text(" ".join(f"word{number * word}" for word in range(200)))
    done = shell(f"{COMMAND} select {tmp_path} --out {tmp_path.parent / 'kept'} --json 2>/dev/full")
    assert (done.returncode, done.stdout[:1]) == (0, "{")


def test_without_standard_error_the_answer_is_alone_on_standard_output():
    done = shell(f"{COUNT} --json 2>&-")
    assert done.returncode == 0
    assert done.stdout.startswith("{")
    assert shell(f"{COMMAND} count nowhere.json 2>&-").stdout == ""


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_any_encoding_prints_the_help(encoding):
    done = shell(f"{COMMAND} --help", PYTHONIOENCODING=encoding)
    assert (done.returncode, done.stderr) == (0, "")
    assert "COMMAND" in done.stdout


def test_a_name_that_is_not_unicode_is_printed():
    done = shell(f"{COMMAND} count $'caf\\xe9.json'")
    assert (done.returncode, done.stderr) == (2, "error: caf\\udce9.json: no such file\n")


def training(folder: Path) -> str:
    """A command that trains a tiny model on a text whose name and words are not ASCII."""
    text = folder / "ünï"
    text.mkdir()
    for number in range(12):
        (text / f"ö{number}.txt").write_text(" ".join(f"näher{number}of{word * word}" for word in range(100)), "utf-8")
    shape = "--shape.layers 1 --shape.d_model 8 --shape.heads 1 --shape.kv_heads 1 --shape.head_dim 8 --shape.d_ff 8"
    recipe = "--recipe.learning_rate 0.01 --recipe.batch 2 --shape.context 16 --tokens 64 --threads 1"
    return f"{COMMAND} train --text {text} {shape} {recipe} --out {folder / 'äut'}"


@pytest.mark.parametrize(
    ("kilobytes", "file"), [(0, "temporary"), (8, "train.bin"), (18, "checkpoint")], ids=lambda value: str(value)
)
def test_a_full_disk_is_one_line_whichever_file_does_not_fit(tmp_path: Path, kilobytes, file):
    done = shell(f"ulimit -f {kilobytes}; {training(tmp_path)}")
    assert done.returncode == 2
    errors = [line for line in done.stderr.splitlines() if not line.startswith(("hint: ", "no family", "reading "))]
    assert len(errors) == 1
    assert errors[0].startswith("error: cannot write")
    assert file in errors[0]
    assert not [*tmp_path.rglob("*.partial")]


def test_a_text_is_trained_on_in_a_locale_without_its_letters(tmp_path: Path):
    done = shell(training(tmp_path), LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
    assert "test loss" in done.stdout


# Where the interpreter itself is still starting (about the first 20 ms) no code of ours can answer.
@pytest.mark.parametrize("module", ["sparsedial.cli.main", "numpy", "sparsedial.cli.tables.table_of"])
def test_ctrl_c_while_python_imports_is_one_line(module, tmp_path: Path):
    stop = (
        "import builtins, os, signal, sys\n"
        "imported = builtins.__import__\n"
        "def stopping(name, *rest):\n"
        f"    if name == {module!r} or (rest and rest[2] and f'{{name}}.{{rest[2][0]}}' == {module!r}):\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "    return imported(name, *rest)\n"
        "from sparsedial.cli.start import main\n"
        "builtins.__import__ = stopping\n"
        "sys.argv = ['sparsedial', 'count', 'deepseek-v3']\n"
        "sys.exit(main())\n"
    )
    done = subprocess.run([sys.executable, "-c", stop], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "stopped; nothing was kept\n")


def test_ctrl_c_while_memory_is_measured_is_one_line(tmp_path: Path):
    """The process that measures gets the terminal's signal too."""
    words = [sys.executable, "-m", "sparsedial", "profile", "--widths", "16,32", "--out", str(tmp_path / "p.json")]
    command = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, start_new_session=True)
    assert command.stderr is not None
    with command.stderr as lines:
        assert "measuring memory" in lines.readline()
        for wait in range(200):
            time.sleep(0.05)
            if wait > 5 and _children(command.pid):
                break
        os.killpg(command.pid, signal.SIGINT)
        said = lines.read()
    assert (command.wait(20), said) == (130, "stopped; nothing was kept\n")


def _children(pid: int) -> list[str]:
    """Processes that a process started, apart from Python's own tracker of resources."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [child for child in found if "resource_tracker" not in Path(f"/proc/{child}/cmdline").read_text()]


def test_an_interrupt_that_the_caller_ignores_stays_ignored():
    line = f"trap '' INT; {sys.executable} -c 'import os, signal; from sparsedial.cli import start; import sys; "
    line += 'sys.argv = [str(), "count", "deepseek-v3"]; os.kill(os.getpid(), signal.SIGINT); sys.exit(start.main())\''
    assert shell(line).returncode == 0
