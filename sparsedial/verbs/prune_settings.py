"""The settings of `prune`: flags on the command line, keyword arguments in Python."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sparsedial.errors import UserError, nearest
from sparsedial.pruning.methods import BUDGETS, DEFAULT, METHODS, PART_NAMES, PATTERNS, Ask, methods_of
from sparsedial.settings import file_names, setting
from sparsedial.shape.turned import setting_text

EXAMPLE = "like `sparsedial prune runs/model/checkpoint --keep 0.5 --calibrate my_text/ --out runs/smaller`"
BY_PART = "; ".join(f"{part}: {', '.join(methods_of(part))}" for part in PART_NAMES)


@dataclass(frozen=True, kw_only=True)
class PruneSettings:
    """The checkpoint, what is turned off and how much of it stays, by which score and on which text."""

    checkpoint: Path = setting(help="a checkpoint folder, which stays as it is", positional=True, example=EXAMPLE)
    keep: float | None = setting(None, "share that stays of the experts, layers, neurons or weights, as 0.5", "SHARE")
    calibrate: tuple[str, ...] = setting(
        (), "files or folders of text like what the model is for: they decide what stays", "TEXT,…", parse=file_names
    )
    out: Path = setting(help="a new folder for the smaller checkpoint", metavar="DIR", example=EXAMPLE)
    also: tuple[str, ...] = setting(
        (), "text of another kind, to see what the calibration text cannot show", "TEXT,…", parse=file_names
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

    fix_setting: str | None = setting(
        None,
        "instead: write what the checkpoint is at a setting of its dial, as k=2 or skip=3, for any program",
        "S",
        parse=setting_text,
    )

    @property
    def ask(self) -> Ask:
        """How much of which part stays, and how that is chosen."""
        return Ask(
            method=self.method,
            keep=self.share,
            budget=self.budget,
            sequential=self.sequential,
            pattern=self.pattern,
            seed=self.seed,
        )

    def __post_init__(self) -> None:
        given: Mapping[str, object] = {"keep": self.keep, "calibrate": self.calibrate}
        for name, value in given.items():
            if self.fix_setting is not None and value:
                raise UserError(f"goes without <{name}>: it turns nothing else off", field="fix_setting")
            if self.fix_setting is None and value in (None, ()):
                raise UserError(f"prune: '{name}' is missing", hint=EXAMPLE)
        if self.fix_setting is None:
            self._check_choice()

    @property
    def share(self) -> float:
        """What `keep` says, where no setting is fixed instead."""
        assert self.keep is not None
        return self.keep

    def _check_choice(self) -> None:
        if not 0 < self.share < 1:
            raise UserError(
                f"{self.share:g} does not lie between 0 and 1", hint="0.5 turns half of it off", field="keep"
            )
        for name, known in (("method", METHODS), ("budget", BUDGETS), ("pattern", PATTERNS)):
            given = getattr(self, name)
            if given is not None and given not in known:
                hint = nearest(given, known) or f"known are {', '.join(known)}"
                raise UserError(f"no {name} named '{given}'", hint=hint, field=name)
        self._check_method()
        for name in ("calibration_tokens", "scored_tokens"):
            if getattr(self, name) < 1:
                raise UserError(f"{getattr(self, name)} is below 1", field=name)
        if self.seed < 0:
            raise UserError(f"{self.seed} is below 0", field="seed")

    def _check_method(self) -> None:
        """Check what a method can be told.

        Raises: UserError.
        """
        how = METHODS[self.method]
        if self.budget not in how.budgets:
            others = [name for name in methods_of(how.part) if self.budget in METHODS[name].budgets]
            raise UserError(
                f"{self.method} has no scores by which layers could compete",
                hint=f"leave <budget> out{f', or choose {_or(others)}' if others else ''}",
                field="budget",
            )
        if self.sequential and (how.in_turn == "never" or self.budget == "global"):
            found = [name for name, method in METHODS.items() if method.in_turn != "never"]
            raise UserError(
                f"goes with {_or(found)} and the uniform budget, not with {self.method}, {self.budget}",
                field="sequential",
            )
        if self.pattern is not None and how.part != "weights":
            raise UserError(
                f"is for single weights, and {self.method} turns {how.part} off",
                hint=f"choose <method> {_or(methods_of('weights'))}, or leave <pattern> out",
                field="pattern",
            )


def _or(names: Sequence[str]) -> str:
    return " or ".join((", ".join(names[:-1]), names[-1])) if len(names) > 1 else "".join(names)
