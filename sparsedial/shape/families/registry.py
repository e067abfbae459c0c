"""The families that are read and written, by model type."""

from __future__ import annotations

from sparsedial.shape.families.deepseek_v2 import DEEPSEEK_V2
from sparsedial.shape.families.deepseek_v3 import DEEPSEEK_V3
from sparsedial.shape.families.family import Family
from sparsedial.shape.families.glm4_moe import GLM4_MOE
from sparsedial.shape.families.llama import LLAMA
from sparsedial.shape.families.mistral import MISTRAL
from sparsedial.shape.families.mixtral import MIXTRAL
from sparsedial.shape.families.olmoe import OLMOE
from sparsedial.shape.families.qwen2 import QWEN2
from sparsedial.shape.families.qwen2_moe import QWEN2_MOE
from sparsedial.shape.families.qwen3 import QWEN3
from sparsedial.shape.families.qwen3_moe import QWEN3_MOE

# A shape that several families fit is written as the first of them.
FAMILIES: dict[str, Family] = {
    "llama": LLAMA,
    "mistral": MISTRAL,
    "qwen2": QWEN2,
    "qwen3": QWEN3,
    "mixtral": MIXTRAL,
    "olmoe": OLMOE,
    "qwen2_moe": QWEN2_MOE,
    "qwen3_moe": QWEN3_MOE,
    "glm4_moe": GLM4_MOE,
    "deepseek_v2": DEEPSEEK_V2,
    "deepseek_v3": DEEPSEEK_V3,
}
