"""What one training run would cost: counted, and measured over a few steps if the model fits this machine."""

from __future__ import annotations

from functools import partial

from sparsedial.kernels.metering import meter
from sparsedial.machine.energy import Meter, metered
from sparsedial.machine.timing import measure_in_turn
from sparsedial.records.dry_run import TrainDryRun
from sparsedial.records.token_selection import ReferenceModelCost
from sparsedial.runs.card_memory import counted_bytes, device_bytes
from sparsedial.runs.job import Job
from sparsedial.runs.ranks.costs import NOT_TIMED, rank_costs
from sparsedial.runs.timed import peak_by, step_by
from sparsedial.shape.counts import active_parameters, total_parameters
from sparsedial.units import human_bytes

MEASURED = "measured: ten steps of this model in a separate process"
COUNTED = "counted part by part"


def dry_run(
    job: Job,
    tokens_asked: float | None,
    token_share: float | None = None,
    reference: ReferenceModelCost | None = None,
    ranks: int = 1,
) -> TrainDryRun:
    """Parameters, FLOPs, memory, time and energy of a run. Time and energy are null where the model does not fit.

    Where a reference model selects the run's tokens its cost is counted too. Of several ranks the memory is that of
    one; time and energy are null, since no step of them is taken here.

    Raises: UserError where the ranks cannot divide the batch evenly.
    """
    parts, held = counted_bytes(job, ranks), device_bytes(job.device)
    seconds = joules = joules_source = reason = still = None
    if ranks > 1 or parts.total > held:
        too_large = f"not measured: a step needs more memory than the {human_bytes(held)} of this machine"
        reason = too_large if ranks == 1 else NOT_TIMED
        source = COUNTED if ranks == 1 else f"{COUNTED}, of each of {ranks} ranks"
        step, state = float(parts.total), float(parts.weights + parts.moments)
    else:
        power = meter(job.device, job.threads)
        seconds = _run_seconds(job, token_share, power) + (reference.seconds if reference else 0.0)
        joules, joules_source, still = _joules(seconds, power)
        (step, state), source = peak_by(job.shape, job.recipe, job.device, job.threads), MEASURED
    memory, copy, words = with_guard_copy(job, step, state, source)
    return TrainDryRun(
        total_parameters=total_parameters(job.shape),
        active_parameters=active_parameters(job.shape),
        tokens=job.recipe.tokens,
        flops=job.flops + int(reference.flops if reference else 0),
        memory_parts=parts.parts,
        memory_bytes=memory,
        guard_copy_bytes=copy,
        memory_source=words,
        seconds=seconds,
        seconds_reason=reason,
        joules=joules,
        joules_source=joules_source,
        joules_reason=reason or still,
        dollars=None,
        dollars_reason="no price was given",
        tokens_asked=tokens_asked,
        reference_cost=reference,
        ranks=None if ranks == 1 else rank_costs(job, ranks),
    )


def _joules(seconds: float, power: Meter) -> tuple[float | None, str | None, str | None]:
    """Joules of a time at the watts of the timed steps, and their source; or why they are not known."""
    watts = power.watts
    if watts is None:
        return None, None, f"{power.source} stood still while a few steps were timed"
    return seconds * watts, power.source, None


def _run_seconds(job: Job, token_share: float | None, power: Meter) -> float:
    """Seconds of all steps of a run, from the mean of a few: beside other work a few steps take most of the time.

    With a dial a few steps at each of its numbers are timed. All of them are metered.
    """
    step, draws = step_by(job.shape, job.recipe, job.device, job.threads, token_share), job.draws
    counts = {None: job.recipe.steps} if draws is None else draws.counts(0)
    timings = measure_in_turn(
        {top_k: lambda top_k=top_k: step(top_k) for top_k in counts},
        rounds=2,
        round_seconds=1.0,
        turn=partial(metered, power),
    )
    return sum(timings[top_k].mean_seconds * steps for top_k, steps in counts.items())


def with_guard_copy(job: Job, step: float, state: float, source: str) -> tuple[float, float, str]:
    """Bytes of a step, and of the copy of weights and moments that a guarded run goes back to.

    The copy is in the host's memory. On a CPU the step is there too, and the bytes add up. Returns the bytes of the
    step's memory, those of the copy, and a description of their source.
    """
    if not job.recipe.spike_sigmas:
        return step, 0.0, source
    copy = f"{human_bytes(state)} for the spike guard's copy of weights and moments"
    if job.device == "cpu":
        return step + state, state, f"{source}, and {copy}"
    return step, state, f"{source}; in addition, in the host's memory, {copy}"
