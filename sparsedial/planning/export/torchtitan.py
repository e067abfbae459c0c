"""A plan for torchtitan: a Python module with a function that returns a whole `Trainer.Config`."""

from __future__ import annotations

from importlib import resources
from textwrap import fill
from typing import Any

from sparsedial.planning.export.exported import Exported, require_exportable
from sparsedial.planning.export.schedule import BALANCE_RATE, Schedule, schedule
from sparsedial.records.recipe import Recipe
from sparsedial.shape.counts import active_parameters, total_parameters
from sparsedial.shape.shape import Shape
from sparsedial.units import human_count

FILE = "torchtitan_plan.py"
VERSION = "torchtitan at commit b5bcd76c66d0 (2026-08-21)"


def torchtitan(shape: Shape, recipe: Recipe, devices: int = 1) -> Exported:
    """A module that builds the shape of torchtitan's Qwen3 blocks and trains it by the recipe.

    Raises: UserError for what no plan contains.
    Source: torchtitan/config/README.md, torchtitan/models/qwen3, torchtitan/models/common
    """
    require_exportable(shape, recipe, "torchtitan")
    plan = schedule(recipe, devices)
    missing = _missing(shape, plan)
    settings = "\n".join(f"{name} = {value!r}" for name, value in _settings(shape, recipe, plan).items())
    template = (resources.files("sparsedial.planning.export") / "templates" / f"{FILE}.template").read_text()
    return Exported(
        trainer="torchtitan",
        file=FILE,
        text=template.replace("@OPENING@", _opening(shape, missing)).replace("@SETTINGS@", settings),
        command=f"NGPU={plan.devices} PYTHONPATH=FOLDER MODULE=torchtitan_plan CONFIG=plan ./run_train.sh",
        written_for=VERSION,
        not_expressed=missing,
    )


def _missing(shape: Shape, plan: Schedule) -> tuple[str, ...]:
    missing = [
        *plan.notes,
        f"the text and its tokenizer of at most {shape.vocab_size} tokens: set TEXT and TOKENIZER in the file",
        "windows across documents: attention and positions start again at each document",
    ]
    if shape.experts:
        missing.append("the sequence-wise balance loss and the router's z-loss: torchtitan has neither")
    if shape.routing_bias:
        missing.append(
            f"the routing bias moves by {BALANCE_RATE} up or down throughout, not in proportion to the imbalance"
        )
    return tuple(missing)


def _opening(shape: Shape, missing: tuple[str, ...]) -> str:
    sizes = f"{human_count(total_parameters(shape))} parameters, {human_count(active_parameters(shape))} active"
    bullets = "\n".join(fill(line, 100, initial_indent="* ", subsequent_indent="  ") for line in missing)
    return f"A plan of Sparsedial, {sizes}, for {VERSION}.\n\nNot expressed here:\n\n{bullets}\n"


def _settings(shape: Shape, recipe: Recipe, plan: Schedule) -> dict[str, Any]:
    sizes = ("layers", "d_model", "heads", "kv_heads", "head_dim", "d_ff", "vocab_size", "tied_embeddings")
    sparse = ("experts", "top_k", "shared_experts", "d_expert", "gate", "normalize_gates", "routed_scaling")
    training = ("learning_rate", "weight_decay", "beta1", "beta2", "epsilon", "clip")
    wsd = recipe.schedule == "wsd"
    values = {
        **{name: getattr(shape, name) for name in (*sizes, "norm_eps", "rope_theta", *sparse)},
        "qk_norm": shape.qk_norm == "head",
        "balance_rate": BALANCE_RATE if shape.routing_bias else None,
        "dense_layers": [layer for layer in range(shape.layers) if not shape.is_sparse(layer)],
        "context": recipe.context,
        "batch": plan.batch,
        "steps": plan.steps,
        "warmup_steps": plan.warmup_steps,
        "decay_share": recipe.decay_share if wsd else None,
        "decay": "linear" if wsd else "cosine",
        "final_share": plan.final_rate / recipe.learning_rate,
        **{name: getattr(recipe, name) for name in training},
    }
    return {name.upper(): value for name, value in values.items()}
