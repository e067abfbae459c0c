"""The Law: a form with coefficients, their intervals, and the range it was fitted on."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, overload

import numpy as np

from sparsedial.errors import UserError, nearest
from sparsedial.law.form import Form
from sparsedial.law.forms import FORMS
from sparsedial.records.law import LawFile
from sparsedial.records.record import read
from sparsedial.shape.shape import Shape


class Law(LawFile, frozen=True, kw_only=True, dict=True):
    """Loss as a function of size, tokens and sparsity, with the bootstrap samples that give its uncertainty."""

    @property
    def as_form(self) -> Form:
        """The form that the coefficients belong to."""
        return FORMS[self.form]

    def _columns(self, variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
        names = self.as_form.variables
        arrays = np.broadcast_arrays(*(np.atleast_1d(np.asarray(variables[name], dtype=float)) for name in names))
        return dict(zip(names, arrays, strict=True))

    @overload
    def loss(self, **variables: float) -> float: ...
    @overload
    def loss(self, **variables: Any) -> np.ndarray: ...
    def loss(self, **variables: Any) -> float | np.ndarray:
        """Predicted loss, vectorised over the form's own variables: of numbers a number. Other variables are ignored.

        Units: nats per token
        """
        values = np.array([self.coefficients[name] for name in self.as_form.coefficients])
        loss = self.as_form.loss(values, self._columns(variables))
        one = all(np.ndim(variables[name]) == 0 for name in self.as_form.variables)
        return float(loss[0]) if one else loss

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

    @overload
    def variables(self, shape: Shape, tokens: float) -> dict[str, float]: ...
    @overload
    def variables(self, shape: Any, tokens: Any) -> dict[str, Any]: ...
    def variables(self, shape: Any, tokens: Any) -> dict[str, Any]:
        """The law's variables of a Shape, or of Shapes as columns, counted as this law counts."""
        values = {**self.count(shape), "tokens": tokens}
        return {name: values[name] for name in self.as_form.variables}

    def count(self, shape: Any) -> dict[str, Any]:
        """The variables without tokens."""
        return self.as_form.count(shape, self.counting)


def read_law(path: Path) -> Law:
    """The law of a `law.json`.

    Raises: UserError where the file is not a law of this version, or its coefficients are not those of its form.
    """
    law = read(path, Law)
    if law.form not in FORMS:
        raise UserError(f"{path}: no form named '{law.form}'", hint=nearest(law.form, FORMS) or "fit it again")
    names = law.as_form.coefficients
    if set(law.coefficients) != set(names) or any(len(sample) != len(names) for sample in law.samples):
        raise UserError(f"{path}: its coefficients are not those of {law.form}", hint="fit it again")
    return law
