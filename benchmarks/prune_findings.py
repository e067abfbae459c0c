"""Which experts to turn off, on models of two domains: `python -m benchmarks.prune_findings OUT GENERAL`.

OUT/seed_N are the models of `python -m examples.two_domains PROSE CODE OUT`, and GENERAL is English text that neither
domain holds. Every method scores the experts by each of four calibrations: both domains, prose, code, general. What
stays is scored on held-out documents of both domains, those of the model's own test split. After a calibration by both
it also writes: each model goes on greedily from held-out prompts, and `agreement` is the share of the written tokens
that come before the first one that differs from the whole model's. That is how generation is measured here.

What a model and a calibration showed is kept in benchmarks/records/prune_findings.json as soon as it is known, and a
stopped command goes on. Differences in `findings` are paired over seeds, with 95 % intervals by Student's t.
W windows, S positions.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.keeping import keep
from benchmarks.prune_findings_page import DOMAINS, RECORD, Row, findings
from sparsedial.evaluation.scorer import Scorer
from sparsedial.model.checkpoint import load, model_of
from sparsedial.model.digests import digest_of
from sparsedial.model.reading import read_checkpoint
from sparsedial.model.transformer import Transformer
from sparsedial.pruning.kept import Kept
from sparsedial.pruning.methods import Ask
from sparsedial.pruning.parts import PARTS
from sparsedial.pruning.windows import read_windows
from sparsedial.serving.generation import generate_together
from sparsedial.serving.sampling import Sampling
from sparsedial.text.prepare import Text, open_text
from sparsedial.text.tokenizer import load_tokenizer

METHODS = ("reap", "frequency", "man", "msan", "hc-smoe")
MORE = ("ean", "naee")  # only after a calibration by both domains
STRENGTHS = (0.75, 0.5)
CALIBRATION_TOKENS, SCORED_TOKENS = 8192, 8192
PROMPTS, PROMPT_TOKENS, WRITTEN_TOKENS = 32, 48, 24
CALIBRATIONS = ("both", *DOMAINS, "general")


def main() -> None:
    """Measure what is not known yet, and write the findings."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("general")
    parser.add_argument("--again", action="store_true", help="forget what is known")
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[Row] = [] if given.again or not RECORD.exists() else json.loads(RECORD.read_text())["rows"]
    for folder in sorted(given.out.glob("seed_*")):
        checkpoint = (folder / "checkpoint").resolve()
        digest = digest_of(checkpoint)
        for name in CALIBRATIONS:
            known = {row["method"] for row in rows if (row["checkpoint"], row["calibration"]) == (digest, name)}
            methods = [method for method in METHODS + MORE * (name == "both") if method not in known]
            if not methods:
                continue
            began = time.perf_counter()
            facts = {"seed": folder.name, "checkpoint": digest, "calibration": name}
            found = measured(checkpoint, open_text(folder / "text", verify=False), given.general, name, methods)
            rows += [{**facts, **row} for row in found]
            keep(RECORD, "python -m benchmarks.prune_findings OUT GENERAL", {"findings": findings(rows), "rows": rows})
            print(folder.name, name, f"{time.perf_counter() - began:.0f} s", flush=True)
    print(json.dumps(findings(rows), indent=1))


def measured(checkpoint: Path, text: Text, general: str, calibration: str, methods: Sequence[str]) -> Iterator[Row]:
    """A row for each method at each strength; with the first also one for the whole model, and several of `random`."""
    model, tensors = load(checkpoint), read_checkpoint(checkpoint).tensors
    context = model.shape.context
    scored = {name: windows_of(domain_ids(text, name, "test"), context, SCORED_TOKENS) for name in DOMAINS}
    prompts = [row[:PROMPT_TOKENS].tolist() for name in DOMAINS for row in scored[name][: PROMPTS // 2]]
    written = writes(model, prompts)

    def row(method: str, keep_share: float, other: Transformer) -> Row:
        agreement = agreement_of(written, writes(other, prompts)) if calibration == "both" else None
        loss = {name: loss_of(other, windows_WS1) for name, windows_WS1 in scored.items()}
        return {"method": method, "keep": keep_share, "loss": loss, "agreement": agreement}

    def cut(kept: Kept) -> Transformer:
        return model_of(kept.shape(model.shape), kept.stream(tensors))

    if METHODS[0] in methods:
        yield row("whole", 1.0, model)
    windows_WS1 = torch.from_numpy(_calibration(checkpoint, text, general, calibration))
    asks = [Ask(method=method, keep=share) for method in methods for share in STRENGTHS]
    choose = PARTS["experts"].calibrate(model, windows_WS1, asks)
    for ask in asks:
        choice = choose(ask)
        yield row(ask.method, ask.keep, cut(choice.kept))
        if calibration == "both" and ask.method == METHODS[0]:  # chance needs no calibration
            for kept in choice.controls:
                yield row("random", ask.keep, cut(kept))


def _calibration(checkpoint: Path, text: Text, general: str, name: str) -> np.ndarray:
    shape = read_checkpoint(checkpoint).shape
    if name == "general":
        sizes = {"vocab_size": shape.vocab_size, "context": shape.context, "tokens": CALIBRATION_TOKENS}
        return read_windows((general,), load_tokenizer(checkpoint), field="calibrate", **sizes).ids_WS1
    names = DOMAINS if name == "both" else (name,)
    tokens = CALIBRATION_TOKENS // len(names)
    return np.concatenate([windows_of(domain_ids(text, each, "train"), shape.context, tokens) for each in names])


def domain_ids(text: Text, domain: str, split: str) -> np.ndarray:
    """The token ids of one domain's documents in a split; files of the second text are called NAME~2."""
    rows = text.manifest.collect().filter(_is_of(domain), split=split).sort("first_token")
    ids = text.tokens(split)
    return np.concatenate([ids[first : first + count] for first, count in rows["first_token", "tokens"].iter_rows()])


def _is_of(domain: str) -> Any:
    import polars

    second = polars.col("source").str.contains(r"~2$")
    return second if domain == DOMAINS[1] else ~second


def windows_of(ids: np.ndarray, context: int, tokens: int) -> np.ndarray:
    """So many tokens in evenly spread windows of one more id. Shapes: to [W, S+1]"""
    every = (len(ids) - 1) // context
    count = min(every, tokens // context)
    starts = np.arange(count) * every // count * context
    return np.stack([ids[start : start + context + 1] for start in starts]).astype(np.int64)


def loss_of(model: Transformer, windows_WS1: np.ndarray) -> float:
    """Nats per token."""
    return Scorer(model).loss(torch.from_numpy(windows_WS1)) / windows_WS1[:, 1:].size


def writes(model: Transformer, prompts: Sequence[Sequence[int]]) -> list[list[int | None]]:
    """What a model writes behind each prompt, the likeliest token each time; None after its end."""
    found = list(generate_together(model, prompts, WRITTEN_TOKENS, Sampling(temperature=0.0)))
    return [list(row) for row in zip(*found, strict=True)]


def agreement_of(whole: Sequence[Sequence[int | None]], other: Sequence[Sequence[int | None]]) -> float:
    """The share of tokens before the first that differs, the mean over prompts."""
    shares = []
    for one, two in zip(whole, other, strict=True):
        same = [a == b for a, b in zip(one, two, strict=False)]
        shares.append((same.index(False) if False in same else len(same)) / len(one))
    return float(np.mean(shares))


if __name__ == "__main__":
    main()
