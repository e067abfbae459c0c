"""`study`: sweep shapes, sparsities and budgets on the user's text and machine; fit, hold out, decide, report."""

from __future__ import annotations

import contextlib
import math
import shlex
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from sparsedial.errors import UserError, nearest
from sparsedial.law.choose import choose, held_out_check, select
from sparsedial.law.fit import fit, refusal
from sparsedial.law.forms import STUDY_FORMS
from sparsedial.law.law import Law
from sparsedial.machine.energy import meter
from sparsedial.machine.hardware import describe, usable_cores
from sparsedial.machine.profile import Profile, measure_profile
from sparsedial.settings import file_names
from sparsedial.shape.counts import total_parameters
from sparsedial.shape.ladder import Ladder
from sparsedial.store import RunStore, digest, lock, read_json, write_json
from sparsedial.sweep.expect import PAIR_BESIDE, expected_seconds, scoring_seconds
from sparsedial.sweep.findings import Findings
from sparsedial.sweep.grid import (
    RUNGS,
    START_RUNGS,
    Cell,
    Layout,
    fit_to_time,
    lay,
    predict_phases,
    smallest,
)
from sparsedial.sweep.phases import Clock, Setup, law_rows, pick_device, scan_rates, train_grid
from sparsedial.sweep.rates import RateModel, Scan
from sparsedial.sweep.rivals import (
    TEST_TOKENS,
    decide_currency,
    equal_flops,
    equal_seconds,
    flop_rivals,
    joules_verdict,
    open_sides,
    plan_seconds,
)
from sparsedial.sweep.study import Diary, StudyFile, layout_from, layout_record, status
from sparsedial.sweep.tables import rates_record, verdict_runs
from sparsedial.sweep.verdict import undecided
from sparsedial.text.prepare import Text, prepare
from sparsedial.units import (
    human_bytes,
    human_count,
    human_seconds,
    parse_bytes,
    parse_count,
    parse_counts,
    parse_seconds,
    spelled_at_least,
)
from sparsedial.verbs.listening import listening

# Budgets by the time there is, from this many seconds on; the largest is held out, so it is far from the next.
# Of several ratios the first is taken that fits; two budgets leave no law to be checked, and come last.
BUDGET_RATIOS: dict[float, tuple[tuple[float, ...], ...]] = {
    0.0: ((1.0, 2.0, 4.0), (1.0, 3.0), (1.0, 2.0)),
    16 * 60.0: ((1.0, 2.0, 6.0), (1.0, 2.0, 4.0), (1.0, 2.0)),
    40 * 60.0: ((1.0, 3.0, 9.0, 27.0), (1.0, 2.0, 6.0)),
}
LONG_SECONDS = max(BUDGET_RATIOS)
PLANNED_SHARE = 0.82  # of the time that the layout may be predicted to take; the rest: wider brackets, a busy machine
GRACE_SHARE = 0.08  # of the time, by which the last runs of a verdict are planned to overrun it
OVERRUN_SHARE = 0.1  # by which the whole command may
REPORT_SECONDS = 15.0
LEAST_SEEDS, MOST_SEEDS = 3, 5
PROFILE_SHARE, PROFILE_LEAST, PROFILE_MOST = 0.02, 8.0, 90.0
PROFILE_FLOPS_PER_SECOND = 2e10  # about what one core trains with: the profile takes as long as a largest cell
FASTEST_FLOPS_PER_SECOND = 1e11  # that no core trains such models with: a grid that asks for more is refused unmeasured
PROFILE_WIDTHS = (16, 32, 64)  # and 128 in a long study
PROCESS_BYTES, PARAMETER_BYTES = 0.4e9, 20  # of a worker, and of each parameter that it trains
SCAN_POINTS = 4  # expected of a scan, on average
DESIGN = ("sparsities", "top_k", "shared_experts", "tokenizer", "context", "batch", "cell_seeds", "form", "device")
EVALUATION_LEAST, EVALUATION_MOST = 1 << 16, 1 << 18  # validation tokens that score a cell


