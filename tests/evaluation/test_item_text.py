"""An item's text is its prompt and its right answer, for tasks of every kind of lm-eval."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

import pytest

from sparsedial.evaluation.item_text import item_text

ROWS = {
    "arc_easy": {"id": "1", "question": "What is wet?", "choices": ["fire", "water", "sand", "wind"], "answer": 1},
    "boolq": {"question": "is water wet", "title": "Water", "passage": "Water is wet.", "answer": True},
    "gsm8k": {"question": "One and two?", "answer": "1 + 2 = 3\n#### 3"},
    "lambada_openai": {"text": "the sea is very blue"},
    "piqa": {"goal": "dry a dog", "sol1": "use a towel", "sol2": "use water", "label": 0},
}
TEXTS = {
    "arc_easy": "Question: What is wet?\nAnswer: water",
    "boolq": "Water is wet.\nQuestion: is water wet?\nAnswer: yes",
    "gsm8k": "Question: One and two?\nAnswer: 1 + 2 = 3\n#### 3",
    "lambada_openai": "the sea is very  blue",
    "piqa": "Question: dry a dog\nAnswer: use a towel",
}


def test_an_item_is_its_prompt_and_its_right_answer(tmp_path: Path) -> None:
    pytest.importorskip("lm_eval")
    from sparsedial.evaluation.tasks import FILES, load_tasks

    for name, row in ROWS.items():
        for file in re.findall(r"\w+/\w+\.jsonl\.gz", (FILES / f"{name}.yaml").read_text()):
            (tmp_path / file).parent.mkdir(exist_ok=True)
            (tmp_path / file).write_bytes(gzip.compress(json.dumps(row).encode()))
    tasks = load_tasks(list(ROWS), tmp_path)
    assert {name: item_text(task, task.eval_docs[0]) for name, task in tasks.items()} == TEXTS


class Winogrande:
    """As lm-eval's task of this name: the choices are beginnings, and the end is the same."""

    OUTPUT_TYPE, multiple_input = "multiple_choice", 2

    def doc_to_text(self, doc: dict) -> int:
        return doc["answer"]

    def doc_to_target(self, doc: dict) -> str:
        return doc["end"]

    def doc_to_choice(self, doc: dict) -> list[str]:
        return doc["begins"]


def test_the_right_beginning_stands_before_an_end_that_all_share() -> None:
    doc = {
        "begins": ["The cup fits the bag as the cup", "The cup fits the bag as the bag"],
        "answer": 1,
        "end": "is large.",
    }
    assert item_text(Winogrande(), doc) == "The cup fits the bag as the bag is large."


class Several:
    """As lm-eval's tasks where each of several choices is right: their numbers are the target."""

    OUTPUT_TYPE, multiple_input = "multiple_choice", 0

    def doc_to_text(self, doc: dict) -> str:
        return doc["question"]

    def doc_to_target(self, doc: dict) -> list[int]:
        return doc["right"]

    def doc_to_choice(self, doc: dict) -> list[str]:
        return doc["choices"]


def test_the_first_of_several_right_choices_follows_its_question_as_text() -> None:
    doc = {"question": "Which is even?", "choices": ["one", "two", "three", "four"], "right": [1, 3]}
    assert item_text(Several(), doc) == "Which is even? two"
