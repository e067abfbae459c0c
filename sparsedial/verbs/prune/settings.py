"""The settings of `prune`: flags on the command line, keyword arguments in Python."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from sparsedial.errors import UserError, require_known
from sparsedial.pruning.methods import BUDGETS, DEFAULT, METHODS, PART_NAMES, PATTERNS, Ask, methods_of
from sparsedial.pruning.split_sizes import SplitSizes
from sparsedial.records.prune import RecoveryKind
from sparsedial.settings import file_names, setting
from sparsedial.shape.turned import setting_text
from sparsedial.units import parse_count
from sparsedial.verbs.evaluate.settings import EvaluateSettings
from sparsedial.verbs.prune.checks import NEED_MEMORY, check_alone, check_memory, check_method, check_recovery
from sparsedial.verbs.prune.split_settings import check_split
from sparsedial.verbs.prune.targets import PruneTargets, all_that_stay

EXAMPLE = "like `sparsedial prune runs/model/checkpoint --keep 0.5 --calibrate my_text/ --out runs/smaller`"
BY_PART = "; ".join(f"{part}: {', '.join(methods_of(part))}" for part in PART_NAMES)


@dataclass(frozen=True, kw_only=True)
class PruneSettings(PruneTargets):
    """The checkpoint, what is turned off and how much of it stays, by which score and on which text."""

    checkpoint: Path = setting(help="a checkpoint folder, which stays as it is", positional=True, example=EXAMPLE)
    calibrate: tuple[str, ...] = setting(
        (), "files or folders of text like what the model is for: they decide what stays", "TEXT,…", parse=file_names
    )
    out: Path = setting(help="a new folder for the smaller checkpoint", metavar="DIR", example=EXAMPLE)
    also: tuple[str, ...] = setting(
        (),
        "text of another kind, to see what the calibration text cannot show",
        "TEXT,…",
        parse=file_names,
        shown="a file of the calibration text",
    )
    method: str = setting(DEFAULT, f"what is turned off and what of it matters, for {BY_PART}", "NAME")
    budget: str = setting(
        "uniform",
        "the same share of each layer, or `global`: layers compete, and only sparsedial reads the result",
        "|".join(BUDGETS),
    )
    pattern: str | None = setting(
        None, "of weights: 2:4 turns two of each four neighbouring inputs off", "|".join(PATTERNS), shown="any"
    )
    sequential: bool = setting(False, "calibrate each layer in the model whose earlier layers are cut already")
    context: int | None = setting(None, "tokens per window of text", "N", shown="the model's own, at most 2,048")
    calibration_tokens: int = setting(65_536, "tokens that the scores come from, at most", "N")
    scored_tokens: int = setting(16_384, "tokens of each text that the loss is measured on, at most", "N")
    seed: int = setting(0, "of the random choices that the result is compared with", "N")
    recover: float | None = setting(
        None, "train what stays on so many tokens of the calibration text, as 20M", "TOKENS", parse=parse_count
    )
    recover_by: str = setting(
        "loss", "what it learns then: the text, or the original's predictions", "|".join(get_args(RecoveryKind))
    )
    tasks: tuple[str, ...] = setting(
        (), "score tasks before and after too, as `evaluate` does; needs sparsedial[evaluate]", "NAME,…"
    )
    data: Path | None = setting(None, "the folder that holds the tasks' items [the Hub]", "DIR")
    limit: int | None = setting(None, "items of each task, its first ones [all]", "N")
    against: Path | None = setting(
        None, "a study, to compare the result with a lower k and with a trained sparser model", "STUDY"
    )
    layer_by_layer: bool = setting(
        False, "hold one layer in memory at a time, for checkpoints larger than it; no speed is measured then"
    )
    compare: tuple[str, ...] = setting(
        (), "instead: try several methods at several --strengths, and keep no checkpoint", "NAME,…"
    )
    strengths: tuple[float, ...] = setting((), "the shares of a comparison, as .75,.5", "SHARE,…", parse=all_that_stay)
    fix_setting: str | None = setting(
        None,
        "instead: write what the checkpoint is at a setting of its dial, as k=2 or skip=3, for any program",
        "S",
        parse=setting_text,
    )
    split_experts: int | None = setting(None, "instead: divide the neurons of a dense checkpoint into N experts", "N")
    always: int | None = setting(
        None, "with it: width of the part that all tokens visit, in experts", "N", shown="a third of the experts"
    )
    top_k: int | None = setting(None, "with it: experts that a token visits unless told otherwise", "N", shown="all")
    dry_run: bool = setting(False, "show what a choice, a comparison or a division would cost, and exit")
    join_experts: bool = setting(False, "instead: give back the dense checkpoint that was divided so")

    @property
    def split(self) -> SplitSizes | None:
        """How a dense checkpoint is divided into experts."""
        return None if self.split_experts is None else SplitSizes.of(self.split_experts, self.always, self.top_k)

    @property
    def ask(self) -> Ask:
        """How much of which part stays, all of it where a target says how much, and how that is chosen."""
        return Ask(
            method=self.method,
            keep=1.0 if self.keep is None else self.keep,
            budget=self.budget,
            sequential=self.sequential,
            pattern=self.pattern,
            seed=self.seed,
        )

    def __post_init__(self) -> None:
        self._check_amounts()
        check_recovery(self.recover, self.recover_by)
        if self.join_experts:
            check_alone(self, "join_experts")
        elif check_split(vars(self)):
            return
        elif self.fix_setting is not None:
            check_alone(self, "fix_setting")
        elif not self.compare:  # each point of a comparison is checked as settings of its own
            self.require_one_target(EXAMPLE)
            if not self.calibrate:
                raise UserError("prune: 'calibrate' is missing", hint=EXAMPLE)
            self._check_choice()

    def asking(self) -> EvaluateSettings:
        """The tasks that are scored before and after, as `evaluate` is asked for them.

        Raises: UserError for what does not fit.
        """
        return EvaluateSettings(
            checkpoint=(str(self.checkpoint),), tasks=self.tasks, data=self.data, limit=self.limit, out=self.out
        )

    def _check_choice(self) -> None:
        if self.strengths:
            raise UserError("goes with <compare>, and names the shares of a comparison", field="strengths")
        words = {"method": METHODS, "budget": BUDGETS, "pattern": PATTERNS}
        for name, known in words.items():
            given = getattr(self, name)
            if given is not None:
                require_known(given, known, name)
        check_method(self.method, self.budget, self.sequential, self.pattern)
        needing = [name for name in NEED_MEMORY if getattr(self, name)]
        if self.layer_by_layer:
            check_memory(needing)
        self.check_target(self.method)
        self.asking()

    def _check_amounts(self) -> None:
        for name, least in (("calibration_tokens", 1), ("scored_tokens", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise UserError(f"{getattr(self, name)} is below {least}", field=name)
