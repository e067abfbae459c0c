"""Tasks on our model and on lm-eval's own, in one run: `python -m benchmarks.evaluation FOLDER --data DIR`.

FOLDER holds SmolLM2-135M-Instruct (`python -m benchmarks.smollm2 FOLDER`), DIR the tasks' items. Three sections:
`agreement`, item by item (log-likelihoods, scores, written texts); `families`, the same on a small untrained checkpoint
of each sparse family, with the tokenizer of FOLDER; and `throughput`, items per second in turn, each with its spread.
`--only` runs one of them, `--tasks` some tasks. Writes benchmarks/records/evaluation.json.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from lm_eval.evaluator import evaluate
from lm_eval.models.huggingface import HFLM

from benchmarks.keeping import keep
from sparsedial.evaluation.harness import HarnessModel
from sparsedial.evaluation.judge import Asking
from sparsedial.evaluation.tasks import load_tasks
from sparsedial.machine.hardware import BusyWatch
from sparsedial.model.checkpoint import load, save_checkpoint
from sparsedial.shape.config import read_config
from tests.model.shapes import FAMILIES, shaken

RECORD = Path(__file__).parent / "records" / "evaluation.json"
AGREE = {  # items of each task, by kind of request
    "arc_easy": 50, "hellaswag": 50, "piqa": 50, "boolq": 20, "arc_challenge": 50, "lambada_openai": 50,
    "squad": 10, "gsm8k": 4, "nq_open": 10, "svamp": 4,
}  # fmt: skip
SPARSE = ("mixtral", "olmoe", "qwen2_moe", "qwen3_moe", "glm4_moe", "deepseek_v2, groups and scaling", "deepseek_v3")
FAMILY_ITEMS = 8  # of each task
CONTEXT = 2048
Measured = Iterator[tuple[str, Mapping[str, Any]]]  # a section's rows by name, as they are measured
CLOSE_LOGITS = 1e-4  # two best logits nearer than this may swap by rounding
CLOSE_SCORES = 1e-3  # a perplexity's score is a log-likelihood, which moves by rounding; right or wrong is 1 or 0
TURNS = 5


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row of the throughput table."""

    task: str
    items: int
    shots: int
    tokens: int | None = None  # of an answer at most; None: as the task says
    same: bool = False  # whether all items have the same solved examples, as many of lm-eval's tasks do; else drawn
    batch: int = 8  # of lm-eval's own model: the fastest of 1, 8 and 16 for this task on two cores

    @property
    def name(self) -> str:
        """As the record and the page show it."""
        return f"{self.task}, {self.shots}-shot" + (", the same examples for all" if self.same else "")

    def load(self, data: Path) -> Any:
        """lm-eval's task."""
        task = load_tasks([self.task], data)[self.task]
        if self.tokens is not None:
            task.set_config("generation_kwargs", {"max_gen_toks": self.tokens}, update=True)
        if self.same:
            task.fewshot_cfg.sampler = "first_n"
        return task


ROWS = (
    Row(task="arc_easy", items=12, shots=5),
    Row(task="hellaswag", items=12, shots=0),
    Row(task="lambada_openai", items=24, shots=0),
    Row(task="gsm8k", items=8, shots=5, tokens=128),
    Row(task="gsm8k", items=24, shots=5, tokens=128, same=True),
)
SECTIONS = ("agreement", "families", "throughput")
AIMS = {"arc_easy": 3.0, "hellaswag": 1.5, "lambada_openai": 1.0, "gsm8k": 5.0}
COMMAND = "python -m benchmarks.evaluation FOLDER --data DIR"


def main() -> None:
    """All sections, or one; the record keeps the others. Each row is written as soon as it is measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--only", choices=SECTIONS)
    parser.add_argument("--tasks", default=",".join(AGREE), help="that are measured; the record keeps the others")
    given = parser.parse_args()
    tasks = given.tasks.split(",")
    for section in SECTIONS if given.only is None else (given.only,):
        for name, measured in MEASURED[section](given, tasks):
            _keep(section, name, measured)


def _keep(section: str, name: str, measured: Mapping[str, Any]) -> None:
    """Put one row into the record; what it had for that row and does not have now stays."""
    found: dict[str, Any] = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    rows = found.get(section) or {}
    rows[name] = {**rows.get(name, {}), **measured} if section == "families" else measured
    keep(RECORD, COMMAND, {part: rows if part == section else found.get(part) for part in SECTIONS})


def _ours(folder: Path) -> HarnessModel:
    """Our model; it forgets what it answered."""
    return HarnessModel.around(folder, load(folder))


def _theirs(folder: Path, batch: int) -> HFLM:
    return HFLM(pretrained=str(folder), dtype="float32", device="cpu", batch_size=batch)


def _answers(model: Any, name: str, task: Any, items: int, shots: int | None = None) -> tuple[list[Any], float]:
    """lm-eval's record of each item, and the seconds that it took."""
    Asking(shots=shots).prepare(task)
    began = time.perf_counter()
    found = evaluate(model, {"tasks": {name: task}, "groups": {}, "group_map": {}}, limit=items, bootstrap_iters=0)
    seconds = time.perf_counter() - began
    assert found is not None
    return found["samples"][name], seconds


