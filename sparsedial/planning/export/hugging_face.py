"""A plan for Hugging Face `transformers`: the shape alone."""

from __future__ import annotations

import json

from sparsedial.planning.export.exported import Exported
from sparsedial.records.recipe import Recipe
from sparsedial.shape.config import write_config
from sparsedial.shape.shape import Shape


def hugging_face(shape: Shape, recipe: Recipe) -> Exported:
    """The `config.json` with which `transformers` builds this shape.

    Raises: UserError where no family fits.
    """
    config = write_config(shape, dtype="bfloat16")
    return Exported(
        trainer="transformers",
        file="config.json",
        text=json.dumps(config, indent=1) + "\n",
        command="AutoModelForCausalLM.from_config(AutoConfig.from_pretrained('FOLDER'))",
        written_for="transformers 5",
        not_expressed=(
            f"the training, {recipe.steps:,} steps of {recipe.batch} sequences: a config.json holds the shape",
            "the spread of initial weights by width: there is one initializer_range for all",
        ),
    )
