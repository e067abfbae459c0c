"""What a measured effect stands on: the three parts as texts, and the plan of its runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from sparsedial.errors import UserError
from sparsedial.machine.hardware import usable_cores
from sparsedial.machine.profile import Profile
from sparsedial.records.effect import EFFECT_PLAN_FILE, EffectInputs, EffectPlan, Part
from sparsedial.records.record import read, write
from sparsedial.runs.devices import pick_device
from sparsedial.runs.measuring import measure_on
from sparsedial.sweep.effect_design import (
    BATCH,
    CONTEXT,
    DEFAULT_SECONDS,
    PROFILE_SECONDS,
    SCORED_TOKENS,
    profile_shapes,
)
from sparsedial.text.prepare import Text, prepare
from sparsedial.text.probes import Mixture
from sparsedial.verbs.select.settings import SelectSettings

THREADS = 1  # per run, as in a study


def part_texts(settings: SelectSettings, folders: Mapping[Part, Path], folder: Path) -> Mapping[Part, Text]:
    """The three parts, prepared with one tokenizer, that of the full text; they share their held-out tokens.

    `folders` are those of the selections beside the one that is measured; without one the full part is the text itself.

    Raises: UserError where a part is too small to train on.
    """
    probes, all_of_it = probes_of(settings), folders.get("full")
    whole = settings.text if all_of_it is None else (str(all_of_it),)
    full = prepare(whole, tokenizer=settings.tokenizer, folder=folder / "full", probes=probes)
    texts: dict[Part, Text] = {
        "kept": prepare((str(settings.out),), tokenizer=full.tokenizer, folder=folder / "kept", probes=probes),
        "random": prepare((str(folders["random"]),), tokenizer=full.tokenizer, folder=folder / "random", probes=probes),
        "full": full,
    }
    if texts["kept"].digest == full.digest:
        nothing = "nothing" if all_of_it is None else "nothing but copies of held-out text"
        raise UserError(f"{nothing} was left out, so there is no effect", hint="give a <keep>", field="measure")
    for part, text in texts.items():
        if text.train_tokens < (BATCH + 1) * CONTEXT:
            raise UserError(
                f"the {part} part has {text.train_tokens:,} tokens, too few for a batch of {BATCH} x {CONTEXT}",
                hint="give more text, or a larger <keep>",
                field="measure",
            )
    if min(full.validation_tokens, full.test_tokens) <= CONTEXT:
        raise UserError("too little text is held out to compare models on", hint="give more text", field="measure")
    return texts


def probes_of(settings: SelectSettings) -> Mixture | None:
    """The probes in the training text of every part; None where none were asked for.

    Raises: UserError for a share that cannot be.
    """
    return None if settings.probes is None else Mixture(share=settings.probes, seed=settings.seed)


def inputs_of(settings: SelectSettings, manifest_digest: str, selection_flops: float) -> EffectInputs:
    """What the measurement is asked."""
    return EffectInputs(
        time=None if settings.budgets else settings.time or DEFAULT_SECONDS,
        budgets=settings.budgets,
        seeds=settings.seeds,
        tokenizer=settings.tokenizer,
        device=pick_device(settings.device),
        manifest_digest=manifest_digest,
        selection_flops=selection_flops,
        probes=settings.probes,
    )


def workers_of(settings: SelectSettings, device: str) -> int:
    """Processes that train models."""
    if settings.workers is not None:
        return settings.workers
    return 1 if device == "cuda" else usable_cores()


def scored_tokens(*held_out: int) -> int:
    """Tokens that score a run, of splits of so many."""
    return sum(min(SCORED_TOKENS, tokens) for tokens in held_out)


def measured_machine(device: str, vocab_size: int, report: Callable[[int, int], None]) -> Profile:
    """The seconds of training steps here."""
    return measure_on(device, THREADS, report)(profile_shapes(vocab_size), BATCH, CONTEXT, PROFILE_SECONDS)


def kept_plan(folder: Path, inputs: EffectInputs, make: Callable[[], EffectPlan]) -> EffectPlan:
    """The plan of an earlier start, or a new one, which is written.

    Raises: UserError where the earlier start was asked something else.
    """
    file = folder / EFFECT_PLAN_FILE
    if not file.exists():
        plan = make()
        write(file, plan)
        return plan
    plan = read(file, EffectPlan)
    require_same_inputs(plan, inputs, folder)
    return plan


def require_same_inputs(plan: EffectPlan, asked: EffectInputs, folder: Path) -> None:
    """Raises: UserError with the first setting in which a measurement differs from what is asked now."""
    for name in asked.__struct_fields__:
        was, now = getattr(plan.inputs, name), getattr(asked, name)
        if was != now:
            raise UserError(
                f"{folder} holds a measurement with {name}={was}, not {now}",
                hint="give the same settings, or select into another folder",
                field="measure",
            )
