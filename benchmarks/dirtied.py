"""A real text with dirt planted in it, and what each filter of `select` finds of that.

    python -m benchmarks.dirtied TEXT FOLDER --tasks-data EVAL --other FILE… [--workers N]

TEXT is one folder with a sub-folder for each domain. FOLDER/text becomes a copy of it, with a file for each planted
document in the sub-folder of the document that it comes from: exact copies (white space and forms of Unicode differ),
near copies (words replaced at several rates), menus of web pages, documents that are mostly one notice, other languages
(the FILEs, cut at their rules of tildes: the tutor of the editor Vim), and items of tasks amid real text. Names are
drawn so that all of it trains: held-out text stays real. Then `select` runs with one filter at a time. A copy is found
where not both it and its original stay. Writes benchmarks/records/dirtied.json.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import shutil
import subprocess
import sys
import unicodedata
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import polars

from benchmarks.keeping import keep
from sparsedial.store import read_json, write_json
from sparsedial.text.corpus import open_corpus
from sparsedial.text.documents import documents
from sparsedial.text.manifest import MANIFEST
from sparsedial.verbs.evaluate.task_items import item_texts, loaded_tasks
from tests.selection.planted import plain_jaccard

RECORD = Path(__file__).parent / "records" / "dirtied.json"
PLANTED = "planted.json"  # what was planted, by name
NEAR = 0.8
RATES = (0.002, 0.01, 0.02, 0.05, 0.3)  # of words that are replaced
EXACT, COPIES, MENUS, NOTICES, ITEMS = 600, 1500, 600, 600, 200  # items are of each task
SIZES = range(500, 50_000)  # bytes of the documents that dirt is made from
TASKS = ("arc_easy", "gsm8k", "hellaswag", "piqa", "winogrande")
TRAINS_ABOVE = 0.2  # of the hashes of names: test and validation are filled from the lowest
WHITE = ("\u00a0", "\n", "  ", "\t")
MENU = (
    "Home", "About us", "Contact", "Login", "Register", "My account", "Cart (0)", "Help", "Sitemap", "Privacy policy",
    "Terms of use", "Newsletter", "RSS", "Share on Facebook", "Print this page", "Next »", "« Previous", "Top of page",
)  # fmt: skip
NOTICE = (
    "We and our partners store and read information on a device, such as cookies, and process personal data, such as"
    " unique identifiers and standard information that a device sends, for personalised advertising and content, for"
    " measuring advertising and content, for research on audiences and for the development of services. With your"
    " permission we and our partners may use precise data of your location and identify your device by scanning it."
    " You may click to agree to our and our partners' processing as described above. Alternatively you may click to"
    " refuse, or to read more before you decide, and change your preferences. Please note that some processing of your"
    " personal data may not require your agreement, but you have a right to object to it. Your preferences apply to"
    " this site only. You can change them at any time by returning to this site, or by reading our privacy policy."
)
FILTERS = {
    "copies": ["--near", str(NEAR)],
    "spans": ["--spans", "0.5"],
    "gopher": ["--quality", "gopher"],
    "c4": ["--quality", "c4"],
    "fineweb": ["--quality", "fineweb"],
    "tasks": ["--tasks", ",".join(TASKS)],
}
RUNS = ("copies,spans,tasks", "gopher", "c4", "fineweb")  # filters that one selection has; none hides another's finds
COMPARE = ("copies", "spans")  # filters that compare documents: the first one stays, which may be the planted one
REASONS = {"copies": ("exact", "near", "held_out_exact", "held_out_near", "equal_to_train"), "tasks": ("contaminated",)}


@dataclass(frozen=True, kw_only=True)
class Dirt:
    """A planted document."""

    kind: str
    original: str | None  # name of the document that it is a copy of
    jaccard: float | None  # with it
    text: str


def dirt(text: Path, others: list[Path], data: Path) -> Iterator[tuple[str, Dirt]]:
    """All that is planted, with the domain that it goes to."""
    draw = random.Random(0)
    real = [(one.name, one.text.decode()) for one in documents(open_corpus((str(text),))) if len(one.text) in SIZES]
    for name, whole in draw.sample(real, EXACT):
        words = unicodedata.normalize("NFD", whole).split()
        yield _domain(name), Dirt(kind="exact", original=name, jaccard=1.0, text=draw.choice(WHITE).join(words))
    for name, whole in draw.sample(real, COPIES):
        copy = _replaced(whole, draw.choice(RATES), draw)
        alike = plain_jaccard(whole, copy)
        kind = "near" if alike >= NEAR else "less alike"
        yield _domain(name), Dirt(kind=kind, original=name, jaccard=alike, text=copy)
    made = {"menu": (MENUS, _menu), "notice": (NOTICES, _notice)}
    for kind, (count, make) in made.items():
        for name, whole in draw.sample(real, count):
            yield _domain(name), Dirt(kind=kind, original=None, jaccard=None, text=make(whole, draw))
    pages = [page for path in others for page in path.read_text().split("~" * 20) if len(page.split()) > 50]
    for page in pages:
        told = "\n".join(line.strip(" \t~*=-") for line in page.splitlines()).strip()
        yield _domain(draw.choice(real)[0]), Dirt(kind="language", original=None, jaccard=None, text=told)
    for items in item_texts(loaded_tasks(TASKS, data), limit=ITEMS).values():
        for item in items.values():
            name, whole = draw.choice(real)
            yield _domain(name), Dirt(kind="item", original=None, jaccard=None, text=_amid(item, whole))


def _domain(name: str) -> str:
    return name.split("/")[0]


def _replaced(text: str, rate: float, draw: random.Random) -> str:
    words = text.split(" ")
    return " ".join(f"other{draw.randrange(10**6)}" if draw.random() < rate else word for word in words)


def _menu(text: str, draw: random.Random) -> str:
    """A page of links, with a few words of an article."""
    lines = [f"• {draw.choice(MENU)}" for _ in range(60)]
    words = text.split()
    teasers = [" ".join(words[at : at + 8]) + " …" for at in range(0, min(len(words), 40), 8)]
    return "\n".join([*lines[:30], *teasers, *lines[30:]])


def _notice(text: str, draw: random.Random) -> str:
    return f"{' '.join(text.split()[:60])}\n\n{NOTICE}"


def _amid(item: str, text: str) -> str:
    words = text.split()
    half = min(len(words) // 2, 200)
    return f"{' '.join(words[:half])}\n\n{item}\n\n{' '.join(words[half : 2 * half])}"


def plant(text: Path, folder: Path, planted: Iterator[tuple[str, Dirt]]) -> dict[str, dict[str, Any]]:
    """Write the dirtied copy; returns what is planted by name, without its text."""
    shutil.copytree(text, folder)
    found = {}
    for number, (domain, one) in enumerate(planted):
        name = next(filter(_trains, (f"{domain}/planted-{number:05}-{turn}.txt" for turn in range(10**6))))
        (folder / name).write_text(one.text)
        found[name] = {key: value for key, value in asdict(one).items() if key != "text"}
    return found


def _trains(group: str) -> bool:
    return hashlib.sha256(group.encode()).digest()[0] / 256 > TRAINS_ABOVE


def select(text: Path, out: Path, filters: str, data: Path, workers: str) -> polars.DataFrame:
    """The manifest of a selection with these filters; an earlier one where it is there."""
    if not out.exists():
        words = [word for name in filters.split(",") for word in FILTERS[name]]
        words += ["--data", str(data)] if "tasks" in filters else []
        command = [sys.executable, "-m", "sparsedial", "select", str(text), *words, "--out", str(out)]
        subprocess.run([*command, "--workers", workers], check=True)
    return polars.read_parquet(out / MANIFEST)


def judged(rows: polars.DataFrame, name: str, planted: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """What one filter left out: of each kind that was planted, and of the real documents.

    A real document that goes instead of its planted copy is counted apart.
    """
    is_its = polars.col("reason").str.starts_with(f"{name}_") | polars.col("reason").is_in(
        [name, *REASONS.get(name, ())]
    )
    left_out = {row["id"]: row for row in rows.filter(is_its).iter_rows(named=True)}
    copied = {one["original"] for one in planted.values() if one["original"]} if name in COMPARE else set[str]()
    taken = [row for at, row in left_out.items() if at not in planted and at not in copied]

    def found(kind: str) -> int:
        of_kind = [(at, one["original"]) for at, one in planted.items() if one["kind"] == kind]
        return sum(at in left_out or (original in copied and original in left_out) for at, original in of_kind)

    return {
        "found": {kind: found(kind) for kind in _kinds(planted)},
        "real_taken": _amount(taken),
        "real_taken_bytes": {
            domain: sum(row["bytes"] for row in taken if _domain(row["id"]) == domain)
            for domain in sorted(set(map(_domain, rows["id"])))
        },
        "originals_taken": sum(at in copied for at in left_out),
    }


def _kinds(planted: dict[str, dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(one["kind"] for one in planted.values()))


def _amount(rows: list[dict[str, Any]]) -> dict[str, int]:
    return {"documents": len(rows), "bytes": sum(row["bytes"] for row in rows)}


def main() -> None:
    """Plant the dirt, select with each filter, and write the record."""
    asked = argparse.ArgumentParser()
    asked.add_argument("text", type=Path)
    asked.add_argument("folder", type=Path)
    asked.add_argument("--tasks-data", type=Path, required=True)
    asked.add_argument("--other", type=Path, nargs="+", required=True)
    asked.add_argument("--workers", default="2")
    given = asked.parse_args()
    text, listed = given.folder / "text", given.folder / PLANTED
    if not listed.exists():
        shutil.rmtree(text, ignore_errors=True)
        write_json(listed, {"planted": plant(given.text, text, dirt(given.text, given.other, given.tasks_data))})
    planted = read_json(listed)["planted"]
    filters: dict[str, Any] = {}
    for names in RUNS:
        rows = select(text, given.folder / names.replace(",", "_"), names, given.tasks_data, given.workers)
        filters |= {name: judged(rows, name, planted) for name in names.split(",")}
        is_real_train = ~polars.col("id").is_in(list(planted)) & (polars.col("split") == "train")
        real = rows.filter(is_real_train).to_dicts()
        dirty = {
            kind: [row for row in rows.iter_rows(named=True) if planted.get(row["id"], {}).get("kind") == kind]
            for kind in _kinds(planted)
        }
        assert all(row["split"] == "train" for each in dirty.values() for row in each), "dirt is held out"
    found = {
        "near": NEAR,
        "tasks": TASKS,
        "real_train": _amount(real),
        "domains": {
            domain: _amount([row for row in real if _domain(row["id"]) == domain])
            for domain in sorted({_domain(row["id"]) for row in real})
        },
        "planted": {kind: _amount(each) for kind, each in dirty.items()},
        "filters": filters,
    }
    keep(RECORD, "python -m benchmarks.dirtied TEXT FOLDER --tasks-data EVAL --other FILE…", found)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
