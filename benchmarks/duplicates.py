"""`select` beside datasketch and datatrove on one dirtied text.

    python -m benchmarks.duplicates TEXT [MB] [--workers N] [--rounds N] [--peers PYTHON] [--record FILE]

The text is repeated to so many MB with words replaced at several rates, so that its copies are known. All read the same
JSON lines from disk and leave out near copies at 0.8 over runs of five words, in processes of their own and in turns.
PYTHON is that of an environment with both peers (benchmarks/duplicates_peers.py); without it only `select` runs.
Recorded: seconds of each run and MB/s, memory of any process, and of a sample of planted pairs with an exact Jaccard
similarity of 0.8 or more the share of which not both documents stay; and of left-out documents the share with a twin
that stays. Writes benchmarks/records/duplicates.json, or FILE there.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import polars

from benchmarks.duplicates_peers import NEAR, PEERS
from benchmarks.keeping import keep
from sparsedial.text.corpus import open_corpus
from sparsedial.text.documents import documents
from tests.selection.planted import plain_jaccard

RECORDS = Path(__file__).parent / "records"
RATES = (0.0, 0.002, 0.01, 0.02, 0.05, 0.3)  # of words that are replaced
SAMPLE, SHARD_BYTES = 2000, 10**7  # small shards: datatrove gives a process whole files
ONCE_MORE = ("datasketch",)  # datatrove takes minutes, and runs in the first round alone
PEERS_FILE = Path(__file__).with_name("duplicates_peers.py")


class Shards:
    """JSON lines that are being written, in files of a bounded size."""

    def __init__(self, folder: Path) -> None:
        self.bytes, self._folder, self._number, self._line = 0, folder, -1, 0
        self._open()

    def _open(self) -> None:
        self._number, self._line = self._number + 1, 0
        self._file = open(self._folder / f"{self._number}.jsonl", "w")  # noqa: SIM115  # closed by close

    def add(self, text: str) -> str:
        """Write a document; returns the name that `select` gives it."""
        if self._file.tell() > SHARD_BYTES:
            self.close()
            self._open()
        self._line += 1
        self.bytes += self._file.write(json.dumps({"text": text}) + "\n")
        return f"{self._number}.jsonl:{self._line}"

    def close(self) -> None:
        self._file.close()


def dirtied(text: str, folder: Path, size: float) -> dict[str, str]:
    """Write a text and perturbed copies of it, up to so many bytes; the original's name of each copy by its own."""
    draw, copies = random.Random(0), dict[str, str]()
    with contextlib.closing(Shards(folder)) as shards:
        names = [shards.add(document.text.decode()) for document in documents(open_corpus((text,)))]
        while True:
            for name, document in zip(names, documents(open_corpus((text,))), strict=True):
                if shards.bytes >= size:
                    return copies
                copies[shards.add(_perturbed(document.text.decode(), draw.choice(RATES), draw))] = name


def _perturbed(text: str, rate: float, draw: random.Random) -> str:
    words = text.split(" ")
    for at in range(len(words)):
        if draw.random() < rate:
            words[at] = f"other{draw.randrange(10**6)}"
    return " ".join(words)


def _texts(folder: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(folder.glob("*.jsonl")):
        with open(path) as stream:
            for number, line in enumerate(stream, start=1):
                yield f"{path.name}:{number}", json.loads(line)["text"]


def timed(command: list[str]) -> tuple[float, str]:
    """Seconds of a command, and what it printed."""
    began = time.perf_counter()
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True)
    return time.perf_counter() - began, done.stdout


def quality(left_out: set[str], train: set[str], copies: dict[str, str], texts: dict[str, str]) -> dict[str, Any]:
    """Of sampled planted pairs at or above the threshold, the share of which not both stay."""
    pairs = [(one, other) for one, other in copies.items() if one in texts and other in texts]
    alike = [pair for pair in pairs if train & set(pair) and plain_jaccard(*(texts[name] for name in pair)) >= NEAR]
    return {"pairs": len(alike), "found": sum(bool(left_out & set(pair)) for pair in alike) / len(alike)}


def main() -> None:
    """Make the text, run all in turns, and write the record."""
    asked = argparse.ArgumentParser()
    asked.add_argument("text")
    asked.add_argument("megabytes", nargs="?", type=float, default=200)
    asked.add_argument("--workers", default="2")
    asked.add_argument("--rounds", type=int, default=3)
    asked.add_argument("--peers")
    asked.add_argument("--record", default="duplicates.json")
    given = asked.parse_args()
    seconds: dict[str, list[float]] = {}
    printed: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work, "text")
        folder.mkdir()
        copies = dirtied(given.text, folder, given.megabytes * 1e6)
        size = sum(path.stat().st_size for path in folder.iterdir()) / 1e6
        for number in range(given.rounds):
            out = str(Path(work, f"kept{number}"))
            ours = ["-m", "sparsedial", "select", str(folder), "--out", out, "--workers", given.workers, "--json"]
            commands = {"sparsedial": [sys.executable, *ours]}
            for peer in (PEERS if number == 0 else ONCE_MORE) if given.peers else ():
                commands[peer] = [given.peers, str(PEERS_FILE), peer, str(folder), given.workers]
            for name, command in commands.items():
                took, printed[name] = timed(command)
                seconds.setdefault(name, []).append(took)
        rows = polars.read_parquet(Path(work, "kept0", "documents.parquet"))
        sampled = set(random.Random(1).sample(sorted(copies), min(SAMPLE, len(copies))))
        wanted = sampled | {copies[name] for name in sampled}
        texts = {name: held for name, held in _texts(folder) if name in wanted}
    ours, train = rows.filter(~polars.col("kept")), set(rows.filter(polars.col("split") == "train")["id"])
    twins = ours.filter(polars.col("reason") != "equal_to_train")["duplicate_of"].is_in(
        rows.filter("kept")["id"].implode()
    )
    answer = json.loads(printed.pop("sparsedial"))
    found = {
        "near": NEAR,
        "megabytes": size,
        "workers": int(given.workers),
        "seconds": seconds,
        "megabytes_per_second": {name: size / median(each) for name, each in seconds.items()},
        "peak_bytes_of_any_process": 1024 * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss,
        "peak_bytes_of_select": answer["peak_process_bytes"],
        "with_a_twin_that_stays": float(twins.mean() or 0),
        "sparsedial": quality(set(ours["id"]), train, copies, texts),
        **{peer: quality(set(each.split()), set(texts), copies, texts) for peer, each in printed.items()},
    }
    keep(RECORDS / given.record, " ".join(["python -m benchmarks.duplicates", *sys.argv[1:]]), found)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
