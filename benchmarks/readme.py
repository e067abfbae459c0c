"""README.md's tables from the records, docs/planning.md's from a run, and docs/laws.md.

`python -m benchmarks.readme` writes, a test compares.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping
from contextlib import chdir
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.speeds import speed_table
from sparsedial.cli.arguments import read_arguments
from sparsedial.cli.tables import plan_table, study_table
from sparsedial.law.describe import laws_markdown
from sparsedial.showing.words import cost, headline, law_sentence, power_of_ten, shape_words, signed
from sparsedial.store import read_json
from sparsedial.units import human_bytes, human_seconds
from sparsedial.verbs import VERBS

HERE = Path(__file__).parent
README = HERE.parent / "README.md"
REFERENCE = HERE / "records" / "reference_study" / "study.json"
DEFAULT = HERE / "records" / "default_study.json"
LAWS = HERE.parent / "docs" / "laws.md"
PLANNING = HERE.parent / "docs" / "planning.md"


def verb_table() -> str:
    """A row for each command."""
    rows = [f"| `sparsedial {verb.name}` | {verb.summary} |" for verb in VERBS.values()]
    return "\n".join(["| command | does |", "| --- | --- |", *rows])


def finding() -> str:
    """The reference study in one table and two sentences."""
    study = read_json(REFERENCE)
    lines = [
        f"**{headline(study)}** on {human_bytes(study['text']['bytes'])} of Python source"
        f" ({study['cells']['finished']} cells over {len(study['sparsities'])} sparsities and"
        f" {len(study['budgets_flops'])} budgets up to {power_of_ten(study['budgets_flops'][-1])} FLOPs,"
        f" {human_seconds(study['wall_seconds'])} on {study['machine']['cores']} cores).",
        "",
        "| at equal | sparse | dense | dense − sparse, nats per token (95 %) | verdict |",
        "| --- | --- | --- | --- | --- |",
        *(_verdict_row(study["verdict"][currency], currency) for currency in ("flops", "seconds")),
        "",
        law_sentence(study),
    ]
    return "\n".join(lines)


def _verdict_row(verdict: dict[str, Any], currency: str) -> str:
    gap = verdict["gap"]
    sides = [f"{side['loss']['mean']:.3f} ({shape_words(side)})" for side in (verdict["sparse"], verdict["dense"])]
    interval = f"{signed(gap['mean'])} ({signed(gap['low'])} to {signed(gap['high'])}), {verdict['seeds']} seeds"
    what = f"{'FLOPs' if currency == 'flops' else currency}: {cost(currency, verdict['budget']['value'])}"
    return f"| {what} | {sides[0]} | {sides[1]} | {interval} | {verdict['winner']} |"


def default_output() -> str:
    """What `make study` printed, and what it took."""
    record = read_json(DEFAULT)
    took = f"{human_seconds(record['wall_seconds'])}, at most {human_bytes(record['peak_memory_bytes'])} of memory"
    return "\n".join(["```console", "$ make study", study_table(record["result"]), "```", "", f"It took {took}."])


PLAN = "--flops 1e21 --max-total-parameters 30B --device h100 --devices 8 --price 2.5"


def plan_output() -> str:
    """A real question to the planner, answered now: no record is needed."""
    verb = VERBS["plan"]
    printed = plan_table(verb.function(read_arguments(verb, shlex.split(PLAN)).settings))
    return "\n".join(["```console", f"$ sparsedial plan {PLAN}", printed, "```"])


EXPORTED_PLAN = "--dollars 2500 --price 2.5 --device h100 --devices 8 --serving-memory 80GB --export runs/plan"
SETTINGS = {"torchtitan_plan.py": "LAYERS"}  # where a file's own settings begin, if not on its first line
HOME = "/home/me"  # stands for the folder of the run
SHOWN_LINES = 12


@cache
def _exported() -> tuple[str, list[str]]:
    """A plan as it is printed, and a section for each file that it wrote."""
    verb = VERBS["plan"]
    with TemporaryDirectory() as folder, chdir(folder):
        record = verb.function(read_arguments(verb, shlex.split(EXPORTED_PLAN)).settings)
        sections = [_file_section(item).replace(str(Path.cwd()), HOME) for item in record["exported"]]
    return plan_table({**record, "exported": []}), sections


def _file_section(item: dict[str, Any]) -> str:
    file = Path(item["file"])
    lines = file.read_text().splitlines()
    begin = next((at for at, line in enumerate(lines) if line.startswith(SETTINGS.get(file.name, ""))), 0)
    shown = [*(["…"] if begin else []), *lines[begin : begin + SHOWN_LINES], "…"]
    missing = [f"* {line}" for line in item["not_expressed"]] or ["* nothing"]
    use = [f"`{file}`, for {item['written_for']}. Use it with", "", "```", item["command"], "```"]
    return "\n".join([*use, "", "```", *shown, "```", "", "Not expressed:", "", *missing])


def exported_answer() -> str:
    """What the plan of docs/planning.md says before it names its files."""
    return "\n".join(["```console", f"$ sparsedial plan {EXPORTED_PLAN}", _exported()[0], "…", "```"])


def exported_files() -> str:
    """Each file of that plan: its use, its first lines, and what it does not express."""
    return "\n\n".join(_exported()[1])


BLOCKS = {
    "verbs": verb_table,
    "finding": finding,
    "default study": default_output,
    "plan": plan_output,
    "speeds": speed_table,
}


PAGES: dict[Path, Mapping[str, Callable[[], str]]] = {
    README: BLOCKS,
    PLANNING: {"answer": exported_answer, "files": exported_files},
}


def filled(text: str, blocks: Mapping[str, Callable[[], str]] = BLOCKS) -> str:
    """A page with every block as the records or a run have it."""
    for name, make in blocks.items():
        pattern = rf"(<!-- {name} -->\n).*?(\n<!-- end -->)"
        text, count = re.subn(pattern, lambda match, make=make: f"{match[1]}{make()}{match[2]}", text, flags=re.S)
        if count != 1:
            raise ValueError(f"the page holds the block '{name}' {count} times")
    return text


if __name__ == "__main__":
    for page, page_blocks in PAGES.items():
        page.write_text(filled(page.read_text(), page_blocks))
    LAWS.write_text(laws_markdown())
