"""A GPU's kernels, compiled before the first step that launches them, on all cores at once.

A model without values takes one step and scores one batch; its kernels are compiled and not run. Sizes, types and
the optimizer alone decide which those are.

W windows, S positions.
"""

from __future__ import annotations

import gc
import warnings
from collections.abc import Iterable
from dataclasses import replace

import torch

from sparsedial.evaluation.loss import counting_scorer
from sparsedial.evaluation.scorer import windows_at_once
from sparsedial.kernels import triton_launch
from sparsedial.machine.hardware import usable_cores
from sparsedial.model.transformer import Transformer
from sparsedial.records.recipe import Recipe
from sparsedial.records.trained_for import TrainedFor
from sparsedial.runs.random_text import LONG, MIDDLE, random_inputs
from sparsedial.shape.shape import Shape
from sparsedial.training.dial import Draws
from sparsedial.training.optimizer import make_optimizers
from sparsedial.training.replayed import Replayed
from sparsedial.training.step import TrainingStep

Kind = tuple[Shape, Recipe, float | None, TrainedFor | None]
_compiled: set[Kind] = set()  # in this process


def compile_ahead(
    shapes: Iterable[Shape],
    recipe: Recipe,
    device: str,
    token_share: float | None = None,
    dial: TrainedFor | None = None,
) -> None:
    """Compile what runs of these shapes launch, unless this process has done so; on a CPU nothing.

    Where that fails a warning says so, and kernels are compiled at their first launch.
    """
    if device == "cpu" or not triton_launch.available():
        return
    alike = replace(recipe, learning_rate=1.0, steps=LONG, warmup_steps=0, seed=0)  # which decide nothing
    kinds: list[Kind] = [(shape, alike, token_share, dial) for shape in dict.fromkeys(shapes)]
    missing = [kind for kind in kinds if kind not in _compiled]
    if not missing:
        return
    _compiled.update(missing)
    try:
        with triton_launch.compiled_ahead(usable_cores()):
            for kind in missing:
                launch_all(*kind, device)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # of Triton, its compilers or the driver, which share no class
        warnings.warn(f"kernels were not compiled ahead: {type(error).__name__}: {error}", stacklevel=2)
    gc.collect()  # PyTorch imports its compiler with the first optimizer, and frames of that import hold its model
    torch.cuda.empty_cache()


def launch_all(shape: Shape, recipe: Recipe, token_share: float | None, dial: TrainedFor | None, device: str) -> None:
    """One step of a run, and one call of its evaluation; of a model whose weights have no values."""
    with torch.device(device):
        model = Transformer(shape)
    inputs = random_inputs(shape.vocab_size, recipe, token_share)
    inputs = replace(inputs, draws=None if dial is None else Draws.of(dial, shape, recipe))
    step = TrainingStep(model, make_optimizers(model, recipe), recipe, token_share=token_share or 1.0, on_device=True)
    Replayed(step, inputs, 1).take(range(MIDDLE, MIDDLE + 1))
    count = windows_at_once(recipe.context + 1, model.embedding_VD.is_cuda)
    windows_WS1 = torch.zeros(count, recipe.context + 1, dtype=torch.long, device=device)
    counting_scorer(model, recipe.dtype).losses_on_device(windows_WS1, recipe.context)
    if device == "cuda":
        torch.cuda.synchronize()  # so that nothing still writes where the next model will lie
