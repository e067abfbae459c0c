"""The help of a command names every setting with its meaning, and ends with examples that work; the shell completes."""

from __future__ import annotations

import dataclasses
import io
import os
import shlex
import subprocess
import sys

import pytest

from sparsedial import __version__
from sparsedial.cli.arguments import read_arguments
from sparsedial.cli.help import dotted, help_text
from sparsedial.cli.main import main, overview
from sparsedial.records.recipe import Recipe
from sparsedial.settings import meanings
from sparsedial.shape.shape import Shape
from sparsedial.verbs import VERBS


@pytest.mark.parametrize("verb", VERBS.values(), ids=lambda verb: verb.name)
def test_the_help_ends_with_examples_that_are_understood(verb):
    text = help_text(verb)
    shown = text.rpartition("examples:\n")[2].splitlines()
    assert [line.strip() for line in shown] == list(verb.examples)
    assert len(shown) >= 2
    for line in shown:
        command, name, *words = shlex.split(line)
        assert (command, name) == ("sparsedial", verb.name)
        read_arguments(verb, words)
    assert max(map(len, text.splitlines())) <= 120


@pytest.mark.parametrize("cls", [Shape, Recipe])
def test_every_field_of_a_shape_and_a_recipe_says_what_it_means(cls):
    words = meanings(cls)
    assert list(words) == [field.name for field in dataclasses.fields(cls)]
    assert [name for name, text in words.items() if not text] == []


def test_the_help_of_train_lists_what_a_flag_can_set_and_no_more():
    text = help_text(VERBS["train"])
    table = {field.name: field for field in dataclasses.fields(VERBS["train"].settings_class)}
    for name in ("shape", "recipe"):
        for inner, words in dotted(table[name]):
            assert f"--{name}.{inner.name} " in text
            assert words.split()[0] in text
    assert "--shape.own_layers" not in text
    assert "--recipe.schedule" in text
    assert "wsd|cosine:" in text
    assert "undone, its batch skipped [6.0]" in " ".join(text.split())  # as `train` has it, not as a study


def test_the_overview_says_how_to_see_the_version():
    assert "sparsedial --version" in overview()


@pytest.mark.parametrize("words", [["--version"], ["-V"], ["train", "--version"]])
def test_the_version_is_shown_after_a_command_too(words, capsys):
    assert main(words) == 0
    assert capsys.readouterr().out == f"sparsedial {__version__}\n"


def completed(line: str) -> set[str]:
    """What a shell would offer after a line."""
    pytest.importorskip("argcomplete")
    script = "import os, sys; sys.argv = ['sparsedial']; from sparsedial.cli.start import main; main()"
    asked = {"_ARGCOMPLETE": "1", "_ARGCOMPLETE_IFS": "\n", "COMP_LINE": line, "COMP_POINT": str(len(line))}
    asked |= {"_ARGCOMPLETE_STDOUT_FILENAME": "/dev/stdout", "_ARGCOMPLETE_SUPPRESS_SPACE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script], env=os.environ | asked, capture_output=True, text=True, check=True
    )
    return {word.strip() for word in io.StringIO(done.stdout) if word.strip()}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("sparsedial ev", {"evaluate"}),
        ("sparsedial plan --gpu", {"--gpu-hours"}),
        ("sparsedial train --recipe.beta", {"--recipe.beta1", "--recipe.beta2"}),
        ("sparsedial count deepseek-v2", {"deepseek-v2", "deepseek-v2-lite"}),
        ("sparsedial plan --law krajew", {"krajewski"}),
    ],
)
def test_the_shell_completes_commands_flags_and_names(line, words):
    assert completed(line) == words


NOT_THERE = (
    "generate /nowhere hi",
    "prune /nowhere --keep 0.5 --calibrate a --out o",
    "serve /nowhere",
    "evaluate /nowhere --text a",
    "dial /nowhere --measure --text a",
    "train /nowhere.json --tokens 1M --out o",
    "select /nowhere --out o",
    "join /nowhere",
)


def test_help_and_what_is_not_there_need_no_torch(tmp_path):
    """They answer in a third of a second, and not in two."""
    code = (
        "import sys; from sparsedial.cli.main import main; from sparsedial.verbs import VERBS\n"
        "for verb in VERBS:\n"
        "    try: main([verb, '--help'])\n"
        "    except SystemExit: pass\n"
        "    assert 'torch' not in sys.modules, verb\n"
        f"for line in {NOT_THERE!r}:\n"
        "    assert main(line.split()) == 2, line\n"
        "    assert 'torch' not in sys.modules, line\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("/nowhere: no such") + done.stderr.count("/nowhere.json: no such") == len(NOT_THERE)
    assert list(tmp_path.iterdir()) == []
