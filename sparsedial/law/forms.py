"""The forms of the published laws and our own, each with its own variables and way of counting."""

from __future__ import annotations

from typing import Any

import numpy as np

from sparsedial.law.form import Columns, Form


def experts_per_choice(columns: Columns) -> np.ndarray:
    """1/(1 - S) = experts/top_k; 1 for dense."""
    return 1 / (1 - columns["sparsity"])


def saturating(experts: np.ndarray, first: Any, most: Any) -> np.ndarray:
    """Clark's saturation of the number of experts: `first` at 1, below `most` everywhere.

    Source: Clark et al. 2022 (arXiv 2202.01169)
    """
    return 1 / (1 / (experts - 1 + 1 / (1 / first - 1 / most)) + 1 / most)


def _one(columns: Columns) -> np.ndarray:
    return np.ones_like(next(iter(columns.values())))


def _chinchilla(exponents: np.ndarray, columns: Columns) -> list[Any]:
    alpha, beta = exponents
    return [_one(columns), columns["total_parameters"] ** -alpha, columns["tokens"] ** -beta]


def _chinchilla_sparsity(exponents: np.ndarray, columns: Columns) -> list[Any]:
    alpha, beta, mu = exponents
    sized = columns["active_parameters"] ** -alpha * experts_per_choice(columns) ** -mu
    return [_one(columns), sized, columns["tokens"] ** -beta]


def _chinchilla_times_sparsity(exponents: np.ndarray, columns: Columns) -> list[Any]:
    alpha, beta, mu = exponents
    factor = experts_per_choice(columns) ** -mu
    return [factor, columns["active_parameters"] ** -alpha * factor, columns["tokens"] ** -beta * factor]


def _clark_saturating(exponents: np.ndarray, columns: Columns) -> list[Any]:
    alpha, beta, mu, log_most = exponents
    seen = saturating(experts_per_choice(columns), 1.0, np.exp(log_most))
    return [_one(columns), columns["active_parameters"] ** -alpha * seen**-mu, columns["tokens"] ** -beta]


def _sparsity_and_tokens(exponents: np.ndarray, columns: Columns) -> list[Any]:
    alpha, beta, mu, nu = exponents
    ratio = experts_per_choice(columns)
    sized = columns["active_parameters"] ** -alpha * ratio**-mu
    return [_one(columns), sized, columns["tokens"] ** -beta * ratio**nu]


def _sparsity_by_tokens(exponents: np.ndarray, columns: Columns) -> list[Any]:
    alpha, beta, mu, nu = exponents
    power = mu + nu * np.log(columns["tokens"] / 1e6)
    sized = columns["active_parameters"] ** -alpha * experts_per_choice(columns) ** -power
    return [_one(columns), sized, columns["tokens"] ** -beta]


def _sparsity_by_size_and_tokens(exponents: np.ndarray, columns: Columns) -> list[Any]:
    alpha, beta, mu, kappa, nu = exponents
    size, tokens = columns["active_parameters"], columns["tokens"]
    power = mu + kappa * np.log(size / 1e5) + nu * np.log(tokens / 1e6)
    return [_one(columns), size**-alpha * experts_per_choice(columns) ** -power, tokens**-beta]


def _abnar(exponents: np.ndarray, columns: Columns) -> list[Any]:
    alpha, beta, gamma, delta, lam = exponents
    size, tokens, active = columns["total_parameters"], columns["tokens"], 1 - columns["sparsity"]
    return [size**-alpha, tokens**-beta, active**-lam, active**-delta * size**-gamma, _one(columns)]


def _clark(exponents: np.ndarray, columns: Columns) -> list[Any]:
    first, most = exponents
    size = np.log10(columns["active_parameters"])
    seen = np.log10(saturating(columns["experts"], first, np.maximum(most, first + 1)))
    return [size, seen, size * seen, _one(columns)]


def _krajewski(exponents: np.ndarray, columns: Columns) -> list[Any]:
    alpha, beta, gamma = exponents
    sized = columns["total_parameters"] ** -alpha
    return [sized, columns["tokens"] ** -beta, columns["granularity"] ** -gamma * sized, _one(columns)]


