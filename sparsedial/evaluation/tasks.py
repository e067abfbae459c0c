"""Tasks by name: lm-eval's own, whose rows come from local files where there are some.

A file in `task_files/` names lm-eval's file of a task and says where the rows are. Prompts, filters, normalisation and
metrics are lm-eval's, so that scores compare with those that others publish.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import datasets
import lm_eval.api.task
import lm_eval.utils
from lm_eval.tasks import TaskManager
from lm_eval.tasks._yaml_loader import load_yaml

from sparsedial.errors import UserError
from sparsedial.evaluation import squad
from sparsedial.evaluation.hub import hub
from sparsedial.evaluation.local_rows import Rows, read
from sparsedial.evaluation.local_task import LocalTask
from sparsedial.evaluation.task_file import Config, Task, first_line, local_files, read_file, with_digest
from sparsedial.evaluation.their_tasks import index_of, leaves, manager_of, manager_of_all
from sparsedial.evaluation.together import Together

TEMPLATES = 1000  # that are kept; MMLU has 57 descriptions
FILES = Path(__file__).parent / "task_files"
GROUPS: dict[str, tuple[str, ...]] = {
    "reading": ("squad", "boolq", "hellaswag", "lambada_openai"),
    "mathematics": (
        "gsm8k", "gsm_hard", "svamp", "aqua_rat",
        "bbh_cot_fewshot_multistep_arithmetic_two", "bbh_cot_fewshot_object_counting",
    ),
    "knowledge": (
        "arc_easy", "arc_challenge", "piqa", "openbookqa", "winogrande", "commonsense_qa", "copa", "social_iqa",
        "mmlu", "nq_open", "webqs",
    ),
}  # fmt: skip
GROUPS["all"] = tuple(name for names in GROUPS.values() for name in names)


def named(words: Sequence[str]) -> list[str]:
    """The tasks that names and names of groups stand for, each once."""
    return list(dict.fromkeys(name for word in words for name in GROUPS.get(word, (word,))))


def load_tasks(names: Sequence[str], data: Path | None) -> dict[str, Task]:
    """lm-eval's tasks by name or by the path of a task's file, with rows of a folder of data, or else of the Hub.

    A group of lm-eval that has one score, as `mmlu`, is one task.

    Raises: UserError for an unknown name, a task's file that is not as lm-eval reads it, or rows that cannot be had.
    """
    _tune()
    return {name: task for word in names for name, task in _load(word, data).items()}


def _tune() -> None:
    """Let lm-eval work without bars and remarks of its own, and compile each template once.

    It does so for each item and each solved example: on two cores 24 s for 1,000 items of ARC easy with five solved
    examples, 2 s so.
    """
    squad.stand_in()
    datasets.disable_progress_bars()
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    templates: Any = lm_eval.utils.env
    tasks: Any = lm_eval.api.task
    tasks.tqdm = _without_bar
    if not hasattr(templates.from_string, "cache_info"):
        templates.from_string = lru_cache(TEMPLATES)(templates.from_string)


def _without_bar(items: Iterable[Any], **_: Any) -> Iterable[Any]:
    return items


def _load(name: str, data: Path | None) -> dict[str, Task]:
    file = FILES / f"{name}.yaml"
    if Path(name).suffix in (".yaml", ".yml"):
        return _of_file(Path(name))
    if data is None:
        return _ours_of_hub(file) if file.is_file() else _by_name(name)
    if file.is_file():
        theirs, own = read_file(file)
        return _members(name, own, data) if "group" in own else {name: _local(theirs | own, data)}
    group = next((own for own in _groups() if name in index_of(own["folder"])), None)
    return _by_name(name) if group is None else _members(name, group, data)


def _of_file(file: Path) -> dict[str, Task]:
    """The task of a user's file; local rows are beside it."""
    if not file.is_file():
        raise UserError(f"{file}: no such file", field="tasks")
    theirs, own = read_file(file)
    config = theirs | own
    group, name = config.get("group"), config.get("task")
    if group is not None:
        return _of_hub(manager_of_all(), str(file), group)
    if name is None:
        raise UserError(f"{file}: names no task", hint="begin it with `task: NAME`", field="tasks")
    return {name: _local(config, file.parent)} if local_files(config, file.parent) else _by_config(config, name)


