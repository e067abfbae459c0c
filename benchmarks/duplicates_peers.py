"""What other packages leave out as near copies: `PYTHON benchmarks/duplicates_peers.py PEER FOLDER WORKERS`.

Started by `benchmarks.duplicates` with the Python of an environment that has datasketch and datatrove
(`pip install datasketch datatrove spacy nltk orjson regex tokenizers "xxhash<4"`), so nothing of sparsedial is imported
here. FOLDER holds JSON lines. Prints the names of the documents that are left out, a line each.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

NEAR, PERMUTATIONS, RUN_WORDS = 0.8, 128, 5


def of_datasketch(folder: Path, workers: int) -> Iterator[str]:
    """datasketch is one process, as its users write it."""
    from datasketch import MinHash, MinHashLSH  # pyright: ignore[reportMissingImports]

    index = MinHashLSH(threshold=NEAR, num_perm=PERMUTATIONS)
    for path in sorted(folder.glob("*.jsonl")):
        with open(path) as stream:
            for number, line in enumerate(stream, start=1):
                name, words = f"{path.name}:{number}", json.loads(line)["text"].split()
                runs = {
                    " ".join(words[at : at + RUN_WORDS]).encode() for at in range(max(1, len(words) - RUN_WORDS + 1))
                }
                sketch = MinHash(num_perm=PERMUTATIONS)
                sketch.update_batch(runs)
                if index.query(sketch):
                    yield name
                else:
                    index.insert(name, sketch)


def of_datatrove(folder: Path, workers: int) -> Iterator[str]:
    """Its local pipeline of four stages with its own settings (14 buckets of 8 hashes over runs of five words)."""
    # pyright: reportMissingImports=false
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.dedup import MinhashDedupBuckets, MinhashDedupCluster, MinhashDedupFilter
    from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupSignature
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.writers import JsonlWriter

    config, files = MinhashConfig(n_grams=RUN_WORDS), len(list(folder.glob("*.jsonl")))
    with tempfile.TemporaryDirectory() as work:

        def run(stage: str, tasks: int, *steps: object) -> None:
            done = LocalPipelineExecutor([*steps], tasks=tasks, workers=workers, logging_dir=f"{work}/logs_{stage}")
            done.run()

        reader = JsonlReader(str(folder), glob_pattern="*.jsonl")
        run("signatures", files, reader, MinhashDedupSignature(f"{work}/signatures", config))
        run("buckets", config.num_buckets, MinhashDedupBuckets(f"{work}/signatures", f"{work}/buckets", config=config))
        run("cluster", 1, MinhashDedupCluster(f"{work}/buckets", f"{work}/removed", config=config))
        left_out = JsonlWriter(f"{work}/left_out", compression=None)
        reader = JsonlReader(str(folder), glob_pattern="*.jsonl")
        kept = JsonlWriter(f"{work}/kept", compression=None)
        run("filter", files, reader, MinhashDedupFilter(f"{work}/removed", exclusion_writer=left_out), kept)
        for path in Path(work, "left_out").glob("*.jsonl"):
            with open(path) as stream:
                for line in stream:
                    source, _, at = json.loads(line)["id"].rpartition("/")  # lines are counted from 0
                    yield f"{Path(source).name}:{int(at) + 1}"


PEERS = {"datasketch": of_datasketch, "datatrove": of_datatrove}

if __name__ == "__main__":
    for left_out in PEERS[sys.argv[1]](Path(sys.argv[2]), int(sys.argv[3])):
        print(left_out)
