"""`train` by several processes is `train` by one, up to rounding: one voice, one folder, and no hang where one goes."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from sparsedial.cli.main import main
from sparsedial.model.checkpoint import load
from sparsedial.runs import in_process
from sparsedial.runs.execute import execute
from sparsedial.runs.ranks import gathering, watch
from sparsedial.runs.ranks.board import Board
from sparsedial.runs.ranks.joined import Order
from sparsedial.store import read_json
from sparsedial.training.exchange import Exchange
from sparsedial.verbs.listening import RunListener
from tests.verbs.test_train import words

STEPS = 250  # of 64 tokens
MORE = ("--tokens", "16k", "--threads", "2", "--recipe.spike_sigmas", "0", "--shape.experts", "4", "--shape.top_k", "2")
SHAPE = ("--shape.d_expert", "8", "--shape.d_ff", "0")


def asked(corpus: Path, out: Path, *more: str) -> list[str]:
    given = words(corpus, out, *MORE, *SHAPE, *more)
    del given[given.index("--threads") : given.index("--threads") + 2]  # TINY's own
    return given


def the_run(out: Path) -> dict[str, Any]:
    """The only run of a folder."""
    (file,) = out.glob("runs/*/run.json")
    return read_json(file)


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load(out / "checkpoint").state_dict()


def require_same_run(out: Path, other: Path) -> None:
    """Both trained one run, up to rounding."""
    one, two = the_run(out), the_run(other)
    assert one["hash"] == two["hash"]
    for name in ("train_loss", "validation_loss", "test_loss", "test_bits_per_byte"):
        assert one[name] == pytest.approx(two[name], rel=1e-6), name
    assert one["expert_load"]["max_over_mean"] == pytest.approx(two["expert_load"]["max_over_mean"], rel=1e-3)
    theirs = weights(other)
    for name, tensor in weights(out).items():
        torch.testing.assert_close(tensor, theirs[name], atol=2e-5, rtol=1e-4, msg=lambda text, name=name: name + text)


@pytest.fixture(scope="module")
def whole(corpus, tmp_path_factory) -> Path:
    """The folder of a run that one process trained."""
    out = tmp_path_factory.mktemp("whole") / "out"
    assert main(asked(corpus, out)) == 0
    return out


@pytest.fixture(autouse=True)
def _patient(monkeypatch) -> None:
    """This process is rank 0, which may be slow beside other tests: it must not be ended for that."""
    monkeypatch.setattr(watch, "GRACE_SECONDS", 600.0)


@pytest.fixture
def at_step(monkeypatch) -> Callable[[int, Callable[[], object]], None]:
    """Lets something happen in rank 0 when it shows this step or the first one after it, once."""
    monkeypatch.setattr(in_process, "WAIT_SECONDS", 0.0)
    moved = RunListener.moved

    def set_to(step: int, act: Callable[[], object]) -> None:
        left = [act]

        def moving(self, event):
            moved(self, event)
            if event.step >= step and left:
                left.pop()()

        monkeypatch.setattr(RunListener, "moved", moving)

    return set_to


def to_the_other_rank(number: signal.Signals) -> None:
    """Send a signal to the process that rank 0 has started."""
    (process,) = multiprocessing.active_children()
    os.kill(process.pid, number)


def stop_here() -> None:
    raise KeyboardInterrupt


def test_two_ranks_train_one_run_and_rank_0_alone_speaks(corpus, whole, tmp_path, capfd):
    capfd.readouterr()
    assert main(asked(corpus, tmp_path / "out", "--ranks", "2", "--json")) == 0
    said = capfd.readouterr()
    answer = json.loads(said.out)
    assert answer["ranks"] == {
        "count": 2,
        "mesh": {"data": 2, "shard": 1, "expert": 1},
        "backend": "gloo",
        "hosts": [{"name": socket.gethostname(), "ranks": 2}],
    }
    assert (
        len([line for line in said.err.splitlines() if "tokens: loss" in line]) == 1
    )  # a slow run shows its steps too
    require_same_run(tmp_path / "out", whole)
    assert the_run(whole)["ranks"] is None
    assert multiprocessing.active_children() == []
    assert not torch.distributed.is_initialized()


def test_a_run_goes_on_with_another_number_of_ranks(corpus, whole, tmp_path, capfd, at_step, monkeypatch):
    """One process, then two of which the second is asked to stop as Slurm does, then one."""
    out = tmp_path / "out"
    monkeypatch.setitem(execute.__kwdefaults__, "save_seconds", 1e9)
    at_step(60, stop_here)
    assert main(asked(corpus, out)) == 130
    at_step(120, lambda: to_the_other_rank(signal.SIGTERM))
    capfd.readouterr()
    assert main(asked(corpus, out, "--ranks", "2")) == 130
    assert capfd.readouterr().err.splitlines()[-1] == "stopped; run the same command again to continue"
    (state,) = out.glob("runs/*/unfinished/state.json")
    stopped_at = read_json(state)["next_step"]
    assert 120 < stopped_at < STEPS
    at_step(STEPS, lambda: None)
    assert main(asked(corpus, out)) == 0
    run = the_run(out)
    (first, second) = run["resumes"]
    assert 60 < first["step"] < 120
    assert (first["ranks"], first["reason"]) == (2, "stopped")
    assert second == {"step": stopped_at, "ranks": 1, "reason": "stopped"}
    assert run["checkpoints"]["kept"] == 2
    assert run["checkpoints"]["bytes"] > 1000
    require_same_run(out, whole)


def test_a_killed_rank_ends_the_others_in_one_line_and_the_last_state_goes_on(
    corpus, whole, tmp_path, capfd, at_step, monkeypatch
):
    out = tmp_path / "out"
    monkeypatch.setitem(execute.__kwdefaults__, "save_seconds", 0.0)
    at_step(100, lambda: to_the_other_rank(signal.SIGKILL))
    capfd.readouterr()
    assert main(asked(corpus, out, "--ranks", "2")) == 1
    said = capfd.readouterr()
    assert said.out == ""
    assert said.err.count("error:") == 1
    assert f"error: rank 1 on {socket.gethostname()} was killed by signal 9" in said.err.splitlines()
    monkeypatch.setitem(execute.__kwdefaults__, "save_seconds", 1e9)
    assert main(asked(corpus, out)) == 0
    (resume,) = the_run(out)["resumes"]
    assert resume["step"] > 99
    assert (resume["ranks"], resume["reason"]) == (1, "lost")
    require_same_run(out, whole)


def test_a_rank_that_is_killed_while_a_message_is_under_way_ends_the_others(corpus, tmp_path, capfd, monkeypatch):
    begin, begun = Exchange._begin, list[int]()

    def killing(self: Exchange) -> None:
        begin(self)
        begun.append(1)
        if len(begun) == 50:
            to_the_other_rank(signal.SIGKILL)

    monkeypatch.setattr(Exchange, "_begin", killing)
    assert main(asked(corpus, tmp_path / "out", "--ranks", "2")) == 1
    said = capfd.readouterr()
    assert (said.out, said.err.count("error:")) == ("", 1)
    assert f"error: rank 1 on {socket.gethostname()} was killed by signal 9" in said.err.splitlines()
    assert not torch.distributed.is_initialized()


def test_an_error_of_one_rank_is_said_once_with_its_rank(corpus, tmp_path, capfd, monkeypatch):
    """The other rank finds another text than rank 0 has prepared."""
    post = Board.post

    def wrongly(self, order: Any) -> None:
        post(self, replace(order, text_digest="another") if isinstance(order, Order) else order)

    monkeypatch.setattr(Board, "post", wrongly)
    assert main(asked(corpus, tmp_path / "out", "--ranks", "2")) == 2
    said = capfd.readouterr()
    assert said.out == ""
    where = f"rank 1 on {socket.gethostname()}: {tmp_path / 'out' / 'text'}"
    errors = [line for line in said.err.splitlines() if line.startswith("error:")]
    assert errors == [f"error: {where} holds another text than on rank 0's machine"]


def test_a_rank_that_waits_for_rank_0s_text_may_be_asked_to_stop(corpus, tmp_path, capfd, monkeypatch):
    def reading(*given, **more):
        to_the_other_rank(signal.SIGTERM)
        for _ in range(600):
            time.sleep(0.1)
        pytest.fail("nobody stopped this")

    monkeypatch.setattr("sparsedial.text.prepare.prepare", reading)
    assert main(asked(corpus, tmp_path / "out", "--ranks", "2")) == 130
    said = capfd.readouterr()
    assert (said.out, said.err.splitlines()[-1]) == ("", "stopped; run the same command again to continue")


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--ranks", "2", "--token-share", "60%"], "--token-share: each of 2 ranks would choose among its own tokens"),
        (["--ranks", "0"], "--ranks: 0 lies outside 1..256"),
        (["--ranks", "3", "--dry-run"], "a batch of 4 sequences cannot be divided evenly among 3 ranks"),
    ],
)
def test_what_ranks_cannot_train_is_refused_before_any_is_started(corpus, tmp_path, capsys, monkeypatch, flags, says):
    monkeypatch.setattr(gathering, "_started", None)
    assert main(asked(corpus, tmp_path / "out", *flags)) == 2
    assert says in capsys.readouterr().err


def environment(rank: int, port: int) -> dict[str, str]:
    """As torchrun sets it, where rank 0 has the store."""
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return {name: str(value) for name, value in place.items()}


def test_settings_that_only_one_rank_cannot_read_end_both_and_rank_0_says_so(corpus, tmp_path, capfd, monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    given = asked(corpus, tmp_path / "out")
    command = [sys.executable, "-m", "sparsedial", *given, "--no-such-flag", "1"]
    other = subprocess.Popen(command, env={**os.environ, **environment(1, port)}, cwd=tmp_path)
    try:
        for name, value in environment(0, port).items():
            monkeypatch.setenv(name, value)
        assert main([*given, "--ranks", "3"]) == 2
        assert "--ranks: 3 contradicts the 2 processes" in capfd.readouterr().err
        monkeypatch.setattr(gathering, "_numbers", iter([0]))
        assert main(given) == 2
        assert other.wait(60) == 2
    finally:
        other.kill()
        other.wait()
    said = capfd.readouterr()
    assert said.out == ""
    assert said.err.splitlines()[0].startswith(f"error: rank 1 on {socket.gethostname()}: train: no setting named 'no-")
    assert said.err.count("error:") == 1


def test_torchrun_trains_the_same_run(corpus, whole, tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    ran = subprocess.run(
        [*command, "-m", "sparsedial", *asked(corpus, tmp_path / "out", "--json")],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)["ranks"]["count"] == 2
    assert ran.stderr.count("reading the text") == 1
    require_same_run(tmp_path / "out", whole)