def _agreement(given: argparse.Namespace, tasks: Sequence[str]) -> Measured:
    for name in tasks:
        yield name, _agree(given.folder, given.data, name, AGREE[name])


def _families(given: argparse.Namespace, tasks: Sequence[str]) -> Measured:
    for name in SPARSE:
        yield name, _family(given, name, tasks)


def _family(given: argparse.Namespace, name: str, tasks: Sequence[str]) -> Mapping[str, Any]:
    """The largest differences of every task's answers, of an untrained checkpoint of a family."""
    vocab_size = read_config(given.folder).vocab_size
    with TemporaryDirectory() as place:
        folder = Path(place) / name
        save_checkpoint(shaken(replace(FAMILIES[name], vocab_size=vocab_size, context=CONTEXT)), folder)
        for file in given.folder.glob("tokenizer*.json"):
            shutil.copy(file, folder)
        return {task: _agree(folder, given.data, task, FAMILY_ITEMS) for task in tasks}


def _agree(folder: Path, data: Path, name: str, items: int) -> Mapping[str, Any]:
    """The largest difference of a task's answers."""
    task = load_tasks([name], data)[name]
    ours, _ = _answers(_ours(folder), name, task, items)
    theirs, _ = _answers(_theirs(folder, 1), name, task, items)
    pairs = list(zip(ours, theirs, strict=True))
    metrics = [metric for metric in ours[0]["metrics"] if isinstance(ours[0][metric], int | float)]
    found: dict[str, Any] = {
        "items": items,
        "kind": task.OUTPUT_TYPE,
        "scores_equal": all(
            abs(one[metric] - other[metric]) <= CLOSE_SCORES for one, other in pairs for metric in metrics
        ),
    }
    if task.OUTPUT_TYPE == "generate_until":
        different = [number for number, (one, other) in enumerate(pairs) if one["resps"] != other["resps"]]
        close = [number for number in different if _near_tie(folder, pairs[number])]
        found |= {"texts_different": len(different), "of_these_after_a_near_tie": len(close)}
    else:
        nats = [
            abs(answer[0][0] - twin[0][0])
            for one, other in pairs
            for answer, twin in zip(one["resps"], other["resps"], strict=True)
        ]
        found["largest_difference_nats"] = float(max(nats))
    print(folder.name, name, found, flush=True)
    return found


def _near_tie(folder: Path, pair: tuple[Any, Any]) -> bool:
    """Whether two texts part where the two best logits are so close that rounding decides."""
    model = _ours(folder)
    prompt = pair[0]["arguments"][0][0]
    ids = [
        model.tok_encode(text, add_special_tokens=False) for text in (pair[0]["resps"][0][0], pair[1]["resps"][0][0])
    ]
    shared = next((at for at, (one, other) in enumerate(zip(*ids, strict=False)) if one != other), min(map(len, ids)))
    row = [*model.tok_encode(prompt), *ids[0][:shared]]
    with torch.no_grad():
        best = model.scorer.model(torch.tensor([row]))[0, -1].topk(2).values
    return float(best[0] - best[1]) < CLOSE_LOGITS


def _throughput(given: argparse.Namespace, tasks: Sequence[str]) -> Measured:
    """Items per second of both, in turn."""
    for row in ROWS:
        if row.task in tasks:
            yield row.name, _turns(given.folder, row, row.load(given.data))


def _turns(folder: Path, row: Row, task: Any) -> Mapping[str, Any]:
    theirs, busy, seconds = _theirs(folder, row.batch), BusyWatch(), []
    for _ in range(TURNS):
        one = _answers(_ours(folder), row.task, task, row.items, row.shots)[1]
        other = _answers(theirs, row.task, task, row.items, row.shots)[1]
        seconds.append((one, other))
    ours_s, theirs_s = np.array(seconds).T
    ratios = theirs_s / ours_s
    found = {
        "items": row.items,
        "tokens": row.tokens,
        "batch_of_theirs": row.batch,
        "our_items_per_second": float(row.items / np.median(ours_s)),
        "their_items_per_second": float(row.items / np.median(theirs_s)),
        "ratio": float(np.median(ratios)),
        "ratio_low": float(ratios.min()),
        "ratio_high": float(ratios.max()),
        "aim": AIMS[row.task],
        "machine_busy": busy.share(),
    }
    print(row.name, found, flush=True)
    return found


MEASURED: dict[str, Callable[[argparse.Namespace, Sequence[str]], Measured]] = {
    "agreement": _agreement,
    "families": _families,
    "throughput": _throughput,
}

if __name__ == "__main__":
    main()
