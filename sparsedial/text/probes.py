"""Probes: questions that models of 100,000 parameters can answer, from trivial to hard, and the text that teaches them.

All of it is drawn from a seed, in plain text. A question's prompt is the beginning of a line of the training text's
format, its answer the rest of that line.
"""

from __future__ import annotations

import functools
import itertools
import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from random import Random

from sparsedial.errors import UserError
from sparsedial.records.probes import ProbeKind
from sparsedial.text.documents import Document

SOURCE = "probes"  # of their documents in a manifest
MOST_SHARE = 0.5
DOCUMENT_BYTES = 1000  # a document ends with the line that reaches them
QUESTIONS = 100  # of a level, at most about
PAIRS = QUESTIONS // 2  # each is asked in both orders
PRACTISED_SHARE = 0.5  # of lines of arithmetic that repeat the pairs that are asked as seen

FIRST_NAMES = (
    "Alba", "Arno", "Bela", "Boris", "Celia", "Cora", "Dario", "Dunja", "Edvin", "Elke", "Fedra", "Flora",
    "Golo", "Greta", "Hanna", "Hugo", "Ilka", "Ivo", "Jaro", "Jutta", "Kira", "Klaus", "Lenz", "Lora", "Mira",
    "Moritz", "Nadim", "Nora", "Odile", "Otto", "Pavel", "Petra", "Quint", "Rosa", "Sven", "Thea", "Ugo",
    "Vera", "Wanda", "Zora",
)  # fmt: skip
LAST_NAMES = (
    "Abel", "Brook", "Crane", "Drum", "Eller", "Finch", "Grove", "Holt", "Ivens", "Jung", "Kern", "Lunt",
    "March", "Noll", "Oakes", "Pell", "Quarry", "Reed", "Stone", "Thorn", "Ulm", "Vane", "Wells", "Yates",
    "Amber", "Birch", "Coll", "Dale", "Elm", "Frost", "Gray", "Hale",
)  # fmt: skip
VALUES = {  # the attributes of a person; one letter tells a value
    "town": ("Arles", "Basel", "Cadiz", "Delft", "Essen", "Faro", "Genoa", "Haifa", "Izmir", "Jena", "Kyiv", "Lyon"),
    "trade": (
        "baker", "clerk", "diver", "farmer", "guide", "hunter", "joiner", "knight", "lawyer", "mason", "nurse",
        "potter",
    ),
}  # fmt: skip
NAMED = ("red", "tan", "sky")
LETTERS = "abcdefghijklmnopqrstuvwxyz"
PEOPLE = (8, 64, 512)  # of the levels of facts; the first have one name each, all others two
ASKED_PEOPLE = 64  # of the largest level of facts, and of reading

Person = dict[str, str]  # the value of each attribute


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """How much of a train split is to be text of probes, and the seed that draws them.

    Raises: UserError for a share that is not above 0 or above a half.
    """

    share: float  # of the train split's tokens
    seed: int

    def __post_init__(self) -> None:
        if not 0 < self.share <= MOST_SHARE:
            raise UserError(
                f"{self.share:g} is not a share above 0 and at most {MOST_SHARE:g}",
                hint="like 8% or 0.08",
                field="probes",
            )

    @property
    def tokens_asked(self) -> int:
        """Tokens of all questions with their answers, at most: no token is shorter than a byte."""
        return sum(len(item.prompt) + len(item.answer) + 1 for item in items(self.seed))


@dataclass(frozen=True, kw_only=True)
class Item:
    """One question: a prompt, and the answer up to the end of its line."""

    kind: ProbeKind
    level: str
    prompt: str
    answer: str
    asked: str = ""  # what is asked for; a guess without knowledge still sees that
    group: str  # equal for items that belong together


@dataclass(frozen=True)
class Lesson:
    """Lines that teach, and the items that they prepare for."""

    share: float  # of the text of its kind
    line: Callable[[Random], str]  # draws a line of training text
    items: Sequence[Item]


