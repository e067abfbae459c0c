"""The Law: a form with coefficients, their intervals, and the range it was fitted on."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from sparsedial.errors import UserError, nearest
from sparsedial.law.form import Form
from sparsedial.law.forms import FORMS
from sparsedial.store import check_fields

SLACK = 1.01  # beyond a fitted range before it is said


@dataclass(frozen=True, kw_only=True)
class Law:
    """Loss as a function of size, tokens and sparsity, with the bootstrap that says how sure it is."""

    form: str
    coefficients: dict[str, float]
    intervals: dict[str, list[float]]
    confidence: float
    samples: tuple[tuple[float, ...], ...]  # coefficients of each bootstrap sample, in the form's order
    runs: int
    rmse_log_loss: float
    fitted_range: dict[str, list[float]]
    undetermined: tuple[str, ...]
    seed: int
    held_out: dict[str, Any] | None = None
    refused: str | None = None
    source: str = "ours"

    @property
    def as_form(self) -> Form:
        """The form that the coefficients belong to."""
        return FORMS[self.form]

    def _columns(self, variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
        names = self.as_form.variables
        arrays = np.broadcast_arrays(*(np.atleast_1d(np.asarray(variables[name], dtype=float)) for name in names))
        return dict(zip(names, arrays, strict=True))

    def loss(self, **variables: Any) -> np.ndarray:
        """Predicted loss, vectorised over the form's own variables; others are passed over.

        Units: nats per token
        """
        values = np.array([self.coefficients[name] for name in self.as_form.coefficients])
        return self.as_form.loss(values, self._columns(variables))

    def sampled_loss(self, **variables: Any) -> np.ndarray:
        """Predicted loss by each bootstrap sample. Shapes: [samples, n]"""
        return self.as_form.loss(self._sample_array, self._columns(variables))

    @functools.cached_property
    def _sample_array(self) -> np.ndarray:
        return np.array(self.samples)

    def interval(self, **variables: Any) -> tuple[np.ndarray, np.ndarray]:
        """Low and high of the predicted loss at the law's confidence."""
        return self._quantiles(self.sampled_loss(**variables))

    def run_interval(self, **variables: Any) -> tuple[np.ndarray, np.ndarray]:
        """Low and high of a single run's loss: the interval of the prediction widened by the scatter of runs."""
        sampled = self.sampled_loss(**variables)
        scatter = np.random.default_rng(self.seed).normal(0, self.rmse_log_loss, sampled.shape)
        return self._quantiles(sampled * np.exp(scatter))

    def _quantiles(self, sampled: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        tail = (1 - self.confidence) / 2
        low, high = np.quantile(sampled, [tail, 1 - tail], axis=0)
        return low, high

    def variables(self, shape: Any, tokens: Any) -> dict[str, Any]:
        """The law's variables of a Shape, or of Shapes as columns, counted as this law counts."""
        values = {**self.as_form.count(shape), "tokens": tokens}
        return {name: values[name] for name in self.as_form.variables}

    def outside(self, variables: Mapping[str, float]) -> dict[str, float]:
        """How far beyond the fitted range each variable lies, as a factor above 1; empty inside."""
        factors = {}
        for name, (low, high) in self.fitted_range.items():
            if name in variables and name != "sparsity" and not low / SLACK <= variables[name] <= high * SLACK:
                factors[name] = float(max(low / variables[name], variables[name] / high))
        return factors

    def record(self) -> dict[str, Any]:
        """The law as `law.json` holds it."""
        return asdict(self)

    @staticmethod
    def from_record(record: Mapping[str, Any], place: str = "law") -> Law:
        """The inverse of `record`; keys of the file itself are passed over.

        Raises: UserError, with the place that it came from, for a record that is no law of this version.
        """
        check_fields(record, Law, place)
        if record["form"] not in FORMS:
            raise UserError(
                f"{place}: no form named '{record['form']}'", hint=nearest(record["form"], FORMS) or "fit it again"
            )
        names, found = FORMS[record["form"]].coefficients, record["coefficients"]
        ours = set(found) == set(names) and all(isinstance(value, int | float) for value in found.values())
        if not ours or any(len(sample) != len(names) for sample in record["samples"]):
            raise UserError(f"{place}: its coefficients are not those of {record['form']}", hint="fit it again")
        values = {key: value for key, value in record.items() if key in Law.__dataclass_fields__}
        values["samples"] = tuple(tuple(sample) for sample in values["samples"])
        values["undetermined"] = tuple(values["undetermined"])
        return Law(**values)
