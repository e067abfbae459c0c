"""The page of a selection's examples: what each filter left out and what it did not, side by side."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence

from sparsedial.records.selection import Filter, Selected
from sparsedial.selection.examples import Example, Excerpt
from sparsedial.showing.page import bullets, definitions, escape, heading, page, paragraph, table
from sparsedial.showing.palette import PAGE_COLOURS
from sparsedial.units import count_words, human_bytes, human_percent

LOOK = (
    "<style>.pair{display:grid;grid-template-columns:repeat(auto-fit,minmax(18rem,1fr));"
    "gap:.3rem 1rem;margin:.5rem 0 1.5rem}"
    ".pair p{margin:0}.pair pre{margin:.2rem 0;font-size:.8rem}"
    "mark{background:none;color:var(--dense);font-weight:600}</style>"
)
SIDES = {True: "Left out", False: "Stay"}


def examples_page(answer: Selected, examples: Mapping[str, Sequence[Example]]) -> str:
    """A whole page, for people who judge the filters."""
    sections = (_section(answer, name, each) for name, each in examples.items())
    body = [LOOK, *_opening(answer), *sections]
    return page("What the filters left out", "\n".join(body), PAGE_COLOURS)


def _opening(answer: Selected) -> Iterator[str]:
    read, kept, held_out = answer.read, answer.kept, answer.held_out
    yield heading("What the filters left out, and what they did not", 1)
    yield paragraph(
        f"Of {count_words(read.documents, 'document')} ({human_bytes(read.bytes)}) {kept.documents:,} stay"
        f" ({human_bytes(kept.bytes)}). Of those {held_out.documents:,} are held out, where nothing is selected."
    )
    each = [(one, one.removed) for one in answer.filters]
    rows = [[one.name, f"{left.documents:,}", human_bytes(left.bytes)] for one, left in each]
    yield table(["filter", "documents left out", "bytes"], rows)
    yield definitions({one.name: f"leaves out {one.says}" for one in answer.filters})


def _section(answer: Selected, name: str, examples: Sequence[Example]) -> str:
    mine = [one for one in answer.filters if one.examples.endswith(f"#{name}")]
    parts = [f'<h2 id="{escape(name)}">{escape(name)}</h2>', bullets([_said(one) for one in mine])]
    for left_out, title in SIDES.items():
        chosen = [example for example in examples if example.left_out == left_out]
        if chosen:
            parts += [heading(title, 3), *map(_shown, chosen)]
    if not examples:
        parts.append(paragraph("There are no examples.", "quiet"))
    return "\n".join(parts)


def _said(one: Filter) -> str:
    at = "" if one.threshold is None else f", threshold {one.threshold:g}"
    left = f"{count_words(one.removed.documents, 'document')}, {human_bytes(one.removed.bytes)}"
    return f"{one.name}{at}: {left} left out"


def _shown(example: Example) -> str:
    share, value = example.jaccard, example.value
    shared = "" if share is None else f"They share {human_percent(share, 3)} of their runs of five words."
    shared = shared if value is None else f"It measures {value:.4g}."
    differing = _marked([excerpt.words for excerpt in example.excerpts])
    cells = "".join(map(_cell, example.excerpts, differing))
    return f'{paragraph(shared)}<div class="pair">{cells}</div>'


def _cell(excerpt: Excerpt, text: str) -> str:
    before = f"from word {excerpt.begins + 1:,} " if excerpt.begins else ""
    fate = "stays" if excerpt.left_out_by is None else f"left out: {excerpt.left_out_by}"
    named = f"{excerpt.name} ({excerpt.split}, {fate}), {before}of {count_words(excerpt.in_all, 'word')}"
    return f"<div>{paragraph(named, 'quiet')}<pre>{text}</pre></div>"


def _marked(texts: Sequence[Sequence[str]]) -> list[str]:
    """The texts as HTML, with the words marked that differ between two of them."""
    if len(texts) == 1:
        return [escape(" ".join(texts[0]))]
    shown: tuple[list[str], list[str]] = [], []
    for kind, *ends in difflib.SequenceMatcher(None, *texts, autojunk=False).get_opcodes():
        for side, words, (begin, end) in zip(shown, texts, (ends[:2], ends[2:]), strict=True):
            part = escape(" ".join(words[begin:end]))
            side.append(part if kind == "equal" or not part else f"<mark>{part}</mark>")
    return [" ".join(filter(None, side)) for side in shown]