@functools.cache
def items(seed: int) -> tuple[Item, ...]:
    """All questions of a seed, easier levels first."""
    return tuple(item for lessons in KINDS.values() for lesson in lessons(seed) for item in lesson.items)


def documents(seed: int) -> Iterator[Document]:
    """Training documents without end, one of each kind in turn."""
    lines = {kind: _lines(lessons(seed), Random(f"{seed} {kind} text")) for kind, lessons in KINDS.items()}
    for number in itertools.count():
        for kind in KINDS:
            name = f"{SOURCE}/{kind}#{number}"
            text = _document(lines[kind]).encode()
            yield Document(id=name, name=name, source=SOURCE, group=f"{SOURCE}/{kind}", text=text)


def _document(lines: Iterator[str]) -> str:
    text = ""
    while len(text) < DOCUMENT_BYTES:
        text += next(lines)
    return text


def _lines(lessons: Sequence[Lesson], draw: Random) -> Iterator[str]:
    """Lines of all lessons, each as often as gives it its share of the text."""
    written = [0.0] * len(lessons)  # bytes over the share
    while True:
        number = min(range(len(lessons)), key=written.__getitem__)
        line = lessons[number].line(draw)
        written[number] += len(line) / lessons[number].share
        yield line


def _arithmetic(seed: int) -> list[Lesson]:
    return [
        _pairs(seed, "sums_1_digit", 0.6, 1, "+"),
        _pairs(seed, "sums_2_digits", 0.1, 2, "+"),
        _pairs(seed, "products_1_digit", 0.15, 1, "*"),
        _pairs(seed, "sums_3_digits", 0.05, 3, "+"),
        _pairs(seed, "sums_4_digits", 0.05, 4, "+"),
        _pairs(seed, "products_2_digits", 0.05, 2, "*"),
    ]


