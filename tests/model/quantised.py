"""Folders whose projections are packed as other tools pack them: names, types and sizes are theirs, values are not."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

GROUP = 8  # inputs of a scale
Parts = dict[str, Tensor]  # by what stands behind the name of the module


def _ints(*size: int) -> Tensor:
    return torch.ones(size, dtype=torch.int32)


def _halves(*size: int) -> Tensor:
    return torch.full(size, 0.5, dtype=torch.float16)


def _awq(outputs: int, inputs: int) -> Parts:
    eighth, groups = -(-outputs // 8), -(-inputs // GROUP)
    return {"qweight": _ints(inputs, eighth), "qzeros": _ints(groups, eighth), "scales": _halves(groups, outputs)}


def _gptq(outputs: int, inputs: int) -> Parts:
    groups = -(-inputs // GROUP)
    zeros, scales = _ints(groups, -(-outputs // 8)), _halves(groups, outputs)
    return {"qweight": _ints(-(-inputs // 8), outputs), "qzeros": zeros, "scales": scales, "g_idx": _ints(inputs)}


def _nf4(outputs: int, inputs: int) -> Parts:
    count = outputs * inputs
    return {
        "weight": torch.zeros(-(-count // 2), 1, dtype=torch.uint8),
        "weight.absmax": torch.ones(-(-count // 64)),
        "weight.quant_map": torch.linspace(-1, 1, 16),
        "weight.quant_state.bitsandbytes__nf4": torch.tensor(list(b'{"quant_type": "nf4"}'), dtype=torch.uint8),
    }


def _int8(outputs: int, inputs: int) -> Parts:
    return {"weight": torch.ones(outputs, inputs, dtype=torch.int8), "SCB": torch.ones(outputs)}


def _packed(outputs: int, inputs: int) -> Parts:
    return {
        "weight_packed": _ints(outputs, -(-inputs // 8)),
        "weight_scale": torch.ones(outputs, -(-inputs // GROUP), dtype=torch.bfloat16),
        "weight_shape": torch.tensor([outputs, inputs]),
    }


def _eight_bits(outputs: int, inputs: int) -> Tensor:
    return torch.ones(outputs, inputs).to(torch.float8_e4m3fn)


def _by_row(outputs: int, inputs: int) -> Parts:
    return {"weight": _eight_bits(outputs, inputs), "weight_scale": torch.ones(outputs, 1, dtype=torch.bfloat16)}


def _by_matrix(outputs: int, inputs: int) -> Parts:
    return {
        "weight": _eight_bits(outputs, inputs),
        "weight_scale": torch.ones(1),
        "input_scale": torch.ones(1),
    }


PACKED = {"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": {"group_0": {}}}
WAYS: Mapping[str, tuple[dict[str, Any], Callable[[int, int], Parts]]] = {  # configuration, and a module's tensors
    "awq (4 bits)": ({"quant_method": "awq", "bits": 4, "group_size": GROUP, "zero_point": True}, _awq),
    "gptq (4 bits)": ({"quant_method": "gptq", "bits": 4, "group_size": GROUP, "desc_act": True}, _gptq),
    "bitsandbytes (4 bits)": ({"quant_method": "bitsandbytes", "load_in_4bit": True}, _nf4),
    "bitsandbytes (8 bits)": ({"quant_method": "bitsandbytes", "load_in_8bit": True}, _int8),
    "compressed-tensors": (PACKED, _packed),
    "compressed-tensors, fp8": ({**PACKED, "format": "float-quantized"}, _by_row),
    "fp8 without blocks": ({"quant_method": "fp8", "activation_scheme": "static"}, _by_matrix),
}


def quantise(folder: Path, way: str, *, stated: bool = True) -> None:
    """Pack the projections of a folder in one of the WAYS; `stated`: its configuration says so."""
    config, parts = WAYS[way]
    tensors = load_file(folder / "model.safetensors")
    for name in [name for name in tensors if name.endswith("_proj.weight")]:
        outputs, inputs = tensors.pop(name).shape
        tensors |= {f"{name.removesuffix('weight')}{part}": one for part, one in parts(outputs, inputs).items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    say(folder, **({"quantization_config": config} if stated else {}))


def say(folder: Path, **config: Any) -> None:
    """Add to the configuration of a folder, which is then another's: it has no digests."""
    (folder / "sparsedial.json").unlink(missing_ok=True)
    written = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**written, **config}))
