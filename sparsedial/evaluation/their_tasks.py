"""lm-eval's tasks by name. It reads all of its 14,000 files to know one, which takes half a minute; here one folder."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

from sparsedial.errors import UserError, nearest, needs
from sparsedial.evaluation.task_file import THEIRS

with needs("lm-eval", "evaluate"):
    from lm_eval.tasks import TaskManager

Index: TypeAlias = Mapping[str, Any]  # of lm-eval's files of tasks, by name
NAMED = re.compile(r"""^["']?(?:task|group|tag)["']?:[ \t]*(.*(?:\n[ \t]*-[ \t].*)*)""", re.MULTILINE)
WORD = re.compile(r"\w[\w.+-]*")
NEAREST = 3  # names that are shown for an unknown one


def manager_of(name: str, ours: Iterable[str]) -> TaskManager:
    """What loads a task, a group or a tag of lm-eval by its name.

    Raises: UserError for a name that there is not, with the nearest ones, those of `ours` among them.
    """
    texts = _texts()
    own = re.compile(rf"""^["']?(?:task|group)["']?:[ \t]*["']?{re.escape(name)}["']?[ \t]*$""", re.MULTILINE)
    folders = {path.relative_to(THEIRS).parts[0] for path, text in texts.items() if own.search(text)}
    if len(folders) == 1:
        manager = _manager_of(folders.pop())
        if _whole(manager.task_index, name):
            return manager
    if any(name in text for text in texts.values()) and name in manager_of_all().all_tasks:
        return manager_of_all()
    named = (found[1] for text in texts.values() for found in NAMED.finditer(text))
    known = {*ours, *(word for names in named for word in WORD.findall(names))}
    raise UserError(f"no task named '{name}'", hint=nearest(name, known, NEAREST), field="tasks")


@cache
def manager_of_all() -> TaskManager:
    """What loads each task of lm-eval: half a minute."""
    return TaskManager()


def index_of(folder: str) -> Index:
    """The tasks, groups and tags of a folder of lm-eval, by name."""
    return _manager_of(folder).task_index


def leaves(index: Index, name: str) -> list[str]:
    """The tasks of a group or a tag of lm-eval, at any depth, or the task itself.

    Raises: KeyError where one is not in the index; TypeError for a group that changes a task.
    """
    entry = index[name]
    if entry.cfg is None:
        below = sorted(entry.tags)
    elif "group" in entry.cfg:
        below = entry.cfg["task"]
    else:
        return [name]
    return [leaf for child in below for leaf in leaves(index, child)]


def _whole(index: Index, name: str) -> bool:
    """Whether an index has all tasks that a name stands for."""
    try:
        return bool(leaves(index, name))
    except (KeyError, TypeError):
        return False


@cache
def _manager_of(folder: str) -> TaskManager:
    return TaskManager(include_path=THEIRS / folder, include_defaults=False)


@cache
def _texts() -> dict[Path, str]:
    """lm-eval's files of tasks; some that others include have no ending."""
    return {path: path.read_text(errors="replace") for path in THEIRS.rglob("*yaml") if path.is_file()}