@dataclass(frozen=True, kw_only=True)
class StudySettings:
    """What a study is asked for."""

    text: tuple[str, ...] = field(
        default=(),
        metadata={
            "parse": file_names,
            "positional": True,
            "nargs": "*",
            "help": "files or folders [Python's standard library]",
        },
    )
    time: float | None = field(
        default=None,
        metadata={
            "parse": lambda text: parse_seconds(text, "--time"),
            "metavar": "T",
            "help": "bounds the whole command, like 30m [10m]",
        },
    )
    budgets: tuple[float, ...] = field(
        default=(),
        metadata={
            "parse": lambda text: parse_counts(text, "--budgets"),
            "metavar": "C,C,…",
            "help": "training FLOPs of the budgets, instead of --time",
        },
    )
    sparsities: tuple[float, ...] = field(
        default=(0.0, 0.75, 0.875, 0.9375), metadata={"metavar": "S,…", "help": "1 - top_k/experts; 0 is dense"}
    )
    top_k: int = field(default=2, metadata={"metavar": "K", "help": "routed experts that a token visits"})
    shared_experts: int = field(default=1, metadata={"metavar": "N", "help": "experts that every token visits"})
    tokenizer: str = field(default="bytes", metadata={"metavar": "bytes|bpe:N|FILE", "help": "how text becomes tokens"})
    context: int | None = field(
        default=None, metadata={"metavar": "N", "help": "tokens of a training window [64, or 128 from 40m on]"}
    )
    batch: int = field(default=16, metadata={"metavar": "N", "help": "most sequences per step; short runs take fewer"})
    max_total_parameters: float | None = field(
        default=None,
        metadata={
            "parse": lambda text: parse_count(text, "--max-total-parameters"),
            "metavar": "N",
            "help": "leave larger models out",
        },
    )
    memory: float | None = field(
        default=None,
        metadata={
            "parse": lambda text: parse_bytes(text, "--memory"),
            "metavar": "M",
            "help": "bytes for all workers together, like 3GB",
        },
    )
    seeds: int | None = field(
        default=None, metadata={"metavar": "N", "help": "fresh seeds of the verdict [3, or 5 where time allows]"}
    )
    seed: int = field(
        default=0, metadata={"metavar": "N", "help": "of the grid; another one asks the same of fresh runs"}
    )
    cell_seeds: int = field(
        default=1, metadata={"metavar": "N", "help": "of each cell of the two largest budgets; cheap ones take more"}
    )
    form: str | None = field(
        default=None,
        metadata={"metavar": "NAME", "help": "of the law [from four budgets on a proven one, below that compared]"},
    )
    workers: int | None = field(
        default=None,
        metadata={"metavar": "N", "help": "processes of one thread each [one per core, the most; on a GPU one]"},
    )
    device: str = field(default="auto", metadata={"metavar": "cpu|cuda", "help": "where to train"})
    out: Path = field(
        default=Path("runs/study"),
        metadata={"metavar": "DIR", "help": "the study's folder; the same command goes on there"},
    )
    status: bool = field(default=False, metadata={"help": "say how far the study in --out is, and stop"})
    dry_run: bool = field(default=False, metadata={"help": "say what it would cost, and stop"})

    def __post_init__(self) -> None:
        if self.budgets and self.time:
            raise UserError("study: --time and --budgets contradict each other", hint="give one of them")
        if self.budgets and (len(self.budgets) < 2 or list(self.budgets) != sorted(set(self.budgets))):
            raise UserError("study: --budgets wants at least two budgets, rising", hint="like --budgets 1e11,3e11,9e11")
        if self.seeds is not None and self.seeds < 2:
            raise UserError(f"study: --seeds {self.seeds} gives no interval", hint="3 or more")
        if (self.context is not None and self.context < 8) or self.batch < 4:
            raise UserError(
                f"study: --context {self.context} or --batch {self.batch} is too small", hint="from 8 and 4 on"
            )
        if self.workers is not None and self.workers < 1:
            raise UserError(f"study: --workers {self.workers} does no work")
        if self.form is not None and self.form not in STUDY_FORMS:
            raise UserError(
                f"study: no form named '{self.form}' for a study",
                hint=nearest(self.form, STUDY_FORMS) or ", ".join(STUDY_FORMS),
            )
        if self.cell_seeds < 1:
            raise UserError(f"study: --cell-seeds {self.cell_seeds} trains no cell")
        if self.top_k < 1:
            raise UserError(f"study: --top-k {self.top_k} visits no expert", hint="from 1 on")
        if self.shared_experts < 0:
            raise UserError(f"study: --shared-experts {self.shared_experts} is less than none", hint="from 0 on")

    @property
    def limit_seconds(self) -> float:
        """The time that bounds the command; infinite with stated budgets."""
        return math.inf if self.budgets else self.time or 600.0

    @property
    def long(self) -> bool:
        """Whether the time allows four budgets, a longer context and more seeds."""
        return self.limit_seconds >= LONG_SECONDS

    def experts(self) -> tuple[int, ...]:
        """Routed experts of each sparsity, dense first.

        Raises: UserError where a sparsity fits no whole number of experts, or dense is missing.
        """
        counts = []
        for sparsity in self.sparsities:
            if not 0 <= sparsity < 1:
                raise UserError(
                    f"study: sparsity {sparsity:g} is not from 0 up to below 1", hint="it is 1 - top_k/experts"
                )
            exact = self.top_k / (1 - sparsity) if sparsity else 0.0
            if abs(exact - round(exact)) > 1e-6 * max(exact, 1):
                lower = max(self.top_k + 1, math.floor(exact))
                raise UserError(
                    f"study: sparsity {sparsity:g} with top_k={self.top_k} needs {exact:.4g} experts",
                    hint=f"{1 - self.top_k / lower:.6g} needs {lower}",
                )
            counts.append(round(exact))
        if 0 not in counts or len(set(counts)) < 2:
            raise UserError(
                "study: --sparsities wants 0 (dense) and at least one other", hint="like --sparsities 0,0.75,0.9375"
            )
        return tuple(sorted(set(counts)))


