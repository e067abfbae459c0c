"""`study.json`: what is fixed before the first cell, the progress of a running study, the results of a finished one."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from sparsedial.errors import UserError
from sparsedial.records.best import BestModel
from sparsedial.records.grid import CellRow, LawCurve, LayoutFile, LearningRates, Prediction, VerdictRow
from sparsedial.records.kept import KeptRuns, StudySelection
from sparsedial.records.launch import Launch, LaunchSoFar
from sparsedial.records.law import Comparison, HeldOut
from sparsedial.records.plan import Crossover, NearOptimal
from sparsedial.records.probes import StudyProbes
from sparsedial.records.quantities import Machine, Span
from sparsedial.records.recipe import OptimizerName
from sparsedial.records.record import Record, parse
from sparsedial.records.text import TextSummary
from sparsedial.records.token_selection import StudyTokens
from sparsedial.records.verdict import Verdicts
from sparsedial.store import read_json

STUDY_FILE = "study.json"
REPEAT_SEED = 1001  # added to the study's seed for repeated runs of a cell; the verdict adds 1, 2, …
SELECTION_SEED = 2000  # added, with 1, 2, …, for the runs that choose which model of a family a verdict gets


class Inputs(Record, frozen=True, kw_only=True):
    """The settings that a study's folder is bound to; null where the study was free to choose."""

    ADDED_LATER: ClassVar[tuple[str, ...]] = (
        "probes", "token_share", "reference", "select", "keep", "optimizers",
    )  # fmt: skip

    time: float | None  # seconds; null with stated budgets
    budgets: tuple[float, ...]
    sparsities: tuple[float, ...]
    top_k: int
    shared_experts: int
    tokenizer: str
    context: int | None
    batch: int
    max_total_parameters: float | None
    memory: float | None
    seeds: int | None
    seed: int
    cell_seeds: int
    form: str | None
    device: str
    probes: float | None = None  # their share of the training tokens; null without probes
    token_share: float | None = None  # of each step's tokens that the loss counts; null where all do
    reference: str | None = None  # digest of the model that selects them; null where none was given
    select: str | None = None  # how shares of the text are chosen; null without
    keep: tuple[float, ...] = ()  # the shares; none where the study was free to choose
    optimizers: tuple[OptimizerName, ...] = ()  # the grid's, then others of rivals; none: the study was free to choose
    text: str  # its digest


class Frozen(Record, frozen=True, kw_only=True):
    """What is fixed before the first cell."""

    inputs: Inputs
    layout: LayoutFile
    profile_digest: str
    evaluation_tokens: int  # validation tokens that score a cell
    set_up_seconds: float | None = None  # null where it was not counted


class Phase(Record, frozen=True, kw_only=True):
    """The time and the runs of a phase, over all starts of a study."""

    name: str
    seconds: float
    runs: int | None = None  # null where it was not counted


class CellCounts(Record, frozen=True, kw_only=True):
    """The number of planned cells, and of cells that ended, including those that followed an open side."""

    planned: int
    finished: int
    diverged: int


class VerdictSeeds(Record, frozen=True, kw_only=True):
    """Seeds of each verdict, fixed before the first of its runs."""

    flops: int
    seconds: int


class TimedSteps(Record, frozen=True, kw_only=True):
    """Steps of the runs at equal seconds, adjusted to the seconds that the first ones took."""

    dense: int
    sparse: int


class RunningStudy(Record, frozen=True, kw_only=True):
    """A running study: each part is null until it is known."""

    ADDED_LATER: ClassVar[tuple[str, ...]] = (
        "selection_seeds", "timed_steps", "kept_runs", "launch", "other_learning_rates",
    )  # fmt: skip

    status: Literal["running"] = "running"
    frozen: Frozen
    learning_rates: LearningRates | None = None
    other_learning_rates: tuple[LearningRates, ...] | None = None  # of the optimizers beside the grid's
    elapsed_seconds: float = 0.0  # over all starts
    phase: str | None = None
    phases: tuple[Phase, ...] = ()
    prediction: Prediction | None = None
    cells: CellCounts | None = None
    selection_seeds: VerdictSeeds | None = None
    verdict_seeds: VerdictSeeds | None = None
    timed_steps: TimedSteps | None = None
    kept_runs: KeptRuns | None = None  # null before they are known, and without a selection
    launch: LaunchSoFar | None = None  # null in files of earlier versions


