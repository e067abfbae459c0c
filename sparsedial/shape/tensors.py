"""Every tensor of a model by its canonical name, with its size: what follows from a Shape alone.

Matrices are [out, in], as in published files. Nothing is fused: query, key and value are three tensors, and each expert
has its own. Modules of multi-token prediction are the layers after the last. See docs/checkpoints.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

from sparsedial.shape.shape import Layer, Shape

Size = tuple[int, ...]
EXPERTS = "experts."  # prefix of the parts that each routed expert of a layer has
DENSE, SHARED = "feed_forward.", "shared."  # those of a dense layer, and of a sparse layer's shared experts
NEURON_AXES = {"gate": 0, "up": 0, "down": 1}  # of the matrices of all three, the axis that counts neurons


@dataclass(frozen=True)
class Name:
    """The canonical name of a tensor: what it is, in which layer, of which routed expert."""

    part: str
    layer: int | None = None
    expert: int | None = None

    def __str__(self) -> str:
        part = self.part if self.expert is None else self.part.replace(EXPERTS, f"{EXPERTS}{self.expert}.")
        return part if self.layer is None else f"layers.{self.layer}.{part}"


def resized(size: Size, axis: int, length: int) -> Size:
    """A size with another length of one axis."""
    return (*size[:axis], length, *size[axis + 1 :])


def tensor_sizes(shape: Shape) -> dict[Name, Size]:
    """Every tensor of a model, multi-token prediction included, in the order in which it is written."""
    sizes = {Name(part): size for part, size in model_parts(shape).items()}
    for layer in range(shape.layers + shape.mtp_layers):
        parts, experts = layer_parts(shape, layer), shape.layer(layer).experts
        sizes |= {Name(part, layer, expert): parts[part] for part, expert in _of_each_expert(parts, experts)}
    return sizes


def _of_each_expert(parts: dict[str, Size], experts: int) -> Iterator[tuple[str, int | None]]:
    """The parts of a layer, each with its expert where it has one; an expert's parts stay together."""
    for routed, group in groupby(parts, key=lambda part: part.startswith(EXPERTS)):
        names = list(group)
        for expert in range(experts) if routed else (None,):
            yield from ((part, expert) for part in names)


def model_parts(shape: Shape) -> dict[str, Size]:
    """The tensors outside the layers."""
    table = (shape.vocab_size, shape.d_model)
    unembedding = {} if shape.tied_embeddings else {"unembedding": table}
    return {"embedding": table, "norm": (shape.d_model,), **unembedding}


def layer_parts(shape: Shape, number: int) -> dict[str, Size]:
    """The tensors of a layer; for routed experts, the size of one expert's tensor."""
    d_model, layer = shape.d_model, shape.layer(number)
    feed_forward = _sparse(shape, layer) if layer.is_sparse else _swiglu(DENSE, d_model, layer.d_ff)
    return {
        **(_joining(d_model) if number >= shape.layers else {}),
        "attention_norm": (d_model,),
        "feed_forward_norm": (d_model,),
        **(_latent_attention(shape) if shape.latent_attention else _grouped_attention(shape)),
        **feed_forward,
    }


def _joining(d_model: int) -> dict[str, Size]:
    """What a module of multi-token prediction has in addition to its layer."""
    return {
        "embedding_norm": (d_model,),
        "stream_norm": (d_model,),
        "join": (d_model, 2 * d_model),  # the embedding's half first
        "prediction_norm": (d_model,),
    }


def _grouped_attention(shape: Shape) -> dict[str, Size]:
    queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    rows = {"query": queries, "key": keys, "value": keys}
    sizes: dict[str, Size] = {f"attention.{name}": (count, shape.d_model) for name, count in rows.items()}
    sizes["attention.output"] = (shape.d_model, queries)
    if shape.attention_bias:
        sizes |= {f"attention.{name}_bias": (count,) for name, count in rows.items()}
    if shape.qk_norm != "none":
        whole = shape.qk_norm == "full"
        sizes["attention.query_norm"] = (queries if whole else shape.head_dim,)
        sizes["attention.key_norm"] = (keys if whole else shape.head_dim,)
    return sizes


def _latent_attention(shape: Shape) -> dict[str, Size]:
    queries, rank = shape.heads * shape.head_dim, shape.kv_lora_rank
    sizes: dict[str, Size] = {
        "attention.latent": (rank + shape.rope_head_dim, shape.d_model),  # the latent, then the rotated key
        "attention.latent_norm": (rank,),
        "attention.latent_up": (shape.heads * (shape.nope_head_dim + shape.v_head_dim), rank),
        "attention.output": (shape.d_model, shape.heads * shape.v_head_dim),
    }
    if not shape.q_lora_rank:
        return sizes | {"attention.query": (queries, shape.d_model)}
    return sizes | {
        "attention.query_down": (shape.q_lora_rank, shape.d_model),
        "attention.query_down_norm": (shape.q_lora_rank,),
        "attention.query_up": (queries, shape.q_lora_rank),
    }


def _swiglu(prefix: str, d_model: int, width: int) -> dict[str, Size]:
    return {f"{prefix}gate": (width, d_model), f"{prefix}up": (width, d_model), f"{prefix}down": (d_model, width)}


def _sparse(shape: Shape, layer: Layer) -> dict[str, Size]:
    shared = shape.shared_experts * layer.d_expert  # side by side, as one expert of their joint width
    return {
        "router": (layer.experts, shape.d_model),
        **({"routing_bias": (layer.experts,)} if shape.routing_bias else {}),
        **_swiglu(EXPERTS, shape.d_model, layer.d_expert),
        **(_swiglu(SHARED, shape.d_model, shared) if shared else {}),
        **({"shared_gate": (1, shape.d_model)} if shape.shared_gate else {}),
    }