def study(settings: StudySettings) -> dict[str, Any]:
    """Find the best sparsity on a text and a machine, by measurement, and prove it against the best dense model.

    Leaves report.html, figures, study.json, law.json, profile.json, plan.json, the runs and the verdict's checkpoints
    in `out`; started again there, it goes on where it stopped.

    Raises: UserError for bad input, a text too small, a time too short, a folder in use or not writable.
    """
    if settings.status:
        return status(settings.out)
    _check_workers(settings)
    began = time.monotonic()
    with lock(settings.out), listening() as listener:
        file = StudyFile(settings.out)
        if file.record["status"] == "done":
            _inputs_match(settings, file)
            return result_of(file.record)
        clock = Clock(settings.limit_seconds, file.elapsed_seconds, began)
        listener.note("reading the text")
        text = prepare(settings.text, tokenizer=settings.tokenizer, folder=settings.out / "text")
        setup = _set_up(settings, file, text, clock, listener)
        low, high = _expected_seconds(settings, setup, file)
        if settings.dry_run:
            return _dry_run(setup, low, high)
        diary = Diary(file, clock)
        listener.plan((low + high) / 2, diary, setup.profile.watts)
        try:
            _run(settings, setup, file, diary)
        finally:
            with contextlib.suppress(UserError):
                diary.write()
        return result_of(file.record)


def _check_workers(settings: StudySettings) -> None:
    if pick_device(settings.device) == "cpu" and (settings.workers or 0) > usable_cores():
        raise UserError(
            f"study: --workers {settings.workers} would take turns on {usable_cores()} cores, and their seconds would"
            " mean nothing",
            hint="leave --workers out, or give fewer",
        )


def _inputs(settings: StudySettings, text_digest: str) -> dict[str, Any]:
    """What a study's folder is bound to; a resumed study must ask for the same."""
    values = {
        name: value
        for name, value in asdict(settings).items()
        if name not in ("out", "status", "dry_run", "workers", "text")
    }
    values["time"] = None if settings.budgets else settings.limit_seconds
    values["device"] = pick_device(settings.device)
    return {
        **{name: list(value) if isinstance(value, tuple) else value for name, value in values.items()},
        "text": text_digest,
    }