def _local(config: Config, folder: Path) -> LocalTask:
    """A task on the rows of a folder."""
    files = local_files(config, folder)
    return LocalTask(with_digest(config, files), {split: read(paths) for split, paths in files.items()})


def _members(name: str, own: Config, data: Path) -> dict[str, Task]:
    """A task or a group of a folder of lm-eval, on the rows of one file: each task has those that name it."""
    files, index = local_files(own, data), index_of(own["folder"])
    splits, tasks = {split: read(paths) for split, paths in files.items()}, {}
    for member in leaves(index, name):
        theirs = load_yaml(index[member].yaml_path)
        part = theirs.get("dataset_name", "")
        rows = {split: _named(rows, own.get("part", ""), part) for split, rows in splits.items()}
        config = theirs | own | {"metadata": {**theirs.get("metadata", {}), **own.get("metadata", {})}}
        tasks[member] = LocalTask(with_digest({**config, "task": member}, files), rows)
    group = index[name].cfg or {}
    return {name: Together(name, group["metadata"]["version"], [*tasks.values()])} if "group" in group else tasks


def _named(rows: Rows, field: str, value: str) -> Rows:
    """Raises: UserError where there is no such row."""
    found = rows.where(field, value)
    if not found.rows:
        raise UserError(f"{rows.places[0].rpartition(':')[0]}: holds no items whose '{field}' is '{value}'")
    return found


def _groups() -> Iterator[Config]:
    """What our files of groups say."""
    return (own for _, own in map(read_file, sorted(FILES.glob("*.yaml"))) if "group" in own)


def _ours_of_hub(file: Path) -> dict[str, Task]:
    """The task of a file of ours, with the rows that lm-eval takes."""
    theirs, own = read_file(file)
    if own.get("local_only"):
        raise UserError(
            f"task '{file.stem}' needs a folder of data: lm-eval has no such task",
            hint="name the folder that holds it with <data>",
            field="tasks",
        )
    found = _by_name(file.stem) if "group" in own else _by_config({**theirs, "task": file.stem}, file.stem)
    for task in found.values():
        for one in task.tasks if isinstance(task, Together) else [task]:
            one.config.metadata = {**(one.config.metadata or {}), **own["metadata"]}
    return found


def _by_name(name: str) -> dict[str, Task]:
    """A task, a group or a tag of lm-eval by its name."""
    return _of_hub(manager_of(name, {*GROUPS, *GROUPS["all"]}), name, name)


def _by_config(config: Config, name: str) -> dict[str, Task]:
    """A task of lm-eval by its configuration."""
    return _of_hub(TaskManager(include_defaults=False), config, name)


def _of_hub(manager: TaskManager, spec: str | Config, name: str) -> dict[str, Task]:
    """What lm-eval makes of a name, a file or a configuration, with rows of the Hub.

    Raises: UserError where they cannot be had.
    """
    try:
        with hub():
            loaded = manager.load([spec])
    except (OSError, RuntimeError) as error:  # also of the Hub's client, where there is no network
        raise UserError(
            f"task '{name}' needs its data, and neither a folder nor the Hub has it ({first_line(error)})",
            hint="name the folder that holds it with <data>, or try again with a network",
            field="tasks",
        ) from error
    except (ImportError, LookupError, TypeError, ValueError) as error:
        raise UserError(f"task '{name}' cannot be loaded ({first_line(error)})", field="tasks") from error
    whole = loaded.get("groups", {}).get(name)
    if whole is None or not _has_one_score(whole):
        return dict(loaded["tasks"])
    return {name: Together(name, whole.version, whole.get_all_tasks())}


def _has_one_score(group: Any) -> bool:
    """Whether lm-eval's score of a group is the mean over all items of tasks of one kind."""
    tasks, metrics = group.get_all_tasks(), group.aggregate_metric_list or []
    kinds = {(task.OUTPUT_TYPE, *task.aggregation()) for task in tasks}
    return bool(metrics) and all(metric.weight_by_size for metric in metrics) and len(kinds) == 1
