"""Workers of other machines: where a study lets them in, what the two tell each other, and who trained what."""

from __future__ import annotations

from typing import Literal, TypeVar

import msgspec

from sparsedial.records.record import Record

T = TypeVar("T", bound=Record)

JOIN_FILE = "join.json"  # in a study's folder while it lets workers in; only its owner may read it

LaunchKind = Literal["local", "join", "slurm", "ray"]


class Meeting(Record, frozen=True, kw_only=True):
    """Where a running study lets workers in."""

    host: str  # name of its machine
    addresses: tuple[str, ...]  # of that machine, most likely first
    port: int
    key: str  # who does not know it is not let in


class Setup(Record, frozen=True, kw_only=True):
    """What a worker's results depend on beside its jobs."""

    versions: dict[str, str]  # of packages
    recipe_version: int
    kernels: str
    build: str  # digest of the compiled kernels; empty without
    instructions: str  # sets of the processor that PyTorch uses
    processor: str
    python: str


class Hello(Record, frozen=True, kw_only=True):
    """What a worker says of itself before it is let in."""

    host: str
    process: int
    setup: Setup


class Admission(Record, frozen=True, kw_only=True):
    """Whether a worker is let in."""

    refused: str | None  # why not; null where it is


class HostRuns(Record, frozen=True, kw_only=True):
    """The runs that a machine trained, by the first digits of their hashes."""

    name: str
    runs: tuple[str, ...]


class LaunchSoFar(Record, frozen=True, kw_only=True):
    """The machines of a study over all its starts."""

    kind: LaunchKind  # of the last start
    first: str | None  # the machine that was measured; null where an earlier version began the study
    hosts: tuple[HostRuns, ...] = ()
    attempts: int = 0  # at runs that ended, or whose worker was gone
    attempts_superseded: int = 0  # of them, those whose worker was gone: another one trained the run


class LaunchHost(Record, frozen=True, kw_only=True):
    """What a machine did for a study."""

    name: str
    profile_digest: str | None
    profile_digest_reason: str | None  # why its profile is not known
    cells: int  # of the grid; one whose seeds were trained on two machines counts for both
    runs: int  # all of them


class Launch(Record, frozen=True, kw_only=True):
    """The machines of a finished study."""

    kind: LaunchKind
    hosts: tuple[LaunchHost, ...]  # where a run was trained of which this is not known, it counts for none
    attempts: int
    attempts_superseded: int


class JoinAnswer(Record, frozen=True, kw_only=True):
    """What the workers of `join` did until the study ended or they left."""

    study: str
    host: str
    workers: int
    runs: int
    seconds: float


def packed(record: Record) -> bytes:
    """A record as JSON, which every version can read, and which nothing in it can run."""
    return msgspec.json.encode(record)


def unpacked(data: bytes, cls: type[T]) -> T | None:
    """What `packed` made of a record; None for anything else."""
    try:
        return msgspec.json.decode(data, type=cls)
    except msgspec.DecodeError:
        return None