def _inputs_match(settings: StudySettings, file: StudyFile) -> None:
    frozen = file.record["frozen"]
    file.frozen_for(_inputs(settings, frozen["inputs"]["text"]))


def _set_up(settings: StudySettings, file: StudyFile, text: Text, clock: Clock, listener: Any) -> Setup:
    """Measure the machine and lay the grid, or take both from an earlier start."""
    inputs = _inputs(settings, text.digest)
    frozen = file.frozen_for(inputs)
    from sparsedial.kernels import native

    device = pick_device(settings.device)
    workers = settings.workers or (1 if device == "cuda" else usable_cores())
    if frozen is None:
        draft = _draft(settings, text)
        _refuse_early(settings, draft, device, workers)
        listener.note("measuring this machine")
        profile = _measure(settings, draft, device, listener)
        layout = _lay(settings, draft, profile, workers, clock)
        frozen = {
            "inputs": inputs,
            "layout": layout_record(layout),
            "profile_digest": digest(profile.record()),
            "evaluation_tokens": _evaluation_tokens(layout),
            "set_up_seconds": clock.elapsed,
        }
        if not settings.dry_run:  # which binds no folder, and whose seconds are no study's
            write_json(settings.out / "profile.json", profile.record())
            file.keep(frozen=frozen)
    else:
        layout = layout_from(frozen["layout"])
        profile = Profile.from_record(read_json(settings.out / "profile.json"))
    if device == "cpu" and native.module is None:
        listener.note("no compiled kernels (no C compiler at the install): steps take longer than they need")
    _warn_of_repeats(layout, text, listener)
    return Setup(
        layout=layout,
        profile=profile,
        text=text,
        store=RunStore(settings.out / "runs"),
        workers=workers,
        threads=1,
        kernels=native.kind(device),
        device=device,
        dtype="bfloat16" if device == "cuda" else "float32",
        evaluation_tokens=frozen["evaluation_tokens"],
        listener=listener,
        clock=clock,
        seed=settings.seed,
        keep_for_verdict_seconds=layout.predicted_seconds["verdict"] + REPORT_SECONDS,
    )


def _refuse_early(settings: StudySettings, draft: Layout, device: str, workers: int) -> None:
    """Refuse what no measuring of the machine would allow.

    Raises: UserError for a time, a bound on parameters or a memory that is too small, or a context too long.
    """
    if settings.limit_seconds < 60:
        raise UserError(
            f"study: {human_seconds(settings.limit_seconds)} are too short for any grid",
            hint="the least is about --time 3m",
        )
    _refuse_few_parameters(settings, draft, workers)
    if settings.budgets:
        _lay_budgets(settings, draft)
        return
    least = smallest(_drafts(settings, draft))
    flops = least.flops + 3 * least.seeds * least.budgets[-1]
    if device == "cpu" and flops > FASTEST_FLOPS_PER_SECOND * workers * settings.limit_seconds:
        usual = spelled_at_least(flops / (PROFILE_FLOPS_PER_SECOND * workers))
        raise UserError(
            f"study: {human_seconds(settings.limit_seconds)} are too short for a grid of {flops:.1e} FLOPs, the least"
            " with these settings",
            hint=f"it takes about {usual} at a core's usual speed; a shorter --context or fewer seeds need less",
        )


def _refuse_few_parameters(settings: StudySettings, draft: Layout, workers: int) -> None:
    """Raises: UserError where the three smallest sizes of the sparsest level are above the bound."""
    experts = max(draft.experts)
    least = total_parameters(draft.ladder.shape(sorted(RUNGS)[START_RUNGS - 1], experts))
    bound = draft.max_total_parameters
    if bound is None or bound >= least:
        return
    if settings.max_total_parameters is None or bound < settings.max_total_parameters:
        asked = f"--memory {human_bytes(settings.memory or 0.0)}"
        wanted = human_bytes(_rounded_up((workers + 1) * (PROCESS_BYTES + PARAMETER_BYTES * least)))
    else:
        asked = f"--max-total-parameters {human_count(settings.max_total_parameters)}"
        wanted = human_count(_rounded_up(least))
    raise UserError(
        f"study: {asked} holds no three sizes with {experts} experts", hint=f"the least is {wanted}, or fewer experts"
    )


