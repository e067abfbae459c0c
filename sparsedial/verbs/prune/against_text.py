"""The windows of a study's validation text that `prune --against` scores: nothing of them decided or was learned."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sparsedial.errors import UserError
from sparsedial.pruning.unread import unread
from sparsedial.pruning.windows import Windows, windows_of
from sparsedial.records.study import Study
from sparsedial.store import Fault
from sparsedial.text.prepare import try_open_text
from sparsedial.verbs.prune.choice import Work


def scored_windows(folder: Path, study: Study, work: Work) -> tuple[Windows, int]:
    """The windows by which the study's cells were scored, without those that the calibration or a recovery reads.

    Also gives how many these are: a calibration text may hold the study's validation text.

    Raises: UserError where the study's text is missing, is cut in longer windows than the model has, or all of it is
    read.
    """
    text, context = try_open_text(folder / "text"), study.frozen.layout.ladder.context
    if isinstance(text, Fault):
        raise UserError(f"its text is needed to score on: {text.problem}", field="against")
    if context > work.shape.context:
        raise UserError(f"its windows are {context} tokens, the model's at most {work.shape.context}", field="against")
    windows = windows_of(
        text,
        "validation",
        str(folder),
        vocab_size=work.shape.vocab_size,
        context=context,
        tokens=study.frozen.evaluation_tokens,
        field="against",
        named=f"{folder}, validation split,",
    )
    fresh = unread(windows.ids_WS1, _read_by(work))
    if not fresh.any():
        raise UserError(
            f"the calibration text holds all {len(fresh)} windows of the study's validation text that are scored",
            hint="calibrate on text that lies apart from it, or on fewer <calibration_tokens>",
            field="against",
        )
    return windows.pick(np.flatnonzero(fresh)), int((~fresh).sum())


def _read_by(work: Work) -> list[np.ndarray]:
    """The tokens that decide what stays, and those that a recovery learns. Windows that lie side by side are a text."""
    ids_WS1 = work.calibrating.ids_WS1
    deciding = np.append(ids_WS1[0, :1], ids_WS1[:, 1:])
    return [deciding] if work.text is None else [deciding, work.text.tokens("train")]
