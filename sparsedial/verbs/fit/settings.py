"""The settings of `fit`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparsedial.errors import UserError
from sparsedial.law.counting import COUNTINGS
from sparsedial.law.expressions import assignments
from sparsedial.records.law import Prior
from sparsedial.settings import given, setting
from sparsedial.units import parse_counts, parse_number

MOST_BOOTSTRAP = 10_000
NO_PRIOR, PRIOR_EXAMPLE = "none", "beta=0.37:0.2"
OF_FITTING = (
    "form", "best_of", "weight", "hold_out", "group", "pin", "prior", "huber", "bootstrap", "seed", "counting", "at",
)  # fmt: skip


def _pins(text: Any, field: str) -> dict[str, float]:
    return {name: parse_number(value, field) for name, value in assignments(text, field, "alpha=0.34").items()}


def _priors(text: Any, field: str) -> dict[str, Prior]:
    if text == NO_PRIOR:
        return {}
    found = {}
    for name, words in assignments(text, field, PRIOR_EXAMPLE).items():
        value, _, spread = words.partition(":")
        prior = Prior(value=parse_number(value, field), log_spread=parse_number(spread or "0", field))
        if prior.value <= 0 or prior.log_spread <= 0:
            raise UserError(f"'{words}' is not a value and a spread above 0", hint=f"like {PRIOR_EXAMPLE}", field=field)
        found[name] = prior
    return found


@dataclass(frozen=True, kw_only=True)
class FitSettings:
    """The table, the form, and the runs to hold out."""

    table: Path | None = setting(
        None,
        "folder of a study or of runs, or a .csv, .tsv, .jsonl, .json or .parquet file",
        positional=True,
        nargs="?",
    )
    form: tuple[str, ...] = setting(
        ("chinchilla_sparsity",),
        "names from --list-forms, simplest first; of several, the one that predicts held-out runs best is used",
        "FORM,…",
    )
    columns: dict[str, str] = setting(
        help="where the table has loss, tokens, …: its columns, or arithmetic like loss=log(ppl),tokens=D*1e9;"
        " a name with a comma stands in backticks",
        metavar="OURS=THEIRS,…",
        parse=assignments,
        factory=dict,
    )
    where: str | None = setting(None, "rows to keep, like step==250000; by the table's names or ours", "EXPR")
    best_of: tuple[str, ...] = setting(
        (),
        "columns of settings, like lr: of the runs of one size and tokens, only those with the best stay",
        "COLUMN,…",
    )
    weight: str | None = setting(None, "column or arithmetic that says how often each row counts", "COLUMN")
    hold_out: str | None = setting(
        None,
        "rows to hold out, like flops>1e12, by the table's names or ours; or sparsest [the largest budget]",
        "EXPR",
    )
    group: str | None = setting(
        None,
        "columns that tell which rows are one run, or not independent; row takes each for itself [trunk, if there is"
        " one, or what tells checkpoints of a run]",
        "COLUMN,…",
    )
    pin: dict[str, float] = setting(help="coefficients to keep fixed", metavar="NAME=VALUE", parse=_pins, factory=dict)
    prior: dict[str, Prior] | None = setting(
        None,
        f"what to expect of exponents beside the runs: a value and the standard deviation of its logarithm, like"
        f" {PRIOR_EXAMPLE}, or {NO_PRIOR} [a study's or runs of ours: {PRIOR_EXAMPLE}; other tables: {NO_PRIOR}]",
        "NAME=VALUE:SPREAD,…",
        parse=_priors,
    )
    huber: float | None = setting(None, "log-loss residual above which a run counts less [from the spread]", "DELTA")
    bootstrap: int = setting(200, "number of refits to resampled residuals, for the intervals", "N")
    seed: int = setting(0, "seed of the resampling", "N")
    counting: str | None = setting(
        None, "how sizes were counted: with-embeddings, without-embeddings or both-embeddings [from the names]", "HOW"
    )
    at: tuple[float, ...] = setting(
        (), "budgets to split best [the largest, and ten times it]", "FLOPS,…", parse=parse_counts
    )
    predict: Path | None = setting(None, "also predict the rows of this table, into the file of --out", "TABLE")
    law: str | None = setting(
        None, "predict by this law: a law.json, a study's folder or a name; fit none", "NAME|FILE"
    )
    out: Path | None = setting(None, "also write the law to this file; with --predict, the predictions", "FILE")
    list_forms: bool = setting(False, "list the forms and exit")

    def __post_init__(self) -> None:
        for name, least, most in (("bootstrap", 0, MOST_BOOTSTRAP), ("seed", 0, 2**63 - 1)):
            if not least <= getattr(self, name) <= most:
                raise UserError(f"{getattr(self, name)} lies outside {least}..{most}", field=name)
        if self.counting is not None and self.counting not in COUNTINGS:
            raise UserError(
                f"no counting '{self.counting}'", hint=f"known are {', '.join(COUNTINGS)}", field="counting"
            )
        for name in given(self):
            if self.law is not None and name in OF_FITTING:
                raise UserError("is for a fit, and <law> gives a law", hint="leave one of them out", field=name)
        if self.huber is not None and self.huber <= 0:
            raise UserError(f"{self.huber:g} is not above 0", hint="several papers use 1e-3", field="huber")
