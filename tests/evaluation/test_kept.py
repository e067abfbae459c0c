"""Answers are kept as they come: what was answered before is not asked again, and a torn file goes on."""

from __future__ import annotations

import pytest

from sparsedial.errors import UserError
from sparsedial.evaluation.kept import Kept
from sparsedial.records.evaluation import KeptAnswer


def answers(asked: list, groups: int = 1, stop_after: int | None = None):
    """Gives each question's own text as its answer, in groups; notes what it is asked, and may stop."""

    def answer(questions):
        asked.extend(questions)
        numbers = list(range(len(questions)))
        for start in range(groups):
            if start == stop_after:
                raise KeyboardInterrupt
            yield {
                number: KeptAnswer(asked="", nats=None, greedy=None, text=str(questions[number]))
                for number in numbers[start::groups]
            }

    return answer


def texts(kept: Kept, questions: list, *more, **and_more) -> list[str | None]:
    return [found.text for found in kept.each(questions, answers(*more, **and_more))]


def test_a_question_is_asked_once(tmp_path):
    asked: list = []
    kept = Kept(tmp_path / "answers.jsonl", "model")
    assert texts(kept, ["a", "b", "a"], asked) == ["a", "b", "a"]
    assert texts(kept, ["b", "c"], asked) == ["b", "c"]
    assert sorted(asked) == ["a", "b", "c"]
    assert kept.reused == 0


def test_a_stopped_command_goes_on_where_it_was(tmp_path):
    file, asked = tmp_path / "out" / "answers.jsonl", []
    with pytest.raises(KeyboardInterrupt):
        texts(Kept(file, "model"), list("abcdef"), [], groups=3, stop_after=1)
    again = Kept(file, "model")
    assert texts(again, list("abcdef"), asked) == list("abcdef")
    assert asked == ["b", "c", "e", "f"]
    assert again.reused == 2


def test_another_model_has_answers_of_its_own(tmp_path):
    asked: list = []
    texts(Kept(tmp_path / "answers.jsonl", "one"), ["a"], [])
    texts(Kept(tmp_path / "answers.jsonl", "other"), ["a"], asked)
    assert asked == ["a"]


def test_a_line_that_was_cut_short_is_asked_again(tmp_path):
    file, asked = tmp_path / "answers.jsonl", []
    texts(Kept(file, "model"), ["a", "b"], [])
    file.write_bytes(file.read_bytes()[:-7])
    assert texts(Kept(file, "model"), ["a", "b"], asked) == ["a", "b"]
    assert asked == ["b"]
    assert texts(Kept(file, "model"), ["a", "b"], []) == ["a", "b"]


def test_a_file_of_something_else_is_named(tmp_path):
    file = tmp_path / "answers.jsonl"
    file.write_text("not an answer\n")
    with pytest.raises(UserError, match=r"answers\.jsonl: not readable"):
        Kept(file)


def test_an_answer_that_cannot_be_written_is_one_clear_line(tmp_path):
    (tmp_path / "answers.jsonl").mkdir()
    kept = Kept(None, "model")
    kept.file = tmp_path / "answers.jsonl"
    with pytest.raises(UserError, match="cannot write"):
        texts(kept, ["a"], [])
