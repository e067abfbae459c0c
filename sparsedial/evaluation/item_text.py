"""An item of a task as one text, to be sought in training text."""

from __future__ import annotations

from typing import Any


def item_text(task: Any, doc: Any) -> str:
    """What the model reads of an item, without solved examples, followed by the right answer.

    `task` is lm-eval's. Where its choices are beginnings that one end follows, the text begins with the right one.
    """
    text, target = task.doc_to_text(doc), task.doc_to_target(doc)
    choices = task.doc_to_choice(doc) if int in (type(text), type(target)) else ()
    right = choices[target] if isinstance(target, int) else target[0] if isinstance(target, list) else target
    return f"{choices[text] if isinstance(text, int) else text} {right}"
