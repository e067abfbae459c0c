"""Workers on the other nodes of a Ray cluster that is there: one task for each of their CPUs."""

from __future__ import annotations

import importlib
import os
import threading
from collections.abc import Callable
from multiprocessing.connection import Pipe
from pathlib import Path
from typing import Any

from sparsedial.errors import UserError
from sparsedial.records.launch import Hello
from sparsedial.runs.machines.joining import dial, find_meeting, serve
from sparsedial.runs.machines.launched import Launched
from sparsedial.runs.machines.setup import setup_here
from sparsedial.runs.worker import settle_threads
from sparsedial.units import count_words

LEAVE_SECONDS = 30.0  # for workers to save their runs' states after the study has ended


def on_ray(folder: Path, workers: int | None, say: Callable[[str], None]) -> Launched:
    """Start workers on the other nodes of the cluster that RAY_ADDRESS names, or that Ray finds.

    This node's CPUs are left to the study's own workers. On each other node there are as many as it has CPUs, or as
    were asked.

    Raises: UserError where Ray is not installed, or there is no cluster.
    """
    ray = require_ray()
    address = os.environ.get("RAY_ADDRESS", "auto")
    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, ValueError) as error:
        raise UserError(
            f"there is no Ray cluster ({str(error).splitlines()[0]})",
            hint="`ray start --head` begins one; RAY_ADDRESS names one that is elsewhere",
            field="on",
        ) from error
    here, path = ray.get_runtime_context().get_node_id(), str(folder.resolve())
    places = [
        (node["NodeID"], node["NodeManagerHostname"])
        for node in ray.nodes()
        if node["Alive"] and node["NodeID"] != here
        for _ in range(int(node["Resources"].get("CPU", 0)))[:workers]
    ]
    say(f"Ray starts {count_words(len(places), 'worker')} on its other nodes")
    tasks = [_started(ray, node, path, name) for node, name in places]
    threading.Thread(target=_watch, args=(ray, tasks, say), daemon=True).start()

    def end() -> None:
        ray.wait(tasks, num_returns=len(tasks), timeout=LEAVE_SECONDS)
        ray.shutdown()

    return Launched(expected=len(tasks), end=end)


def require_ray() -> Any:
    """The package. Raises: UserError where Ray is not installed."""
    try:
        return importlib.import_module("ray")
    except ModuleNotFoundError as error:
        raise UserError("Ray is not installed", hint="pip install 'sparsedial[ray]'", field="on") from error


def _started(ray: Any, node: str, folder: str, name: str) -> Any:
    """A worker as a task on a node, in a process of its own that nothing else uses after it."""
    strategies = importlib.import_module("ray.util.scheduling_strategies")
    placed = strategies.NodeAffinitySchedulingStrategy(node_id=node, soft=False)
    task = ray.remote(num_cpus=1, max_retries=0, max_calls=1, scheduling_strategy=placed)(_work)
    return task.remote(folder, name)


def _work(folder: str, name: str) -> None:
    """In a process of Ray's: join the study, and work for it until it ends."""
    path, (leave, kept) = Path(folder), Pipe()
    connection = dial(find_meeting(path), Hello(host=name, process=os.getpid(), setup=setup_here()))
    settle_threads()
    serve(connection, path, leave)
    kept.close()


def _watch(ray: Any, tasks: list[Any], say: Callable[[str], None]) -> None:
    """Say why a task ended that did not end with the study."""
    left = tasks
    while left:
        done, left = ray.wait(left)
        for task in done:
            try:
                ray.get(task)
            except ray.exceptions.RayError as error:
                say(f"a worker of Ray's has ended: {str(error).strip().splitlines()[-1].partition('. ')[0]}")
