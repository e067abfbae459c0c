"""The settings of an evaluation: flags on the command line, keyword arguments in Python."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparsedial.errors import UserError
from sparsedial.settings import file_names, setting
from sparsedial.shape.turned import setting_texts

EXAMPLE = "like `sparsedial evaluate runs/train/checkpoint --text FILE`"
MOST = 1_000_000_000
OF = {"tasks": ("data", "limit", "shots", "against", "chat"), "text": ("context", "stride")}  # what needs which


def _checkpoints(value: Any, field: str) -> tuple[str, ...]:
    return file_names(value, field)


@dataclass(frozen=True, kw_only=True)
class EvaluateSettings:
    """The checkpoints, and the text or the tasks to score them on."""

    checkpoint: tuple[str, ...] = setting(
        help="checkpoint folders; several are compared on the same items",
        parse=_checkpoints,
        positional=True,
        nargs="+",
        example=EXAMPLE,
    )
    text: tuple[str, ...] = setting(
        (), "files or folders, all of their text; a folder's sub-folders are domains", "FILE,…", parse=file_names
    )
    context: int | None = setting(None, "tokens per window of the text [the model's own]", "N")
    stride: int | None = setting(None, "tokens by which windows move; each scores its last ones [context]", "N")
    settings: tuple[str, ...] = setting(
        (),
        "settings of the dial, as `k=2;k=1,skip=3`; all: those of dial.json, else k as trained, half of it and so on",
        "S;…",
        parse=setting_texts,
    )
    tasks: tuple[str, ...] = setting(
        (), "tasks or groups of them: reading, mathematics, knowledge, all; needs sparsedial[evaluate]", "NAME,…"
    )
    data: Path | None = setting(None, "the folder that holds the tasks' items [the Hub]", "DIR")
    limit: int | None = setting(None, "items of each task, its first ones [all]", "N")
    shots: int | None = setting(None, "solved examples before each item [as the task says]", "N")
    against: tuple[str, ...] = setting(
        (),
        "training text; items that stand in it are counted, and scores are also given without",
        "FILE,…",
        parse=file_names,
    )
    chat: bool = setting(False, "ask by the tokenizer's chat template")
    out: Path = setting(
        Path("runs/evaluate"), "folder for the tasks' answers; the same command continues a stopped one", "DIR"
    )
    dry_run: bool = setting(False, "show how much the tasks would read and write, and exit")

    def __post_init__(self) -> None:
        for name, least in (("limit", 1), ("shots", 0)):
            value = getattr(self, name)
            if value is not None and not least <= value <= MOST:
                raise UserError(f"{value} lies outside {least}..{MOST:,}", field=name)
        if self.dry_run and not self.tasks:
            raise UserError("is for tasks, and none is given", hint="add <tasks>", field="dry_run")
        for other, names in OF.items():
            for name in names:
                if getattr(self, name) not in (None, (), False) and not getattr(self, other):
                    none = f"is for {other if other == 'tasks' else 'a text'}, and none is given"
                    raise UserError(none, hint=f"add <{other}>", field=name)
