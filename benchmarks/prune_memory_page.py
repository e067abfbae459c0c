"""What `prune_memory` recorded, for docs/turning-off.md."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sparsedial.units import human_bytes

RECORD = Path(__file__).parent / "records" / "prune_memory.json"


def memory_sentences() -> str:
    """What a process held at most for each checkpoint, and under which limit the same command went on or failed."""
    runs: dict[str, dict[str, Any]] = json.loads(RECORD.read_text())["runs"]
    held = ", ".join(
        f"one of {human_bytes(run['checkpoint_bytes'])} at most {human_bytes(run['above_bare_bytes'])} by `{method}`"
        for method, run in runs.items()
    )
    limits = "".join(_under_limit(method, run) for method, run in runs.items() if run.get("data_limit_bytes"))
    return (
        f"Above a bare import checkpoints of equal layers took memory: {held}"
        f" ([record](../benchmarks/records/prune_memory.json)).{limits}"
    )


def _under_limit(method: str, run: Mapping[str, Any]) -> str:
    above = human_bytes(run["data_limit_bytes"] - run["bare_import_data_bytes"])
    rules = " ".join(f"{name}={value}" for name, value in run["data_limit_glibc"].items())
    return (
        f" By `{method}` it ended so under a limit of {above} above what the bare import has mapped (`RLIMIT_DATA`),"
        " and without `--layer-by-layer` the same command failed under it. The limit also counts what glibc keeps of"
        " freed memory between other pieces of the heap, though it holds no pages; with"
        f" `{rules}` it keeps little of that."
    )
