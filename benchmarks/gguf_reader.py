"""llama.cpp's side of `benchmarks.export_peers`: `PYTHON -m benchmarks.gguf_reader FILE.gguf JOB`, from the root.

PYTHON has `llama-cpp-python`. JOB is a file that says which ids to read, and which text llama.cpp's own tokenizer does.
The last line that is printed is JSON: the ids of that text, and for each length the logits behind so many of the ids,
then greedy ids after all of them. Everything is in F32, without flash attention, on one thread. S positions.
"""

from __future__ import annotations

import ctypes
import json
import sys
from pathlib import Path
from typing import Any

import llama_cpp as llama  # pyright: ignore[reportMissingImports]
import numpy as np

from benchmarks.gguf import SILENT, Session


def main() -> None:
    """Read the model, and answer."""
    file, job = sys.argv[1], json.loads(Path(sys.argv[2]).read_text())
    llama.llama_log_set(SILENT, ctypes.c_void_p(0))
    model = llama.llama_model_load_from_file(file.encode(), llama.llama_model_default_params())
    if not model:
        llama.llama_log_set(llama.llama_log_callback(_said), ctypes.c_void_p(0))
        llama.llama_model_load_from_file(file.encode(), llama.llama_model_default_params())
        raise SystemExit("llama.cpp did not load the model")
    ids_S, tokens = np.array(job["ids"]), job["tokens"]
    session = Session(model, 1, len(ids_S) + tokens, 1, False)
    logits = []
    for length in job["lengths"]:
        session.clear()
        logits.append(session.read(ids_S[None, :length], 0)[0].astype(float).tolist())
    greedy = session.decode([job["ids"]], tokens)["ids"][0]
    found = {"version": llama.__version__, "ids": _ids(model, job["text"]), "logits": logits, "greedy": greedy}
    print(json.dumps(found))


def _said(level: int, text: bytes, data: Any) -> None:
    """What llama.cpp says of an error."""
    if level == llama.GGML_LOG_LEVEL_ERROR:
        sys.stderr.write(text.decode())


def _ids(model: Any, text: str) -> list[int]:
    """The ids of a text as a prompt, special tokens included."""
    vocabulary, data = llama.llama_model_get_vocab(model), text.encode()
    found = (llama.llama_token * (len(data) + 8))()
    count = llama.llama_tokenize(vocabulary, data, len(data), found, len(found), True, True)
    return list(found[:count])


if __name__ == "__main__":
    main()
