"""Checkpoints whose right answer is known without training: which expert serves which letter is planted.

Each letter's embedding is an axis of its own, and the expert that a letter goes to writes the letter that follows it.
Attention and dense layers write nothing.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from sparsedial.model.checkpoint import empty_model, save_checkpoint
from sparsedial.model.transformer import Transformer
from sparsedial.shape.shape import Shape
from sparsedial.text.tokenizer import byte_tokenizer

LETTERS = "abcdefgh"
FIRST, SECOND = "abcd", "efgh"  # two domains
SHAPE = Shape(
    layers=2, d_model=16, heads=2, kv_heads=2, head_dim=8, d_ff=16, vocab_size=256, context=32, experts=8, top_k=2,
    d_expert=8, dense_layers=1, tied_embeddings=True, qk_norm="head",
)  # fmt: skip
ROUTERS: Mapping[str, Mapping[str, Any]] = {
    "softmax": {},
    "softmax, not normalised": {"normalize_gates": False},
    "sigmoid": {"gate": "sigmoid", "routing_bias": True, "routed_scaling": 2.5},
    "sigmoid, not normalised": {"gate": "sigmoid", "routing_bias": True, "normalize_gates": False},
    "groups": {"gate": "sigmoid", "routing_bias": True, "expert_groups": 2, "kept_groups": 2},
}
SIZE, WRITTEN = 4.0, 3.0  # of a letter's embedding, and of what an expert writes in units of it
CHOSEN, SECOND_CHOICE, OTHERS = 5.0, -6.0, -10.0  # logits over sqrt(d_model); a second choice has hardly any weight


def knowing_letters(model: Transformer) -> Transformer:
    """A model that knows which letters the two domains have, and nothing more of them."""
    with torch.no_grad():
        model.embedding_VD.add_(1)
        model.unembedding_VD.zero_()
        model.unembedding_VD[list({*FIRST.encode(), *SECOND.encode()})] = 0.1
    return model


def planted(
    first: Mapping[str, int], second: Mapping[str, int], router: str = "softmax", dense_layers: int = 1
) -> Transformer:
    """A model whose letters go to their `first` expert with nearly all weight, and to their `second` with hardly any.

    An expert that is no letter's first choice writes nothing. The end token is served like the first letter, but
    nothing is written for it. All of that is in the second layer; without dense layers the first one has experts that
    write nothing.
    """
    shape = replace(SHAPE, **ROUTERS[router], dense_layers=dense_layers, d_ff=16 * dense_layers)
    model = empty_model(shape, torch.float32)
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.fill_(float(tensor.dim() == 1))  # norms
        for layer in model.sparse_feed_forwards:
            if layer.bias_E is not None:
                layer.bias_E.zero_()
        layer = model.sparse_feed_forwards[-1]
        layer.w_router_DE.fill_(OTHERS)
        x = shape.d_model**0.5  # of a letter, normed
        silu = x / (1 + math.exp(-x))
        end = len(LETTERS)
        model.embedding_VD[0, end] = SIZE
        for axis, letter in enumerate([*LETTERS, LETTERS[0]]):
            layer.w_router_DE[axis, first[letter]] = CHOSEN
            layer.w_router_DE[axis, second[letter]] = SECOND_CHOICE
        for axis, letter in enumerate(LETTERS):
            domain = FIRST if letter in FIRST else SECOND
            after = LETTERS.index(domain[(domain.index(letter) + 1) % len(domain)])
            model.embedding_VD[ord(letter), axis] = SIZE
            expert = first[letter]
            layer.w_in_EDH[expert, axis, axis] = layer.w_in_EDH[expert, axis, axis + shape.d_expert] = 1.0
            layer.w_out_EFD[expert, axis, after] = WRITTEN * SIZE / (x * silu) / shape.routed_scaling
    return model.eval()


def with_dead_experts(router: str, dead: tuple[int, ...], dense_layers: int = 1) -> Transformer:
    """Half of the experts write nothing; each of them is one letter's second choice, so that tokens reach it."""
    alive = [expert for expert in range(SHAPE.experts) if expert not in dead]
    first = {letter: alive[at // 2] for at, letter in enumerate(LETTERS)}
    second = {
        letter: dead[at // 2] if at % 2 == 0 else alive[(at // 2 + 1) % len(alive)] for at, letter in enumerate(LETTERS)
    }
    return planted(first, second, router, dense_layers)


def with_pairs(router: str = "softmax") -> Transformer:
    """Experts 2n and 2n + 1 are equal, their rows of the router too, and serve two letters together."""
    first = {letter: at // 2 * 2 for at, letter in enumerate(LETTERS)}
    model = planted(first, {letter: expert + 1 for letter, expert in first.items()}, router)
    layer = model.sparse_feed_forwards[-1]
    with torch.no_grad():
        for weights_E in (layer.w_in_EDH, layer.w_out_EFD, layer.w_router_DE.t()):
            weights_E[1::2] = weights_E[::2]
    return model


def with_domains(router: str = "softmax") -> Transformer:
    """Letters of the first domain go to experts 0 to 3 alone, those of the second to experts 4 to 7."""
    first = {letter: at for at, letter in enumerate(LETTERS)}
    second = {letter: (at + 1) % 4 + 4 * (at // 4) for at, letter in enumerate(LETTERS)}
    return planted(first, second, router)


def with_dead_neurons(dead: tuple[int, ...], layers: int = 2) -> Transformer:
    """A dense model: in its last layer each of 8 neurons writes what follows a letter, and the dead ones nothing.

    Dead neurons are the most active ones. The layers before write nothing at all: they are the identity.
    """
    bare = {"experts": 0, "top_k": 0, "d_expert": 0, "dense_layers": 0, "layers": layers, "d_ff": 8 + len(dead)}
    model = empty_model(replace(SHAPE, **bare), torch.float32)
    alive = [neuron for neuron in range(8 + len(dead)) if neuron not in dead]
    x = SHAPE.d_model**0.5  # of a letter, normed
    silu = x / (1 + math.exp(-x))
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.fill_(float(tensor.dim() == 1))  # norms
        model.embedding_VD[0, len(LETTERS)] = SIZE
        dense = model.blocks[-1].feed_forward
        gate_DF, up_DF = dense.w_in_DH.chunk(2, 1)
        gate_DF[:, list(dead)] = up_DF[:, list(dead)] = 2.0
        for axis, letter in enumerate(LETTERS):
            domain = FIRST if letter in FIRST else SECOND
            after = LETTERS.index(domain[(domain.index(letter) + 1) % len(domain)])
            model.embedding_VD[ord(letter), axis] = SIZE
            gate_DF[axis, alive[axis]] = up_DF[axis, alive[axis]] = 1.0
            dense.w_out_FD[alive[axis], after] = WRITTEN * SIZE / (x * silu)
    return model.eval()


def with_clusters(width: int = 4, layers: int = 2) -> tuple[Transformer, list[int]]:
    """A dense model in whose last layer each letter has `width` neurons of its own, and all letters use as many others.

    Neurons lie in no order; the list says for each the number of its letter, or -1. The layers before write nothing.
    """
    owners = [letter for letter in range(-1, len(LETTERS)) for _ in range(width)]
    random.Random(3).shuffle(owners)
    bare = {"experts": 0, "top_k": 0, "d_expert": 0, "dense_layers": 0, "layers": layers, "d_ff": len(owners)}
    model = empty_model(replace(SHAPE, **bare), torch.float32)
    common, x = SHAPE.d_model - 1, (SHAPE.d_model / 1.25) ** 0.5  # x: of a letter, normed; half of it on a common axis
    silu = x / (1 + math.exp(-x))
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.fill_(float(tensor.dim() == 1))  # norms
        model.embedding_VD[0, len(LETTERS)] = SIZE
        dense = model.blocks[-1].feed_forward
        gate_DF, up_DF = dense.w_in_DH.chunk(2, 1)
        for axis, letter in enumerate(LETTERS):
            model.embedding_VD[ord(letter), axis], model.embedding_VD[ord(letter), common] = SIZE, SIZE / 2
        for neuron, owner in enumerate(owners):
            gate_DF[owner, neuron] = up_DF[owner, neuron] = 1.0  # -1 is the common axis
            if owner < 0:
                dense.w_out_FD[neuron, len(LETTERS)] = -1.0 / width
            else:
                domain = FIRST if LETTERS[owner] in FIRST else SECOND
                after = LETTERS.index(domain[(domain.index(LETTERS[owner]) + 1) % len(domain)])
                dense.w_out_FD[neuron, after] = WRITTEN * SIZE / (x * silu) / width
    return model.eval(), owners


def saved(model: Transformer, folder: Path) -> Path:
    """The model as a checkpoint of bytes."""
    save_checkpoint(model, folder, byte_tokenizer())
    return folder


def text_of(file: Path, *domains: str, letters: int = 4000) -> Path:
    """A text of one domain, or of several in turns: in runs of unlike length each letter is followed by its next."""
    draw, runs = random.Random(0), []
    while sum(map(len, runs)) < letters:
        for domain in domains:
            first = draw.randrange(len(domain))
            runs.append((domain * 12)[first : first + draw.randrange(24, 40)])
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(runs))
    return file
