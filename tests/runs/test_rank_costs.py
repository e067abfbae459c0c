"""What several ranks would cost, counted by one process; tests/training/test_ranks.py compares it with real ones."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from sparsedial.cli.tables import train_dry_table
from sparsedial.errors import UserError
from sparsedial.runs.card_memory import counted_bytes, largest_batch, require_fits
from sparsedial.runs.costs import dry_run
from sparsedial.runs.ranks.costs import rank_costs
from sparsedial.units import human_bytes
from tests.runs.tiny import job_of


@pytest.fixture
def job(small_text):
    return job_of(small_text, batch=8)


def test_a_dry_run_of_ranks_counts_one_of_them_and_times_none(job):
    cost = dry_run(job, None, ranks=4)
    assert cost.ranks is not None
    assert [one.rank for one in cost.ranks] == [0, 1, 2, 3]
    assert sum(one.parameters for one in cost.ranks) == cost.total_parameters
    assert cost.memory_parts.moments_bytes == 8 * cost.total_parameters / 4
    assert cost.seconds is None
    assert all(one.step_seconds_reason == cost.seconds_reason for one in cost.ranks)
    shown = train_dry_table(cost)
    assert f"{human_bytes(cost.ranks[3].memory_bytes.optimizer)}" in shown
    assert f"{human_bytes(cost.ranks[0].bytes_per_step.all_to_all)} of gradients" in shown


def test_of_many_ranks_the_table_shows_two(job):
    cost = dry_run(replace(job, recipe=replace(job.recipe, batch=16)), None, ranks=16)
    assert "16 ranks, most and least" in train_dry_table(cost)


def test_gradients_on_a_gpu_are_in_the_type_of_the_copies_that_adamw_writes(job):
    """All but the routers', which have no copies. Muon takes its own in float32."""

    def gradients(device, optimizer):
        recipe = replace(job.recipe, dtype="bfloat16", optimizer=optimizer)
        return rank_costs(replace(job, recipe=recipe, device=device), 2)[0].memory_bytes.gradients

    cpu, gpu, muon = gradients("cpu", "adamw"), gradients("cuda", "adamw"), gradients("cuda", "muon")
    assert cpu / 2 <= gpu < 0.6 * cpu
    assert gpu < muon < cpu


def test_gradients_are_sent_by_the_collective_of_the_device(job):
    cpu, gpu = (rank_costs(replace(job, device=device), 2)[0].bytes_per_step for device in ("cpu", "cuda"))
    assert (cpu.all_to_all, cpu.reduce_scatter) == (gpu.reduce_scatter, gpu.all_to_all)
    assert gpu.all_to_all == 0 < gpu.reduce_scatter == gpu.all_gather == cpu.all_gather


def test_ranks_that_do_not_divide_the_batch_are_refused(job):
    with pytest.raises(UserError, match="a batch of 8 sequences cannot be divided evenly among 3 ranks"):
        dry_run(job, None, ranks=3)


def test_a_rank_needs_room_for_its_share_of_the_batch_and_of_the_moments(job, monkeypatch):
    job = replace(job, recipe=replace(job.recipe, batch=64), device="cuda")
    free = float(counted_bytes(replace(job, recipe=replace(job.recipe, batch=32)), 4).total)
    assert counted_bytes(job, 4).moments == counted_bytes(job).moments / 4
    assert largest_batch(job, free, 4) == 32
    assert largest_batch(job, free) < 32
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (int(free) + 1, 80 * 10**9))
    for name in ("memory_reserved", "memory_allocated"):
        monkeypatch.setattr(torch.cuda, name, lambda: 0)
    with pytest.raises(UserError) as refused:
        require_fits(job, 4)
    assert "largest batch that fits is 32 " in str(refused.value.hint)
    require_fits(replace(job, recipe=replace(job.recipe, batch=32)), 4)
