"""What a fitted law leaves unexplained, in words."""

from __future__ import annotations

from sparsedial.cli.rows import Rows
from sparsedial.records.law import Fit
from sparsedial.units import human_percent

SHOWN_OUTLIERS = 5


def unexplained_rows(fit: Fit) -> Rows:
    """Runs far from the law, and the variable that its residuals follow."""
    rows: list[tuple[str, str]] = []
    if fit.misfit:
        share = human_percent(fit.misfit.share, 2)
        words = f"the residuals follow {fit.misfit.variable} ({share} of their variance): {fit.form} is not their law"
        rows.append(("misfit", words))
    for outlier in fit.outliers[:SHOWN_OUTLIERS]:
        side = "above" if outlier.spreads > 0 else "below"
        distance = f"{abs(outlier.spreads):.3g} robust spreads {side} the law's {outlier.predicted_loss:.4g}"
        rows.append((f"outlier, row {outlier.row}", f"loss {outlier.loss:.4g}, {distance}"))
    if len(fit.outliers) > SHOWN_OUTLIERS:
        rows.append(("outliers", f"{len(fit.outliers)} in all"))
    return rows
