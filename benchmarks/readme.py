"""Writes the generated parts of README.md and of pages in docs, and docs/laws.md.

`python -m benchmarks.readme` writes them; a test compares them.
"""

from __future__ import annotations

import ast
import re
import shlex
import tomllib
from collections.abc import Callable, Mapping
from contextlib import chdir
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory

from msgspec.structs import replace

from benchmarks.data_page import (
    both,
    both_in_docs,
    dirtied_table,
    domains_table,
    effect_of_dirt,
    effect_table,
    shares_kept,
)
from benchmarks.dial_page import experts_measured, experts_sentence, shares_measured
from benchmarks.evaluation_page import agreement_table, families_table, published_table, throughput_table
from benchmarks.export_peers_page import exports_table
from benchmarks.fit_example import planned
from benchmarks.foreign_text import foreign_sentence
from benchmarks.four_costs_page import costs_block, scatter_sentences
from benchmarks.laws_page import laws_markdown
from benchmarks.neurons_page import neurons_sentence, neurons_table
from benchmarks.probes_page import probes_sentences, probes_table
from benchmarks.prune_findings_page import findings_table, gates_table, kept_table, methods_table, weights_table
from benchmarks.prune_memory_page import memory_sentences
from benchmarks.rounding_page import rounding_sentences
from benchmarks.speeds import gpu_block, short_table, speed_table
from benchmarks.split_page import (
    recovered_sentences,
    recovered_table,
    speeds_table,
    split_table,
    thresholds_sentences,
)
from benchmarks.three_settings import settings_screen, settings_text
from sparsedial.cli.arguments import read_arguments
from sparsedial.cli.tables import table_of
from sparsedial.records.plan import Export, Plan
from sparsedial.records.quantities import Machine
from sparsedial.records.record import Record, read
from sparsedial.records.study import Study, StudyAnswer
from sparsedial.records.verdict import Side, Verdict
from sparsedial.showing.glossary import GLOSSARY
from sparsedial.showing.words import (
    CURRENCIES,
    cost,
    headline,
    law_sentence,
    missed_words,
    power_of_ten,
    shape_words,
)
from sparsedial.units import OPTIMIZERS, human_bytes, human_seconds, signed
from sparsedial.verbs import VERBS

HERE = Path(__file__).parent
README = HERE.parent / "README.md"
BETTER = HERE / "records" / "optimizers_study" / "study.json"
REFERENCE = HERE / "records" / "reference_study" / "study.json"
DEFAULT = HERE / "records" / "default_study.json"
LAWS = HERE.parent / "docs" / "laws.md"
SPEED = HERE.parent / "docs" / "speed.md"
PLANNING = HERE.parent / "docs" / "planning.md"
EVALUATION = HERE.parent / "docs" / "evaluation.md"
PROBES = HERE.parent / "docs" / "probes.md"
TURNING_OFF = HERE.parent / "docs" / "turning-off.md"
DATA = HERE.parent / "docs" / "data.md"
DIAL = HERE.parent / "docs" / "dial.md"
SPLITTING = HERE.parent / "docs" / "splitting.md"


def verb_table() -> str:
    """A row for each command."""
    rows = [f"| `sparsedial {verb.name}` | {verb.summary} |" for verb in VERBS.values()]
    return "\n".join(["| command | does |", "| --- | --- |", *rows])


def words() -> str:
    """The words that every answer uses."""
    return "\n".join(
        ["| word | meaning |", "| --- | --- |", *(f"| {word} | {said} |" for word, said in GLOSSARY.items())]
    )


def finding() -> str:
    """The reference study in one table and two sentences."""
    study = read(REFERENCE, Study)
    missed = missed_words(study.verdict.seconds).replace("But", "At equal seconds", 1)
    return "\n".join([*_verdict_table(study), "", f"{law_sentence(study.law)}{missed}"])


def better_optimizers() -> str:
    """The study in which each rival has its better optimizer, in one table."""
    study = read(BETTER, Study)
    obstacles = [
        f"At equal {CURRENCIES[currency]} it is undecided: {verdict.reason}."
        for currency in ("flops", "seconds")
        if (verdict := study.verdict.of(currency)).winner == "undecided"
    ]
    return "\n".join([*_verdict_table(study), *(["", *obstacles] if obstacles else [])])


def _verdict_table(study: Study) -> list[str]:
    """What a study found and of what, then a row for each cost."""
    return [
        f"**{headline(study.verdict)}** on {human_bytes(study.text.bytes)} of Python source"
        f" ({study.cells.finished} cells over {len(study.sparsities)} sparsities and"
        f" {len(study.budgets_flops)} budgets up to {power_of_ten(study.budgets_flops[-1])} FLOPs,"
        f" {human_seconds(study.wall_seconds)} on {study.machine.cores} cores).",
        "",
        "| at equal | sparse | dense | dense − sparse, nats per token (95 %) | verdict |",
        "| --- | --- | --- | --- | --- |",
        *(_verdict_row(study.verdict.of(currency), currency) for currency in ("flops", "seconds")),
    ]


def _verdict_row(verdict: Verdict, currency: str) -> str:
    gap, pair = verdict.gap, verdict.sides()
    assert gap is not None
    assert pair is not None
    sides = [f"{side.loss.mean:.3f} ({shape_words(side)}{_by(side)})" for side in pair]
    interval = f"{signed(gap.mean)} ({signed(gap.low)} to {signed(gap.high)}), {verdict.seeds} seeds"
    what = f"{'FLOPs' if currency == 'flops' else currency}: {cost(currency, verdict.budget.value)}"
    return f"| {what} | {sides[0]} | {sides[1]} | {interval} | {verdict.winner} |"


