"""The settings of `select`: flags on the command line, keyword arguments in Python."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import cast

from sparsedial.errors import UserError, require_known
from sparsedial.records.selection import ReferenceSide
from sparsedial.selection.scores import SCORES, SIDES
from sparsedial.settings import file_names, given, setting
from sparsedial.units import parse_counts, parse_seconds, parse_share, parse_share_or_zero

EXAMPLE = "like `sparsedial select my_text/ --out kept`"
KEEP_BY = ("text", "domain")
ITEMS = ("remove", "report")
PEERS = ("datatrove",)  # programs that a script can be written for
FAMILIES = ("gopher", "c4", "fineweb")  # of rules, as in selection/quality.py, which is slow to import
NOT_EMITTED = ("keep", "spans", "tasks", "measure")  # settings that a script cannot have
PROBES_HELP = "share of each part's training tokens that are probes, which --measure asks its models, like 8% [none]"
OF_MEASURE = ("time", "budgets", "seeds", "tokenizer", "probes", "dry_run")  # settings that only it has


@dataclass(frozen=True, kw_only=True)
class SelectSettings:
    """The text, and what of it stays."""

    text: tuple[str, ...] = setting(
        (), "files or folders of text [Python's standard library]", parse=file_names, positional=True, nargs="*"
    )
    out: Path = setting(help="a new folder for the manifest and the examples", metavar="DIR", example=EXAMPLE)
    near: float = setting(
        0.8, "share of two documents' runs of five words that makes them copies", "J", parse=parse_share
    )
    quality: tuple[str, ...] = setting(
        (), f"leave out what breaks rules made for English web pages: {', '.join(FAMILIES)}", "NAME,…"
    )
    spans: float | None = setting(
        None,
        "share of a document that may be passages of 50 words that stand in one before [not looked for]",
        "X",
        parse=parse_share_or_zero,
    )
    tasks: tuple[str, ...] = setting(
        (), "leave out what holds items of these tasks, lm-eval's; needs sparsedial[evaluate]", "NAME,…"
    )
    data: Path | None = setting(None, "the folder that holds the tasks' items [the Hub]", "DIR")
    contaminated: str = setting("remove", "whether what holds such items goes, or is only told", "|".join(ITEMS))
    keep: float | None = setting(
        None,
        "share of the train text's bytes that stays, of what is left without copies [all of it]",
        "X",
        parse=parse_share,
    )
    keep_by: str = setting("text", "whether that is a share of the whole text or of each domain", "|".join(KEEP_BY))
    score: str = setting("random", f"by which --keep chooses: {', '.join(SCORES)}", "NAME")
    side: str | None = setting(None, "losses that stay with --score reference-loss [low]", "|".join(SIDES))
    seed: int = setting(0, "of what is drawn at random", "N")
    workers: int | None = setting(
        None, "processes that compare documents, or train models [one per core; one for a small text]", "N"
    )
    measure: bool = setting(False, "train equal models on what stays, on a random part and on all, and compare them")
    time: float | None = setting(None, "time for --measure, like 10m or 1h [10m]", "T", parse=parse_seconds)
    budgets: tuple[float, ...] = setting(
        (), "two budgets for --measure in training FLOPs, instead of --time", "C,C", parse=parse_counts
    )
    seeds: int = setting(5, "runs of each part at each budget", "N")
    tokenizer: str = setting("bytes", "of the models that --measure trains", "bytes|bpe:N|FILE")
    probes: float | None = setting(None, PROBES_HELP, "P", parse=parse_share)
    device: str = setting("auto", "device to train on", "cpu|cuda")
    emit: str | None = setting(
        None, "write a script that does this with another program, for text larger than one machine", "|".join(PEERS)
    )
    dry_run: bool = setting(False, "show what --measure would cost and exit")

    def __post_init__(self) -> None:
        self._check_choice()
        self._check_measure()
        self._check_emit()
        if not 0 < self.near <= 1:
            hint = "0.8 is usual; 1 leaves out equal ones"
            raise UserError(f"{self.near:g} does not lie above 0 and at most at 1", hint=hint, field="near")
        if self.spans is not None and not 0 <= self.spans < 1:
            hint = "0.5 leaves out what is mostly such passages; 0 what holds one"
            raise UserError(f"{self.spans:g} does not lie at least at 0 and below 1", hint=hint, field="spans")
        for name in ("seed", "workers"):
            value, least = getattr(self, name), int(name == "workers")
            if value is not None and value < least:
                raise UserError(f"{value} is below {least}", field=name)

    @property
    def chosen_side(self) -> ReferenceSide | None:
        """The losses that stay; None for a score without sides."""
        if self.keep is None or not SCORES[self.score].reference:
            return None
        return cast(ReferenceSide, self.side or "low")

    def _check_choice(self) -> None:
        """Raises: UserError for a share, a score, a side or rules that are not known, or choose nothing."""
        if self.keep is not None and not 0 < self.keep < 1:
            hint = "0.5 keeps half; without it all that is no copy stays"
            raise UserError(f"{self.keep:g} does not lie between 0 and 1", hint=hint, field="keep")
        require_known(self.score, SCORES, "score")
        require_known(self.keep_by, KEEP_BY, "keep_by")
        for name in self.quality:
            require_known(name, FAMILIES, "quality")
        require_known(self.contaminated, ITEMS, "contaminated")
        for name, default in (("data", None), ("contaminated", "remove")):
            if getattr(self, name) != default and not self.tasks:
                raise UserError("is about items of tasks", hint="add <tasks>", field=name)
        if self.side is not None:
            require_known(self.side, SIDES, "side")
            if not SCORES[self.score].reference:
                hint = "add <score> reference-loss"
                raise UserError(f"score {self.score} has no sides", hint=hint, field="side")
        for name, default in (("score", "random"), ("keep_by", "text")):
            if getattr(self, name) != default and self.keep is None:
                raise UserError("chooses nothing without a share", hint="add <keep>", field=name)

    def _check_measure(self) -> None:
        """Raises: UserError for settings of a measurement that is not asked for, or that none can have."""
        if not self.measure:
            for name in given(self):
                if name in OF_MEASURE:
                    raise UserError("is a setting of a measurement", hint="add <measure>", field=name)
        if self.budgets and self.time:
            raise UserError("contradicts budgets", hint="give only one of them", field="time")
        if self.budgets and (len(self.budgets) != 2 or self.budgets[0] >= self.budgets[1]):
            raise UserError("needs two budgets in rising order", hint="like 1e11,4e11", field="budgets")
        if self.seeds < 2:
            raise UserError(f"{self.seeds} is too few for an interval", hint="3 or more", field="seeds")

    def _check_emit(self) -> None:
        """Raises: UserError for a program that is not known, or settings that its script cannot have."""
        if self.emit is None:
            return
        require_known(self.emit, PEERS, "emit")
        for name in given(self):
            if name in NOT_EMITTED:
                raise UserError(f"cannot be in a script for {self.emit}", hint="leave it out, or <emit>", field=name)
        if not self.text:
            raise UserError(f"a script for {self.emit} needs a text", hint="name files or folders", field="emit")
