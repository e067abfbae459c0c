"""Faults that a test must find: each is one changed line, and the tests that fail with it."""

from __future__ import annotations

from tests.faults import (
    in_chat_page,
    in_dialling,
    in_energy,
    in_gpu_kernels,
    in_optimizers,
    in_prune_command,
    in_pruning,
    in_ranks,
    in_ranks_shared,
    in_reading,
    in_scoring,
    in_selecting,
    in_serving,
    in_serving_http,
    in_serving_scores,
    in_spreading,
    in_studies,
    in_token_selection,
    in_training,
)

FAULTS = (
    *in_studies.FAULTS,
    *in_optimizers.FAULTS,
    *in_scoring.FAULTS,
    *in_dialling.FAULTS,
    *in_energy.FAULTS,
    *in_pruning.FAULTS,
    *in_prune_command.FAULTS,
    *in_reading.FAULTS,
    *in_selecting.FAULTS,
    *in_serving.FAULTS,
    *in_serving_http.FAULTS,
    *in_serving_scores.FAULTS,
    *in_spreading.FAULTS,
    *in_token_selection.FAULTS,
    *in_training.FAULTS,
    *in_ranks.FAULTS,
    *in_ranks_shared.FAULTS,
    *in_gpu_kernels.FAULTS,
    *in_chat_page.FAULTS,
)
