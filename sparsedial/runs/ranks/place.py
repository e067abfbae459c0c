"""Which of a run's ranks this process is, and where they meet: as torchrun or Slurm say it in the environment."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from sparsedial.errors import UserError

FIRST_PORT, PORTS = 61440, 4096  # above the ports that Linux gives to other programs
ONE_NODE = re.compile(r"(?:[^,\[]|\[[^\]]*\])+")  # at the beginning of a list like `a[1-3,7],b`
NUMBERS = re.compile(r"\[([^\],-]+)[^\]]*\]")
STEP_FACTOR = 331  # so that steps of one job, and jobs that follow each other, differ


@dataclass(frozen=True, kw_only=True)
class Place:
    """A process among those that were started together."""

    rank: int
    count: int
    local_rank: int  # among those of its host
    address: str  # of the host where they meet
    port: int
    served: bool = False  # whether the store there is the starter's; else it is rank 0's
    attempt: int = 0  # torchrun starts all anew where one fails


def find_place(environment: Mapping[str, str]) -> Place | None:
    """The place that torchrun, or a step of Slurm, gave this process; None where it is alone.

    Raises: UserError where a part of what the starter says is missing or no number.
    """
    if "RANK" in environment and "WORLD_SIZE" in environment:
        return _of_torchrun(environment)
    return _of_slurm(environment) if "SLURM_STEP_NODELIST" in environment else None


def _of_torchrun(environment: Mapping[str, str]) -> Place | None:
    count = _number(environment, "WORLD_SIZE")
    if count == 1:
        return None
    return Place(
        rank=_number(environment, "RANK"),
        count=count,
        local_rank=_number(environment, "LOCAL_RANK"),
        address=_word(environment, "MASTER_ADDR"),
        port=_number(environment, "MASTER_PORT"),
        served=environment.get("TORCHELASTIC_USE_AGENT_STORE") == "True",
        attempt=int(environment.get("TORCHELASTIC_RESTART_COUNT", "0")),
    )


def _of_slurm(environment: Mapping[str, str]) -> Place | None:
    """A task of a step. A batch script has no step of its own, although it is told how many tasks its job may have."""
    count = _number(environment, "SLURM_STEP_NUM_TASKS" if "SLURM_STEP_NUM_TASKS" in environment else "SLURM_NTASKS")
    if count == 1:
        return None
    job, step = _number(environment, "SLURM_JOB_ID"), environment.get("SLURM_STEP_ID", "0")
    port = FIRST_PORT + (job + STEP_FACTOR * (int(step) if step.isdigit() else 0)) % PORTS
    return Place(
        rank=_number(environment, "SLURM_PROCID"),
        count=count,
        local_rank=_number(environment, "SLURM_LOCALID"),
        address=environment.get("MASTER_ADDR") or first_node(_word(environment, "SLURM_STEP_NODELIST")),
        port=_number(environment, "MASTER_PORT") if "MASTER_PORT" in environment else port,
    )


def first_node(nodes: str) -> str:
    """The first host of a list as Slurm writes it: `gpu01` of `gpu[01-04,07],big1`."""
    found = ONE_NODE.match(nodes)
    return NUMBERS.sub(r"\1", found[0] if found else nodes)


def _word(environment: Mapping[str, str], name: str) -> str:
    if not environment.get(name):
        raise UserError(
            f"the environment says that this process is one of several, but not {name}",
            hint="start them with torchrun or srun, or unset RANK and WORLD_SIZE",
        )
    return environment[name]


def _number(environment: Mapping[str, str], name: str) -> int:
    word = _word(environment, name)
    if not word.isdigit():
        raise UserError(f"{name}={word} in the environment is not a number", hint="torchrun and srun set it")
    return int(word)
