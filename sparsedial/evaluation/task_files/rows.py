"""Rows of local data under the field names of the Hub's. No prompt is touched here.

`process_docs` of the files beside this one; each gives a row for a row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import datasets

LETTERS = "ABCDEFGH"


def lettered(docs: Any) -> Any:
    """ARC, OpenBookQA, CommonsenseQA: choices with letters, and the letter of the right one."""

    def row(question: str, choices: Sequence[str], answer: int) -> dict[str, object]:
        return {
            "choices": {"text": choices, "label": list(LETTERS[: len(choices)])},
            "answerKey": LETTERS[_number(answer, range(len(choices)))],
            "question_stem": question,
        }

    return _renamed(docs, row, "question", "choices", "answer", drop=["choices", "answer"])


def hellaswag(docs: Any) -> Any:
    """HellaSwag: the rows have been cleaned as lm-eval cleans them."""
    return _renamed(docs, lambda *row: dict(zip(("query", "choices"), row, strict=True)), "context", "endings")


def squad(docs: Any) -> Any:
    """SQuAD: the texts of the answers side by side."""

    def row(answers: Sequence[dict[str, str]]) -> dict[str, object]:
        return {"answers": {"text": [answer["text"] for answer in answers]}}

    return _renamed(docs, row, "answers", drop=["answers"])


def boolq(docs: Any) -> Any:
    """BoolQ: the answer is a number."""
    return _renamed(docs, lambda answer: {"label": int(answer)}, "answer")


def winogrande(docs: Any) -> Any:
    """Winogrande: the number of the right option, 1 or 2, is a text."""
    known = _renamed(docs, lambda answer: {"answer": _number(answer, (1, 2)) + 1}, "answer")
    return known.cast_column("answer", datasets.Value("string"))


def social_iqa(docs: Any) -> Any:
    """Social IQa: a field for each answer, and the number of the right one from 1 on, as a text."""

    def row(choices: Sequence[str], answer: int) -> dict[str, object]:
        named = {f"answer{letter}": choice for letter, choice in zip("ABC", choices, strict=True)}
        return {**named, "label": str(_number(answer, range(len(choices))) + 1)}

    return _renamed(docs, row, "choices", "answer")


def webqs(docs: Any) -> Any:
    """WebQuestions: the question has another name."""
    return _renamed(docs, lambda question: {"question": question}, "qText")


def aqua_rat(docs: Any) -> Any:
    """AQuA: the query and the choices as AGIEval writes them.

    Source: AGIEval (Zhong et al. 2023, arXiv 2304.06364), `convert_zero_shot` of `src/dataset_loader.py`
    """

    def row(question: str, options: Sequence[str], correct: str) -> dict[str, object]:
        choices, letters = [f"({option}" for option in options], LETTERS[: len(options)]
        query = f"Q: {question} Answer Choices: {' '.join(choices)}\nA: Among A through {letters[-1]}, the answer is"
        return {"query": query, "choices": choices, "gold": [_number(correct, tuple(letters))]}

    return _renamed(docs, row, "question", "options", "correct")


def gsm_hard(docs: Any) -> Any:
    """GSM-Hard: question and answer as GSM8K names them; the answer is the number alone."""
    return _renamed(docs, lambda text, target: {"question": text, "answer": _marked(target)}, "input", "target")


def svamp(docs: Any) -> Any:
    """SVAMP: body and question in one text, named as in GSM8K; the answer is the number alone."""

    def row(body: str, question: str, answer: float) -> dict[str, object]:
        return {"question": f"{body.strip()} {question.strip()}", "answer": _marked(answer)}

    return _renamed(docs, row, "Body", "Question", "Answer")


def _renamed(docs: Any, row: Callable[..., dict[str, object]], *fields: str, drop: Sequence[str] = ()) -> Any:
    """All rows with what `row` makes of these fields."""
    return docs.map(row, input_columns=list(fields), remove_columns=list(drop))


def _number(answer: Any, known: Sequence[Any]) -> int:
    """Which of those that there are is right, from 0 on.

    Raises: ValueError for one that there is not.
    """
    if answer not in known:
        raise ValueError(f"answer {answer!r} is none of {', '.join(map(str, known))}")
    return known.index(answer)


def _marked(number: float) -> str:
    """An answer as GSM8K marks it, whole numbers without a decimal point."""
    return f"#### {int(number) if number == int(number) else number}"
