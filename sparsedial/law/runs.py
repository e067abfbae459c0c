"""The runs that a fit starts from: a table that is checked, thinned to the best of sweeps, and grouped by curves."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from sparsedial.errors import UserError
from sparsedial.law.cells import best_of, cells, sweep_note, texts_note
from sparsedial.law.curves import curve_note, curves, unclear_note
from sparsedial.law.expressions import quoted
from sparsedial.law.folders import left_out_note
from sparsedial.law.forms import FORMS
from sparsedial.law.loss_units import low_loss_note, require_nats
from sparsedial.law.reading import is_ours
from sparsedial.law.sanity import require_losses, require_possible
from sparsedial.law.table import GROUP, ROW, WEIGHT, Table, open_table
from sparsedial.law.units import require_units
from sparsedial.records.study import STUDY_FILE

DENSE = "chinchilla"
# Names that tables give to what laws speak of, in the spelling of `_plain`; for hints alone.
USUAL_NAMES = {
    "loss": "val_loss validation_loss eval_loss test_loss final_loss train_loss loss_validation loss_final nll ce"
    " cross_entropy l val_bpb perplexity ppl",
    "tokens": "d n_tokens num_tokens token_count train_tokens training_tokens tokens_seen dataset_size training_data"
    " total_tokens",
    "total_parameters": "n params parameters n_params num_params num_parameters total_params param_count size"
    " model_size total_parameter_count nparams",
    "active_parameters": "na n_active n_a active_params activated_parameters activated_params active",
    "flops": "c compute flop training_flop training_flops total_flops train_flops training_compute",
    "sparsity": "s",
    "experts": "num_experts n_experts e",
}


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What to read of a table, as the settings of `fit` say it."""

    path: Path
    columns: Mapping[str, str]
    where: str | None = None
    group: str | None = None
    weight: str | None = None
    best_of: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Runs:
    """The runs of a table, and what a reader must know of how they were read."""

    table: Table
    cells: int
    notes: tuple[str, ...]

    @property
    def dropped_reason(self) -> str | None:
        """Why rows were dropped, or None where none was."""
        lacks = [f"{count} without a number for {name}" for name, count in self.table.without.items()]
        return ", ".join(lacks) or None


def read_runs(reading: Reading, forms: Sequence[str]) -> Runs:
    """The runs of a table with what the forms need.

    Raises: UserError for an unreadable table, a missing column, or values that no run can have in our units.
    """
    shared = _shared(forms)
    table = _opened(reading, shared)
    _require_columns(table, forms, ("loss", *shared))
    require_possible(table, shared)
    ours = is_ours(reading.path)
    if not ours:  # our own files count in ones and in nats per token, and a run of ours may be tiny
        require_nats(table)
        require_units(table)
    require_losses(table)
    notes = [None if ours else low_loss_note(table), texts_note(table), _left_out(reading.path)]
    if reading.best_of:
        table = best_of(table, [name.strip() for name in reading.best_of])
    else:
        notes.append(sweep_note(table))
    if reading.group is None:
        found = curves(table)
        if found is not None:
            table = replace(table, rows={**table.rows, GROUP: found[1].astype(float)})
        notes.append(unclear_note(table) if found is None else curve_note(table, *found))
    return Runs(table=table, cells=int(cells(table).max()) + 1, notes=tuple(note for note in notes if note))


def _left_out(path: Path) -> str | None:
    """A word on what a folder of runs holds beside a study's grid; a study's own folder gives its cells."""
    return left_out_note(path) if path.is_dir() and not (path / STUDY_FILE).exists() else None


def _opened(reading: Reading, variables: Sequence[str]) -> Table:
    weight = {} if reading.weight is None else {WEIGHT: reading.weight}
    table = open_table(reading.path, {**reading.columns, **weight}, reading.where, reading.group, ("loss", *variables))
    return replace(table, given={name: theirs for name, theirs in table.given.items() if name not in weight})


def _shared(forms: Sequence[str]) -> list[str]:
    """The variables that all of the forms have."""
    first, *others = (FORMS[form].variables for form in forms)
    return [name for name in first if all(name in names for names in others)]


def _require_columns(table: Table, forms: Sequence[str], needed: Sequence[str]) -> None:
    """Raises: UserError where a column is missing, with where it may be."""
    missing = [name for name in needed if name not in table.rows]
    if not missing:
        return
    what = f"a column {_listed(missing[:1])}" if len(missing) == 1 else f"columns {_listed(missing)}"
    found = {name: _candidate(table, name) for name in missing}
    problem = f"{table.path}: {', '.join(forms)} needs {what} of numbers"
    dense = [name for name in ("loss", *FORMS[DENSE].variables) if name not in table.rows]
    guesses = {name: _candidate(table, name) for name in dense}
    if any(found[name] is None for name in missing if name not in dense) and None not in guesses.values():
        columns = table.columns_hint({name: quoted(str(guess)) for name, guess in guesses.items()})
        raise UserError(problem, f"<form> {DENSE}{' ' + columns if guesses else ''} is for dense runs")
    named = {name: quoted(guess) if guess else "NAME" for name, guess in found.items()}
    there = f"; it has {', '.join(sorted(table.words))}" if None in found.values() else ""
    it = "it is" if len(missing) == 1 else "they are"
    raise UserError(problem, f"{table.columns_hint(named)} says where {it} in the table{there}")


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)


def _candidate(table: Table, ours: str) -> str | None:
    """The column that most likely is one of ours, by its name."""
    usual = [ours, *USUAL_NAMES.get(ours, "").split()]
    numbers = [name for name, values in table.words.items() if values.dtype == float and not np.isnan(values).all()]
    plain = {name: _plain(name) for name in numbers}
    plain = {name: word for name, word in plain.items() if name not in table.columns.values() and name != ROW}
    for wanted in usual:
        for name, word in plain.items():
            if word == wanted:
                return name
    holding = [name for name, word in plain.items() if ours in word.split("_") or (ours == "loss" and "loss" in word)]
    return holding[0] if len(holding) == 1 else None


def _plain(name: str) -> str:
    return re.sub(r"\W+", "_", name.lower()).strip("_")
