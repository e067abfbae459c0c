"""llama.cpp's side of `benchmarks.export_peers`: `PYTHON -m benchmarks.gguf_reader FILE.gguf JOB`, from the root.

PYTHON has `xllamacpp`, whose wheel holds a built llama.cpp. JOB is a file that says which ids to read, and which text
llama.cpp's own tokenizer reads. The last line that is printed is JSON: llama.cpp's version, the ids of that text, for
each length the log-probabilities of all ids behind so many of the ids, and greedy ids after all of them. It asks
llama.cpp's server, in the same process. Keys and values are in F32, on one thread.
"""

from __future__ import annotations

import importlib
import json
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

llama: Any = importlib.import_module("xllamacpp")


def server_of(file: str, length: int) -> Any:
    """A server of a model for one sequence of this length."""
    settings = llama.CommonParams()
    settings.model.path = file
    settings.port = 0  # any that is free
    settings.n_ctx = settings.n_batch = settings.n_ubatch = length
    settings.n_parallel = 1
    settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = 1
    settings.cache_type_k = settings.cache_type_v = llama.ggml_type.GGML_TYPE_F32
    settings.flash_attn_type = llama.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED  # it rounds them to F16
    settings.warmup = False
    return llama.Server(settings)


def ask(address: str, what: str, question: Mapping[str, Any]) -> Mapping[str, Any]:
    """The server's answer."""
    request = urllib.request.Request(f"{address}/{what}", json.dumps(question).encode())
    try:
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        raise SystemExit(f"{what}: {error.read().decode()}") from error


def logprobs(address: str, ids: Sequence[int], count: int, letter: int) -> dict[int, float]:
    """Log-probabilities of the likeliest ids behind others.

    The server says none of a token without text of its own: an end, or a part of a letter. So it draws `letter`,
    which changes nothing of what it says.
    """
    question = {
        "prompt": list(ids), "n_predict": 1, "n_probs": count, "temperature": 0, "cache_prompt": False,
        "logit_bias": [[letter, 1000]],
    }  # fmt: skip
    (first,) = ask(address, "completion", question)["completion_probabilities"]
    return {each["id"]: each["logprob"] for each in first["top_logprobs"]}


def main() -> None:
    """Read the model, and answer."""
    file, job = sys.argv[1], json.loads(Path(sys.argv[2]).read_text())
    server = server_of(file, len(job["ids"]) + job["tokens"] + 1)
    address, ids, whole = server.listening_address, list(job["ids"]), []
    letter = ask(address, "tokenize", {"content": "a"})["tokens"][-1]
    for length in job["lengths"]:
        found = logprobs(address, ids[:length], job["vocab_size"], letter)
        whole.append([found.get(number) for number in range(job["vocab_size"])])
    while len(ids) < len(job["ids"]) + job["tokens"]:
        found = logprobs(address, ids, 1, letter)
        ids.append(max(found, key=lambda number: found[number]))
    told = ask(address, "tokenize", {"content": job["text"], "add_special": True, "parse_special": True})["tokens"]
    answer = {"version": llama.__version__, "ids": told, "logprobs": whole, "greedy": ids[len(job["ids"]) :]}
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
