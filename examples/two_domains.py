"""A sparse model of two kinds of text, for `prune` and the dial: `python -m examples.two_domains FIRST SECOND OUT`.

64 experts, 6 of them for each token, about 10 million parameters: some tokens need experts that others never reach.
FIRST and SECOND are files or folders of text, such as prose and Python code. One model for each of `--seeds` seeds is
written to OUT/seed_N. A stopped command goes on where it was.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import sparsedial
from sparsedial.records.answers import Trained

SHAPE: dict[str, Any] = {
    "layers": 4, "d_model": 160, "heads": 5, "kv_heads": 5, "head_dim": 32, "d_ff": 0, "vocab_size": 4096,
    "context": 256, "experts": 64, "top_k": 6, "d_expert": 72, "qk_norm": "head", "tied_embeddings": True,
}  # fmt: skip
RECIPE = {"learning_rate": 0.004, "batch": 16, "context": 256}


def main(arguments: list[str] | None = None) -> list[Path]:
    """Train the models; returns their checkpoints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("texts", nargs=2, metavar="TEXT")
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--tokens", default="8M", help="of each model [8M]")
    parser.add_argument("--shape", type=int, nargs=2, metavar=("D_MODEL", "D_EXPERT"), default=(160, 72))
    given = parser.parse_args(arguments)
    d_model, d_expert = given.shape
    sizes = {"d_model": d_model, "heads": d_model // 32, "kv_heads": d_model // 32, "d_expert": d_expert}
    return [_trained(given, {**SHAPE, **sizes}, seed) for seed in range(given.seeds)]


def _trained(given: argparse.Namespace, shape: dict[str, Any], seed: int) -> Path:
    run = sparsedial.train(
        text=tuple(given.texts),
        tokens=given.tokens,
        tokenizer="bpe:4096",
        shape=shape,
        recipe={**RECIPE, "seed": seed},
        out=given.out / f"seed_{seed}",
    )
    assert isinstance(run, Trained)
    assert run.checkpoint is not None, "the run diverged"
    print(f"seed {seed}: test loss {run.test_loss:.4f} nats per token, {run.checkpoint}")
    return Path(run.checkpoint)


if __name__ == "__main__":
    main()
