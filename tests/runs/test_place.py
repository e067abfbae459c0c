"""Which rank a process is: from torchrun, from a step of Slurm, or alone."""

from __future__ import annotations

import pytest

from sparsedial.errors import UserError
from sparsedial.runs.ranks.place import FIRST_PORT, PORTS, find_place, first_node

TORCHRUN = {
    "RANK": "5",
    "WORLD_SIZE": "8",
    "LOCAL_RANK": "1",
    "MASTER_ADDR": "host",
    "MASTER_PORT": "29500",
    "TORCHELASTIC_USE_AGENT_STORE": "True",
    "TORCHELASTIC_RESTART_COUNT": "2",
}
SLURM = {
    "SLURM_JOB_ID": "4711",
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NODELIST": "gpu[07-08,11],big",
    "SLURM_NTASKS": "8",
    "SLURM_PROCID": "5",
    "SLURM_LOCALID": "1",
}


def test_torchrun_and_a_step_of_slurm_say_which_rank_a_process_is():
    place = find_place(TORCHRUN)
    assert place is not None
    assert (place.rank, place.count, place.local_rank) == (5, 8, 1)
    assert (place.address, place.port, place.served, place.attempt) == ("host", 29500, True, 2)
    place = find_place(SLURM)
    assert place is not None
    assert (place.rank, place.count, place.local_rank, place.address) == (5, 8, 1, "gpu07")
    assert (place.served, place.attempt) == (False, 0)
    assert find_place({**SLURM, **TORCHRUN}) == find_place(TORCHRUN)


def test_all_tasks_of_a_step_meet_at_one_port_and_other_steps_and_jobs_at_another():
    def port(**changes: str) -> int:
        place = find_place({**SLURM, **changes})
        assert place is not None
        return place.port

    assert port(SLURM_PROCID="0", SLURM_LOCALID="0") == port()
    ports = [port(), port(SLURM_STEP_ID="1"), port(SLURM_JOB_ID="4712"), port(SLURM_JOB_ID="4710", SLURM_STEP_ID="1")]
    assert len(set(ports)) == 4
    assert all(FIRST_PORT <= one < FIRST_PORT + PORTS <= 65536 for one in ports)
    assert port(MASTER_PORT="1234") == 1234


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"WORLD_SIZE": "8"},
        {"SLURM_JOB_ID": "1", "SLURM_NTASKS": "8", "SLURM_PROCID": "0"},  # a batch script
        {**SLURM, "SLURM_NTASKS": "1"},
        {**SLURM, "SLURM_STEP_NUM_TASKS": "1"},  # of a job of eight
        {**TORCHRUN, "WORLD_SIZE": "1", "RANK": "0"},
    ],
)
def test_a_process_that_was_not_started_with_others_is_alone(environment):
    assert find_place(environment) is None


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("node1", "node1"),
        ("node1,node2", "node1"),
        ("gpu[01-04,07]", "gpu01"),
        ("gpu[7,9-12],cpu[1-2]", "gpu7"),
        ("rack[2-3]node[10-12].site", "rack2node10.site"),
        ("a-b[3-5]", "a-b3"),
    ],
)
def test_ranks_meet_at_the_first_host_of_a_list(nodes, first):
    assert first_node(nodes) == first


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        ({**TORCHRUN, "MASTER_ADDR": ""}, "not MASTER_ADDR"),
        ({**TORCHRUN, "RANK": "first"}, "RANK=first"),
        ({name: value for name, value in SLURM.items() if name != "SLURM_PROCID"}, "not SLURM_PROCID"),
    ],
)
def test_half_a_place_is_refused(environment, says):
    with pytest.raises(UserError, match=says):
        find_place(environment)