def _ludziejewski(exponents: np.ndarray, columns: Columns) -> list[Any]:
    alpha, delta, gamma, beta, omega, zeta, first, most = exponents
    seen = saturating(columns["experts"], first, np.maximum(most, first + 1))
    log = np.log(seen)
    sized = seen**delta * columns["active_parameters"] ** (alpha + gamma * log)
    return [sized, seen**omega * columns["tokens"] ** (beta + zeta * log), _one(columns)]


def _zhao(exponents: np.ndarray, columns: Columns) -> list[Any]:
    alpha, beta, k, h = exponents
    total, active, shared = columns["total_parameters"], columns["active_parameters"], columns["shared_share"]
    common = total**-alpha + k * active**-alpha + h * active / total
    chosen = columns["active_experts"]
    return [
        chosen * common,
        common / chosen,
        shared**2 * common,
        shared * common,
        total**-alpha,
        columns["tokens"] ** -beta,
        active**-alpha,
        _one(columns),
    ]


def granularity(shape: Any) -> Any:
    """4 d_model / d_expert; 1 for dense. Source: Krajewski et al. 2024 (arXiv 2402.07871)"""
    sparse = shape.experts > 0
    return np.where(sparse, 4 * shape.d_model / np.where(sparse, shape.d_expert, 1), 1.0)


def active_experts(shape: Any) -> Any:
    """Experts that one token visits, shared ones too; 1 for dense."""
    return np.maximum(shape.top_k + shape.shared_experts, 1)


def shared_share(shape: Any) -> Any:
    """Share of the shared experts in those that a token visits."""
    return shape.shared_experts / active_experts(shape)


