"""One pruning in a process of its own, ours or llm-compressor's: `PYTHON -m benchmarks.prune_candidates JOB`.

JOB is a file that says what to do; the last line that is printed is JSON: the seconds from the checkpoint on disk to
the smaller one on disk, imports left out, and the most memory that the process held. Both read the same windows of
token ids from a file. For llm-compressor PYTHON is that of its own environment, which need not have Sparsedial.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

Job = Mapping[
    str, Any
]  # checkpoint, windows (a file of [W, S+1]), method, keep, pattern, sequential, threads, batch, out
LAYERS = r"re:model\.layers\.\d+$"  # whose matrices llm-compressor prunes


def main() -> None:
    """Do the job."""
    job = json.loads(Path(sys.argv[1]).read_text())
    print(json.dumps(CANDIDATES[job["candidate"]](job)))


def ours(job: Job) -> Mapping[str, Any]:
    """As `prune --layer-by-layer`, without what it measures, and without the random choices that it compares with."""
    import torch

    from sparsedial.machine.hardware import peak_process_bytes
    from sparsedial.model.far import far_model
    from sparsedial.model.reading import read_checkpoint
    from sparsedial.pruning.folder import write_pruned
    from sparsedial.pruning.methods import Ask
    from sparsedial.pruning.parts import PARTS
    from sparsedial.pruning.shelf import Shelf

    torch.set_num_threads(job["threads"])
    began = time.perf_counter()
    folder, out = Path(job["checkpoint"]), Path(job["out"])
    checkpoint = read_checkpoint(folder)
    model, shelf = far_model(checkpoint.shape, checkpoint.tensors), Shelf(out.with_suffix(".unfinished"))
    ask = Ask(method=job["method"], keep=job["keep"], pattern=job["pattern"], sequential=job["sequential"])
    windows_WS1 = torch.from_numpy(np.load(job["windows"]))
    choice = PARTS[ask.how.part].calibrate(model, windows_WS1, (ask,), shelf)(ask)
    out.mkdir()
    write_pruned(out, folder, checkpoint.shape, checkpoint.tensors, choice.kept)
    shelf.clear()
    seconds = time.perf_counter() - began
    kept = choice.kept.parts(checkpoint.shape).experts
    return {
        "seconds": seconds,
        "peak_bytes": peak_process_bytes(),
        "kept": kept and [list(experts) for experts in kept],
        "scores": _scores_of(choice.scores, job["method"]) if kept else None,
    }


def _scores_of(table: Any, method: str) -> list[list[float]]:
    """By layer, the score of each expert, 0 for one without a token: it goes first in both."""
    layers = table.partition_by("layer", maintain_order=True)
    return [layer[method].fill_null(0.0).to_list() for layer in layers]


def llm_compressor(job: Job) -> Mapping[str, Any]:
    """`oneshot` with the modifier of the method, on batches of the windows."""
    import torch
    from llmcompressor import oneshot  # pyright: ignore[reportMissingImports]
    from loguru import logger  # pyright: ignore[reportMissingImports]
    from torch.utils.data import DataLoader
    from transformers import AutoModelForCausalLM

    logger.remove()
    torch.set_num_threads(job["threads"])
    began = time.perf_counter()
    model = AutoModelForCausalLM.from_pretrained(job["checkpoint"], dtype=torch.float32)
    ids_WS = torch.from_numpy(np.load(job["windows"]))[:, :-1]
    masks = {"attention_mask": _causal(ids_WS.shape[1])} if job["causal"] else {}
    rows = [{"input_ids": ids_S, **masks} for ids_S in ids_WS]
    report = Path(job["out"]).with_suffix(".json")
    options = {} if job["method"] != "reap" else {"moe_calibrate_all_experts": False}
    oneshot(
        model=model,
        dataset=DataLoader(rows, batch_size=job["batch"]),  # type: ignore[arg-type]
        recipe=_modifier(job, report),
        pipeline="sequential",
        **options,
    )
    model.save_pretrained(job["out"], save_compressed=False)
    seconds = time.perf_counter() - began
    kept = (
        [value for _, value in sorted(json.loads(report.read_text()).items(), key=_layer)] if report.exists() else None
    )
    return {"seconds": seconds, "peak_bytes": _peak_bytes(), "kept": kept}


def _causal(positions: int) -> Any:
    """Added to attention's scores, it hides later positions. Shapes: to [1, S, S]

    By itself the sequential pipeline of llm-compressor 0.14.0.1 attends to all positions in Qwen3-MoE: it
    forces eager attention, but lets `transformers` make the mask for another kind, which needs none. Its tokens reach
    the same experts then as in a model whose mask is left out.
    """
    import torch

    least = torch.finfo(torch.float32).min
    return torch.full((1, positions, positions), least).triu(1)


def _layer(item: tuple[str, Any]) -> int:
    """The number in the name of a layer, like model.layers.3.mlp."""
    return next(int(word) for word in item[0].split(".") if word.isdigit())


def _modifier(job: Job, report: Path) -> Any:
    from llmcompressor.modifiers.pruning import (  # pyright: ignore[reportMissingImports]
        REAPPruningModifier,
        SparseGPTModifier,
        WandaPruningModifier,
    )

    share = 1 - job["keep"]
    if job["method"] == "reap":
        return REAPPruningModifier(sparsity=share, report_path=str(report))
    make = {"wanda": WandaPruningModifier, "sparsegpt": SparseGPTModifier}[job["method"]]
    return make(sparsity=share, mask_structure=job["pattern"] or "0:0", targets=[LAYERS], ignore=["re:.*lm_head"])


def _peak_bytes() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


CANDIDATES: Mapping[str, Callable[[Job], Mapping[str, Any]]] = {"ours": ours, "llm-compressor": llm_compressor}

if __name__ == "__main__":
    main()
