"""Folders whose weights are quantised in a way that is not read, recognised by their configuration and their names."""

from __future__ import annotations

from collections.abc import Iterable

from sparsedial.shape.hugging_face.values import Config

FIELDS = ("quantization_config", "compression_config")
READ = "fp8"  # 8 bits in blocks, as DeepSeek-V3 was released
BITS = ("bits", "w_bit", "load_in_4bit", "load_in_8bit")
ENDINGS = {  # of names that only one method writes; the first that is found names it
    ".g_idx": "gptq",
    ".qweight": "awq or gptq",
    ".weight.absmax": "bitsandbytes",
    ".SCB": "bitsandbytes",
    ".weight_packed": "compressed-tensors",
    ".bitmask": "compressed-tensors",
    ".weight_scale": "fp8 without blocks",  # a scale for each row, or one for the matrix
}


def quantised_by(config: Config, names: Iterable[str]) -> str | None:
    """The method with its bits, in words; None for plain weights and for those that are read.

    What a configuration says is believed, whatever the names: other programs do so, too.
    """
    for field in FIELDS:
        stated = config.get(field)
        if isinstance(stated, dict) and stated.get("quant_method") != READ and not _only_sparse(stated):
            method = stated.get("quant_method") or _without_a_name(field, stated)
            if method:
                return f"{method}{_bits(stated)}"
    found = {ending for name in names for ending in ENDINGS if name.endswith(ending)}
    return next((method for ending, method in ENDINGS.items() if ending in found), None)


def _only_sparse(stated: dict[str, object]) -> bool:
    """Whether compressed-tensors says of weights that some are zero, and nothing else."""
    return "sparsity_config" in stated and not stated.get("config_groups")


def _without_a_name(field: str, stated: dict[str, object]) -> str | None:
    """Older files name no method."""
    if "load_in_4bit" in stated or "load_in_8bit" in stated:
        return "bitsandbytes"
    return "compressed-tensors" if field == "compression_config" or "config_groups" in stated else None


def _bits(stated: dict[str, object]) -> str:
    for field in BITS:
        value = stated.get(field)
        if value is True:
            return f" ({field.removeprefix('load_in_').removesuffix('bit')} bits)"
        if isinstance(value, int) and value:
            return f" ({value} bits)"
    return ""