def _rounded_up(value: float) -> float:
    """To three digits, as units are written: what an error names as the least must be enough."""
    digit = 10.0 ** (math.floor(math.log10(value)) - 2)
    return math.ceil(value / digit) * digit


def _warn_of_repeats(layout: Layout, text: Text, listener: Any) -> None:
    most = max(layout.tokens(cell) for cell in layout.cells) / text.train_tokens
    if most > 1:
        listener.note(f"the longest run reads the training text {most:.1f} times")


def _draft(settings: StudySettings, text: Text) -> Layout:
    return Layout(
        ladder=Ladder(
            vocab_size=text.tokenizer.vocab_size,
            context=settings.context or (128 if settings.long else 64),
            top_k=settings.top_k,
            shared_experts=settings.shared_experts,
        ),
        batch=settings.batch,
        budgets=settings.budgets,
        experts=settings.experts(),
        seeds=settings.seeds or (5 if settings.long else 3),
        max_total_parameters=_parameter_bound(settings),
        cell_seeds=settings.cell_seeds,
        cells=(),
        predicted_seconds={},
    )


def _parameter_bound(settings: StudySettings) -> float | None:
    """The stated bound, and what the stated memory allows each worker, and the command itself, besides its process."""
    bounds = [settings.max_total_parameters] if settings.max_total_parameters else []
    if settings.memory:
        workers = settings.workers or usable_cores()
        left = settings.memory / (workers + 1) - PROCESS_BYTES
        bounds.append(max(left, 0.0) / PARAMETER_BYTES)
    return min(bounds) if bounds else None


def _measure(settings: StudySettings, draft: Layout, device: str, listener: Any) -> Profile:
    """Time training steps of shapes that span the grid, on one thread, with nothing else of ours running."""
    from sparsedial.sweep.timed import make_step

    experts = draft.experts
    widths = (*PROFILE_WIDTHS, 128) if settings.long else PROFILE_WIDTHS
    shapes = [
        draft.ladder.shape(width, count) for width in widths for count in dict.fromkeys((0, *experts[1:2], experts[-1]))
    ]
    shapes += [draft.ladder.shape(48, count) for count in experts]
    wanted = (
        settings.budgets[-1] / PROFILE_FLOPS_PER_SECOND if settings.budgets else PROFILE_SHARE * settings.limit_seconds
    )
    seconds = min(max(wanted, PROFILE_LEAST), PROFILE_MOST)
    batch = min(draft.batch, 8)
    return measure_profile(
        lambda shape, sequences, context: make_step(shape, sequences, context, device),
        shapes,
        batch=batch,
        context=draft.ladder.context,
        budget_seconds=seconds,
        machine=describe(),
        device=device,
        threads=1,
        dtype="bfloat16" if device == "cuda" else "float32",
        meter=meter(device, 1),
        told=listener.measuring,
    )


def _lay(settings: StudySettings, draft: Layout, profile: Profile, workers: int, clock: Clock) -> Layout:
    if settings.budgets:
        layout = _lay_budgets(settings, draft)
        return replace(layout, predicted_seconds=predict_phases(layout, profile, workers, SCAN_POINTS))
    left = clock.remaining - REPORT_SECONDS
    seconds = PLANNED_SHARE * left
    drafts = _drafts(settings, draft)
    return fit_to_time(drafts, profile, seconds, workers, SCAN_POINTS, settings.limit_seconds - seconds)


def _drafts(settings: StudySettings, draft: Layout) -> list[Layout]:
    """The draft with each of the budgets' ratios that its time is worth."""
    options = next(ratios for seconds, ratios in reversed(BUDGET_RATIOS.items()) if settings.limit_seconds >= seconds)
    return [replace(draft, budgets=tuple(1e9 * ratio for ratio in ratios)) for ratios in options]