class LawSummary(Record, frozen=True, kw_only=True):
    """A study's law, or the reason why there is none."""

    form: str | None
    coefficients: dict[str, float]
    intervals: dict[str, Span]
    confidence: float | None
    undetermined: tuple[str, ...]
    rmse_log_loss: float | None
    held_out: HeldOut | None
    held_out_reason: str | None
    refused: str | None
    comparison: Comparison


class ProfileSummary(Record, frozen=True, kw_only=True):
    """The error of the machine's profile, and the source of its watts."""

    median_relative_error: float
    max_relative_error: float
    watts: float
    watts_source: str
    metered: bool


class Study(Record, frozen=True, kw_only=True):
    """A finished study."""

    ADDED_LATER: ClassVar[tuple[str, ...]] = (
        "selection_seeds",
        "timed_steps",
        "best",
        "probes",
        "token_selection",
        "selection",
        "launch",
        "other_learning_rates",
    )

    status: Literal["done"] = "done"
    best: BestModel | None = None  # null where no model was trained to its end, and in files of earlier versions
    frozen: Frozen
    learning_rates: LearningRates
    other_learning_rates: tuple[LearningRates, ...] = ()  # of the optimizers beside the grid's
    elapsed_seconds: float
    phase: str | None = None  # the last one
    phases: tuple[Phase, ...]
    prediction: Prediction | None  # null where the budgets below the largest allow no fit
    cells: CellCounts
    selection_seeds: VerdictSeeds | None = None  # of each model named for a verdict; null in files of earlier versions
    verdict_seeds: VerdictSeeds
    timed_steps: TimedSteps | None = None  # null without runs at equal seconds, and in files of earlier versions
    budgets_flops: tuple[float, ...]
    sparsities: tuple[float, ...]
    text: TextSummary
    machine: Machine
    law: LawSummary
    verdict: Verdicts
    near_optimal: NearOptimal
    binding_constraints: tuple[str, ...]
    crossover: Crossover | None
    crossover_reason: str | None
    cells_table: tuple[CellRow, ...]
    verdict_runs: tuple[VerdictRow, ...]
    law_curves: tuple[LawCurve, ...]
    profile: ProfileSummary
    seed_noise: float | None  # standard deviation of test loss between seeds
    seed_noise_reason: str | None
    probes: StudyProbes | None = None  # null where none were asked for
    token_selection: StudyTokens | None = None  # of all runs; null where their loss counted all positions
    selection: StudySelection | None = None  # null where no method was named
    launch: Launch | None = None  # null in files of earlier versions
    versions: dict[str, str]
    next: str  # the command of the same study with a larger budget
    wall_seconds: float
    report: str

    @property
    def answer(self) -> StudyAnswer:
        """The part that other programs rely on."""
        return StudyAnswer(**{name: getattr(self, name) for name in StudyAnswer.__struct_fields__})


class StudyAnswer(Record, frozen=True, kw_only=True):
    """The answer of `study`: parts of the study, in an order of its own."""

    ADDED_LATER: ClassVar[tuple[str, ...]] = ("best", "probes", "token_selection", "selection", "launch")

    best: BestModel | None = None  # as in the study
    cells: CellCounts
    budgets_flops: tuple[float, ...]
    sparsities: tuple[float, ...]
    text: TextSummary
    machine: Machine
    versions: dict[str, str]
    wall_seconds: float
    law: LawSummary
    verdict: Verdicts
    near_optimal: NearOptimal
    binding_constraints: tuple[str, ...]
    crossover: Crossover | None
    crossover_reason: str | None
    probes: StudyProbes | None = None  # as in the study
    token_selection: StudyTokens | None = None  # as in the study
    selection: StudySelection | None = None  # as in the study
    launch: Launch | None = None  # as in the study
    next: str
    report: str


class StudyStatus(Record, frozen=True, kw_only=True):
    """The progress of a study."""

    out: str
    status: Literal["done", "running", "stopped"]
    written_seconds_ago: float
    phase: str | None  # null when it is done
    phases: tuple[Phase, ...]
    cells_planned: int
    cells_finished: int
    cells_diverged: int
    runs_finished: int
    elapsed_seconds: float
    report: str | None  # null until it is done


def read_study(path: Path) -> Study | RunningStudy:
    """A `study.json`, finished or running.

    Raises: UserError as `read`.
    """
    values = read_json(path)
    del values["schema_version"]
    return parse(values, Study if values.get("status") == "done" else RunningStudy, str(path))


def read_finished(path: Path) -> Study:
    """The `study.json` of a finished study.

    Raises: UserError as `read`, or where the study is not finished.
    """
    study = read_study(path)
    if isinstance(study, RunningStudy):
        raise UserError(f"{path}: the study is not finished", hint="the same `study` command continues it")
    return study
