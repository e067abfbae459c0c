"""vLLM's side of `benchmarks.export_peers` and of `benchmarks.decoding_vllm`: `PYTHON -m benchmarks.vllm_side`.

PYTHON has vLLM. It prints a line of JSON with vLLM's version, and answers each line of its input with one, until that
ends. A line opens a folder, and closes the one before; or has prompts, as ids, which are continued greedily, all
together; or a text, whose ids are told. Where vLLM stops with an error, the answer has that.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from typing import Any

CACHE_BYTES = 1 << 30  # for keys and values


class Side:
    """vLLM with at most one folder open."""

    def __init__(self) -> None:
        self.vllm: Any = importlib.import_module("vllm")
        self.llm: Any = None

    def open(self, folder: str, dtype: str, length: int, sequences: int, eager: bool) -> dict[str, Any]:
        """Open a folder, for at most so many sequences of at most this length; compile it unless `eager`."""
        if self.llm:
            self.llm.llm_engine.engine_core.shutdown()
            self.llm = None
            gc.collect()
            importlib.import_module("vllm.distributed").cleanup_dist_env_and_memory()
        self.llm = self.vllm.LLM(
            model=folder, dtype=dtype, max_model_len=length, max_num_seqs=sequences, enforce_eager=eager,
            max_logprobs=-1, enable_prefix_caching=False, kv_cache_memory_bytes=CACHE_BYTES, disable_log_stats=False,
        )  # fmt: skip
        return {}

    def told(self, text: str) -> dict[str, Any]:
        """The ids of a text."""
        return {"ids": [*self.llm.get_tokenizer().encode(text)]}

    def go_on(self, prompts: Sequence[Sequence[int]], tokens: int, logprobs: bool) -> dict[str, Any]:
        """New ids, seconds from the first of them to the last, and log-probabilities of all ids at the first.

        Seconds are by the engine's own clock, which it reads after each step: its process may be ahead of this one. It
        may also begin before all prompts have arrived: the first id of the last prompt starts the clock.
        """
        settings = self.vllm.SamplingParams(
            temperature=0.0, max_tokens=tokens, ignore_eos=True, detokenize=False, logprobs=-1 if logprobs else None
        )
        engine, found = self.llm.llm_engine, {}
        for number, ids in enumerate(prompts):
            engine.add_request(str(number), {"prompt_token_ids": [*ids]}, settings)
        while engine.has_unfinished_requests():
            found.update({int(each.request_id): each for each in engine.step()})
        rows = [found[number] for number in range(len(prompts))]
        made = [row.outputs[0] for row in rows]
        began, ended = (max(getattr(row.metrics, name) for row in rows) for name in ("first_token_ts", "last_token_ts"))
        return {
            "seconds": ended - began,
            "ids": [[*each.token_ids] for each in made],
            "logprobs": [_in_order(each.logprobs[0]) for each in made] if logprobs else None,
        }


def _in_order(logprobs: Mapping[int, Any]) -> list[float]:
    return [logprobs[number].logprob for number in range(len(logprobs))]


def answered(side: Side, job: dict[str, Any]) -> dict[str, Any]:
    """The answer to a line."""
    acts = {"open": side.open, "told": side.told, "go_on": side.go_on}
    try:
        return acts[job.pop("do")](**job)
    except Exception as error:  # whatever vLLM says of a folder that it does not take
        traceback.print_exc()
        return {"refused": f"{type(error).__name__}: {error}"}


def main() -> None:
    """Answer until there is nothing more."""
    lines = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what vLLM prints is no answer
    side = Side()
    print(json.dumps({"version": side.vllm.__version__}), file=lines)
    for line in sys.stdin:
        print(json.dumps(answered(side, json.loads(line))), file=lines)


if __name__ == "__main__":
    main()
