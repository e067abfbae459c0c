"""The settings of `select`: flags on the command line, keyword arguments in Python."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sparsedial.errors import UserError, nearest
from sparsedial.selection.scores import SCORES
from sparsedial.settings import file_names, setting

EXAMPLE = "like `sparsedial select my_text/ --out kept`"


@dataclass(frozen=True, kw_only=True)
class SelectSettings:
    """The text, and what of it stays."""

    text: tuple[str, ...] = setting(
        (), "files or folders of text [Python's standard library]", parse=file_names, positional=True, nargs="*"
    )
    out: Path = setting(help="a new folder for the manifest and the examples", metavar="DIR", example=EXAMPLE)
    near: float = setting(0.8, "share of two documents' runs of five words that makes them copies", "J")
    keep: float | None = setting(
        None, "share of the train text's bytes that stays, of what is left without copies [all of it]", "X"
    )
    score: str = setting("random", f"by which --keep chooses: {', '.join(SCORES)}", "NAME")
    seed: int = setting(0, "of what is drawn at random", "N")
    workers: int | None = setting(None, "processes that compare documents [one per core; one for a small text]", "N")

    def __post_init__(self) -> None:
        if not 0 < self.near <= 1:
            hint = "0.8 is usual; 1 leaves out equal ones"
            raise UserError(f"{self.near:g} does not lie above 0 and at most at 1", hint=hint, field="near")
        if self.keep is not None and not 0 < self.keep < 1:
            hint = "0.5 keeps half; without it all that is no copy stays"
            raise UserError(f"{self.keep:g} does not lie between 0 and 1", hint=hint, field="keep")
        if self.score not in SCORES:
            hint = nearest(self.score, SCORES) or f"known are {', '.join(SCORES)}"
            raise UserError(f"no score named '{self.score}'", hint=hint, field="score")
        if self.score != "random" and self.keep is None:
            raise UserError("chooses nothing without a share", hint="add <keep>", field="score")
        if self.seed < 0:
            raise UserError(f"{self.seed} is below 0", field="seed")
        if self.workers is not None and self.workers < 1:
            raise UserError(f"{self.workers} is below 1", field="workers")
