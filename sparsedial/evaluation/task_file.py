"""Files of tasks: ours, which say where lm-eval's own file is and where the rows are, and those that users write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import lm_eval.tasks
import yaml
from lm_eval.tasks._yaml_loader import load_yaml

from sparsedial.errors import UserError
from sparsedial.evaluation.local_rows import ENDINGS, digest

THEIRS = Path(lm_eval.tasks.__file__).parent
Config: TypeAlias = dict[str, Any]  # of a task or a group, as lm-eval takes it
Task: TypeAlias = Any  # of lm-eval, or what stands in its place
OURS = ("include", "folder", "group", "part", "tag", "local_only")  # no entries of a task's configuration


def read_file(file: Path) -> tuple[Config, Config]:
    """What the files say that a task's file includes, and what it says itself, with the metadata of both.

    What it includes is beside it, or else one of lm-eval's files.

    Raises: UserError for a file that is not as lm-eval reads it.
    """
    theirs: Config = {}
    try:
        own: Config = load_yaml(file, recursive=False)
        included = own.get("include", [])
        for path in [included] if isinstance(included, str) else included:
            beside = file.parent / path
            theirs |= load_yaml(beside if beside.is_file() else THEIRS / path)
    except yaml.YAMLError as error:
        raise UserError(f"{file}: not YAML ({' '.join(str(error).split())})") from error
    except (AttributeError, ImportError, OSError, TypeError, ValueError) as error:
        raise UserError(f"{file}: not the file of a task ({first_line(error)})") from error
    return theirs, own | {"metadata": {**theirs.get("metadata", {}), **own.get("metadata", {})}}


def local_files(config: Config, folder: Path) -> dict[str, list[Path]]:
    """The files of JSON lines that a task names for its splits; none where it takes its rows in another way.

    A file that the name has packed may also be there unpacked.

    Raises: UserError for one that is missing.
    """
    kwargs = config.get("dataset_kwargs") or {}
    stated = kwargs.get("data_files")
    if config.get("dataset_path") != "json" or stated is None or len(kwargs) > 1:
        return {}
    splits = stated if isinstance(stated, dict) else {"train": stated}
    names = {split: [paths] if isinstance(paths, str) else list(paths) for split, paths in splits.items()}
    if not all(name.endswith(ENDINGS) and "://" not in name for paths in names.values() for name in paths):
        return {}
    return {split: [_there(folder / name, config) for name in paths] for split, paths in names.items()}


def with_digest(config: Config, files: Mapping[str, Sequence[Path]]) -> Config:
    """A task's configuration without what is not lm-eval's, and with the digest of its files."""
    metadata = {**config.get("metadata", {}), "data_digest": digest(path for paths in files.values() for path in paths)}
    return {name: value for name, value in config.items() if name not in OURS} | {"metadata": metadata}


def first_line(error: Exception) -> str:
    """What an error says, on one line."""
    return (str(error).splitlines() or [""])[0] or type(error).__name__


def _there(path: Path, config: Config) -> Path:
    for found in (path, path.with_suffix("") if path.suffix == ".gz" else path):
        if found.is_file():
            return found
    raise UserError(
        f"task '{config.get('task', config.get('group'))}': {path} is missing",
        hint="name a folder of such files with <data>, or leave it out: the Hub is tried then",
        field="data",
    )
