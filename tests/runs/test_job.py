"""A job: what its hash names, and what cannot be one."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import pytest

from sparsedial.errors import UserError
from sparsedial.records.evaluation import CheckpointName
from sparsedial.records.recipe import Dtype
from sparsedial.runs.job import Job
from tests.runs.tiny import LADDER, RECIPE, job_of


def test_the_hash_names_what_changes_the_numbers_and_nothing_else(small_text):
    job = job_of(small_text)
    assert job.hash == job_of(small_text).hash
    for other in (
        replace(job, threads=2),
        replace(job, device="cuda"),
        replace(job, text_digest="0"),
        replace(job, tokenizer="0"),
        replace(job, recipe=replace(job.recipe, seed=1)),
        replace(job, recipe=replace(job.recipe, dtype="bfloat16")),
        replace(job, shape=LADDER.shape(12, 16)),
        replace(job, teacher=CheckpointName(path="/there", digest="a", family="llama")),
        replace(job, zeros_stay=True),
    ):
        assert other.hash != job.hash


def test_the_digest_of_a_teacher_names_a_run_and_its_place_does_not(small_text):
    here, there = (CheckpointName(path=path, digest="a", family="llama") for path in ("/here", "/there"))
    job = job_of(small_text)
    assert replace(job, teacher=here).hash == replace(job, teacher=there).hash
    assert "teacher" not in job._named_by, "a run without is named as before there were any"


@pytest.mark.parametrize(
    ("shape", "context", "says"),
    [({"mtp_layers": 2}, 2, "2 multi-token predictions"), ({}, 33, "more than the 32 positions")],
)
def test_a_context_that_does_not_fit_the_shape_is_refused(shape, context, says):
    job = Job(shape=LADDER.shape(12, 0), recipe=RECIPE, text_digest="", tokenizer="")
    with pytest.raises(UserError, match=says):
        replace(job, shape=replace(job.shape, **shape), recipe=replace(RECIPE, context=context))
    replace(job, shape=replace(job.shape, mtp_layers=2), recipe=replace(RECIPE, context=3))


def test_a_run_in_bfloat16_has_a_version_of_its_own(small_text):
    """Its numbers changed where float32's did not."""
    versions = {dtype: job_of(small_text, dtype=dtype).inputs().recipe_version for dtype in get_args(Dtype)}
    assert versions["bfloat16"] == versions["bfloat16_products"] > versions["float32"]
