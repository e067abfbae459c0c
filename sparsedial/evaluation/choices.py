"""Which answer of an item is right, whichever way a task of lm-eval says so."""

from __future__ import annotations

from typing import Any


def right_choices(task: Any, doc: Any) -> tuple[int, ...]:
    """The numbers of the right choices of an item of a multiple-choice task; several where each of them is right.

    A task whose choices are contexts, as Winogrande's, says the number where others have their prompt.

    Raises: ValueError for an answer that is none of the choices.
    """
    choices = task.doc_to_choice(doc)
    stated = task.doc_to_text(doc) if task.multiple_input else task.doc_to_target(doc)
    several = stated if isinstance(stated, list | tuple) else [stated]
    right = tuple(choices.index(one) if one in choices else one for one in several)
    if not right or not all(isinstance(one, int) and 0 <= one < len(choices) for one in right):
        raise ValueError(f"answer {stated!r} is none of the {len(choices)} choices")
    return right


def first_of(target: Any) -> Any:
    """A right answer that is to be written: the first of several."""
    return target[0] if isinstance(target, list | tuple) and target else target