POWER = (0.02, 2.0)
SIZE_STARTS = (0.2, 0.4, 0.7)
SIZED = {"size": ("a", "alpha"), "tokens": ("b", "beta")}  # what governs them in our own forms
FORMS = {
    form.name: form
    for form in (
        Form(
            name="chinchilla",
            says="E + A / total_parameters^alpha + B / tokens^beta",
            variables=("total_parameters", "tokens"),
            exponents=("alpha", "beta"),
            bounds=(POWER, POWER),
            starts=(SIZE_STARTS, SIZE_STARTS),
            scales=("E", "A", "B"),
            terms=_chinchilla,
            governs={"size": ("A", "alpha"), "tokens": ("B", "beta")},
            source="Hoffmann et al. 2022 (arXiv 2203.15556), approach 3",
        ),
        Form(
            name="chinchilla_sparsity",
            says="e + a / (active_parameters^alpha x^mu) + b / tokens^beta, x = 1/(1 - sparsity)",
            variables=("active_parameters", "tokens", "sparsity"),
            exponents=("alpha", "beta", "mu"),
            bounds=(POWER, POWER, (-0.5, 1.5)),
            starts=(SIZE_STARTS, SIZE_STARTS, (0.0, 0.3)),
            scales=("e", "a", "b"),
            terms=_chinchilla_sparsity,
            governs={**SIZED, "sparsity": ("mu",)},
            source="ours: Chinchilla on active parameters, with a power of experts/top_k on the size term",
        ),
        Form(
            name="chinchilla_times_sparsity",
            says="(e + a / active_parameters^alpha + b / tokens^beta) / x^mu, x = 1/(1 - sparsity)",
            variables=("active_parameters", "tokens", "sparsity"),
            exponents=("alpha", "beta", "mu"),
            bounds=(POWER, POWER, (-0.5, 1.5)),
            starts=(SIZE_STARTS, SIZE_STARTS, (0.0, 0.1)),
            scales=("e", "a", "b"),
            terms=_chinchilla_times_sparsity,
            governs={**SIZED, "sparsity": ("mu",)},
            keeps_within=("sparsity",),
            source="ours: Chinchilla on active parameters times a power of experts/top_k, as in Clark et al. 2022"
            " (arXiv 2202.01169); it has no floor at high sparsity: do not use it beyond the tried range",
        ),
        Form(
            name="clark_saturating",
            says="as chinchilla_sparsity, with x saturating below exp(log_most)",
            variables=("active_parameters", "tokens", "sparsity"),
            exponents=("alpha", "beta", "mu", "log_most"),
            bounds=(POWER, POWER, (-0.5, 1.5), (0.7, 9.0)),
            starts=(SIZE_STARTS, SIZE_STARTS, (0.3,), (2.0, 4.0)),
            scales=("e", "a", "b"),
            terms=_clark_saturating,
            governs={**SIZED, "sparsity": ("mu", "log_most")},
            keeps_within=("sparsity",),
            source="ours, with the saturation of Clark et al. 2022 (arXiv 2202.01169)",
        ),
        Form(
            name="sparsity_and_tokens",
            says="e + a / (active_parameters^alpha x^mu) + b x^nu / tokens^beta, x = 1/(1 - sparsity)",
            variables=("active_parameters", "tokens", "sparsity"),
            exponents=("alpha", "beta", "mu", "nu"),
            bounds=(POWER, POWER, (-0.5, 1.5), (-0.5, 1.0)),
            starts=(SIZE_STARTS, SIZE_STARTS, (0.3,), (0.0, 0.2)),
            scales=("e", "a", "b"),
            terms=_sparsity_and_tokens,
            governs={**SIZED, "sparsity": ("mu", "nu")},
            source="ours: sparser models need more tokens, as in Ludziejewski et al. 2025 (arXiv 2502.05172)",
        ),
        Form(
            name="sparsity_by_tokens",
            says="e + a / (active_parameters^alpha x^(mu + nu ln(tokens/1e6))) + b / tokens^beta, x = 1/(1 - sparsity)",
            variables=("active_parameters", "tokens", "sparsity"),
            exponents=("alpha", "beta", "mu", "nu"),
            bounds=(POWER, POWER, (-0.5, 1.5), (-0.3, 0.3)),
            starts=(SIZE_STARTS, SIZE_STARTS, (0.1,), (0.0, 0.05)),
            scales=("e", "a", "b"),
            terms=_sparsity_by_tokens,
            governs={**SIZED, "sparsity": ("mu", "nu")},
            source="ours: what sparsity saves grows with tokens, as in Ludziejewski et al. 2025 (arXiv 2502.05172)",
        ),
        Form(
            name="sparsity_by_size_and_tokens",
            says="e + a / (active_parameters^alpha x^(mu + kappa ln(active_parameters/1e5) + nu ln(tokens/1e6)))"
            " + b / tokens^beta, x = 1/(1 - sparsity)",
            variables=("active_parameters", "tokens", "sparsity"),
            exponents=("alpha", "beta", "mu", "kappa", "nu"),
            bounds=(POWER, POWER, (-0.5, 1.5), (-0.3, 0.3), (-0.3, 0.3)),
            starts=(SIZE_STARTS, SIZE_STARTS, (0.15,), (0.0, 0.08), (0.0, 0.05)),
            scales=("e", "a", "b"),
            terms=_sparsity_by_size_and_tokens,
            governs={**SIZED, "sparsity": ("mu", "kappa", "nu")},
            source="ours: what sparsity saves grows with size and with tokens; a power of size that depends on experts"
            " is in Clark et al. 2022 (arXiv 2202.01169) and Ludziejewski et al. 2025 (arXiv 2502.05172)",
        ),
        Form(
            name="abnar",
            says="a / N^alpha + b / D^beta + c / (1-S)^lambda + d / ((1-S)^delta N^gamma) + e",
            variables=("total_parameters", "tokens", "sparsity"),
            exponents=("alpha", "beta", "gamma", "delta", "lambda"),
            bounds=(POWER, POWER, POWER, (-1.5, 1.5), (-1.5, 1.5)),
            starts=(SIZE_STARTS, SIZE_STARTS, (0.2,), (-0.3, 0.3), (-0.3, 0.3)),
            scales=("a", "b", "c", "d", "e"),
            terms=_abnar,
            governs={
                "size": ("a", "alpha", "d", "gamma"),
                "tokens": ("b", "beta"),
                "sparsity": ("c", "lambda", "d", "delta"),
            },
            source="Abnar et al. 2025 (arXiv 2501.12370)",
        ),
        Form(
            name="clark",
            says="log10 L = a log10 N + b log10 x + c log10 N log10 x + d, x saturating from E_start to E_max",
            variables=("active_parameters", "experts"),
            exponents=("E_start", "E_max"),
            bounds=((1.0, 20.0), (8.0, 5000.0)),
            starts=((1.5, 4.0), (100.0, 500.0)),
            scales=("a", "b", "c", "d"),
            signed=("a", "b", "c", "d"),
            log10=True,
            terms=_clark,
            source="Clark et al. 2022 (arXiv 2202.01169); logs to base 10",
            counting="without-embeddings",  # of the released runs: 16,527,360 is d_model 512, 6 layers and no table
            governs={"size": ("a", "c"), "sparsity": ("b", "c", "E_start", "E_max")},
            keeps_within=("sparsity",),
        ),
        Form(
            name="krajewski",
            says="c + (g / granularity^gamma + a) / total_parameters^alpha + b / tokens^beta, without embeddings",
            variables=("total_parameters", "tokens", "granularity"),
            exponents=("alpha", "beta", "gamma"),
            bounds=(POWER, POWER, (0.02, 3.0)),
            starts=((0.1, 0.3, 0.6), (0.1, 0.3, 0.6), (0.3, 0.8)),
            scales=("a", "b", "g", "c"),
            terms=_krajewski,
            source="Krajewski et al. 2024 (arXiv 2402.07871)",
            counted={"granularity": granularity},
            counting="without-embeddings",
            governs={"size": ("a", "alpha"), "tokens": ("b", "beta"), "granularity": ("g", "gamma")},
            unsaid_ratio=64.0,
        ),
        Form(
            name="ludziejewski",
            says="a x^delta N_a^(alpha + gamma ln x) + b x^omega D^(beta + zeta ln x) + c, x saturating as Clark's",
            variables=("active_parameters", "tokens", "experts"),
            exponents=("alpha", "delta", "gamma", "beta", "omega", "zeta", "E_start", "E_max"),
            bounds=(
                (-1.5, -0.02),
                (-1.5, 1.0),
                (-0.1, 0.1),
                (-1.5, -0.02),
                (-1.0, 1.5),
                (-0.1, 0.1),
                (1.0, 20.0),
                (8.0, 5000.0),
            ),
            starts=((-0.2, -0.4), (-0.2,), (0.0,), (-0.2, -0.4), (0.2,), (0.0,), (1.5,), (200.0,)),
            scales=("a", "b", "c"),
            terms=_ludziejewski,
            source="Ludziejewski et al. 2025 (arXiv 2502.05172)",
            counting="both-embeddings",
            governs={
                "size": ("a", "alpha", "gamma"),
                "tokens": ("b", "beta", "zeta"),
                "sparsity": ("delta", "gamma", "omega", "zeta", "E_start", "E_max"),
            },
            keeps_within=("sparsity",),
        ),
        Form(
            name="zhao",
            says="(e G + f/G + m s^2 + n s)(1/N^alpha + k/N_a^alpha + h N_a/N) + a/N^alpha + b/D^beta"
            " + c/N_a^alpha + eps, G active experts, s the share of shared ones",
            variables=("total_parameters", "active_parameters", "tokens", "active_experts", "shared_share"),
            exponents=("alpha", "beta", "k", "h"),
            bounds=(POWER, POWER, (0.0, 1.0), (0.0, 1.0)),
            starts=(SIZE_STARTS, SIZE_STARTS, (0.01,), (0.03,)),
            scales=("e", "f", "m", "n", "a", "b", "c", "eps"),
            signed=("n",),
            terms=_zhao,
            source="Zhao et al. 2025 (arXiv 2509.23678); copied from one other source, not from the paper itself",
            counted={"active_experts": active_experts, "shared_share": shared_share},
            governs={
                "size": ("a", "c", "alpha"),
                "tokens": ("b", "beta"),
                "sparsity": ("k", "h"),
                "active_experts": ("e", "f"),
                "shared_share": ("m", "n"),
            },
        ),
    )
}
STUDY_FORMS = (  # simplest first
    "chinchilla_sparsity",
    "chinchilla_times_sparsity",
    "clark_saturating",
    "sparsity_and_tokens",
    "sparsity_by_tokens",
    "sparsity_by_size_and_tokens",
    "abnar",
)
