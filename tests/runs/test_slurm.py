"""Workers on the nodes of an allocation. `srun` is a script here: what it is asked is checked, not what Slurm does."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from sparsedial.errors import UserError
from sparsedial.runs.machines.setup import setup_here
from sparsedial.runs.machines.site import Site
from sparsedial.runs.machines.slurm import LOG, allocation, command, on_slurm

PATIENCE = 120.0  # seconds, for a machine that is busy with other things
JOB = {"SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": "4", "SLURM_JOB_CPUS_PER_NODE": "16(x3),8", "SLURMD_NODENAME": "n1"}


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A PATH with an `srun` that writes down what it is asked, and fails."""
    script = tmp_path / "bin" / "srun"
    script.parent.mkdir()
    script.write_text(f'#!{sys.executable}\nimport sys\nprint("asked", *sys.argv[1:])\nsys.exit(3)\n')
    script.chmod(0o755)
    return f"{script.parent}:{os.environ['PATH']}"


def test_the_first_node_is_left_to_its_own_workers(path):
    found = allocation(JOB | {"PATH": path})
    assert (found.nodes, found.others, found.cores) == (4, 3, 8)
    words = command(found, Path("/shared/mine"), 8)
    assert words[0] == "srun"
    assert {"--nodes=3", "--ntasks=3", "--ntasks-per-node=1", "--cpus-per-task=8", "--exclude=n1"} <= set(words)
    assert words[-5:] == ["sparsedial.cli.main", "join", "/shared/mine", "--workers", "8"]


def test_a_study_on_a_login_node_uses_all_nodes_of_its_allocation(path):
    outside = {name: value for name, value in JOB.items() if name != "SLURMD_NODENAME"}
    words = command(allocation(outside | {"PATH": path}), Path("/shared/mine"), 8)
    assert "--nodes=4" in words
    assert not any(word.startswith("--exclude") for word in words)


@pytest.mark.parametrize(
    ("environment", "says"),
    [({"PATH": "/nowhere"}, "no Slurm allocation"), (JOB | {"PATH": "/nowhere"}, "srun is not on the PATH")],
)
def test_without_slurm_that_is_one_line(environment, says):
    with pytest.raises(UserError, match=says):
        allocation(environment)


def test_an_srun_that_fails_is_said_and_ends_nothing(path, tmp_path: Path, monkeypatch):
    for name, value in (JOB | {"PATH": path}).items():
        monkeypatch.setenv(name, value)
    said: list[str] = []
    launched = on_slurm(tmp_path, 2, said.append)
    assert launched.expected == 6
    launched.end()
    asked = (tmp_path / LOG).read_text()
    assert asked.startswith("asked --nodes=3 ")
    assert asked.endswith(f"join {tmp_path} --workers 2\n")
    assert said[0] == "srun starts 2 workers on each of 3 more nodes of job 7"


SRUN = """
import os, subprocess, sys
count = int(next(word for word in sys.argv if word.startswith("--ntasks=")).partition("=")[2])
words = sys.argv[sys.argv.index(sys.executable):]
nodes = [subprocess.Popen(words, env=os.environ | {"SLURMD_NODENAME": f"n{2 + one}"}) for one in range(count)]
sys.exit(max(node.wait() for node in nodes))
"""


def test_the_nodes_join_and_end_with_the_study(path, tmp_path: Path, monkeypatch):
    """`srun` starts the processes here, with the names of other nodes."""
    (tmp_path / "bin" / "srun").write_text(f"#!{sys.executable}{SRUN}")
    for name, value in (JOB | {"PATH": path, "SLURM_JOB_NUM_NODES": "3"}).items():
        monkeypatch.setenv(name, value)
    with Site(tmp_path, setup_here(), print) as site:
        launched = on_slurm(tmp_path, 1, print)
        assert launched.expected == 2
        assert site.wait_for(2, PATIENCE) == 2
        assert {worker.host for worker in site.joined} == {"n2", "n3"}
    launched.end()
    assert (tmp_path / LOG).read_text().count("trained  0 runs by 1 worker") == 2


def test_one_node_is_enough(path, tmp_path: Path, monkeypatch):
    for name, value in (JOB | {"PATH": path, "SLURM_JOB_NUM_NODES": "1"}).items():
        monkeypatch.setenv(name, value)
    assert on_slurm(tmp_path, None, print).expected == 0
    assert not (tmp_path / LOG).exists()
