"""A task of lm-eval on rows of local files: an item that cannot be asked is named by its file and line."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from typing import Any

import datasets
from jinja2 import TemplateError
from lm_eval.api.samplers import get_sampler
from lm_eval.api.task import ConfigurableTask

from sparsedial.errors import UserError
from sparsedial.evaluation.choices import right_choices
from sparsedial.evaluation.local_rows import Rows
from sparsedial.evaluation.task_file import Config

# what lm-eval, its templates and the functions of a task file raise on a row that they do not fit
UNFIT = (AssertionError, AttributeError, LookupError, SyntaxError, TemplateError, TypeError, ValueError)
UNDEFINED = re.compile(r"^'(\w+)' is undefined|^Input column \['(\w+)'\]|^'(\w+)'$")


class LocalTask(ConfigurableTask):
    """One task; its rows are checked as far as they are asked."""

    def __init__(self, config: Config, splits: Mapping[str, Rows]) -> None:
        """Raises: UserError for a split that has no rows, or settings or rows that the task cannot read."""
        self._splits, self._seed, self._shows = splits, None, False
        settings, fewshot = dict(config), config.get("fewshot_config")
        _require_splits(settings, splits)
        settings["process_docs"] = self._careful(settings.get("process_docs"))
        if isinstance(fewshot, dict):
            settings["fewshot_config"] = {
                name: self._careful(value) if name == "process_docs" else value for name, value in fewshot.items()
            }
        try:
            super().__init__(config=settings)
        except UNFIT as error:
            if hasattr(self, "task_docs"):  # lm-eval tries the first item
                self._require_answer(self._asked, 0, self.task_docs[0])
            raise UserError(f"task '{config.get('task')}': {_reason(error)}") from error

    def download(self, dataset_kwargs: object = None, **_: object) -> None:
        """Take the rows from memory."""
        self.dataset = {}
        for name, rows in self._splits.items():
            try:
                self.dataset[name] = datasets.Dataset.from_list(list(rows.rows))
            except (TypeError, ValueError) as error:  # also Arrow's own
                file = rows.places[0].rpartition(":")[0]
                raise UserError(f"{file}: its lines hold different kinds of values ({error})") from error

    def fewshot_docs(self) -> Any:
        """The rows for solved examples; none before they are wanted, since there may be 40,000."""
        return super().fewshot_docs() if self._shows else None

    def set_fewshot_seed(self, seed: int | None = None) -> None:
        """Seed the choice of solved examples."""
        self._seed = seed
        super().set_fewshot_seed(seed)

    def build_all_requests(self, *, limit: int | None = None, samples: list[int] | None = None, **how: Any) -> None:
        """Make what is asked of a model.

        Raises: UserError for an item without a right answer, or too few rows for the solved examples.
        """
        self.require_shots(self.config.num_fewshot or 0)
        for number, doc in self.doc_iterator(limit=limit, samples=samples):
            self._require_answer(self._asked, number, doc)
        try:
            super().build_all_requests(limit=limit, samples=samples, **how)
        except UNFIT as error:
            shown = self._splits.get(self.fewshot_cfg.split or self.config.training_split or "")
            for number, doc in enumerate(self.sampler.df if shown else ()):  # the items themselves are sound
                self._require_answer(shown, number, doc)
            raise UserError(f"task '{self.config.task}': lm-eval makes no prompts of it ({_reason(error)})") from error

    def require_shots(self, shots: int) -> None:
        """Raises: UserError where there are not so many solved examples beside the items."""
        if not shots:
            return
        task, own = self.config, self.config.test_split or self.config.validation_split
        split = self.fewshot_cfg.split or task.training_split or task.validation_split or own
        if split == own and not (self.fewshot_cfg.split or self.fewshot_cfg.samples):
            raise UserError(
                f"task '{task.task}' has no rows for solved examples beside its items",
                hint="leave out <shots>, or name another split in the task's file with 'fewshot_split'",
            )
        if not self._shows:
            self._shows, kind = True, self.fewshot_cfg.sampler
            sampler = get_sampler(kind) if isinstance(kind, str) else kind
            self.sampler = sampler(list(self.fewshot_docs())).set_rnd(self._seed)
        if shots > len(self.sampler.df):
            raise UserError(
                f"task '{task.task}' has {len(self.sampler.df)} solved examples, not {shots}",
                hint="ask for fewer with <shots>, or leave the task out",
            )

    @property
    def _asked(self) -> Rows:
        """The rows that are asked."""
        return self._splits[self.config.test_split or self.config.validation_split or ""]

    def _require_answer(self, rows: Rows | None, number: int, doc: Any) -> None:
        """Raises: UserError for an item that does not fit the task, or whose right answer is not there."""
        try:
            self.doc_to_text(doc)
            if self.OUTPUT_TYPE == "multiple_choice":
                right_choices(self, doc)
            elif self.doc_to_target(doc) in ("", [], None):
                raise ValueError("the answer is empty")
        except UNFIT as error:
            raise UserError(f"{self._place(rows, number)}: {_reason(error)}") from error

    def _place(self, rows: Rows | None, number: int) -> str:
        """The file and line of an item, or its number where a task makes another number of items of its rows."""
        if rows is None or len(rows.places) != len(self.eval_docs if rows is self._asked else self.sampler.df):
            return f"task '{self.config.task}', item {number}"
        return rows.places[number]

    def _careful(self, process: Callable[[Any], Any] | None) -> Callable[[Any], Any] | None:
        """What makes items of the rows of a split, once for each split."""
        if process is None:
            return None

        @functools.cache
        def careful(docs: Any) -> Any:
            try:
                return process(docs)
            except UNFIT as error:
                name = next(name for name, split in self.dataset.items() if split is docs)
                place = self._splits[name].places[_first_unfit(process, docs)]
                raise UserError(f"{place}: {_reason(error)}") from error

        return careful


def _require_splits(config: Config, splits: Mapping[str, Rows]) -> None:
    """Raises: UserError where the task names a split that has no rows."""
    named = [config.get(f"{name}_split") for name in ("training", "validation", "test", "fewshot")]
    for split in filter(None, named):
        if split not in splits:
            raise UserError(
                f"task '{config.get('task')}': no file is named for its split '{split}', only for {', '.join(splits)}",
                hint="name one in 'data_files', or set the split to null",
            )
    if not config.get("test_split") and not config.get("validation_split"):
        raise UserError(f"task '{config.get('task')}': names no split to ask", hint="set 'test_split' in its file")


def _first_unfit(process: Callable[[Any], Any], docs: Any) -> int:
    """The number of the first row that cannot be processed, where one cannot: by halves."""
    low, high = 0, len(docs)  # the rows before `low` can be processed, those before `high` cannot
    while high - low > 1:
        middle = (low + high) // 2
        try:
            process(docs.select(range(low, middle)))
        except UNFIT:
            high = middle
        else:
            low = middle
    return low


def _reason(error: BaseException) -> str:
    """Why a row does not fit, in a few words."""
    text = (str(error).splitlines() or [""])[0]
    undefined = UNDEFINED.match(text)
    if undefined and not isinstance(error, UserError):
        return f"the field '{next(filter(None, undefined.groups()))}' is missing"
    return text if isinstance(error, ValueError) and text else f"cannot be asked ({type(error).__name__}: {text})"
