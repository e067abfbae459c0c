"""The settings of `prune`: flags on the command line, keyword arguments in Python."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sparsedial.errors import UserError, nearest
from sparsedial.pruning.kept import BUDGETS
from sparsedial.pruning.scores import HC_SMOE, METHODS, SCORES
from sparsedial.settings import file_names, setting
from sparsedial.shape.turned import setting_text

EXAMPLE = "like `sparsedial prune runs/model/checkpoint --keep 0.5 --calibrate my_text/ --out runs/smaller`"


@dataclass(frozen=True, kw_only=True)
class PruneSettings:
    """The checkpoint, how much of it stays, by which score and on which text."""

    checkpoint: Path = setting(help="a checkpoint folder, which stays as it is", positional=True, example=EXAMPLE)
    keep: float | None = setting(None, "share of each layer's experts that stays, as 0.5", "SHARE")
    calibrate: tuple[str, ...] = setting(
        (), "files or folders of text like what the model is for: they decide what stays", "TEXT,…", parse=file_names
    )
    out: Path = setting(help="a new folder for the smaller checkpoint", metavar="DIR", example=EXAMPLE)
    also: tuple[str, ...] = setting(
        (), "text of another kind, to see what the calibration text cannot show", "TEXT,…", parse=file_names
    )
    method: str = setting("reap", f"what an expert matters: {', '.join(METHODS)}", "NAME")
    budget: str = setting(
        "uniform",
        "the same share of each layer, or `global`: layers compete, and only sparsedial reads the result",
        "|".join(BUDGETS),
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
                f"{self.share:g} does not lie between 0 and 1", hint="0.5 turns half of the experts off", field="keep"
            )
        for name, known in (("method", METHODS), ("budget", BUDGETS)):
            given = getattr(self, name)
            if given not in known:
                hint = nearest(given, known) or f"known are {', '.join(known)}"
                raise UserError(f"no {name} named '{given}'", hint=hint, field=name)
        if self.method == HC_SMOE and self.budget == "global":
            raise UserError(
                "hc-smoe merges experts and has no scores by which layers could compete",
                hint="leave <budget> out, or choose another <method>",
                field="method",
            )
        if self.sequential and (self.method not in SCORES or self.budget == "global"):
            raise UserError(
                f"goes with scores and the uniform budget, not with {self.method}, {self.budget}",
                hint=f"scores are {', '.join(SCORES)}",
                field="sequential",
            )
        for name in ("calibration_tokens", "scored_tokens"):
            if getattr(self, name) < 1:
                raise UserError(f"{getattr(self, name)} is below 1", field=name)
        if self.seed < 0:
            raise UserError(f"{self.seed} is below 0", field="seed")
