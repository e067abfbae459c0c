"""What tests of tasks share: the folder of some items of each, tiny models that read bytes, and the right answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sparsedial.evaluation.harness import HarnessModel
from sparsedial.evaluation.judge import Asking, judge
from sparsedial.evaluation.scorer import Scorer
from sparsedial.model.transformer import initialise
from sparsedial.shape.shape import Shape
from sparsedial.text.prompts import Prompts
from sparsedial.text.tokenizer import byte_tokenizer

DATA = Path(__file__).parent / "data"
SMALL = {"layers": 1, "d_model": 16, "heads": 2, "kv_heads": 1, "head_dim": 8, "vocab_size": 256, "context": 2048}
LLAMA = Shape(**SMALL, d_ff=32)
SPARSE = Shape(**SMALL, d_ff=0, experts=8, top_k=2, d_expert=8, qk_norm="head")
PROMPTS = Prompts(folder=Path("tiny"), special={}, template=None, backend=None)


def tiny(shape: Shape) -> HarnessModel:
    """An untrained model behind lm-eval's interface."""
    return HarnessModel(Scorer(initialise(shape, 0).eval()), byte_tokenizer(), PROMPTS)


def judged(model: HarnessModel, name: str, task: Any, limit: int | None = None):
    """The score of a task, and its items."""
    found = judge(model, name, task, Asking(limit=limit))
    return found.score, found.items


def rows(name: str) -> list[dict[str, Any]]:
    """The rows of a file of the folder."""
    return [json.loads(line) for line in (DATA / f"{name}.jsonl").read_text().splitlines()]


class Planted(HarnessModel):
    """A model that knows the right text for each item: likeliest where it ends what is read, and written."""

    def __init__(self, right: Callable[[Any], str]) -> None:
        tiny_one = tiny(LLAMA)
        super().__init__(tiny_one.scorer, tiny_one.text, PROMPTS)
        self.right = right

    def loglikelihood(self, requests, **_):
        sure = ["".join(request.args).endswith(self.right(request)) for request in requests]
        return [(-1.0 if right else -1000.0, right) for right in sure]

    def generate_until(self, requests, **_):
        return [self.right(request) for request in requests]


def whole(number: float) -> str:
    return str(number).removesuffix(".0")


def chosen(row: Mapping[str, Any]) -> str:
    return f" {row['choices'][row['answer']]}"


def letter(row: Mapping[str, Any]) -> str:
    return " " + "ABCDE"[row["answer"]]


RIGHT: dict[str, tuple[str, Callable[[Mapping[str, Any]], str]]] = {
    "squad": ("squad_v1_xquad_en/dev_subset", lambda row: row["answers"][0]["text"]),
    "boolq": ("boolq/validation", lambda row: " yes" if row["answer"] else " no"),
    "arc_easy": ("arc_easy/test", chosen),
    "arc_challenge": ("arc_challenge/test", chosen),
    "hellaswag": ("hellaswag/validation_1000", lambda row: " " + row["endings"][row["label"]]),
    "piqa": ("piqa/validation", lambda row: " " + row["sol2" if row["label"] else "sol1"]),
    "lambada_openai": ("lambada/test_openai", lambda row: " " + row["text"].split(" ")[-1]),
    "gsm8k": ("gsm8k/test", lambda row: row["answer"]),
    "openbookqa": ("openbookqa/test", chosen),
    "winogrande": (
        "winogrande/validation",
        lambda row: row["sentence"].replace("_", row[f"option{row['answer']}"]),
    ),
    "commonsense_qa": ("commonsense_qa/validation", letter),
    "copa": ("copa/validation", lambda row: row["choice2" if row["label"] else "choice1"][1:]),
    "social_iqa": ("social_iqa/validation", lambda row: f"A:{chosen(row)}"),  # one choice ends as another
    "mmlu": ("mmlu/test", letter),
    "nq_open": ("nq_open/dev", lambda row: row["answer"][0]),
    "webqs": ("webquestions/test", lambda row: " " + min(row["answers"])),
    "gsm_hard": ("gsm_hard/test", lambda row: f"So it is\n#### {whole(row['target'])}"),
    "svamp": ("svamp/test", lambda row: f"So it is\n#### {whole(row['Answer'])}"),
    "aqua_rat": ("aqua_rat/test", lambda row: f" ({row['options']['ABCDE'.index(row['correct'])]}"),
    "bbh_cot_fewshot_multistep_arithmetic_two": (
        "bbh/multistep_arithmetic_two",
        lambda row: f"So the answer is {row['target']}.",
    ),
    "bbh_cot_fewshot_object_counting": ("bbh/object_counting", lambda row: f"So the answer is {row['target']}."),
}


def planted(name: str) -> Planted:
    """A model that knows the right answers of a task, from the rows of its file as they are."""
    file, right = RIGHT[name]
    answers = [right(row) for row in rows(file)]
    of_question = dict(zip((row.get("question") for row in rows(file)), answers, strict=True))

    def look_up(request: Any) -> str:
        return of_question[request.doc["question"]] if name == "mmlu" else answers[request.doc_id]

    return Planted(look_up)
