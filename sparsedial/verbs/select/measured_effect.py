"""`select --measure`: equal models on what stays, on a random part of its size and on the full text, compared."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from msgspec.structs import replace

from sparsedial.evaluation.scorer import Scorer
from sparsedial.evaluation.split_domains import split_domain_losses
from sparsedial.kernels import native
from sparsedial.kernels.metering import stated
from sparsedial.model.checkpoint import load
from sparsedial.records.effect import EffectPlan, Part
from sparsedial.records.record import write
from sparsedial.records.run import Run
from sparsedial.records.selection import SELECT_FILE, Selected
from sparsedial.runs.choosing import executor_for
from sparsedial.runs.clock import Clock
from sparsedial.runs.devices import training_dtype
from sparsedial.runs.pool import Pool
from sparsedial.runs.run_store import RunStore
from sparsedial.store import lock
from sparsedial.sweep.effect import PARTS, Bench, DomainLosses, EffectLab, measure_effect
from sparsedial.sweep.effect_design import CONTEXT, SCORED_TOKENS, plan_effect
from sparsedial.text.prepare import Text
from sparsedial.text.reading import Reading
from sparsedial.text.selected import open_selection
from sparsedial.text.splitting import Splitting
from sparsedial.verbs.listening import StudyListener, listening
from sparsedial.verbs.select.effect_setup import (
    THREADS,
    inputs_of,
    kept_plan,
    measured_machine,
    part_texts,
    probes_of,
    require_same_inputs,
    scored_tokens,
    workers_of,
)
from sparsedial.verbs.select.random_selection import full_selection, random_selection
from sparsedial.verbs.select.settings import SelectSettings

FOLDER = "effect"


def measured(
    settings: SelectSettings,
    answer: Selected,
    domains: Mapping[str, str] | None,
    reading: Reading,
    splitting: Splitting,
) -> Selected:
    """The answer with its effect, which is written beside the selection; `domains` has the domain of each source.

    Raises: UserError where nothing was left out, a part is too small, the time too short, the text or the selection
    was changed since, or an earlier start was asked something else.
    """
    folder = settings.out.resolve() / FOLDER
    inputs = inputs_of(settings, answer.manifest.digest, answer.reference.flops if answer.reference else 0.0)
    if answer.effect is not None:
        require_same_inputs(answer.effect.plan, inputs, folder)
        return answer
    if (selection := open_selection((str(settings.out),))) is not None:
        selection.require_same(reading)
    clock, probes = Clock(inputs.time or float("inf")), probes_of(settings)
    with lock(folder), listening((), folder) as listener:
        random = random_selection(settings, answer, reading, splitting, folder / "random")
        full = full_selection(settings, answer, reading, folder / "full")
        listener.note("reading the kept part, the random part and the full text")
        parts: dict[Part, Path] = {"random": folder / "random"}
        if full is not None:
            parts["full"] = folder / "full"
        texts = part_texts(settings, parts, folder / "texts")
        workers = workers_of(settings, inputs.device)

        def plan() -> EffectPlan:
            listener.note("measuring this machine")
            vocab_size = texts["full"].tokenizer.vocab_size
            return plan_effect(
                inputs,
                vocab_size,
                measured_machine(inputs.device, vocab_size, listener.measuring),
                seconds=clock.remaining,
                workers=workers,
                scored_tokens=scored_tokens(texts["full"].validation_tokens, texts["full"].test_tokens),
                domains=domains is not None,
                probe_tokens=probes.tokens_asked if probes else 0,
            )

        planned = kept_plan(folder, inputs, plan)
        listener.plan(clock.elapsed + planned.predicted_seconds, clock, stated(inputs.device, THREADS))
        with Pool() as pool:
            lab = _lab(planned, texts, folder, settings.seed, workers, listener, domains, pool)
            effect = measure_effect(lab, random.manifest.digest, lambda: clock.elapsed)
        done = replace(answer, effect=effect, effect_reason=None)
        write(settings.out / SELECT_FILE, done)
    return done


def _lab(
    plan: EffectPlan,
    texts: Mapping[Part, Text],
    folder: Path,
    seed: int,
    workers: int,
    listener: StudyListener,
    domains: Mapping[str, str] | None,
    pool: Pool,
) -> EffectLab:
    device, store = plan.inputs.device, RunStore(folder / "runs")
    benches: dict[Part, Bench] = {
        part: Bench(
            text_digest=texts[part].digest,
            train_tokens=texts[part].train_tokens,
            executor=executor_for(device, texts[part], store, workers, pool),
            shelf=store,
        )
        for part in PARTS
    }
    return EffectLab(
        plan=plan,
        benches=benches,
        tokenizer=texts["full"].tokenizer.digest,
        listener=listener,
        kernels=native.kind(device),
        device=device,
        dtype=training_dtype(device),
        threads=THREADS,
        seed=seed,
        by_domain=_by_domain(store, texts["full"], domains, device) if domains else None,
    )


def _by_domain(store: RunStore, text: Text, domains: Mapping[str, str], device: str) -> DomainLosses:
    def losses(run: Run) -> Mapping[str, float]:
        model = load(store.checkpoint(run.hash)).to(torch.device(device))
        scorer = Scorer(model, dtype=run.recipe.dtype)
        return split_domain_losses(scorer, text, "test", domains, context=CONTEXT, max_tokens=SCORED_TOKENS)

    return losses
