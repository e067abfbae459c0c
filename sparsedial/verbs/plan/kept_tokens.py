"""The tokens that a plan by a study's law may count on: those of the share of its text that was found best."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from sparsedial.planning.budget import Constraints
from sparsedial.records.study import STUDY_FILE, Study, read_study
from sparsedial.units import human_count


def with_kept_tokens(constraints: Constraints, folder: Path | None) -> tuple[Constraints, str | None]:
    """The constraints with the kept tokens as data, and a note of it; as they are without shares, or with stated data.

    Where the best pair is undecided it is the full text. Tokens that are fewer than the shortest training, however
    often they are read, limit nothing.
    """
    study = read_study(folder / STUDY_FILE) if folder is not None and constraints.data_tokens is None else None
    if not isinstance(study, Study) or study.selection is None:
        return constraints, None
    share = study.selection.plan_share
    if share.train_tokens * constraints.max_repeats < constraints.least_tokens:
        return constraints, None
    which = "the full text" if share.kept == 1 else f"{share.kept:g} of the text"
    note = (
        f"the data are the {human_count(share.train_tokens)} tokens of {which}, as in the study's best pair of text and"
        " model; state others if you have more"
    )
    return replace(constraints, data_tokens=share.train_tokens), note
