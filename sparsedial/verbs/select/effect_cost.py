"""What it would cost to measure the effect of a selection, before anything is selected."""

from __future__ import annotations

import time
from collections.abc import Mapping

from sparsedial.records.dry_run import EffectDryRun
from sparsedial.shape.counts import total_parameters
from sparsedial.showing.notes import note
from sparsedial.sweep.budgets import PROCESS_BYTES
from sparsedial.sweep.effect import PARTS
from sparsedial.sweep.effect_design import plan_effect, training_flops
from sparsedial.text.reading import Reading
from sparsedial.text.splitting import Splitting
from sparsedial.text.tokenizer import bpe_size, named_tokenizer
from sparsedial.verbs.select.effect_setup import inputs_of, measured_machine, probes_of, scored_tokens, workers_of
from sparsedial.verbs.select.settings import SelectSettings

NOT_COUNTED = "the selection itself, the preparation of its texts, and runs at equal total FLOPs where a model scores"


def dry_run(
    settings: SelectSettings, reading: Reading, splitting: Splitting, domains: Mapping[str, str] | None
) -> EffectDryRun:
    """What the measurement would cost. It times training steps, and writes nothing.

    Raises: UserError as `measured`, but for what only the selection shows.
    """
    inputs, probes = inputs_of(settings, "", 0.0), probes_of(settings)
    began, vocab_size = time.perf_counter(), _vocab_size(settings.tokenizer)
    held_out = [0, 0]
    for entry, split in zip(reading.entries, splitting.splits, strict=True):
        if split in ("validation", "test"):
            held_out[split == "test"] += entry.size
    workers = workers_of(settings, inputs.device)
    note("measuring this machine")
    profile = measured_machine(inputs.device, vocab_size, lambda done, of: None)
    set_up = time.perf_counter() - began
    plan = plan_effect(
        inputs,
        vocab_size,
        profile,
        seconds=(inputs.time or float("inf")) - set_up,
        workers=workers,
        scored_tokens=scored_tokens(*held_out),
        domains=domains is not None,
        probe_tokens=probes.tokens_asked if probes else 0,
    )
    seconds = set_up + plan.predicted_seconds
    shapes = [budget.shape for budget in plan.budgets]
    largest = max(profile.memory_bytes(shape, plan.batch, plan.context) for shape in shapes)
    return EffectDryRun(
        parts=len(PARTS),
        seeds=inputs.seeds,
        runs=len(PARTS) * inputs.seeds * len(plan.budgets),
        budgets_flops=tuple(budget.budget_flops for budget in plan.budgets),
        total_parameters=tuple(map(total_parameters, shapes)),
        tokens=tuple(budget.steps * plan.batch * plan.context for budget in plan.budgets),
        flops=training_flops(plan),
        seconds=seconds,
        not_counted=NOT_COUNTED,
        joules=seconds * profile.watts_of(workers),
        joules_source=profile.watts_source,
        memory_bytes=profile.host_speedup(workers) * PROCESS_BYTES + workers * largest,
        dollars=None,
        dollars_reason="no price was given",
    )


def _vocab_size(tokenizer: str) -> int:
    """The size that a setting of the tokenizer gives, at most."""
    named = named_tokenizer(tokenizer)
    return named.vocab_size if named else bpe_size(tokenizer) or 0
