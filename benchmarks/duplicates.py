"""`select` beside datasketch on one dirtied text: `python -m benchmarks.duplicates TEXT [MB] [WORKERS]`.

The text is repeated to so many MB with words replaced at several rates, so that its copies are known. Both read the
same JSON lines from disk and leave out near copies at 0.8 over runs of five words, in processes of their own and in
turns. Recorded: MB/s and seconds of each run, memory, and of a sample of planted pairs with an exact Jaccard
similarity of 0.8 or more the share of which not both documents stay; and of left-out documents the share with a twin
that stays. datasketch is one process, as its users write it; it must be installed for this (`pip install datasketch`).
Writes benchmarks/records/duplicates.json.
"""

from __future__ import annotations

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
from typing import Any

import polars

from benchmarks.keeping import keep
from sparsedial.text.corpus import open_corpus
from sparsedial.text.documents import documents
from tests.selection.planted import plain_jaccard

RECORD = Path(__file__).parent / "records" / "duplicates.json"
NEAR, PERMUTATIONS, RUN_WORDS = 0.8, 128, 5
RATES = (0.0, 0.002, 0.01, 0.02, 0.05, 0.3)  # of words that are replaced
ROUNDS, SAMPLE, SHARD_BYTES = 3, 2000, 10**8
DATASKETCH = "--datasketch"


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


def of_datasketch(folder: Path) -> None:
    """Print the names of what datasketch leaves out, a line each."""
    from datasketch import MinHash, MinHashLSH  # pyright: ignore[reportMissingImports]

    index = MinHashLSH(threshold=NEAR, num_perm=PERMUTATIONS)
    for name, text in _texts(folder):
        words = text.split()
        runs = {" ".join(words[at : at + RUN_WORDS]).encode() for at in range(max(1, len(words) - RUN_WORDS + 1))}
        sketch = MinHash(num_perm=PERMUTATIONS)
        sketch.update_batch(runs)
        if index.query(sketch):
            print(name)
        else:
            index.insert(name, sketch)


def _texts(folder: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(folder.glob("*.jsonl")):
        with open(path) as stream:
            for number, line in enumerate(stream, start=1):
                yield f"{path.name}:{number}", json.loads(line)["text"]


def timed(command: list[str]) -> tuple[float, str]:
    """Seconds of a command, and what it printed."""
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True, check=True)
    return time.perf_counter() - began, done.stdout


def quality(left_out: set[str], train: set[str], copies: dict[str, str], texts: dict[str, str]) -> dict[str, Any]:
    """Of sampled planted pairs at or above the threshold, the share of which not both stay."""
    pairs = [(one, other) for one, other in copies.items() if one in texts and other in texts]
    alike = [pair for pair in pairs if train & set(pair) and plain_jaccard(*(texts[name] for name in pair)) >= NEAR]
    return {"pairs": len(alike), "found": sum(bool(left_out & set(pair)) for pair in alike) / len(alike)}


def main() -> None:
    """Make the text, run both in turns, and write the record."""
    text = sys.argv[1]
    megabytes = float(sys.argv[2]) if len(sys.argv) > 2 else 200
    workers = sys.argv[3] if len(sys.argv) > 3 else "2"
    seconds: dict[str, list[float]] = {"sparsedial": [], "datasketch": []}
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work, "text")
        folder.mkdir()
        copies = dirtied(text, folder, megabytes * 1e6)
        size = sum(path.stat().st_size for path in folder.iterdir()) / 1e6
        for number in range(ROUNDS):
            out = Path(work, f"kept{number}")
            took, answer = timed(
                ["sparsedial", "select", str(folder), "--out", str(out), "--workers", workers, "--json"]
            )
            seconds["sparsedial"].append(took)
            took, printed = timed(["benchmarks.duplicates", DATASKETCH, str(folder)])
            seconds["datasketch"].append(took)
        rows = polars.read_parquet(Path(work, "kept0", "documents.parquet"))
        sampled = set(random.Random(1).sample(sorted(copies), min(SAMPLE, len(copies))))
        wanted = sampled | {copies[name] for name in sampled}
        texts = {name: held for name, held in _texts(folder) if name in wanted}
    ours, train = rows.filter(~polars.col("kept")), set(rows.filter(polars.col("split") == "train")["id"])
    twins = ours.filter(polars.col("reason") != "equal_to_train")["duplicate_of"].is_in(rows.filter("kept")["id"])
    found = {
        "near": NEAR,
        "megabytes": size,
        "workers": int(workers),
        "seconds": seconds,
        "megabytes_per_second": {name: size / min(each) for name, each in seconds.items()},
        "peak_bytes_of_any_process": 1024 * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss,
        "peak_bytes_of_select": json.loads(answer)["peak_process_bytes"],
        "with_a_twin_that_stays": float(twins.mean() or 0),
        "sparsedial": quality(set(ours["id"]), train, copies, texts),
        "datasketch": quality(set(printed.split()), set(texts), copies, texts),
    }
    keep(RECORD, " ".join(["python -m benchmarks.duplicates", *sys.argv[1:]]), found)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    if sys.argv[1] == DATASKETCH:
        of_datasketch(Path(sys.argv[2]))
    else:
        main()
