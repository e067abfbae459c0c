"""A study record with real-looking numbers, drawn from a law of ours: for tests of the pictures and the page only."""

from __future__ import annotations

import math
import random
from typing import Any

EXPERTS = (0, 4, 8, 16, 32)
BUDGETS = (7.4e10, 2.2e11, 6.7e11, 2e12)
WIDTHS = (16, 24, 32, 48, 64, 96, 128)
NOISE = 0.006
SECONDS_TAX = {0: 1.0, 4: 1.15, 8: 1.22, 16: 1.33, 32: 1.5}


def parameters(d_model: int, experts: int) -> tuple[int, int]:
    """Active and total parameters of a three-layer study shape."""
    active = 3 * 13 * d_model**2 + 256 * d_model
    return active, active + 3 * 3 * d_model**2 * max(experts - 2, 0)


def flops_per_token(d_model: int) -> float:
    """Training FLOPs for one token of a study shape."""
    return 6 * parameters(d_model, 0)[0] + 12 * 3 * 128 * d_model


def true_loss(active: float, tokens: float, experts: int) -> float:
    """Nats per token: a Chinchilla law whose size term shrinks with the number of experts."""
    help_of_experts = 1 - 0.075 * math.log2(experts / 2) if experts else 1.0
    return 0.75 + 35.0 * active**-0.37 * help_of_experts + 55.0 * tokens**-0.33


def sparsity(experts: int) -> float:
    """Expert sparsity at two chosen experts a token."""
    return 1 - 2 / experts if experts else 0.0


def cell(d_model: int, experts: int, budget: float, noise: random.Random, seed: int = 0) -> dict[str, Any]:
    """One row of the table of cells."""
    active, total = parameters(d_model, experts)
    work = flops_per_token(d_model)
    tokens = int(budget / work / 1024) * 1024
    exact = true_loss(active, tokens, experts)
    loss = exact + noise.gauss(0, NOISE)
    seconds = (tokens / 1024) * (0.0035 + 1024 * work / 4.5e10) * SECONDS_TAX[experts]
    held_out = budget == BUDGETS[-1]
    return {
        "hash": f"{noise.getrandbits(64):016x}",
        "d_model": d_model,
        "layers": 3,
        "experts": experts,
        "top_k": 2 if experts else 0,
        "sparsity": sparsity(experts),
        "active_parameters": active,
        "total_parameters": total,
        "tokens": tokens,
        "budget_flops": budget,
        "flops": tokens * work,
        "loss": loss,
        "bits_per_byte": loss / math.log(2),
        "seconds": seconds,
        "joules": None,
        "alone": False,
        "learning_rate": 0.012 * (active / 4e4) ** -0.25,
        "learning_rate_optimum_distance": noise.gauss(0, 0.2),
        "status": "finished",
        "reason": None,
        "repeats": tokens / 13_400_000,
        "held_out": held_out,
        "predicted_loss": exact * (1 + noise.gauss(0, 0.004)) if held_out else None,
        "predicted_low": exact * 0.985 if held_out else None,
        "predicted_high": exact * 1.015 if held_out else None,
        "expert_load": expert_load(experts, noise),
        "seed": seed,
    }


def expert_load(experts: int, noise: random.Random) -> dict[str, Any] | None:
    """How evenly the experts were used; nothing to say of a dense model."""
    if not experts:
        return None
    return {
        "max_over_mean": 1.15 + 0.02 * experts + noise.random() * 0.15,
        "dead_experts": 1 if experts == 32 and noise.random() < 0.3 else 0,
        "entropy": math.log(experts) * 0.985,
    }


def curve(row: dict[str, Any], noise: random.Random) -> list[list[float]]:
    """Training loss on the way to a run's end."""
    points = []
    for index in range(1, 201):
        share = index / 200
        tokens = row["tokens"] * share
        loss = true_loss(row["active_parameters"], max(tokens, 3e3), row["experts"])
        warm = 3.6 * math.exp(-share * 45)
        points.append([tokens, loss + warm + 0.05 * (1 - share) + noise.gauss(0, 0.03)])
    return points


def verdict_run(
    currency: str, family: str, d_model: int, experts: int, seed: int, noise: random.Random
) -> dict[str, Any]:
    """One run of the verdict: a cell with its test loss and its curve."""
    row = cell(d_model, experts, BUDGETS[-1], noise, seed)
    if currency == "seconds":
        row["alone"] = True
        if family == "sparse":
            scale = 101.0 / row["seconds"]
            row["tokens"], row["flops"], row["seconds"] = int(row["tokens"] * scale), row["flops"] * scale, 101.0
            row["loss"] = true_loss(row["active_parameters"], row["tokens"], experts) + noise.gauss(0, NOISE)
        else:
            row["seconds"] = 100.0 + noise.gauss(0, 0.8)
    return {
        **row,
        "currency": currency,
        "family": family,
        "test_loss": row["loss"] + 0.021,
        "curve": curve(row, noise),
        "predicted_loss": None,
        "predicted_low": None,
        "predicted_high": None,
        "held_out": False,
    }


