"""An item of a task as one text, to be sought in training text."""

from __future__ import annotations

from typing import Any

from sparsedial.evaluation.choices import first_of, right_choices


def item_text(task: Any, doc: Any) -> str:
    """What the model reads of an item, without solved examples, followed by the right answer, or the first of several.

    `task` is lm-eval's. Where its choices are beginnings that one end follows, the text begins with the right one.
    """
    if task.OUTPUT_TYPE != "multiple_choice":
        return f"{task.doc_to_text(doc)} {first_of(task.doc_to_target(doc))}"
    right = task.doc_to_choice(doc)[right_choices(task, doc)[0]]
    return f"{right} {task.doc_to_target(doc)}" if task.multiple_input else f"{task.doc_to_text(doc)} {right}"
