"""Every command of the README in its order, in one folder, each on what the one before left.

Text and budgets are small; tokenizer, context and seed are not the defaults. A study's runs and machine are simulated;
its text, grid, law and plan are real, and so are all other commands.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import tomllib
import urllib.request
import webbrowser
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from threading import Thread

import pytest

from benchmarks.readme import README
from sparsedial.cli.exits import DONE, INTERRUPTED
from sparsedial.cli.main import main
from sparsedial.runs.simulated import Simulated
from sparsedial.store import read_json
from sparsedial.sweep import local_lab
from tests.evaluation.asking import DATA
from tests.machine.test_profile import profile_of
from tests.sweep.simulation import true_law, world_of

ROOT = README.parent
VENV = ".venv"
FORM = "chinchilla_sparsity"
SMALL = {  # of a command: settings that it gets besides, or in place of the README's
    "study": {"--time": "10m", "--tokenizer": "bpe:300", "--context": "32", "--seed": "1", "--form": FORM},
    "train": {"--tokens": "2k", "--threads": "1"},
    "generate": {"--tokens": "4", "--seed": "1"},
    "fit": {"--bootstrap": "5"},
    "dial": {"--port": "0"},
    "serve": {"--port": "0", "--slots": "2"},
    "prune": {"--calibration-tokens": "2000", "--scored-tokens": "500"},
}
SERVERS = ("dial", "serve")
ASKED = {"--data": str(DATA), "--limit": "20"}  # besides, where items of tasks are asked
LESS = {"10h": "10m", "reference-loss": "random"}  # in place of a word: a reference model takes half a minute
TEXT = {"study": ["my_text/"], "train": ["--text", "my_text/"]}  # in place of the built-in one


def lines() -> list[list[str]]:
    """The words of every command line of the README."""
    blocks = re.findall(r"^```console\n(.*?)^```", README.read_text(), flags=re.M | re.S)
    shown = [line[2:] for block in blocks for line in block.splitlines() if line.startswith("$ ")]
    return [shlex.split(line, comments=True) for line in shown]


def command(words: list[str]) -> list[str] | None:
    """The command of ours in a line; None where the line prepares the machine, in a way that is checked here."""
    match words:
        case ["sparsedial", *given]:
            return given
        case ["make", target]:
            asked = ["make", "-n", "--no-print-directory", target]
            apart = {"PATH": os.environ["PATH"]}  # without the settings of a make that runs the tests
            made = subprocess.run(asked, cwd=ROOT, env=apart, capture_output=True, text=True, check=True).stdout
            program, *given = shlex.split(made.splitlines()[-1])
            assert program == f"{VENV}/bin/sparsedial"
            return given
        case ["pip", "install", "-e", what]:
            extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
            assert what.removeprefix(".[").removesuffix("]") in extras
        case ["source", script]:
            assert script == f"{VENV}/bin/activate"
        case _:
            assert words == ["git", "clone", "ADDRESS", "sparsedial", "&&", "cd", "sparsedial"]
    return None


def small(words: list[str]) -> list[str]:
    """A command with the small text and the settings of this test."""
    verb, *given = (LESS.get(word, word) for word in words)
    if not any(word.startswith("my_text") for word in given):
        given = [*TEXT.get(verb, []), *given]
    for flag, value in (SMALL.get(verb, {}) | (ASKED if "--tasks" in given else {})).items():
        if flag in given:
            given[given.index(flag) + 1] = value
        else:
            given += [flag, value]
    return [verb, *given]


@pytest.fixture
def folder(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a reader of the README stands: two texts, and a machine whose studies take no time."""
    (tmp_path / "my_text").symlink_to(corpus)
    (tmp_path / "other.txt").write_text((corpus / "07.txt").read_text()[:3000])
    real = local_lab.local_lab

    def simulated(question, *given, **named):
        executor = Simulated(world_of(true_law(mu=0.09)), workers=question.workers)
        lab = real(question, *given, **named)
        if (shares := lab.crossing) is not None:
            shares = replace(shares, texts=tuple(replace(text, open=lambda _: executor) for text in shares.texts))
        return replace(lab, archive=executor, executor=executor, crossing=shares)

    monkeypatch.setattr(local_lab, "measure_on", lambda *_: lambda *_: profile_of(0.0))
    monkeypatch.setattr(local_lab, "local_lab", simulated)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def pages(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The pages that a browser got; after each of them, Ctrl-C, which a shell's background jobs ignore otherwise."""
    got: list[str] = []
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def visit(address: str) -> None:
        with urllib.request.urlopen(address, timeout=60) as answer:
            got.append(answer.read().decode())
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(webbrowser, "open", lambda address: Thread(target=visit, args=(address,)).start())
    yield got
    signal.signal(signal.SIGINT, before)


def test_every_command_runs_on_what_the_one_before_left(folder, pages, capsys):
    commands = [small(words) for words in map(command, lines()) if words]
    for words in commands:
        status, said = main(words), capsys.readouterr()
        wanted = INTERRUPTED if words[0] in SERVERS else DONE
        assert status == wanted, f"sparsedial {shlex.join(words)}\n{said.err}"
    assert len(pages) == len([words for words in commands if words[0] in SERVERS])
    trained = [read_json(file)["tokenizer"] for file in folder.glob("runs/*/settings.json")]
    assert trained == ["bpe:300"] * len({words[words.index("--out") + 1] for words in commands if words[0] == "train"})


def test_the_readme_shows_every_command_at_work():
    """But for `count` and `profile`, which need nothing and leave nothing that others use."""
    shown = {words[0] for words in map(command, lines()) if words}
    assert shown == {"study", "train", "evaluate", "generate", "plan", "fit", "dial", "serve", "prune", "select"}
