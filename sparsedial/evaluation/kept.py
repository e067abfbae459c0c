"""Answers of a model that are kept as they come, so that a command that was stopped goes on where it was."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from sparsedial.errors import UserError
from sparsedial.records.evaluation import KeptAnswer
from sparsedial.records.record import plain
from sparsedial.store import digest


class Kept:
    """Answers by what was asked of which model, in memory and in a file that grows by a line an answer."""

    def __init__(self, file: Path | None = None, model: str = "") -> None:
        """`model` tells models apart whose answers are in one file.

        Raises: UserError where the file cannot be read.
        """
        self.file, self.model = file, model
        self.reused = 0  # questions whose answers were in the file
        self._known: dict[str, KeptAnswer] = {}
        if file is not None and file.exists():
            self._known = {line.asked: line for line in _lines(file)}
        self._before = frozenset(self._known)

    def each(
        self, questions: Sequence[Any], answer: Callable[[list[Any]], Iterable[Mapping[int, KeptAnswer]]]
    ) -> list[KeptAnswer]:
        """The answer to each question, which is a value of JSON. Only those that are not known are asked for, once.

        `answer` takes questions and gives their answers in groups, by number; each group is kept at once.

        Raises: UserError where an answer cannot be written; those before it are kept.
        """
        keys = [digest([self.model, question]) for question in questions]
        self.reused += sum(key in self._before for key in keys)
        open_keys = {key: number for number, key in enumerate(keys) if key not in self._known}
        todo = list(open_keys)
        for group in answer([questions[open_keys[key]] for key in todo]):
            self._add([msgspec.structs.replace(made, asked=todo[number]) for number, made in group.items()])
        return [self._known[key] for key in keys]

    def _add(self, answers: Sequence[KeptAnswer]) -> None:
        if self.file is not None:
            try:
                self.file.parent.mkdir(parents=True, exist_ok=True)
                with open(self.file, "ab") as file:
                    file.write(b"".join(msgspec.json.encode(plain(answer)) + b"\n" for answer in answers))
            except OSError as error:
                raise UserError(
                    f"cannot write {self.file}: {error.strerror}",
                    hint="free some space or choose another folder with <out>; the answers so far are kept",
                ) from error
        self._known |= {answer.asked: answer for answer in answers}


def _lines(file: Path) -> list[KeptAnswer]:
    """The answers in a file. Its last line is left out where a stop cut it short, and the file ends before it."""
    try:
        data = file.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        if len(whole) < len(data):
            with open(file, "r+b") as torn:
                torn.truncate(len(whole))
        return [msgspec.json.decode(line, type=KeptAnswer) for line in whole.splitlines()]
    except (OSError, msgspec.DecodeError) as error:
        raise UserError(f"{file}: not readable ({error})", hint="delete it: all items are then scored again") from error