def _pairs(seed: int, name: str, share: float, digits: int, sign: str) -> Lesson:
    """Sums or products of two numbers; in no line is a pair that is kept out, in either order."""
    draw, result = Random(f"{seed} {name}"), {"+": operator.add, "*": operator.mul}[sign]
    least, numbers = 10 ** (digits - 1), 9 * 10 ** (digits - 1)
    drawn = draw.sample(range(numbers**2), min(numbers**2, 4 * PAIRS))
    pairs = list(dict.fromkeys(_ordered(*(least + part for part in divmod(number, numbers))) for number in drawn))
    held = min(PAIRS, len(pairs) // 4)
    kept_out, practised = pairs[:held], pairs[held : held + PAIRS]
    turns = itertools.cycle(practised)  # so that a short text holds all of them

    def fresh(draw: Random) -> tuple[int, int]:
        while True:
            pair = _ordered(least + draw.randrange(numbers), least + draw.randrange(numbers))
            if pair not in kept_out:
                return pair

    def line(draw: Random) -> str:
        one, other = next(turns) if draw.random() < PRACTISED_SHARE else fresh(draw)
        if draw.random() < 0.5:
            one, other = other, one
        return f"{one}{sign}{other}={result(one, other)}\n"

    def asked(level: str, pairs: Sequence[tuple[int, int]]) -> list[Item]:
        return [
            Item(
                kind="arithmetic",
                level=f"{name}_{level}",
                prompt=f"{one}{sign}{other}=",
                answer=f"{result(one, other)}\n",
                group=f"{min(one, other)}{sign}{max(one, other)}",
            )
            for pair in pairs
            for one, other in dict.fromkeys((pair, pair[::-1]))
        ]

    return Lesson(share, line, [*asked("seen", practised), *asked("kept_out", kept_out)])


def _ordered(one: int, other: int) -> tuple[int, int]:
    return min(one, other), max(one, other)


def _facts(seed: int) -> list[Lesson]:
    return [_people(seed, count, share) for count, share in zip(PEOPLE, (0.7, 0.2, 0.1), strict=True)]


def _people(seed: int, count: int, share: float) -> Lesson:
    """Facts about people: each line states one, and each question is the beginning of a line.

    The name stands beside the value: with words between the two, a model of 270,000 parameters knows half of 8 people's
    facts after 2 million tokens, and like this all of them.
    """
    names = _names(seed)[count]
    draw = Random(f"{seed} {count} people")
    people = {name: _person(draw) for name in names}

    def parts(name: str, attribute: str) -> tuple[str, str]:
        return f"{attribute.capitalize()} of {name}:", f" {people[name][attribute]}.\n"

    def line(draw: Random) -> str:
        return "".join(parts(draw.choice(names), draw.choice(tuple(VALUES))))

    return Lesson(
        share,
        line,
        [
            Item(
                kind="facts",
                level=f"people_{count}",
                prompt=prompt,
                answer=answer,
                asked=attribute,
                group=name,
            )
            for name in names[:ASKED_PEOPLE]
            for attribute in VALUES
            for prompt, answer in [parts(name, attribute)]
        ],
    )


def _person(draw: Random) -> Person:
    return {attribute: draw.choice(values) for attribute, values in VALUES.items()}


@functools.cache
def _names(seed: int) -> dict[int | str, list[str]]:
    """Names for each level of facts, for the people that reading asks about, and for those of its training text."""
    draw = Random(f"{seed} names")
    first: list[str] = draw.sample(FIRST_NAMES, len(FIRST_NAMES))
    short, first = first[: PEOPLE[0]], first[PEOPLE[0] :]
    names = [f"{one} {other}" for one in first for other in LAST_NAMES]
    draw.shuffle(names)
    rest = iter(names)
    found: dict[int | str, list[str]] = {PEOPLE[0]: short}
    for role, count in (*((count, count) for count in PEOPLE[1:]), ("asked", ASKED_PEOPLE)):
        found[role] = list(itertools.islice(rest, count))
    return {**found, "practised": list(rest)}


def _reading(seed: int) -> list[Lesson]:
    names = _names(seed)
    return [
        _passages(seed, "code_of_two_letters", 0.6, _code),
        _passages(seed, "one_of_three_values", 0.2, _value),
        _passages(seed, "sentence_about_a_person", 0.2, _sentence(names["practised"]), _sentence(names["asked"])),
    ]


Passage = Callable[[Random], tuple[str, str, str]]  # draws a prompt, its answer, and what is asked for


def _passages(seed: int, level: str, share: float, passage: Passage, asked: Passage | None = None) -> Lesson:
    """Passages with the answer in them, drawn anew for each line; those that are asked may be of another kind."""

    def line(draw: Random) -> str:
        prompt, answer, _ = passage(draw)
        return prompt + answer

    draw = Random(f"{seed} {level}")
    drawn = dict.fromkeys((asked or passage)(draw) for _ in range(QUESTIONS))
    found = [
        Item(kind="reading", level=level, prompt=prompt, answer=answer, asked=what, group=prompt)
        for prompt, answer, what in drawn
    ]
    return Lesson(share, line, found)


def _code(draw: Random) -> tuple[str, str, str]:
    code = "".join(draw.choices(LETTERS, k=2))
    return f"{code} {code}", f" {code}\n", ""


def _value(draw: Random) -> tuple[str, str, str]:
    names, values = draw.sample(NAMED, 3), draw.sample(LETTERS, 3)
    which = draw.randrange(3)
    told = ", ".join(f"{name} {value}" for name, value in zip(names, values, strict=True))
    return f"{told}: {names[which]}", f" {values[which]}\n", ""


def _sentence(names: Sequence[str]) -> Passage:
    def passage(draw: Random) -> tuple[str, str, str]:
        person, asked = _person(draw), draw.choice(tuple(VALUES))
        told = f"{draw.choice(names)} is a {person['trade']} in {person['town']}."
        return f"{told} {asked.capitalize()}?", f" {person[asked]}\n", asked

    return passage


KINDS: dict[ProbeKind, Callable[[int], list[Lesson]]] = {
    "arithmetic": _arithmetic,
    "facts": _facts,
    "reading": _reading,
}
