"""Several tasks of lm-eval in the place of one, such as the subjects of MMLU."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

from sparsedial.evaluation.task_file import Config


class Together:
    """Tasks of one kind that have one score, over all of their items, in the place of one task of lm-eval.

    A limit is one of each task's items, as in lm-eval. An item's number counts through all items of all tasks.
    """

    def __init__(self, name: str, version: float | str, tasks: Sequence[Any]) -> None:
        self.tasks, self.VERSION, self.name = tuple(tasks), version, name

    def __getattr__(self, name: str) -> Any:
        """What all of them share, such as their metrics: the first one's."""
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.tasks[0], name)

    @cached_property
    def eval_docs(self) -> list[Any]:
        """All items."""
        return [doc for _, doc in self.doc_iterator()]

    @property
    def instances(self) -> list[Any]:
        """What is asked of a model, after `build_all_requests`."""
        return [request for task in self.tasks for request in task.instances]

    def set_config(self, key: str, value: Any, update: bool = False) -> None:
        """Set an entry of the configuration."""
        for task in self.tasks:
            task.set_config(key, value, update)

    def set_fewshot_seed(self, seed: int | None = None) -> None:
        """Seed the choice of solved examples."""
        for task in self.tasks:
            task.set_fewshot_seed(seed)

    def dump_config(self) -> Config:
        """The configuration of the first, under the name of all."""
        return {**self.tasks[0].dump_config(), "task": self.name, "task_alias": self.name}

    def build_all_requests(self, **how: Any) -> None:
        """Make what is asked of a model."""
        for before, task in self._placed():
            task.build_all_requests(**how)
            for request in task.instances:
                request.doc_id += before

    def apply_filters(self) -> None:
        """Filter the answers."""
        for task in self.tasks:
            task.apply_filters()

    def doc_iterator(self, **which: Any) -> Iterator[tuple[int, Any]]:
        """The items with their numbers."""
        for before, task in self._placed():
            for number, doc in task.doc_iterator(**which):
                yield before + number, _Doc(task, doc)

    def process_results(self, doc: _Doc, results: Sequence[Any]) -> Any:
        """The metrics of one item."""
        return doc.task.process_results(doc, results)

    def doc_to_text(self, doc: _Doc) -> Any:
        """The prompt of one item."""
        return doc.task.doc_to_text(doc)

    def doc_to_target(self, doc: _Doc) -> Any:
        """The right answer of one item."""
        return doc.task.doc_to_target(doc)

    def doc_to_choice(self, doc: _Doc) -> Any:
        """The choices of one item."""
        return doc.task.doc_to_choice(doc)

    def _placed(self) -> Iterator[tuple[int, Any]]:
        """Each task with the number of items before its own."""
        before = 0
        for task in self.tasks:
            yield before, task
            before += len(task.eval_docs)


class _Doc(dict):
    """An item that knows its task."""

    def __init__(self, task: Any, doc: Config) -> None:
        super().__init__(doc)
        self.task = task