def _lay_budgets(settings: StudySettings, draft: Layout) -> Layout:
    """Stated budgets laid with the largest batch that lets them have their sizes.

    Raises: UserError where none does.
    """
    batches = [replace(draft, batch=batch) for batch in (settings.batch, 8, 4) if batch <= settings.batch]
    laid = next((got for option in batches if (got := _try_lay(option))), None)
    return laid or replace(draft, batch=4, cells=lay(replace(draft, batch=4)))


def _try_lay(draft: Layout) -> Layout | None:
    try:
        return replace(draft, cells=lay(draft))
    except UserError:
        return None


def _evaluation_tokens(layout: Layout) -> int:
    """Validation tokens per cell: enough that scoring noise is small, few enough that scoring stays cheap."""
    least = min(layout.tokens(cell) for cell in layout.cells)
    return int(min(max(EVALUATION_LEAST, least // 4), EVALUATION_MOST))


def _expected_seconds(settings: StudySettings, setup: Setup, file: StudyFile) -> tuple[float, float]:
    """Seconds of the whole command: with the seeds that are certain, and with all that it may find time for."""
    layout, limit = setup.layout, settings.limit_seconds
    frozen = file.record["frozen"]
    beside = REPORT_SECONDS + (frozen.get("set_up_seconds", 0.0) if frozen else setup.clock.elapsed)
    low, high = (
        expected_seconds(
            layout,
            setup.profile,
            setup.workers,
            seeds,
            scan_points=SCAN_POINTS,
            evaluation_tokens=setup.evaluation_tokens,
            test_tokens=_test_tokens(setup),
        )
        for seeds in (layout.seeds, _most_seeds(settings, layout.seeds))
    )
    return min(beside + low[0], limit), min(beside + high[1], (1 + OVERRUN_SHARE) * limit)


def _most_seeds(settings: StudySettings, laid: int) -> int:
    return laid if settings.budgets or settings.seeds is not None else max(laid, MOST_SEEDS)


def _dry_run(setup: Setup, low: float, high: float) -> dict[str, Any]:
    layout, profile = setup.layout, setup.profile
    seconds = (low + high) / 2
    memory_bytes = max(
        profile.memory_bytes(layout.shape(cell), layout.batch, layout.ladder.context) for cell in layout.cells
    )
    return {
        "dry_run": True,
        "cells": len(layout.cells),
        "largest_total_parameters": max(total_parameters(layout.shape(cell)) for cell in layout.cells),
        "budgets_flops": list(layout.budgets),
        "flops": layout.flops,
        "seconds": seconds,
        "seconds_low": low,
        "seconds_high": high,
        "joules": seconds * profile.watts * setup.workers,
        "joules_source": profile.watts_source,
        "memory_bytes": setup.workers * (PROCESS_BYTES + memory_bytes),
        "dollars": None,
        "dollars_reason": "no price was given",
    }


def _run(settings: StudySettings, setup: Setup, file: StudyFile, diary: Diary) -> None:
    """Learning rates, the lower budgets, the prediction, the largest budget, the verdict, the report."""
    layout = setup.layout
    done: dict[Cell, dict[str, Any]] = {}
    diary.cells = done
    scans, rates = file.rates() or _scan(setup, file, diary)
    _enter(setup, diary, "grid below the largest budget")
    train_grid(setup, rates, layout.budgets[:-1], done)
    low = law_rows(layout, done)
    form, comparison = choose(low, settings.form)
    below = fit(low, form) if form and refusal(low, form) is None else None
    if below is not None and file.record.get("prediction") is None:
        file.keep(prediction=_prediction(layout, below, comparison))
    _enter(setup, diary, "largest budget")
    train_grid(setup, rates, layout.budgets[-1:], done)
    rows = law_rows(layout, done)
    law, refused = _refit(rows, form, comparison)
    held_out = _held_out(layout, done, rows, below)
    if law is not None:
        law = replace(law, held_out=held_out)
    _enter(setup, diary, "verdict")
    verdicts = _verdicts(settings, setup, file, rates, law, done)
    findings = Findings(
        scans=scans,
        rates=rates,
        done=done,
        below=below,
        law=law,
        refused=refused,
        comparison=comparison,
        held_out=held_out,
        verdicts=verdicts,
    )
    _enter(setup, diary, "report")
    _finish(settings, setup, file, findings)


def _enter(setup: Setup, diary: Diary, phase: str) -> None:
    setup.listener.note(phase)  # type: ignore[attr-defined]
    diary.enter(phase)


def _scan(setup: Setup, file: StudyFile, diary: Diary) -> tuple[tuple[Scan, ...], RateModel]:
    _enter(setup, diary, "learning rates")
    scans, rates = scan_rates(setup)
    file.keep(learning_rates=rates_record(scans, rates))
    return scans, rates


def _prediction(layout: Layout, below: Law, comparison: dict[str, Any]) -> dict[str, Any]:
    """What the law of the lower budgets says of the largest, written down before a cell of it is trained."""
    cells = [cell for cell in layout.cells if cell.budget_flops == layout.budgets[-1]]
    rows = []
    for cell in cells:
        variables = below.variables(layout.shape(cell), layout.tokens(cell))
        low, high = below.run_interval(**variables)
        rows.append(
            {
                "d_model": cell.d_model,
                "experts": cell.experts,
                "loss": float(below.loss(**variables)[0]),
                "low": float(low[0]),
                "high": float(high[0]),
            }
        )
    return {"form": below.form, "coefficients": below.coefficients, "comparison": comparison, "cells": rows}


def _refit(rows: dict[str, Any], form: str | None, comparison: dict[str, Any]) -> tuple[Law | None, str | None]:
    """The law of all cells in the form that the lower budgets chose; where they allowed none, the simplest form."""
    try:
        return fit(rows, form or STUDY_FORMS[0]), None
    except UserError as error:
        return None, error.problem.removeprefix("fit: ")


def _held_out(
    layout: Layout, done: dict[Cell, dict[str, Any]], rows: dict[str, Any], below: Law | None
) -> dict[str, Any] | None:
    top = rows["flops"] == layout.budgets[-1]
    if below is None or not top.any():
        return None
    check = held_out_check(select(rows, ~top), select(rows, top), below)
    measured = rows["loss"][top]
    predicted = below.loss(**select(rows, top))
    return {**check, "regret_of_predicted_best": float(measured[predicted.argmin()] - measured.min())}


def _affordable_seeds(settings: StudySettings, setup: Setup, budget_seconds: float) -> dict[str, int]:
    """Seeds of each verdict that the rest of the time holds, at most five; 0 where three would overrun it by a tenth.

    Timed runs cost most, so they are given up first.
    """
    if settings.seeds is not None or math.isinf(setup.clock.remaining):
        return dict.fromkeys(("flops", "seconds"), setup.layout.seeds)
    scored = scoring_seconds(setup.layout, setup.profile, _test_tokens(setup) + setup.evaluation_tokens)
    beside = (PAIR_BESIDE * budget_seconds + 2 * scored) / setup.workers  # a pair of runs at equal FLOPs
    one = 2 * (budget_seconds + scored) + beside  # and one alone and in turn
    left = setup.clock.remaining - REPORT_SECONDS
    grace = GRACE_SHARE * setup.clock.limit_seconds
    timed = left - 4 * (budget_seconds + scored)  # the first round has a third run, and may be done again
    if LEAST_SEEDS * one <= timed + grace:
        return dict.fromkeys(("flops", "seconds"), int(min(MOST_SEEDS, max(LEAST_SEEDS, timed // one))))
    if LEAST_SEEDS * beside <= left + grace:
        return {"flops": int(min(MOST_SEEDS, max(LEAST_SEEDS, left // beside))), "seconds": 0}
    return {"flops": 0, "seconds": 0}


def _test_tokens(setup: Setup) -> int:
    return min(TEST_TOKENS, setup.text.test_tokens)


def _verdicts(
    settings: StudySettings,
    setup: Setup,
    file: StudyFile,
    rates: RateModel,
    law: Law | None,
    done: dict[Cell, dict[str, Any]],
) -> dict[str, Any]:
    """The verdict of each currency with its runs; the number of seeds is fixed before the first of them."""
    budget = setup.layout.budgets[-1]
    rivals = flop_rivals(setup, law, done, budget)
    sides = open_sides(setup.layout, done, rivals, budget)
    plan = plan_seconds(setup, rates, law, done, rivals)
    seeds = file.record.get("verdict_seeds")
    if seeds is None:
        seeds = _affordable_seeds(settings, setup, plan.budget_seconds)
        file.keep(verdict_seeds=seeds)
    late = f"the time ran out before {LEAST_SEEDS} seeds of each family could be trained"
    records: dict[str, dict[str, list[dict[str, Any]]]] = {}
    verdicts = {"flops": undecided("flops", late, budget), "seconds": undecided("seconds", late, None)}
    if seeds["seconds"]:
        seconds_budget, records["seconds"] = equal_seconds(setup, rates, plan, seeds["seconds"])
        verdicts["seconds"] = decide_currency("seconds", seconds_budget, records["seconds"], sides, plan.edges, law)
    if seeds["flops"]:
        records["flops"] = equal_flops(setup, rates, rivals, seeds["flops"])
        verdicts["flops"] = decide_currency("flops", budget, records["flops"], sides)
    for verdict in verdicts.values():
        for family in ("dense", "sparse"):
            if verdict[family] is not None:
                run = verdict[family]["runs"][0]
                verdict[family]["checkpoint"] = str(setup.store.path(run) / "checkpoint")
    power = meter(setup.device, setup.threads)
    joules = joules_verdict(verdicts["seconds"], power.watts or setup.profile.watts, power.source)
    return {**verdicts, "joules": joules, "runs": verdict_runs(setup.store, records)}


def _finish(settings: StudySettings, setup: Setup, file: StudyFile, findings: Findings) -> None:
    out = settings.out
    if findings.law is not None:
        write_json(out / "law.json", findings.law.record())
    plan = findings.plan(setup)
    if plan is not None:
        write_json(out / "plan.json", plan)
    file.keep(
        status="done",
        **findings.record(setup, plan),
        versions=_versions(),
        next=_next(settings, plan),
        wall_seconds=setup.clock.elapsed,
        report=str(out / "report.html"),
    )
    from sparsedial.showing.report import write_report

    write_report(file.record, out)
    file.keep(wall_seconds=setup.clock.elapsed)


def _versions() -> dict[str, str]:
    import platform

    import numpy
    import torch

    from sparsedial import __version__

    return {
        "sparsedial": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
    }


def _next(settings: StudySettings, plan: dict[str, Any] | None) -> str:
    """The command that asks the same of a budget about ten times as large, and of a sparser level where the answer lies
    on the sparsest.
    """
    words = ["sparsedial", "study", *settings.text]
    seconds = 10 * (settings.limit_seconds if math.isfinite(settings.limit_seconds) else 600.0)
    words += (
        ["--budgets", ",".join(f"{10 * budget:.3g}" for budget in settings.budgets)]
        if settings.budgets
        else ["--time", f"{round(seconds / 60)}m"]
    )
    wanted, most = settings, max(settings.experts())
    if plan and plan["shape"]["experts"] == most:
        wanted = replace(settings, sparsities=(*settings.sparsities, 1 - settings.top_k / (2 * most)))
    for name in DESIGN:
        value = getattr(wanted, name)
        if value != StudySettings.__dataclass_fields__[name].default:
            told = ",".join(f"{level:.10g}" for level in value) if name == "sparsities" else str(value)
            words += [f"--{name.replace('_', '-')}", told]
    return shlex.join([*words, "--out", f"{settings.out}-next"])


def result_of(record: dict[str, Any]) -> dict[str, Any]:
    """The part of `study.json` that other programs rely on."""
    names = (
        "cells", "budgets_flops", "sparsities", "text", "machine", "versions", "wall_seconds", "law", "verdict",
        "near_optimal", "binding_constraints", "crossover", "next", "report",
    )  # fmt: skip
    return {name: record[name] for name in names}
