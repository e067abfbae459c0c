"""docs/tasks.md has a row for each task, with what its file says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytest.importorskip("lm_eval")

from sparsedial.evaluation.tasks import GROUPS, load_tasks
from tests.evaluation.asking import DATA
from tests.evaluation.test_bad_tasks import OWN

PAGE = Path(__file__).parents[2] / "docs/tasks.md"
BEGIN, END = "<!-- written by tests/evaluation/test_task_docs.py -->\n", "<!-- end -->"
HEAD = "| task | group | version | solved examples | licence | data |\n| --- | --- | --- | --- | --- | --- |\n"


def table() -> str:
    """The tasks as their files say; `python -m tests.evaluation.test_task_docs` writes it into the page."""
    lines = []
    for group in ("reading", "mathematics", "knowledge"):
        for name, task in load_tasks(GROUPS[group], DATA).items():
            shots, stated = task.get_config("num_fewshot"), task.config.metadata
            own = "0 unless asked for" if shots is None else shots
            lines.append(
                f"| `{name}` | {group} | {task.VERSION} | {own} | {stated['licence']} | {stated['source']} |\n"
            )
    return HEAD + "".join(lines)


def test_the_page_says_what_the_files_say():
    assert PAGE.read_text().partition(BEGIN)[2].partition(END)[0] == table()


def test_the_task_on_the_page_is_the_tested_one():
    (shown,) = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert shown == OWN.replace("version: 2.5", "version: 1.0")


if __name__ == "__main__":
    before, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(before + BEGIN + table() + END + rest.partition(END)[2])
