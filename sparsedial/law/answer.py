"""The answer of a fit: what its law says, or why there is none."""

from __future__ import annotations

from sparsedial.law.fit import Rows, independent
from sparsedial.law.law import Law
from sparsedial.records.law import Comparison, Fit


def answer(law: Law | None, rows: Rows, refused: str | None, compared: Comparison | None) -> Fit:
    """What `fit` answers for a law of these rows, or for the reason that it was refused."""
    sampled = law is None or len(law.samples) > 1  # a single sample gives no interval
    return Fit(
        form=law.form if law else None,
        coefficients=law.coefficients if law else {},
        intervals={} if law is None else dict(law.intervals) if sampled else dict.fromkeys(law.coefficients),
        intervals_reason=None if sampled else "too few bootstrap samples to say how sure the coefficients are",
        confidence=law.confidence if law else None,
        runs=len(rows["loss"]),
        independent_runs=independent(rows),
        rmse_log_loss=law.rmse_log_loss if law else None,
        held_out=law.held_out if law else None,
        held_out_reason=law.held_out_reason if law else "there is no law to check",
        undetermined=(law.undetermined if law else ()) if sampled else None,
        open_coefficients=law.open_coefficients if law else {},
        outliers=law.outliers if law else (),
        misfit=law.misfit if law else None,
        refused=refused,
        compared=compared,
    )
