"""README.md's tables from the records, and docs/laws.md: `python -m benchmarks.readme` writes, a test compares."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

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
STEPS = HERE / "records" / "training_step.json"


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


def step_table() -> str:
    """Training steps against peers, with the range that their percentiles give."""
    record = read_json(STEPS)
    dense, sparse = record["dense"], record["sparse"]
    rows = [
        (dense["what"], "plain eager GPT, same FLOPs", dense["speed_against_plain_gpt"], "times as fast"),
        (
            sparse["what"],
            f"`transformers` Qwen3-MoE ({sparse['best_mode_of_transformers'].split()[1]})",
            sparse["speed_against_transformers"],
            "times as fast",
        ),
        (sparse["what"], "fastest dense model, same active size", sparse["tax"], "times its time"),
    ]
    for group in record["tiny"]:
        for experts in (8, 32):
            rows += [
                (
                    f"{group['what']}, {experts} experts",
                    "fastest dense model",
                    group[f"tax_{experts}_experts"],
                    "times its time",
                ),
                (
                    f"{group['what']}, {experts} experts",
                    "a loop over experts",
                    group[f"speed_against_loop_{experts}_experts"],
                    "times as fast",
                ),
            ]
    lines = [f"| {what} | {peer} | {_range(value)} {unit} |" for what, peer, value, unit in rows]
    return "\n".join(["| training step | beside | measured |", "| --- | --- | --- |", *lines])


def _range(value: dict[str, float]) -> str:
    return f"{value['value']:.2f} ({value['low']:.2f}–{value['high']:.2f})"


BLOCKS = {
    "verbs": verb_table,
    "finding": finding,
    "default study": default_output,
    "plan": plan_output,
    "training steps": step_table,
}


def filled(text: str) -> str:
    """The README with every block as the records have it."""
    for name, make in BLOCKS.items():
        pattern = rf"(<!-- {name} -->\n).*?(\n<!-- end -->)"
        text, count = re.subn(pattern, lambda match, make=make: f"{match[1]}{make()}{match[2]}", text, flags=re.S)
        if count != 1:
            raise ValueError(f"README.md holds the block '{name}' {count} times")
    return text


if __name__ == "__main__":
    README.write_text(filled(README.read_text()))
    LAWS.write_text(laws_markdown())
