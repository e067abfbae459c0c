"""The loss of a model on noise, beside text that it knows: `python -m benchmarks.foreign_text CHECKPOINT TEXT`.

Noise is drawn: letters, words of drawn letters, and bytes in base64. Losses are given as shares of a uniform guess's;
from `FOREIGN_SHARE` on `prune` warns that its calibration text is foreign to the model. Writes
benchmarks/records/foreign_text.json.
"""

from __future__ import annotations

import base64
import json
import math
import random
import string
import sys
import tempfile
from pathlib import Path

from benchmarks.keeping import keep
from sparsedial.model.checkpoint import load
from sparsedial.model.digests import digest_of
from sparsedial.pruning.quality import FOREIGN_SHARE, nats_of
from sparsedial.pruning.windows import read_windows
from sparsedial.shape.counts import total_parameters
from sparsedial.text.tokenizer import load_tokenizer
from sparsedial.units import human_count

RECORD = Path(__file__).parent / "records" / "foreign_text.json"
TOKENS, LETTERS = 16_384, 200_000
KNOWN = "known text"


def main() -> None:
    """Score the texts, and write the record."""
    checkpoint, known = Path(sys.argv[1]), sys.argv[2]
    model, tokenizer = load(checkpoint), load_tokenizer(checkpoint)
    sizes = {"vocab_size": model.shape.vocab_size, "context": model.shape.context, "tokens": TOKENS, "field": "text"}
    with tempfile.TemporaryDirectory() as work:
        sources = {KNOWN: known}
        for name, text in drawn().items():
            sources[name] = str(Path(work, name))
            Path(sources[name]).write_text(text)
        windows = {name: read_windows([source], tokenizer, **sizes) for name, source in sources.items()}
        guess = math.log(model.shape.vocab_size)
        shares = {name: nats.mean / guess for name, nats in nats_of(model, windows).items()}
    found = {
        "checkpoint": digest_of(checkpoint),
        "total_parameters": total_parameters(model.shape),
        "known": "/".join(Path(known).parts[-2:]),
        "tokens": TOKENS,
        "warned_from": FOREIGN_SHARE,
        "share_of_a_uniform_guess": shares,
    }
    keep(RECORD, "python -m benchmarks.foreign_text CHECKPOINT TEXT", found)
    print(json.dumps(found, indent=1))


def drawn() -> dict[str, str]:
    """Noise of three kinds."""
    draw = random.Random(0)
    letters = "".join(draw.choices(string.ascii_letters + string.digits, k=LETTERS))
    words = (draw.choices(string.ascii_lowercase, k=draw.randint(2, 9)) for _ in range(LETTERS // 6))
    return {
        "base64": base64.b64encode(draw.randbytes(LETTERS)).decode(),
        "words of drawn letters": " ".join(map("".join, words)),
        "drawn letters": letters,
    }


def foreign_sentence() -> str:
    """From when on `prune` warns, and what shares a model has."""
    found = json.loads(RECORD.read_text())
    shares = found["share_of_a_uniform_guess"]
    noise = ", ".join(f"{share:.2f} on {name}" for name, share in shares.items() if name != KNOWN)
    return (
        "A warning names both losses where the model's on the calibration text is at least"
        f" {found['warned_from']} of a uniform guess's: noise, or a language that the model hardly knows, says little"
        f" of what matters. A model of {human_count(found['total_parameters'])} parameters had {shares[KNOWN]:.2f} on"
        f" text of a kind that it was trained on, {noise} ([record](../benchmarks/records/foreign_text.json))."
    )


if __name__ == "__main__":
    main()
