"""The settings of `train`: flags on the command line, keyword arguments in Python."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, get_args

from sparsedial.errors import UserError, require_known
from sparsedial.records.recipe import Recipe
from sparsedial.records.trained_for import DialBy, DialEnd, TrainedFor
from sparsedial.settings import convert, file_names, setting
from sparsedial.shape.shape import Shape
from sparsedial.units import parse_count, parse_counts, parse_share
from sparsedial.verbs import log_setting
from sparsedial.verbs.train.described import RUN_DEFAULTS, table_of
from sparsedial.verbs.train.token_settings import REFERENCE_HELP, SHARE_HELP, check_token_settings

MOST_RANKS = 256  # on one machine


def _shape_parts(value: Any, field: str) -> dict[str, Any]:
    """Check names and types now; missing values and values that do not fit together are found later."""
    return convert(Shape, table_of(value, field, Shape), field)


def _recipe_parts(value: Any, field: str) -> dict[str, Any]:
    return convert(Recipe, table_of(value, field, Recipe), field)


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """The model to train: a plan, a checkpoint, or a shape with a recipe. Single settings override the plan's."""

    model: str | None = setting(
        None,
        "a plan or its folder, a checkpoint to go on from, a config.json, a shape.json or a published name",
        positional=True,
        nargs="?",
    )
    text: tuple[str, ...] = setting(
        (), "files or folders of text [Python's standard library]", "FILE,…", parse=file_names
    )
    tokens: float | None = setting(None, "number of training tokens", "N", parse=parse_count)
    branches: tuple[float, ...] = setting(
        (), "tokens of shorter runs that share the first steps of this one (schedule wsd)", "N,…", parse=parse_counts
    )
    shape: dict[str, Any] = setting(
        help="one size of the shape; overrides the model's own", parse=_shape_parts, factory=dict, table=Shape
    )
    recipe: dict[str, Any] = setting(
        help="one setting of the training recipe; overrides the plan's",
        parse=_recipe_parts,
        factory=dict,
        table=Recipe,
        defaults=RUN_DEFAULTS,
    )
    dial: tuple[int, ...] = setting(
        (), "numbers of experts that tokens visit, drawn from step to step, so that one model serves them all", "N,N,…"
    )
    dial_by: str = setting("step", "whether all layers of a step have the same number", "|".join(get_args(DialBy)))
    dial_end: str = setting(
        "highest", "the number that tokens visit in the last tenth of the steps", "|".join(get_args(DialEnd))
    )
    token_share: float | None = setting(None, SHARE_HELP, "P", parse=parse_share)
    reference: str | None = setting(None, REFERENCE_HELP, "FOLDER")
    tokenizer: str | None = setting(
        None, "how text becomes tokens [the plan's or the checkpoint's own, else bytes]", "bytes|bpe:N|FILE"
    )
    device: str = setting("auto", "device to train on", "cpu|cuda")
    threads: int | None = setting(None, "CPU threads, of all ranks on a machine together [one per core]", "N")
    ranks: int | None = setting(
        None,
        "processes on this machine that train the model together, each with a share of every batch; torchrun and srun"
        " start them on several [1]",
        "N",
    )
    out: Path = setting(Path("runs/train"), "the run's folder; the same command continues a stopped run", "DIR")
    log: tuple[str, ...] = setting((), log_setting.HELP, "csv,…", parse=log_setting.log_names)
    force: bool = setting(False, "write to --out although it holds other files; none of them is overwritten")
    dry_run: bool = setting(False, "show what the run would cost and exit")

    def __post_init__(self) -> None:
        require_known(self.dial_by, get_args(DialBy), "dial_by")
        require_known(self.dial_end, get_args(DialEnd), "dial_end")
        for field, unset in (("dial_by", "step"), ("dial_end", "highest")):
            if getattr(self, field) != unset and not self.dial:
                raise UserError("without a dial nothing is drawn", hint="give <dial> 2,4,8", field=field)
        if self.ranks is not None and not 1 <= self.ranks <= MOST_RANKS:
            raise UserError(f"{self.ranks} lies outside 1..{MOST_RANKS}", field="ranks")
        check_token_settings(self.token_share, self.reference)
        if len(set(self.dial)) < len(self.dial):
            raise UserError(f"{','.join(map(str, self.dial))} has a number twice", field="dial")

    @property
    def trained_for(self) -> TrainedFor | None:
        """The dial to train for."""
        if not self.dial:
            return None
        by, end = cast(DialBy, self.dial_by), cast(DialEnd, self.dial_end)
        return TrainedFor(top_k_experts=tuple(sorted(self.dial)), by=by, end=end)
