"""lm-eval's tasks by name. To know one it parses all of its 14,000 files: half a minute. Here one folder."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeAlias

from lm_eval.tasks import TaskManager

from sparsedial.errors import UserError, nearest
from sparsedial.evaluation.task_file import THEIRS

Index: TypeAlias = Mapping[str, Any]  # of lm-eval's files of tasks, by name
ENTRY = re.compile(r"""^["']?(task|group|tag)["']?:[ \t]*(.*(?:\n[ \t]*-[ \t].*)*)""", re.MULTILINE)
WORD = re.compile(r"\w[\w.+-]*")
NEAREST = 3  # names that are shown for an unknown one


@dataclass(frozen=True)
class Names:
    """What lm-eval's files name, read from their lines alone: a hundredth of the time that parsing them takes."""

    folders: Mapping[str, frozenset[str]]  # of the files that say that they are this task or group
    mentioned: frozenset[str]  # all names, those of tags and of groups' members among them

    @staticmethod
    def read() -> Names:
        """Of all files that lm-eval's own index has."""
        folders: defaultdict[str, set[str]] = defaultdict(set)
        mentioned: set[str] = set()
        for folder, text in _texts():
            for kind, value in ENTRY.findall(text):
                name = value.partition(" #")[0].strip(" \t\"'")
                mentioned.update((name, *WORD.findall(value)))
                if kind != "tag":
                    folders[name].add(folder)
        return Names({name: frozenset(found) for name, found in folders.items()}, frozenset(mentioned))


def manager_of(name: str, ours: Iterable[str]) -> TaskManager:
    """What loads a task, a group or a tag of lm-eval by its name.

    Raises: UserError for a name that there is not, with the nearest ones, those of `ours` among them.
    """
    names = _names()
    folders = names.folders.get(name, frozenset())
    if len(folders) == 1:
        manager = _manager_of(*folders)
        if _whole(manager.task_index, name):
            return manager
    if name in names.mentioned and name in manager_of_all().all_tasks:
        return manager_of_all()
    raise UserError(f"no task named '{name}'", hint=nearest(name, {*ours, *names.mentioned}, NEAREST), field="tasks")


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


def _texts() -> Iterator[tuple[str, str]]:
    """All of lm-eval's files of tasks, each with its folder."""
    for folder in (entry.name for entry in os.scandir(THEIRS) if entry.is_dir()):
        for place, _, files in os.walk(THEIRS / folder):
            for file in files:
                if file.endswith(".yaml"):
                    with open(os.path.join(place, file), errors="replace") as opened:  # a Path is slower
                        yield folder, opened.read()


@cache
def _names() -> Names:
    return Names.read()