def _by(side: Side) -> str:
    return "" if side.optimizer == "adamw" else f"; {OPTIMIZERS[side.optimizer]}"


class DefaultStudy(Record, frozen=True, kw_only=True):
    """`default_study.json`: the answer of `make study`, its time and its memory."""

    command: str
    machine: Machine
    wall_seconds: float
    peak_memory_bytes: int
    result: StudyAnswer


def default_output() -> str:
    """The output of `make study`, with its time and memory."""
    record = read(DEFAULT, DefaultStudy)
    took = f"{human_seconds(record.wall_seconds)}, at most {human_bytes(record.peak_memory_bytes)} of memory"
    return "\n".join(["```console", "$ make study", table_of(record.result), "```", "", f"It took {took}."])


PLAN = "--flops 1e21 --max-total-parameters 30B --device h100 --devices 8 --price 2.5"


def plan_output() -> str:
    """The output of `plan`, computed now, up to the answers of other laws."""
    verb = VERBS["plan"]
    printed = table_of(verb.function(read_arguments(verb, shlex.split(PLAN)).settings))
    return "\n".join(["```console", f"$ sparsedial plan {PLAN}", printed.partition("\nby ")[0], "…", "```"])


EXPORTED_PLAN = "--dollars 2500 --price 2.5 --device h100 --devices 8 --serving-memory 80GB --export runs/plan"
SETTINGS = {"torchtitan_plan.py": "LAYERS"}  # start of the first shown line, if it is not the file's first
HOME = "/home/me"  # replaces the folder of the run
SHOWN_LINES = 12


@cache
def _exported() -> tuple[str, list[str]]:
    """The printed plan, and a section for each exported file."""
    verb = VERBS["plan"]
    with TemporaryDirectory() as folder, chdir(folder):
        record = verb.function(read_arguments(verb, shlex.split(EXPORTED_PLAN)).settings)
        assert isinstance(record, Plan)
        sections = [_file_section(item).replace(str(Path.cwd()), HOME) for item in record.exported]
    return table_of(replace(record, exported=())), sections


def _file_section(item: Export) -> str:
    file = Path(item.file)
    lines = file.read_text().splitlines()
    begin = next((index for index, line in enumerate(lines) if line.startswith(SETTINGS.get(file.name, ""))), 0)
    shown = [*(["…"] if begin else []), *lines[begin : begin + SHOWN_LINES], "…"]
    missing = [f"* {line}" for line in item.not_expressed] or ["* nothing"]
    use = [f"`{file}`, for {item.written_for}. Use it with", "", "```", item.command, "```"]
    return "\n".join([*use, "", "```", *shown, "```", "", "Not expressed:", "", *missing])


def exported_answer() -> str:
    """The plan of docs/planning.md, without its files."""
    return "\n".join(["```console", f"$ sparsedial plan {EXPORTED_PLAN}", _exported()[0], "…", "```"])


def exported_files() -> str:
    """Each file of that plan: how to use it, its first lines, and what it does not express."""
    return "\n\n".join(_exported()[1])


def tour() -> str:
    """A row for each floor, from the first line of its docstring, in the order that import-linter checks."""
    contract = tomllib.loads((HERE.parent / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0]
    rows = []
    for layer in reversed(contract["layers"]):
        folder = HERE.parent / layer.replace(".", "/")
        if folder.is_dir():
            line = ast.get_docstring(ast.parse((folder / "__init__.py").read_text()))
            rows.append(f"| `{folder.name}/` | {str(line).splitlines()[0].rstrip('.')} |")
    return "\n".join(["| floor | what lives there |", "| --- | --- |", *rows])


BLOCKS = {
    "verbs": verb_table,
    "words": words,
    "finding": finding,
    "better optimizers": better_optimizers,
    "default study": default_output,
    "probes": probes_sentences,
    "neurons": neurons_sentence,
    "both": both,
    "four costs": costs_block,
    "three settings": settings_text,
    "plan": plan_output,
    "speeds": short_table,
    "gpu": gpu_block,
    "tour": tour,
}


PAGES: dict[Path, Mapping[str, Callable[[], str]]] = {
    README: BLOCKS,
    SPEED: {"speeds": speed_table},
    EVALUATION: {
        "published": published_table,
        "agreement": agreement_table,
        "families": families_table,
        "throughput": throughput_table,
    },
    PROBES: {"probes": probes_sentences, "levels": probes_table},
    TURNING_OFF: {
        "four costs": partial(costs_block, "figures"),
        "scatter": scatter_sentences,
        "methods": methods_table,
        "neurons": neurons_table,
        "findings": findings_table,
        "gates": gates_table,
        "kept": kept_table,
        "weights": weights_table,
        "rounding": rounding_sentences,
        "foreign": foreign_sentence,
        "memory": memory_sentences,
    },
    DATA: {
        "dirtied": dirtied_table,
        "effect": effect_table,
        "shares": shares_kept,
        "domains": domains_table,
        "effect of dirt": effect_of_dirt,
        "both": both_in_docs,
    },
    DIAL: {
        "three settings": settings_screen,
        "half the experts": experts_sentence,
        "half the experts, measured": experts_measured,
        "shares": shares_measured,
        "exports": partial(exports_table, "llama.cpp"),
        "exports to vLLM": partial(exports_table, "vLLM"),
    },
    SPLITTING: {
        "split": split_table,
        "thresholds": thresholds_sentences,
        "recovered": recovered_table,
        "won back": recovered_sentences,
        "speeds": speeds_table,
    },
    PLANNING: {"answer": exported_answer, "own law": planned, "files": exported_files},
}


def filled(text: str, blocks: Mapping[str, Callable[[], str]] = BLOCKS) -> str:
    """A page with its generated blocks updated."""
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
