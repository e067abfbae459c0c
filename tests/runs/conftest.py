"""What tests of runs share."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from sparsedial.records.launch import LaunchSoFar
from sparsedial.runs.machines.machines import Machines
from sparsedial.runs.machines.setup import setup_here
from sparsedial.runs.machines.site import Site
from tests.runs.house import PATIENCE, House


@pytest.fixture
def house(small_text, tmp_path: Path) -> Iterator[House]:
    house = House(tmp_path, small_text)
    before = threading.enumerate()
    with Site(tmp_path, setup_here(), house.said.append) as house.site:
        house.machines = Machines("a", LaunchSoFar(kind="join", first="a"), house.site)
        yield house
    for leave in house.leaves:
        leave.close()
    for thread in set(threading.enumerate()) - set(before):
        thread._started.wait(PATIENCE)  # type: ignore[attr-defined]  # one may just be starting
        thread.join(PATIENCE)
        assert not thread.is_alive()
