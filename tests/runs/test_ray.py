"""Workers on the nodes of a Ray cluster. Ray is a stand-in here, whose tasks are threads of this process."""

from __future__ import annotations

import importlib
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from sparsedial.errors import UserError
from sparsedial.runs.machines import ray_cluster
from sparsedial.runs.machines.ray_cluster import on_ray
from sparsedial.runs.machines.setup import setup_here
from sparsedial.runs.machines.site import Site

PATIENCE = 120.0  # seconds, for a machine that is busy with other things


class Pretended:
    """What is used of Ray: a cluster of this node, two more, and one that has died."""

    exceptions = SimpleNamespace(RayError=RuntimeError)

    def __init__(self) -> None:
        self.asked: list[dict] = []
        self.open = False

    def init(self, **given) -> None:
        if given["address"] != "auto":
            raise ConnectionError(f"no cluster at {given['address']}\nand more")
        self.open = True

    def get_runtime_context(self):
        return SimpleNamespace(get_node_id=lambda: "here")

    def nodes(self) -> list[dict]:
        places = [("here", True, 8), ("one", True, 2), ("two", True, 1), ("dead", False, 4), ("head", True, None)]
        return [
            {"NodeID": name, "NodeManagerHostname": name, "Alive": alive, "Resources": {"CPU": cpus} if cpus else {}}
            for name, alive, cpus in places
        ]

    def remote(self, **given):
        self.asked.append(given)

        def started(work):
            def begin(*words):
                thread = threading.Thread(target=work, args=words)
                thread.start()
                return thread

            return SimpleNamespace(remote=begin)

        return started

    def wait(self, tasks, num_returns: int = 1, timeout: float | None = None):
        for task in tasks[:num_returns]:
            task.join(timeout)
        return tasks[:num_returns], tasks[num_returns:]

    def get(self, task) -> None:
        task.join()

    def shutdown(self) -> None:
        self.open = False


@pytest.fixture
def ray(monkeypatch) -> Pretended:
    pretended = Pretended()
    strategies = SimpleNamespace(NodeAffinitySchedulingStrategy=lambda node_id, soft: (node_id, soft))
    monkeypatch.setitem(sys.modules, "ray", pretended)  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "ray.util.scheduling_strategies", strategies)  # type: ignore[arg-type]
    monkeypatch.setattr(importlib, "import_module", lambda name: sys.modules[name])
    monkeypatch.setattr(ray_cluster, "settle_threads", lambda: None)  # this process has had runs
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return pretended


def test_each_cpu_of_the_other_nodes_joins_and_leaves_with_the_study(ray: Pretended, tmp_path: Path):
    with Site(tmp_path, setup_here(), print) as site:
        launched = on_ray(tmp_path, None, print)
        assert launched.expected == 3
        assert site.wait_for(3, PATIENCE) == 3
        assert sorted(worker.host for worker in site.joined) == ["one", "one", "two"]
    launched.end()
    assert not ray.open
    assert [given["scheduling_strategy"] for given in ray.asked] == [("one", False), ("one", False), ("two", False)]
    assert all((given["num_cpus"], given["max_retries"]) == (1, 0) for given in ray.asked)


def test_fewer_workers_may_be_asked_of_each_node(ray: Pretended, tmp_path: Path):
    with Site(tmp_path, setup_here(), print) as site:
        launched = on_ray(tmp_path, 1, print)
        assert launched.expected == site.wait_for(2, PATIENCE) == 2
    launched.end()


def test_without_a_cluster_that_is_one_line(ray: Pretended, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "nowhere:6379")
    with pytest.raises(UserError, match=r"there is no Ray cluster \(no cluster at nowhere:6379\)"):
        on_ray(tmp_path, None, print)


def test_without_ray_that_is_one_line(tmp_path: Path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match="Ray is not installed"):
        on_ray(tmp_path, None, print)
