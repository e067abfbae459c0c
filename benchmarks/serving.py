"""`serve` beside vLLM's server, asked by several clients at once:
`python -m benchmarks.serving --vllm PYTHON --allocator FILE --text TEXT NAME=CHECKPOINT …`.

Three loads, each with other windows of TEXT in every round, the same for all servers: clients that each send some
prompts one after another (1, 4 and 8 clients); a second turn of a conversation, whose prompt begins with the first
turn and its answer; and, of ours alone, half of 8 clients at another setting of the dial (`--lower`). Answers are
greedy. Both servers hold the weights in float32 and in bfloat16, on two threads; vLLM is compiled, with the OpenMP and
the allocator that its pages recommend, and threads that are bound. Servers take turns, and stand still between them.
Clients, a process of Python, share the processors with them. benchmarks/vllm_peer.py says what PYTHON is.
Writes benchmarks/records/serving.json, where checkpoints that are not named stay.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.decoding_vllm import DTYPES, environment_of
from benchmarks.keeping import has, keep
from benchmarks.serving_load import Answer, Server, free_port
from benchmarks.side_by_side import range_words, ratio
from benchmarks.vllm_peer import ALONE, openmp_of
from sparsedial import WAITS
from sparsedial.machine.hardware import BusyWatch
from sparsedial.machine.timing import Timing, summarise
from sparsedial.model.digests import digest_of
from sparsedial.pruning.windows import read_windows
from sparsedial.text.tokenizer import load_tokenizer
from sparsedial.units import count_words

RECORD = Path(__file__).parent / "records" / "serving.json"
SLOTS, MOST_LENGTH, THREADS = 8, 1024, 2
CLIENTS = (1, 4, 8)


@dataclass(frozen=True, kw_only=True)
class Load:
    """How much is asked."""

    rounds: int = 3
    requests: int = 1  # of each client
    prompt: int = 128
    tokens: int = 64
    first_turn: int = 512  # half of the length, where that is less
    second_turn: int = 32  # new tokens of it, beside the first turn and its answer


QUICK = Load(rounds=1, requests=1, prompt=32, tokens=8, first_turn=64, second_turn=8)


class Windows:
    """Windows of a text as prompts, each given out once."""

    def __init__(self, folder: Path, text: str, load: Load) -> None:
        per_round = sum(CLIENTS) * load.requests * load.prompt + load.first_turn + load.second_turn
        per_round += 2 * max(CLIENTS) * load.prompt  # of the mixed settings
        tokenizer = load_tokenizer(folder)
        windows = read_windows(
            [text], tokenizer, vocab_size=tokenizer.vocab_size, context=load.prompt,
            tokens=2 * per_round * (load.rounds + 1), field="text",
        )  # fmt: skip
        self._ids: Iterator[int] = iter(windows.ids_WS1[:, : load.prompt].flatten().tolist())

    def next(self, tokens: int) -> list[int]:
        """So many ids that were not given out before."""
        return [next(self._ids) for _ in range(tokens)]


def length_of(folder: Path) -> int:
    """The longest text of a checkpoint that is asked for."""
    return min(MOST_LENGTH, json.loads((folder / "config.json").read_text())["max_position_embeddings"])


def ours(folder: Path, dtype: str, work: Path) -> Server:
    """`sparsedial serve`."""
    port = free_port()
    words = [sys.executable, "-m", "sparsedial", "serve", str(folder), "--port", str(port), "--slots", str(SLOTS)]
    return Server([*words, "--context", str(length_of(folder)), "--dtype", dtype], port, work / f"ours_{dtype}.log")


def vllm(folder: Path, dtype: str, work: Path, given: argparse.Namespace) -> Server:
    """vLLM's server, compiled."""
    port, inherited = free_port(), {name: value for name, value in os.environ.items() if name not in WAITS}
    environment = {
        **inherited, **ALONE, **environment_of(one_process=False), "VLLM_CPU_KVCACHE_SPACE": "2",
        "LD_PRELOAD": ":".join([*([given.allocator] if given.allocator else []), openmp_of(given.vllm)]),
        "VLLM_CACHE_ROOT": str(work / "cache"),
    }  # fmt: skip
    environment.pop("PYTHONPATH", None)
    words = [given.vllm, "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder), "--dtype", dtype]
    limits = ["--max-model-len", str(length_of(folder)), "--max-num-seqs", str(SLOTS), "--port", str(port)]
    return Server([*words, *limits], port, work / f"vllm_{dtype}.log", environment)


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What clients saw in one round."""

    seconds_a_token: float  # of all clients together
    first_seconds: float  # the median of their answers
    answers: Sequence[Answer]


def asked(server: Server, clients: Sequence[Sequence[Mapping[str, Any]]]) -> Seen:
    """One round of one server."""
    seconds, of_clients = server.ask(clients)
    answers = [answer for each in of_clients for answer in each]
    waits = sorted(answer.first_seconds for answer in answers)
    return Seen(
        seconds_a_token=seconds / sum(answer.tokens for answer in answers),
        first_seconds=waits[len(waits) // 2],
        answers=answers,
    )


Round = Callable[[Server], Seen]


def in_turns(servers: Mapping[str, Server], rounds: int, make: Callable[[], Round]) -> dict[str, list[Seen]]:
    """Every server once a round, all with the same prompts; a round before these warms them up."""
    seen: dict[str, list[Seen]] = {name: [] for name in servers}
    for number in range(rounds + 1):
        one = make()
        for name, server in servers.items():
            found = one(server)
            if number:
                seen[name].append(found)
    return seen


def greedy(prompt: list[int], tokens: int, **more: Any) -> dict[str, Any]:
    """A request."""
    return {"prompt": prompt, "max_tokens": tokens, "temperature": 0, **more}


def at_once(windows: Windows, load: Load, clients: int) -> Round:
    """Clients that ask at once."""
    asks = [[greedy(windows.next(load.prompt), load.tokens) for _ in range(load.requests)] for _ in range(clients)]
    return lambda server: asked(server, asks)


def second_turn(windows: Windows, load: Load, tokenizer: Any) -> Round:
    """The second turn of a conversation; the first is not timed."""
    first, more = windows.next(load.first_turn), windows.next(load.second_turn)

    def both(server: Server) -> Seen:
        answer = asked(server, [[greedy(first, load.tokens)]]).answers[0]
        said = tokenizer.encode(answer.text.encode()).tolist()
        return asked(server, [[greedy([*first, *said, *more], load.tokens)]])

    return both


def mixed(windows: Windows, load: Load, setting: str | None) -> Round:
    """8 clients, every other one at a setting."""
    dial = {} if setting is None else {"dial": {"setting": setting}}
    asks = [
        [greedy(windows.next(load.prompt), load.tokens, **(dial if number % 2 else {}))]
        for number in range(max(CLIENTS))
    ]
    return lambda server: asked(server, asks)


def group_of(load: str, seen: Mapping[str, Sequence[Seen]]) -> dict[str, Any]:
    """The figures of one load, printed."""
    paces = {name: summarise([one.seconds_a_token for one in each]) for name, each in seen.items()}
    waits = {name: summarise([one.first_seconds for one in each]) for name, each in seen.items()}
    print(load)
    for name, pace in paces.items():
        rate, wait = 1 / pace.median_seconds, waits[name].median_seconds
        print(f"  {name:<22} {rate:7.1f} tokens/s  first text after {wait * 1e3:7.1f} ms", flush=True)
    return {
        "load": load,
        "rows": [
            {
                "name": name,
                "tokens_per_second": 1 / paces[name].median_seconds,
                "seconds_a_token": paces[name].record(),
                "first_text": waits[name].record(),
            }
            for name in seen
        ],
        "speed_against": _against(paces),
        "first_text_against": _against(waits),
    }


def _against(timings: Mapping[str, Timing]) -> dict[str, dict[str, float]]:
    """Ours over vLLM in the same dtype."""
    found = {
        dtype: ratio(timings, f"sparsedial, {dtype}", f"vLLM, {dtype}")
        for dtype in DTYPES
        if f"vLLM, {dtype}" in timings
    }
    for dtype, value in found.items():
        print(f"  {dtype}: {range_words(value)}", flush=True)
    return found


def measured(name: str, folder: Path, given: argparse.Namespace, load: Load, work: Path) -> dict[str, Any]:
    """One checkpoint under all loads."""
    load = replace(load, first_turn=min(load.first_turn, length_of(folder) // 2))
    windows, tokenizer = Windows(folder, given.text, load), load_tokenizer(folder)
    of_each = f"{load.prompt} tokens read, {load.tokens} made"
    print(name)
    with ExitStack() as stack:
        mine = {f"sparsedial, {dtype}": stack.enter_context(ours(folder, dtype, work)) for dtype in DTYPES}
        theirs = {f"vLLM, {dtype}": stack.enter_context(vllm(folder, dtype, work, given)) for dtype in DTYPES}
        servers, version = {**mine, **theirs}, next(iter(theirs.values())).version()
        groups = [
            group_of(
                f"{count_words(clients, 'client')}, {count_words(load.requests, 'request')} each, {of_each}",
                in_turns(servers, load.rounds, lambda clients=clients: at_once(windows, load, clients)),
            )
            for clients in CLIENTS
        ]
        again = in_turns(servers, load.rounds, lambda: second_turn(windows, load, tokenizer))
        words = f"{load.first_turn} tokens and an answer before, {load.second_turn} new ones"
        groups.append(group_of(f"a second turn, {words}", again))
        settings = {
            setting: in_turns(mine, load.rounds, lambda s=setting: mixed(windows, load, s))
            for setting in (None, *given.lower.get(name, ()))
        }
    mixed_settings = [
        group_of(f"{count_words(max(CLIENTS), 'client')}, every other at {setting or 'the default too'}", seen)
        for setting, seen in settings.items()
    ]
    return {
        "name": name,
        "checkpoint": digest_of(folder),
        "vllm": version,
        "groups": groups,
        "mixed_settings": mixed_settings,
    }


def main() -> None:
    """Measure every checkpoint and write the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoints", nargs="+", metavar="NAME=CHECKPOINT")
    parser.add_argument("--vllm", required=True, metavar="PYTHON")
    parser.add_argument("--text", required=True)
    parser.add_argument("--allocator", metavar="FILE", help="libtcmalloc_minimal.so.4")
    parser.add_argument("--lower", action="append", default=[], metavar="NAME=SETTING", help="also mix this setting in")
    parser.add_argument("--quick", action="store_true", help="one round of few tokens")
    parser.add_argument("--out", type=Path, default=RECORD, help="the record")
    given = parser.parse_args()
    torch.set_num_threads(THREADS)
    lower: dict[str, list[str]] = {}
    for name, _, setting in (each.partition("=") for each in given.lower):
        lower.setdefault(name, []).append(setting)
    given.lower = lower
    busy, load, models = BusyWatch(), QUICK if given.quick else Load(), {}
    if given.out.exists():
        models = {model["name"]: model for model in json.loads(given.out.read_text())["models"]}
    flags = "--vllm PYTHON --allocator FILE --text TEXT --lower NAME=SETTING NAME=CHECKPOINT …"
    with tempfile.TemporaryDirectory() as work:
        for name, _, folder in (each.partition("=") for each in given.checkpoints):
            models[name] = measured(name, Path(folder), given, load, Path(work))
            found = {
                "models": list(models.values()),
                "machine_busy": busy.share(),
                "bfloat16_instructions": has("avx512_bf16"),  # else vLLM's products are emulated
            }
            keep(given.out, f"python -m benchmarks.serving {flags}", found)


if __name__ == "__main__":
    main()
