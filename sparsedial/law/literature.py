"""The published laws: coefficients with their sources, what each study held fixed, and where each misleads."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sparsedial.errors import UserError, nearest
from sparsedial.law.law import Law
from sparsedial.records.quantities import Span


@dataclass(frozen=True, kw_only=True)
class Published:
    """One published law and what a reader must know of it before using it."""

    name: str
    form: str
    coefficients: dict[str, float]
    fitted_range: dict[str, Span]
    source: str
    read: str  # how the coefficients reached us
    held_fixed: str
    misleads: str
    default: bool = True  # whether the planner shows it beside other laws by default

    @property
    def law(self) -> Law:
        """The law itself. It has no interval: no publication gives enough for one."""
        return Law(
            form=self.form,
            coefficients=self.coefficients,
            intervals={},
            confidence=0.9,
            samples=(),
            runs=0,
            rmse_log_loss=0.0,
            fitted_range=self.fitted_range,
            undetermined=(),
            seed=0,
            source=f"{self.source}; {self.read}",
        )


READ = "read in the paper"
TWO = "copied from two independent transcriptions that agree, not from the paper itself"
ONE = "copied from a single transcription, not from the paper itself"


def _clark(router: str, **coefficients: float) -> Published:
    return Published(
        name=f"clark/{router}",
        form="clark",
        coefficients=coefficients,
        fitted_range={"active_parameters": (15e6, 1.3e9), "tokens": (130e9, 130e9), "experts": (1, 512)},
        source="Clark et al. 2022 (arXiv 2202.01169)",
        read=TWO,
        held_fixed="tokens, at 130 billion",
        misleads="It has no term for tokens, so it cannot trade size against tokens: it only ranks models that are all"
        " trained on 130 billion.",
    )


PUBLISHED = {
    law.name: law
    for law in (
        Published(
            name="chinchilla/hoffmann",
            form="chinchilla",
            coefficients={"E": 1.6934, "A": 406.4, "B": 410.7, "alpha": 0.3392, "beta": 0.2849},
            fitted_range={"total_parameters": (70e6, 16e9), "tokens": (5e9, 5e11), "experts": (1, 1)},
            source="Hoffmann et al. 2022 (arXiv 2203.15556), approach 3, unrounded",
            read=ONE,
            held_fixed="dense models only",
            misleads="Its fit stopped early (losses were averaged instead of summed); its optimum has too few"
            " parameters for its tokens. Besiroglu's correction is the better one.",
            default=False,
        ),
        Published(
            name="chinchilla/besiroglu",
            form="chinchilla",
            coefficients={"E": 1.8172, "A": 482.01, "B": 2085.43, "alpha": 0.3478, "beta": 0.3658},
            fitted_range={"total_parameters": (70e6, 16e9), "tokens": (5e9, 5e11), "experts": (1, 1)},
            source="Besiroglu et al. 2024 (arXiv 2404.10102)",
            read=TWO,
            held_fixed="dense models only",
            misleads="It knows nothing of sparsity: it is the dense rival's law, never the sparse model's.",
        ),
        Published(
            name="abnar",
            form="abnar",
            coefficients={
                "a": 16612.50,
                "b": 5455.67,
                "c": 0.4598,
                "d": 17.26,
                "e": 0.94,
                "alpha": 0.5962,
                "beta": 0.3954,
                "gamma": 0.1595,
                "delta": 0.1603,
                "lambda": -0.1666,
            },
            fitted_range={"flops": (3e19, 1e21), "sparsity": (0.0, 0.98)},  # 0.98 was held out and predicted
            source="Abnar et al. 2025 (arXiv 2501.12370)",
            read=TWO,
            held_fixed="nothing but the recipe: total parameters, tokens and sparsity vary together",
            misleads="Fitted up to sparsity 0.95, and checked at 0.98. With total parameters free it runs to ever"
            " sparser models: every answer needs a bound. Far above 1e22 FLOPs it asks for far more active parameters"
            " and fewer tokens than real models use.",
        ),
        _clark("s-base", a=-0.082, b=-0.108, c=0.009, d=1.104, E_start=1.847, E_max=314.478),
        _clark("rl-r", a=-0.083, b=-0.126, c=0.012, d=1.111, E_start=1.880, E_max=469.982),
        _clark("hash", a=-0.087, b=-0.136, c=0.012, d=1.157, E_start=4.175, E_max=477.741),
        Published(
            name="krajewski",
            form="krajewski",
            coefficients={"a": 18.1, "b": 30.8, "g": 2.1, "c": 0.47, "alpha": 0.115, "beta": 0.147, "gamma": 0.58},
            fitted_range={"total_parameters": (129e6, 3.7e9), "tokens": (16e9, 130e9), "experts": (64, 64)},
            source="Krajewski et al. 2024 (arXiv 2402.07871)",
            read=TWO,
            held_fixed="the expansion: 64 times as many expert parameters as one token visits",
            misleads="It covers one sparsity only (1 - 1/64): it chooses granularity, not sparsity.",
        ),
        Published(
            name="ludziejewski",
            form="ludziejewski",
            coefficients={
                "a": 35.91,
                "b": 35.98,
                "c": 1.3637,
                "alpha": -0.1889,
                "delta": -0.2285,
                "gamma": 0.0098,
                "beta": -0.1775,
                "omega": 0.5529,
                "zeta": -0.0259,
                "E_start": 2.0732,
                "E_max": 290.4521,
            },
            fitted_range={
                "total_parameters": (0.0, 5e9),  # the least is not stated in our source
                "active_parameters": (0.0, 2.7e9),
                "tokens": (5e8, 80e9),
                "experts": (1, 32),
            },
            source="Ludziejewski et al. 2025 (arXiv 2502.05172)",
            read=READ,
            held_fixed="one expert a token, experts as wide as the dense layer (granularity 1)",
            misleads="Fitted up to 32 experts; beyond, its saturation is a guess. Fine-grained experts do"
            " better than it says.",
        ),
        Published(
            name="zhao",
            form="zhao",
            coefficients={
                "e": 0.1577,
                "f": 7.2446,
                "m": 5.1395,
                "n": -3.2363,
                "a": 38.051,
                "b": 27129.05,
                "c": 31.096,
                "eps": 1.8182,
                "alpha": 0.2383,
                "beta": 0.4694,
                "k": 0.0013,
                "h": 0.0450,
            },
            fitted_range={  # second-hand: one summary of the paper
                "total_parameters": (133e6, 3.4e9),
                "active_parameters": (30e6, 2.2e9),
                "tokens": (10e9, 50e9),
                "active_experts": (1, 20),
                "shared_share": (0.0, 0.7),
            },
            source="Zhao et al. 2025 (arXiv 2509.23678)",
            read=ONE,
            held_fixed="nothing; active experts and the share of shared ones are variables of their own",
            misleads="Its coefficients and ranges were copied from one other source each, not from the paper itself,"
            " so it is listed here, and no plan shows it beside others.",
            default=False,
        ),
    )
}


@dataclass(frozen=True, kw_only=True)
class Leverage:
    """Ling's efficiency leverage: the compute of a dense model over that of a sparse one with equal loss."""

    coefficients: dict[str, float] = field(
        default_factory=lambda: {
            "a": 1.23,
            "d": -7.61e-2,
            "gamma": 1.67e-2,
            "beta": -1.17e-1,
            "A_start": 1.63e-2,
            "A_max": 5.28e16,
        }
    )
    name: str = "ling"
    fitted_range: dict[str, Span] = field(default_factory=lambda: {"flops": (1e18, 3e20), "experts": (2, 256)})
    source: str = "Ling 2025 (arXiv 2507.17702); log bases inferred from its figures"
    read: str = READ
    held_fixed: str = "one shared expert; loss, to compare the compute that reaches it"
    misleads: str = (
        "It gives a ratio of compute, not a loss: it needs a dense law beside it, and grows without bound as the"
        " activation ratio falls."
    )

    def leverage(self, activation_ratio: Any, granularity: Any, flops: Any) -> Any:
        """C_dense/C_moe at equal loss, vectorised.

        `granularity` is Ling's own, 2 d_model/d_expert; `flops` the compute of the sparse model.
        """
        known = self.coefficients
        saturated = 1 / (1 / (activation_ratio + 1 / (1 / known["A_start"] - 1 / known["A_max"])) + 1 / known["A_max"])
        log_granularity = np.log2(granularity)
        exponent = (
            known["a"]
            + known["d"] * np.log10(flops)
            + known["gamma"] * log_granularity**2
            + known["beta"] * log_granularity
        )
        return saturated**exponent


LING = Leverage()


def published(name: str) -> Law | Leverage:
    """A published law by name: its `.loss` takes the law's own variables, its `.variables` reads them off a Shape.

    `ling` gives `.leverage` instead of a loss.

    Raises: UserError for an unknown name, with the nearest.
    """
    if name == LING.name:
        return LING
    if name not in PUBLISHED:
        known = [*PUBLISHED, LING.name]
        raise UserError(
            f"no published law named '{name}'", hint=nearest(name, known) or f"known are {', '.join(known)}"
        )
    return PUBLISHED[name].law


def repeated_tokens(unique: Any, seen: Any) -> Any:
    """How many tokens of fresh text `seen` tokens are worth where the text has `unique` ones; vectorised.

    Source: Muennighoff et al. 2023 (arXiv 2305.16264), with R* = 15.39; second-hand
    """
    half_life = 15.39
    repeats = np.maximum(seen / unique - 1, 0)
    return np.minimum(seen, unique) + unique * half_life * (1 - np.exp(-repeats / half_life)) * (repeats > 0)
