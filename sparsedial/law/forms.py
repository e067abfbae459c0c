"""Forms of scaling laws: loss as a sum of power terms, linear in its scales, nonlinear in its exponents."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

Columns = Mapping[str, np.ndarray]
Terms = Callable[[np.ndarray, Columns], np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Form:
    """A law before it has coefficients.

    `terms` maps exponents [P] and columns of n values to [n, scales]; the loss is terms @ scales, no scale below 0.
    """

    name: str
    says: str
    variables: tuple[str, ...]
    exponents: tuple[str, ...]
    bounds: tuple[tuple[float, float], ...]  # of the exponents
    starts: tuple[tuple[float, ...], ...]  # values to start each exponent from
    scales: tuple[str, ...]
    terms: Terms
    source: str

    @property
    def coefficients(self) -> tuple[str, ...]:
        """All names: scales, then exponents."""
        return self.scales + self.exponents

    def loss(self, values: np.ndarray, columns: Columns) -> np.ndarray:
        """Loss from coefficient values in the order of `coefficients`."""
        count = len(self.scales)
        return self.terms(values[count:], columns) @ values[:count]


def experts_per_choice(columns: Columns) -> np.ndarray:
    """1/(1 - S) = experts/top_k; 1 for dense."""
    return 1 / (1 - columns["sparsity"])


def saturating(x: np.ndarray, most: float) -> np.ndarray:
    """Clark's saturation of the number of experts, 1 at 1 and below `most` everywhere.

    Source: Clark et al. 2022 (arXiv 2202.01169), eq. 4, with E_start = 1
    """
    return 1 / (1 / (x - 1 + 1 / (1 - 1 / most)) + 1 / most)


def _chinchilla(exponents: np.ndarray, columns: Columns) -> np.ndarray:
    alpha, beta = exponents
    size, tokens = columns["total_parameters"], columns["tokens"]
    return np.stack([np.ones_like(size), size**-alpha, tokens**-beta], axis=1)


def _chinchilla_sparsity(exponents: np.ndarray, columns: Columns) -> np.ndarray:
    alpha, beta, mu = exponents
    size, tokens = columns["active_parameters"], columns["tokens"]
    sized = size**-alpha * experts_per_choice(columns) ** -mu
    return np.stack([np.ones_like(size), sized, tokens**-beta], axis=1)


def _clark_saturating(exponents: np.ndarray, columns: Columns) -> np.ndarray:
    alpha, beta, mu, log_most = exponents
    size, tokens = columns["active_parameters"], columns["tokens"]
    sized = size**-alpha * saturating(experts_per_choice(columns), float(np.exp(log_most))) ** -mu
    return np.stack([np.ones_like(size), sized, tokens**-beta], axis=1)


def _sparsity_and_tokens(exponents: np.ndarray, columns: Columns) -> np.ndarray:
    alpha, beta, mu, nu = exponents
    size, tokens, x = columns["active_parameters"], columns["tokens"], experts_per_choice(columns)
    return np.stack([np.ones_like(size), size**-alpha * x**-mu, tokens**-beta * x**nu], axis=1)


def _abnar(exponents: np.ndarray, columns: Columns) -> np.ndarray:
    alpha, beta, gamma, delta, lam = exponents
    size, tokens, active = columns["total_parameters"], columns["tokens"], 1 - columns["sparsity"]
    return np.stack(
        [size**-alpha, tokens**-beta, active**-lam, active**-delta * size**-gamma, np.ones_like(size)], axis=1
    )


SIZE_STARTS = (0.2, 0.4, 0.7)
FORMS = {
    form.name: form
    for form in (
        Form(
            name="chinchilla",
            says="E + A / total_parameters^alpha + B / tokens^beta",
            variables=("total_parameters", "tokens"),
            exponents=("alpha", "beta"),
            bounds=((0.02, 2.0), (0.02, 2.0)),
            starts=(SIZE_STARTS, SIZE_STARTS),
            scales=("E", "A", "B"),
            terms=_chinchilla,
            source="Hoffmann et al. 2022 (arXiv 2203.15556), approach 3",
        ),
        Form(
            name="chinchilla_sparsity",
            says="e + a / (active_parameters^alpha x^mu) + b / tokens^beta, x = 1/(1 - sparsity)",
            variables=("active_parameters", "tokens", "sparsity"),
            exponents=("alpha", "beta", "mu"),
            bounds=((0.02, 2.0), (0.02, 2.0), (-0.5, 1.5)),
            starts=(SIZE_STARTS, SIZE_STARTS, (0.0, 0.3)),
            scales=("e", "a", "b"),
            terms=_chinchilla_sparsity,
            source="ours: Chinchilla on active parameters, with a power of experts/top_k on the size term",
        ),
        Form(
            name="clark_saturating",
            says="as chinchilla_sparsity, with x saturating below exp(log_most)",
            variables=("active_parameters", "tokens", "sparsity"),
            exponents=("alpha", "beta", "mu", "log_most"),
            bounds=((0.02, 2.0), (0.02, 2.0), (-0.5, 1.5), (0.7, 9.0)),
            starts=(SIZE_STARTS, SIZE_STARTS, (0.3,), (2.0, 4.0)),
            scales=("e", "a", "b"),
            terms=_clark_saturating,
            source="ours, with the saturation of Clark et al. 2022 (arXiv 2202.01169), eq. 4",
        ),
        Form(
            name="sparsity_and_tokens",
            says="e + a / (active_parameters^alpha x^mu) + b x^nu / tokens^beta, x = 1/(1 - sparsity)",
            variables=("active_parameters", "tokens", "sparsity"),
            exponents=("alpha", "beta", "mu", "nu"),
            bounds=((0.02, 2.0), (0.02, 2.0), (-0.5, 1.5), (-0.5, 1.0)),
            starts=(SIZE_STARTS, SIZE_STARTS, (0.3,), (0.0, 0.2)),
            scales=("e", "a", "b"),
            terms=_sparsity_and_tokens,
            source="ours: sparser models need more tokens, as in Ludziejewski et al. 2025 (arXiv 2502.05172)",
        ),
        Form(
            name="abnar",
            says="a / N^alpha + b / D^beta + c / (1-S)^lambda + d / ((1-S)^delta N^gamma) + e",
            variables=("total_parameters", "tokens", "sparsity"),
            exponents=("alpha", "beta", "gamma", "delta", "lambda"),
            bounds=((0.02, 2.0), (0.02, 2.0), (0.02, 2.0), (-1.5, 1.5), (-1.5, 1.5)),
            starts=(SIZE_STARTS, SIZE_STARTS, (0.2,), (-0.3, 0.3), (-0.3, 0.3)),
            scales=("a", "b", "c", "d", "e"),
            terms=_abnar,
            source="Abnar et al. 2025 (arXiv 2501.12370), eq. 5",
        ),
    )
}
STUDY_FORMS = ("chinchilla_sparsity", "clark_saturating", "sparsity_and_tokens", "abnar")  # simplest first
