"""Does it help to leave data out? `python -m benchmarks.selection_effect TEXT FOLDER [--arms NAME,…]`.

TEXT is one folder with a sub-folder for each domain. For each arm of `ARMS` equal models are trained on what `select`
keeps, on a random part of its size and on the full text (`select --measure`): at two budgets, with five seeds, and with
probes in the training text. The random part, the full text and their runs are those of the first arm, so that every arm
is compared with the same ones. Of the sides of the reference loss the one with the lowest validation loss at the larger
budget is chosen; what it did is then read on test text. The same command goes on with FOLDER after a stop. Writes
benchmarks/records/selection_effect.json, or FILE there, with the arms that are finished.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.keeping import keep
from sparsedial.records.effect import Effect, EffectPoint
from sparsedial.records.quantities import Machine
from sparsedial.records.record import Record, read
from sparsedial.records.selection import SELECT_FILE, DomainAmounts, Filter, ReferenceModel, Selected, TextAmount

RECORDS = Path(__file__).parent / "records"
SIDES = ("low", "middle", "high")
ARMS = {
    **{side: ["--keep", "0.5", "--score", "reference-loss", "--side", side] for side in SIDES},
    "filters": ["--near", "0.8", "--quality", "gopher"],
}
SHARED = ("random", "runs", "texts/full", "texts/random")  # of an arm's effect folder


class Arm(Record, frozen=True, kw_only=True):
    """What a selection left out, and what that did."""

    settings: tuple[str, ...]
    read: TextAmount
    kept: TextAmount
    domains: dict[str, DomainAmounts] | None
    filters: tuple[Filter, ...]
    reference: ReferenceModel | None
    effect: Effect


class MeasuredArms(Record, frozen=True, kw_only=True):
    """The record: each arm, and the side that validation text chooses."""

    command: str
    machine: Machine
    chosen_side: str | None  # null unless all three were measured
    arms: dict[str, Arm]


def main() -> None:
    """Measure the arms that are asked for, and write the record."""
    asked = argparse.ArgumentParser()
    asked.add_argument("text", type=Path)
    asked.add_argument("folder", type=Path)
    asked.add_argument("--arms", default=",".join(SIDES))
    asked.add_argument("--budgets", default="5e11,2e12")
    asked.add_argument("--seeds", default="5")
    asked.add_argument("--probes", default="8%")
    asked.add_argument("--workers", default="2")
    asked.add_argument("--record", default="selection_effect.json")
    given = asked.parse_args()
    arms = given.arms.split(",")
    measure = ["--budgets", given.budgets, "--seeds", given.seeds, "--probes", given.probes, "--measure"]
    found: dict[str, Selected] = {}
    for arm in arms:
        out, first = given.folder / arm, given.folder / arms[0]
        words = [str(given.text), *ARMS[arm], "--out", str(out), "--workers", given.workers]
        if not (out / SELECT_FILE).exists():
            _select(words)
        if arm != arms[0]:
            _share(first / "effect", out / "effect")
        _select([*words, *measure])
        found[arm] = read(out / SELECT_FILE, Selected)
        command = f"python -m benchmarks.selection_effect TEXT FOLDER --arms {given.arms}"
        keep(RECORDS / given.record, command, summed(found))


def _select(words: list[str]) -> None:
    subprocess.run([sys.executable, "-m", "sparsedial", "select", *words], check=True)


def _share(first: Path, other: Path) -> None:
    """Give an arm the random part, the full text and the runs of the first one."""
    for name in SHARED:
        (other / name).parent.mkdir(parents=True, exist_ok=True)
        if not (other / name).exists():
            (other / name).symlink_to((first / name).resolve())


def summed(found: dict[str, Selected]) -> dict[str, Any]:
    """The fields of `MeasuredArms`, without the command and the machine."""
    sides = {name: top_point(one).validation_loss for name, one in found.items() if name in SIDES}
    known = {name: loss.mean for name, loss in sides.items() if loss is not None}
    arms = {
        name: {"settings": ARMS[name], **{field: getattr(one, field) for field in Arm.__struct_fields__[1:]}}
        for name, one in found.items()
    }
    return {"chosen_side": min(known, key=known.__getitem__) if len(known) == len(SIDES) else None, "arms": arms}


def top_point(selected: Selected) -> EffectPoint:
    """The kept part at the larger budget."""
    assert selected.effect is not None
    return [point for point in selected.effect.points if point.part == "kept"][-1]


if __name__ == "__main__":
    main()
