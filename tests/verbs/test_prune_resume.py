"""`prune` that is stopped: the same command goes on from what is done, gives the same folder, and believes no other."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
import torch

import sparsedial
from sparsedial.cli.main import main
from sparsedial.errors import UserError
from sparsedial.model.checkpoint import load, save_checkpoint
from sparsedial.pruning import in_turn, searching, shelf
from sparsedial.pruning.in_turn import Passage
from sparsedial.records.compare import ComparedPoint
from sparsedial.text.tokenizer import byte_tokenizer
from sparsedial.verbs.prune import tried
from tests.model.shapes import FAMILIES, shaken
from tests.pruning.planted import (
    knowing_letters,
    saved,
    with_clusters,
    with_dead_experts,
    with_dead_neurons,
)

SHAPE = replace(FAMILIES["qwen3_moe"], vocab_size=256, layers=4)
MEASURED = ("prune.json", "dial.json", "compare.json", "compare.png", "compare.svg")  # speeds differ from run to run
WAYS = {
    "sequential": {"keep": 0.5, "sequential": True},
    "layer by layer": {"keep": 0.5, "layer_by_layer": True, "method": "frequency"},
    "merged": {"keep": 0.5, "method": "hc-smoe"},
    "layers": {"keep": 0.5, "method": "block-influence"},
    "wanda": {"keep": 0.5, "method": "wanda"},
    "wanda layer by layer": {"keep": 0.5, "method": "wanda", "layer_by_layer": True},
    "sparsegpt": {"keep": 0.5, "method": "sparsegpt"},
    "neurons": {"keep": 0.5, "method": "activation"},
    "split": {"split_experts": 8, "always": 1},
}

pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture
def sparse(tmp_path: Path) -> Path:
    save_checkpoint(knowing_letters(shaken(SHAPE)), tmp_path / "sparse", byte_tokenizer())
    return tmp_path / "sparse"


@pytest.fixture
def checkpoint(request, sparse: Path, tmp_path: Path) -> Path:
    """One that the way of the test is for."""
    if request.node.callspec.params["way"] in ("neurons", "split"):
        return saved(with_clusters(layers=4)[0], tmp_path / "dense")
    return sparse


def prune(checkpoint: Path, text: str, out: str = "out", **settings):
    asked = {"calibrate": text, "calibration_tokens": 2048, "scored_tokens": 256, "out": checkpoint.parent / out}
    return sparsedial.prune(checkpoint, **{**asked, **settings})


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name not in MEASURED}


def stopped_at(monkeypatch, number: int, *given, passage: int = 1, **settings) -> None:
    """A run that is stopped while it keeps the stream behind this layer, of which one batch is kept already."""
    kept, behind = Passage.put_stream, []

    def stopping(self, at, batch, x_BSD):
        kept(self, at, batch, x_BSD)
        if (at, batch) == (number + 1, 1):
            behind.append(number)
            if len(behind) == passage:
                raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(in_turn, "windows_at_once", lambda tokens: 8)
        patched.setattr(Passage, "put_stream", stopping)
        with pytest.raises(KeyboardInterrupt):
            prune(*given, **settings)


def going_on(monkeypatch, *given, **settings) -> list[int]:
    """A run that is not stopped; the layers whose inputs it read."""
    read, inputs = [], Passage.inputs
    with monkeypatch.context() as patched:
        patched.setattr(in_turn, "windows_at_once", lambda tokens: 8)
        patched.setattr(Passage, "inputs", lambda self, number: read.append(number) or inputs(self, number))
        prune(*given, **settings)
    return read


def hidden(checkpoint: Path) -> list[str]:
    return [path.name for path in checkpoint.parent.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("way", WAYS)
def test_it_goes_on_from_the_last_layer_and_gives_the_same_folder(way, checkpoint, text, monkeypatch):
    settings = WAYS[way]
    assert min(going_on(monkeypatch, checkpoint, text, "whole", **settings)) == 0
    stopped_at(monkeypatch, 2, checkpoint, text, **settings)
    assert not (checkpoint.parent / "out").exists()
    assert hidden(checkpoint) == [".out.unfinished"]
    again = going_on(monkeypatch, checkpoint, text, **settings)
    calibrated = again[: again.index(0)] if "layer_by_layer" in settings else again  # then each model is scored so
    assert min(calibrated, default=0) == 2, "layers 0 and 1 are not computed again"
    assert 3 in calibrated
    assert files(checkpoint.parent / "out") == files(checkpoint.parent / "whole")
    assert hidden(checkpoint) == []


def test_ctrl_c_says_that_the_same_command_goes_on(sparse, text, monkeypatch, capsys):
    words = ["prune", str(sparse), "--keep", "0.5", "--calibrate", text, "--out", str(sparse.parent / "out")]
    kept, calls = Passage.put_stream, []

    def later(*given):
        kept(*given) if not calls else interrupted()
        calls.append(1)

    monkeypatch.setattr(Passage, "put_stream", later)
    assert main(words) == 130
    said = capsys.readouterr().err.splitlines()[-1]
    assert said == "stopped; what was found so far is kept: run the same command again to continue"


def test_ctrl_c_says_that_nothing_is_kept_where_nothing_is(sparse, monkeypatch, capsys):
    monkeypatch.setattr("sparsedial.verbs.prune.fixed_setting.fixed_setting", interrupted)
    assert main(["prune", str(sparse), "--fix-setting", "k=1", "--out", str(sparse.parent / "out")]) == 130
    assert capsys.readouterr().err.splitlines()[-1] == "stopped; nothing was kept"
    monkeypatch.setattr("sparsedial.verbs.evaluate.evaluate.evaluated", interrupted)
    assert main(["evaluate", str(sparse), "--text", "some.txt"]) == 130
    assert capsys.readouterr().err.splitlines()[-1] == "stopped; nothing was kept"


def interrupted(*given) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("model", [0, 3, 4])
def test_layer_by_layer_the_measurement_goes_on_from_the_last_layer_too(sparse, text, monkeypatch, model):
    """Of a random choice, of the original, and of what was written: each is scored in a passage of its own."""
    settings = {**WAYS["layer by layer"], "scored_tokens": 768}
    whole = going_on(monkeypatch, sparse, text, "whole", **settings)
    passages = [number for number, layer in enumerate(whole) if layer == 0]
    assert len(passages) == 1 + 3 + 2, "the calibration, three random choices, before and after"
    stopped_at(monkeypatch, 2, sparse, text, passage=2 + model, **settings)
    assert not (sparse.parent / "out").exists()
    again = going_on(monkeypatch, sparse, text, **settings)
    assert again[0] == 2, "what was measured is not measured again"
    assert again.count(0) == 4 - model
    assert files(sparse.parent / "out") == files(sparse.parent / "whole")
    assert hidden(sparse) == []


def damaged(checkpoint: Path, pattern: str) -> None:
    (file, *_) = (checkpoint.parent / ".out.unfinished").rglob(pattern)
    file.write_bytes(file.read_bytes()[:-4])


@pytest.mark.parametrize("pattern", ["layer-1.*", "stream-2-0.*"])
def test_a_file_that_was_cut_short_is_not_believed(sparse, text, monkeypatch, pattern):
    settings = {"keep": 0.5, "method": "wanda"}
    going_on(monkeypatch, sparse, text, "whole", **settings)
    stopped_at(monkeypatch, 2, sparse, text, **settings)
    damaged(sparse, pattern)
    assert min(going_on(monkeypatch, sparse, text, **settings)) == 0, "the stream before earlier layers is gone"
    assert files(sparse.parent / "out") == files(sparse.parent / "whole")


def test_a_full_disk_is_one_line_and_the_same_command_goes_on(sparse, text, monkeypatch):
    settings, kept, written = {"keep": 0.5, "method": "wanda"}, shelf.write_file, []
    going_on(monkeypatch, sparse, text, "whole", **settings)

    def full(path, tensors):
        written.append(path)
        if len(written) == 6:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return kept(path, tensors)

    with monkeypatch.context() as patched:
        patched.setattr(shelf, "write_file", full)
        with pytest.raises(UserError, match=r"cannot write .*: No space left on device") as refused:
            prune(sparse, text, **settings)
    assert refused.value.hint == "free some space; the same command goes on from where it was"
    assert not (sparse.parent / "out").exists()
    assert hidden(sparse) == [".out.unfinished"]
    going_on(monkeypatch, sparse, text, **settings)
    assert files(sparse.parent / "out") == files(sparse.parent / "whole")
    assert hidden(sparse) == []


@pytest.mark.parametrize(
    "other", [{"keep": 0.25}, {"method": "sparsegpt"}, {"calibration_tokens": 1024}, {"seed": 1}], ids=str
)
def test_what_a_command_of_other_settings_found_is_not_used_and_that_is_said(sparse, text, monkeypatch, capsys, other):
    settings = {"keep": 0.5, "method": "wanda"}
    going_on(monkeypatch, sparse, text, "whole", **settings)
    stopped_at(monkeypatch, 2, sparse, text, **{**settings, **other})
    capsys.readouterr()
    assert min(going_on(monkeypatch, sparse, text, **settings)) == 0
    assert "holds what another command has found" in capsys.readouterr().err
    assert files(sparse.parent / "out") == files(sparse.parent / "whole")
    assert hidden(sparse) == []


def test_another_checkpoint_or_text_of_the_same_name_is_not_taken_for_the_first(sparse, text, monkeypatch):
    settings = {"keep": 0.5, "method": "wanda"}
    stopped_at(monkeypatch, 2, sparse, text, **settings)
    Path(text).write_text(Path(text).read_text()[::-1])
    stopped_at(monkeypatch, 2, sparse, text, **settings)
    assert len([*(sparse.parent / ".out.unfinished").glob("*/")]) == 2
    save_checkpoint(saved_anew(sparse), sparse, byte_tokenizer())
    assert min(going_on(monkeypatch, sparse, text, **settings)) == 0


@pytest.mark.parametrize("settings", [{"keep": 0.5}, {"compare": "frequency", "strengths": ".5"}], ids=str)
def test_a_checkpoint_that_is_changed_meanwhile_is_not_mixed_with_what_it_was(sparse, text, monkeypatch, settings):
    read = Passage.end

    def changing(self, *given):
        save_checkpoint(saved_anew(sparse), sparse, byte_tokenizer())
        return read(self, *given)

    monkeypatch.setattr(Passage, "end", changing)
    with pytest.raises(UserError, match="was changed while it was read, so nothing is written"):
        prune(sparse, text, **settings)
    assert not (sparse.parent / "out").exists()


def saved_anew(folder: Path):
    model = load(folder)
    with torch.no_grad():
        model.blocks[0].attention_norm_D.mul_(1.5)
    return model


def test_a_search_does_not_try_a_share_again(tmp_path, text, monkeypatch):
    checkpoint = saved(with_dead_experts("softmax", (1, 3, 4, 6)), tmp_path / "whole")
    tries, made = [], searching.Search._tried

    def trying(self, choice, before):
        tries.append(choice)
        if len(tries) == stop:
            raise KeyboardInterrupt
        return made(self, choice, before)

    monkeypatch.setattr(searching.Search, "_tried", trying)
    stop = 0
    whole = prune(checkpoint, text, "first", max_loss_increase="1%", sequential=True)
    assert len(tries) == len(whole.search) == 3
    tries.clear()
    stop = 3
    with pytest.raises(KeyboardInterrupt):
        prune(checkpoint, text, max_loss_increase="1%", sequential=True)
    stop = 0
    tries.clear()
    again = prune(checkpoint, text, max_loss_increase="1%", sequential=True)
    assert len(tries) == 1
    assert again.search == whole.search
    assert files(tmp_path / "out") == files(tmp_path / "first")
    assert hidden(checkpoint) == []


def test_a_comparison_keeps_the_points_that_are_done(tmp_path, text, monkeypatch):
    checkpoint = saved(with_dead_neurons((0, 5, 6, 11), layers=3), tmp_path / "whole")
    asked = {"compare": "wanda,activation,block-influence", "strengths": ".667"}
    whole, scored, made = prune(checkpoint, text, "first", **asked), [], tried._tried

    def trying(work, *given):
        scored.append(work.ask.method)
        if len(scored) == stop:
            raise KeyboardInterrupt
        return made(work, *given)

    monkeypatch.setattr(tried, "_tried", trying)
    stop = 4
    with pytest.raises(KeyboardInterrupt):
        prune(checkpoint, text, **asked)
    first = scored[:3]
    stop = 0
    scored.clear()
    again = prune(checkpoint, text, **asked)
    assert len(scored) == 3
    assert not set(scored) & set(first)
    assert [untimed(point) for point in again.points] == [untimed(point) for point in whole.points]
    assert (again.pareto, again.orders) == (whole.pareto, whole.orders)
    assert hidden(checkpoint) == []


def untimed(point: ComparedPoint) -> ComparedPoint:
    costs = msgspec.structs.replace(point.after, decode_tokens_per_second=None)
    return msgspec.structs.replace(point, after=costs)


def test_a_refusal_leaves_nothing(sparse, text):
    with pytest.raises(UserError, match="no share"):
        prune(sparse, text, method="block-influence", speed="1000x")
    assert hidden(sparse) == []


KILLED = """
import os, signal, sys
import sparsedial
from sparsedial.pruning import in_turn
in_turn.windows_at_once = lambda tokens: 8
kept = in_turn.Passage.put_stream
def killing(self, at, batch, x_BSD):
    kept(self, at, batch, x_BSD)
    if (at, batch) == (3, 1):
        os.kill(os.getpid(), signal.SIGKILL)
in_turn.Passage.put_stream = killing
checkpoint, text, out = sys.argv[1:]
sparsedial.prune(
    checkpoint, calibrate=text, out=out, keep=0.5, method="wanda", calibration_tokens=2048, scored_tokens=256
)
"""


def test_killed_it_goes_on_too(sparse, text, monkeypatch):
    settings = {"keep": 0.5, "method": "wanda"}
    going_on(monkeypatch, sparse, text, "whole", **settings)
    words = [sys.executable, "-c", KILLED, str(sparse), text, str(sparse.parent / "out")]
    assert subprocess.run(words, capture_output=True, check=False).returncode == -signal.SIGKILL
    assert min(going_on(monkeypatch, sparse, text, **settings)) == 2
    assert files(sparse.parent / "out") == files(sparse.parent / "whole")
    assert hidden(sparse) == []
