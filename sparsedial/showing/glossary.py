"""The words that every answer uses, with their meaning: one list for the report and the README."""

from __future__ import annotations

from collections.abc import Mapping

GLOSSARY: Mapping[str, str] = {
    "expert": "one of several feed-forward blocks of a layer; a router chooses a few of them (top-k) for each token",
    "sparsity": "1 − chosen experts / all experts: 0.9375 is 2 of 32; 0 is a dense model, without experts",
    "active parameters": "the parameters that one token uses; total parameters are all of them",
    "loss": "how badly a model predicts text that it has not seen, in nats per token; lower is better",
    "bits per byte": "the same for each byte of text, in bits, so that different tokenizers can be compared",
    "FLOPs": "arithmetic operations of a training, counted from the model's shape and its tokens",
    "budget": "what a training may cost: FLOPs, seconds, joules or dollars",
    "cell": "one model of the grid: a size and a sparsity, trained with one budget",
    "law": (
        "a formula for the loss from size, tokens and sparsity, fitted to the cells; its form is the formula"
        " without its numbers"
    ),
    "held-out budget": (
        "the largest budget; the law is fitted without it, predicts it, and is then compared with what was measured"
    ),
}
