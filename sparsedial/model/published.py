"""Where every published tensor of a family lies in our model, in both directions.

Their matrices are stored [out, in]; ours multiply from the right, so each is transposed on the way. Fused projections
are split: query, key, value side by side in `w_qkv_DQ`, gate and up in `w_in`. Turned channels lie in halves here and
in pairs in DeepSeek's files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from sparsedial.model.attention import Attention, LatentAttention
from sparsedial.model.transformer import Block, DenseFeedForward, Prediction, SparseFeedForward, Transformer
from sparsedial.shape.shape import Shape

MLP = {"mixtral": "block_sparse_moe"}
EXPERT_NAMES = {"mixtral": ("w1", "w3", "w2")}
ROUTER_BIAS = "gate.e_score_correction_bias"


@dataclass(frozen=True)
class Part:
    """One published tensor as a view of ours.

    With `turned`, the last rows of every `head` rows are turned channels, which the file holds in pairs.
    """

    view: Tensor
    head: int = 0
    turned: int = 0

    @property
    def size(self) -> tuple[int, ...]:
        """Its published shape."""
        return tuple(self.view.shape)

    def fill(self, tensor: Tensor) -> None:
        """Copy a published tensor into the model."""
        if not self.turned:
            self.view.copy_(tensor)
            return
        ours, theirs = self.view.unflatten(0, (-1, self.head)), tensor.unflatten(0, (-1, self.head))
        plain = self.head - self.turned
        ours[:, :plain].copy_(theirs[:, :plain])
        self._halves(ours).copy_(theirs[:, plain:].unflatten(1, (-1, 2)))

    def take(self) -> Tensor:
        """The published tensor, in memory of its own."""
        if not self.turned:
            return self.view.clone(memory_format=torch.contiguous_format)
        ours = self.view.unflatten(0, (-1, self.head))
        pairs = self._halves(ours).flatten(1, 2)
        return torch.cat([ours[:, : self.head - self.turned], pairs], 1).flatten(0, 1)

    def _halves(self, ours: Tensor) -> Tensor:
        """Turned channels as [heads, pair, 2, …]."""
        return ours[:, self.head - self.turned :].unflatten(1, (2, -1)).transpose(1, 2)


def parts_of(model: Transformer, family: str, paired: bool = True) -> dict[str, Part]:
    """Every tensor of a checkpoint by its published name; `paired` says how the file lays turned channels out."""
    with torch.no_grad():
        parts = {
            "model.embed_tokens.weight": Part(model.embedding_VD.detach()),
            "model.norm.weight": Part(model.norm_D.detach()),
        }
        if model.unembedding_VD is not None:
            parts["lm_head.weight"] = Part(model.unembedding_VD.detach())
        for layer, block in enumerate(model.blocks):
            parts |= _block(block, f"model.layers.{layer}", model.shape, family, paired)  # type: ignore[arg-type]
        for depth, module in enumerate(model.predictions):
            assert isinstance(module, Prediction)
            prefix = f"model.layers.{model.shape.layers + depth}"
            parts |= {
                f"{prefix}.enorm.weight": Part(module.embedding_norm_D.detach()),
                f"{prefix}.hnorm.weight": Part(module.stream_norm_D.detach()),
                f"{prefix}.eh_proj.weight": Part(module.w_join_JD.detach().t()),
                f"{prefix}.shared_head.norm.weight": Part(module.norm_D.detach()),
                **_block(module.block, prefix, model.shape, family, paired),
            }
        return parts


def _block(block: Block, prefix: str, shape: Shape, family: str, paired: bool) -> dict[str, Part]:
    parts = {
        f"{prefix}.input_layernorm.weight": Part(block.attention_norm_D.detach()),
        f"{prefix}.post_attention_layernorm.weight": Part(block.feed_forward_norm_D.detach()),
        **_attention(block.attention, f"{prefix}.self_attn", shape, paired),
    }
    if isinstance(block.feed_forward, SparseFeedForward):
        return parts | _sparse(block.feed_forward, f"{prefix}.{MLP.get(family, 'mlp')}", family)
    return parts | _dense(block.feed_forward, f"{prefix}.mlp")


def _attention(attention: Attention, prefix: str, shape: Shape, paired: bool) -> dict[str, Part]:
    if isinstance(attention, LatentAttention):
        return _latent(attention, prefix, shape, paired)
    sizes = [shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim, shape.kv_heads * shape.head_dim]
    columns = zip("qkv", attention.w_qkv_DQ.detach().split(sizes, 1), strict=True)
    parts = {f"{prefix}.{letter}_proj.weight": Part(part.t()) for letter, part in columns}
    parts[f"{prefix}.o_proj.weight"] = Part(attention.w_out_QD.detach().t())
    if attention.b_qkv_Q is not None:
        biases = zip("qkv", attention.b_qkv_Q.detach().split(sizes), strict=True)
        parts |= {f"{prefix}.{letter}_proj.bias": Part(part) for letter, part in biases}
    if shape.qk_norm != "none":
        parts[f"{prefix}.q_norm.weight"] = Part(attention.q_norm_C.detach())
        parts[f"{prefix}.k_norm.weight"] = Part(attention.k_norm_C.detach())
    return parts


def _latent(attention: LatentAttention, prefix: str, shape: Shape, paired: bool) -> dict[str, Part]:
    turned = shape.rope_head_dim if paired else 0
    query = Part(attention.w_query_AQ.detach().t(), shape.head_dim, turned)
    latent = Part(attention.w_latent_DR.detach().t(), shape.kv_lora_rank + shape.rope_head_dim, turned)
    parts = {
        f"{prefix}.kv_a_proj_with_mqa.weight": latent,
        f"{prefix}.kv_a_layernorm.weight": Part(attention.latent_norm_R.detach()),
        f"{prefix}.kv_b_proj.weight": Part(attention.w_up_RQ.detach().t()),
        f"{prefix}.o_proj.weight": Part(attention.w_out_QD.detach().t()),
    }
    if not shape.q_lora_rank:
        return parts | {f"{prefix}.q_proj.weight": query}
    return parts | {
        f"{prefix}.q_a_proj.weight": Part(attention.w_query_down_DA.detach().t()),
        f"{prefix}.q_a_layernorm.weight": Part(attention.query_norm_A.detach()),
        f"{prefix}.q_b_proj.weight": query,
    }


def _dense(feed_forward: DenseFeedForward, prefix: str) -> dict[str, Part]:
    gate_DF, up_DF = feed_forward.w_in_DH.detach().chunk(2, 1)
    return {
        f"{prefix}.gate_proj.weight": Part(gate_DF.t()),
        f"{prefix}.up_proj.weight": Part(up_DF.t()),
        f"{prefix}.down_proj.weight": Part(feed_forward.w_out_FD.detach().t()),
    }


def _sparse(feed_forward: SparseFeedForward, prefix: str, family: str) -> dict[str, Part]:
    gate, up, down = EXPERT_NAMES.get(family, ("gate_proj", "up_proj", "down_proj"))
    parts = {f"{prefix}.gate.weight": Part(feed_forward.w_router_DE.detach().t())}
    if feed_forward.bias_E is not None:
        parts[f"{prefix}.{ROUTER_BIAS}"] = Part(feed_forward.bias_E)
    pairs = zip(feed_forward.w_in_EDH.detach().unbind(0), feed_forward.w_out_EFD.detach().unbind(0), strict=True)
    for expert, (w_in_DH, w_out_FD) in enumerate(pairs):
        gate_DF, up_DF = w_in_DH.chunk(2, 1)
        parts[f"{prefix}.experts.{expert}.{gate}.weight"] = Part(gate_DF.t())
        parts[f"{prefix}.experts.{expert}.{up}.weight"] = Part(up_DF.t())
        parts[f"{prefix}.experts.{expert}.{down}.weight"] = Part(w_out_FD.t())
    if feed_forward.shared is not None:
        parts |= _dense(feed_forward.shared, f"{prefix}.shared_experts")
    return parts


def fused_parts(model: Transformer, family: str) -> dict[str, tuple[Part, frozenset[str]]]:
    """The experts of a layer in one tensor, as `transformers` 5 holds them: the part, and the names it stands for."""
    found = {}
    gate, up, down = EXPERT_NAMES.get(family, ("gate_proj", "up_proj", "down_proj"))
    ours = MLP.get(family, "mlp")
    for layer, block in enumerate([*model.blocks, *(module.block for module in model.predictions)]):
        feed_forward = block.feed_forward  # type: ignore[union-attr]
        if not isinstance(feed_forward, SparseFeedForward):
            continue
        experts = range(len(feed_forward.w_in_EDH))
        single = [f"model.layers.{layer}.{ours}.experts.{expert}" for expert in experts]
        ins = frozenset(f"{prefix}.{part}.weight" for prefix in single for part in (gate, up))
        outs = frozenset(f"{prefix}.{down}.weight" for prefix in single)
        w_in_EHD, w_out_EDF = (w.detach().transpose(1, 2) for w in (feed_forward.w_in_EDH, feed_forward.w_out_EFD))
        for mlp in {"mlp", ours}:
            prefix = f"model.layers.{layer}.{mlp}.experts"
            found[f"{prefix}.gate_up_proj"] = (Part(w_in_EHD), ins)
            found[f"{prefix}.down_proj"] = (Part(w_out_EDF), outs)
    return found


def repeated_names(shape: Shape) -> set[str]:
    """Tensors that hold nothing of their own: tables that the model or its multi-token prediction shares, and rotary
    frequencies, which older files store and the shape gives."""
    layers = [f"model.layers.{layer}" for layer in range(shape.layers + shape.mtp_layers)]
    frequencies = [f"{prefix}.rotary_emb.inv_freq" for prefix in ("model", *(f"{at}.self_attn" for at in layers))]
    shared = [
        f"{at}.{table}" for at in layers[shape.layers :] for table in ("embed_tokens.weight", "shared_head.head.weight")
    ]
    return {*frequencies, *shared, *(["lm_head.weight"] if shape.tied_embeddings else [])}


def same_meaning(names: Mapping[str, object], family: str) -> dict[str, str]:
    """Names in a file to ours, where a release of `transformers` names a module otherwise."""
    if family != "mixtral":
        return {}
    return {name: name.replace(".mlp.", ".block_sparse_moe.") for name in names if ".mlp." in name}