def family_record(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """What a verdict says of one side."""
    first = runs[0]
    losses = [run["test_loss"] for run in runs]
    mean = sum(losses) / len(losses)
    return {
        "shape": {key: first[key] for key in ("d_model", "layers", "experts", "top_k")}
        | {"shared_experts": 1 if first["experts"] else 0, "d_expert": first["d_model"], "heads": 4, "context": 128},
        "sparsity": {
            "experts": first["sparsity"],
            "parameters": 1 - first["active_parameters"] / first["total_parameters"],
            "activation_ratio": 3 / (first["experts"] + 1) if first["experts"] else 1.0,
        },
        "tokens": first["tokens"],
        "total_parameters": first["total_parameters"],
        "active_parameters": first["active_parameters"],
        "loss": {"mean": mean, "low": mean - 0.012, "high": mean + 0.012},
        "bits_per_byte": mean / math.log(2),
        "flops": first["flops"],
        "seconds": first["seconds"],
        "joules": None,
        "learning_rate": first["learning_rate"],
        "checkpoint": f"runs/{first['hash']}/checkpoint",
        "runs": [run["hash"] for run in runs],
    }


def verdict(
    currency: str, winner: str, gap: tuple[float, float, float], budget: float, runs: list[dict[str, Any]]
) -> dict[str, Any]:
    """One currency's verdict."""
    sides = {name: family_record([r for r in runs if r["family"] == name]) for name in ("dense", "sparse")}
    return {
        "winner": winner,
        "reason": f"the gap is {gap[0]:+.4f} nats per token",
        "budget": {"currency": currency, "value": budget},
        **sides,
        "gap": {"mean": gap[0], "low": gap[1], "high": gap[2]},
        "confidence": 0.95,
        "seeds": 3,
        "basis": "measured",
    }


def study_record() -> dict[str, Any]:
    """A whole study in which sparse wins per FLOP and nothing is decided per second."""
    noise = random.Random(7)
    cells = [
        cell(width, experts, budget, noise)
        for place, budget in enumerate(BUDGETS)
        for experts in EXPERTS
        for width in WIDTHS[place : place + 4]
    ]
    runs = {
        currency: [
            verdict_run(currency, family, width, experts, seed, noise)
            for seed in (1, 2, 3)
            for family, width, experts in (("dense", 64, 0), ("sparse", 64 if currency == "flops" else 48, 32))
        ]
        for currency in ("flops", "seconds")
    }
    seconds = verdict("seconds", "undecided", (0.014, -0.009, 0.037), 100.0, runs["seconds"])
    seconds["reason"] = (
        "the interval of the gap holds 0: sparse is ahead by 0.0140 nats per token"
        " (95 % interval of dense minus sparse -0.0090 to +0.0370)"
    )
    return {
        "cells": {"planned": len(cells), "finished": len(cells), "diverged": 0},
        "budgets_flops": list(BUDGETS),
        "sparsities": [sparsity(experts) for experts in EXPERTS],
        "text": text_record(),
        "machine": {
            "cpu": "AMD EPYC 7713 64-Core Processor",
            "cores": 2,
            "memory_bytes": 8.2e9,
            "system": "Linux 6.1",
            "gpus": [],
            "busy_share": 0.03,
        },
        "versions": {"sparsedial": "0.1.0", "python": "3.11.2", "torch": "2.13.0+cpu", "numpy": "2.3.1"},
        "wall_seconds": 655.0,
        "law": law_record(),
        "verdict": {
            "flops": verdict("flops", "sparse", (0.118, 0.101, 0.135), BUDGETS[-1], runs["flops"]),
            "seconds": seconds,
            "joules": {
                **seconds,
                "budget": {"currency": "joules", "value": 1200.0},
                "basis": "estimated",
                "reason": "the seconds' finding times 12 W (2 cores at 6 W)",
            },
        },
        "near_optimal": {"sparsity": [0.86, 0.94]},
        "binding_constraints": ["experts: the answer has 32 experts, the most that were tried"],
        "crossover": {"currency": "flops", "value": 4e10, "low": 1.5e10, "high": 7e10, "within_fitted_range": False},
        "next": "sparsedial study --time 2h --out runs/bigger",
        "report": "report.html",
        "cells_table": cells,
        "learning_rates": learning_rates(noise),
        "verdict_runs": runs["flops"] + runs["seconds"],
        "law_curves": law_curves(),
        "profile": {
            "median_relative_error": 0.031,
            "max_relative_error": 0.092,
            "tax": tax_rows(),
            "watts": 12.0,
            "watts_source": "2 cores at 6 W, stated",
        },
        "phases": [
            {"name": "profile", "seconds": 42.0},
            {"name": "learning rates", "seconds": 96.0},
            {"name": "grid", "seconds": 318.0},
            {"name": "verdict", "seconds": 188.0},
            {"name": "report", "seconds": 11.0},
        ],
    }


def text_record() -> dict[str, Any]:
    """What the study says of its text."""
    return {
        "digest": "5f3c" * 16,
        "train_tokens": 13_400_000,
        "validation_tokens": 1_100_000,
        "test_tokens": 1_050_000,
        "bytes": 15_550_000,
        "documents": 731,
        "tokenizer": {"name": "bytes", "vocab_size": 256, "digest": "ab" * 32},
        "sources": ["standard library"],
        "python_version": "3.11.2",
        "overlap": {
            "validation": 0.021,
            "test": 0.018,
            "test_in_validation": None,
            "window_bytes": 64,
            "sampled_windows": {"validation": 17000, "test": 16800},
        },
    }


def law_record() -> dict[str, Any]:
    """A fitted law with its held-out check."""
    return {
        "form": "chinchilla_sparsity",
        "coefficients": {"E": 1.02, "A": 9.0, "alpha": 0.27, "B": 58.0, "beta": 0.31, "gamma": 0.12},
        "intervals": {
            "E": [0.7, 1.3],
            "A": [6, 14],
            "alpha": [0.2, 0.34],
            "B": [20, 160],
            "beta": [0.2, 0.4],
            "gamma": [0.1, 0.14],
        },
        "confidence": 0.9,
        "undetermined": ["E"],
        "runs": 80,
        "rmse_log_loss": 0.0041,
        "held_out": {
            "runs": 20,
            "budgets_flops": [BUDGETS[-1]],
            "rmse_log_loss": 0.008,
            "median_relative_error": 0.0061,
            "max_relative_error": 0.019,
            "baselines": {"last_budget_shape_kept": 0.021, "linear_in_log_compute": 0.0105},
            "law_on_the_same": 0.0055,
            "regret_of_predicted_best": 0.0041,
        },
        "refused": None,
    }


def law_curves() -> list[dict[str, Any]]:
    """The law's own curves over active size."""
    curves = []
    for budget in BUDGETS:
        for experts in EXPERTS:
            widths = range(16, 160, 2)
            sizes = [parameters(width, experts)[0] for width in widths]
            losses = [
                true_loss(parameters(width, experts)[0], budget / flops_per_token(width), experts) for width in widths
            ]
            curves.append(
                {
                    "budget_flops": budget,
                    "experts": experts,
                    "active_parameters": sizes,
                    "loss": losses,
                    "low": [loss * 0.988 for loss in losses],
                    "high": [loss * 1.012 for loss in losses],
                }
            )
    return curves


def learning_rates(noise: random.Random) -> dict[str, Any]:
    """Five scans with an optimum inside, one of their points diverged."""
    scans = []
    for d_model, experts, optimum in ((24, 0, 0.016), (48, 0, 0.009), (24, 32, 0.013), (48, 32, 0.007)):
        rates = [optimum * factor for factor in (0.3, 0.6, 1.2, 2.4)]
        points: list[list[float | None]] = [
            [rate, 2.1 + 0.03 * math.log2(rate / optimum) ** 2 + noise.gauss(0, 0.002)] for rate in rates
        ]
        points.append([optimum * 4.8, None])
        scans.append(
            {
                "d_model": d_model,
                "experts": experts,
                "tokens": 2_000_000,
                "points": points,
                "optimum": optimum,
                "interior": True,
            }
        )
    return {"scans": scans, "model": {"log_rate": -4.4, "exponents": {"active_parameters": -0.31}}}


def tax_rows() -> list[dict[str, Any]]:
    """Seconds of a sparse step over those of its dense twin."""
    return [{"d_model": 48, "experts": experts, "ratio": tax} for experts, tax in SECONDS_TAX.items() if experts]


def bare_record() -> dict[str, Any]:
    """The same study with all that may be missing missing."""
    study = study_record()
    nothing = {
        "winner": "undecided",
        "reason": "fewer than two seeds of each family finished",
        "sparse": None,
        "dense": None,
        "gap": None,
        "confidence": 0.95,
        "seeds": 0,
        "basis": "measured",
    }
    study["verdict"] = {
        currency: {**nothing, "budget": {"currency": currency, "value": None}}
        for currency in ("flops", "seconds", "joules")
    }
    study["law"] = {
        "form": "chinchilla_sparsity",
        "coefficients": None,
        "intervals": None,
        "confidence": None,
        "undetermined": [],
        "held_out": None,
        "refused": "only 2 budgets: at least 3 are needed",
    }
    study |= {"crossover": None, "near_optimal": None, "binding_constraints": [], "law_curves": [], "verdict_runs": []}
    study["learning_rates"] = {"scans": [], "model": None}
    study["profile"] = None
    for row in study["cells_table"]:
        row |= {
            "held_out": False,
            "predicted_loss": None,
            "predicted_low": None,
            "predicted_high": None,
            "expert_load": None,
        }
    broken = study["cells_table"][-1]
    broken |= {
        "status": "diverged",
        "reason": "loss is nan at step 41",
        "loss": None,
        "bits_per_byte": None,
        "seconds": None,
    }
    study["cells"] |= {"finished": study["cells"]["planned"] - 1, "diverged": 1}
    return study
