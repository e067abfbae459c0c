"""Probes are drawn from a seed; what they ask is taught in train, or kept out of it, and is in no held-out text."""

from __future__ import annotations

import hashlib
import re
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from sparsedial.errors import UserError
from sparsedial.text.prepare import Text, open_text, prepare
from sparsedial.text.probes import KINDS, SOURCE, VALUES, Item, Mixture, documents, items

MIXTURE = Mixture(share=0.08, seed=0)
WHOLE = {"+": lambda one, other: one + other, "*": lambda one, other: one * other}


def training_lines(seed: int, count: int = 600) -> list[str]:
    """Lines of so many documents of training text, all kinds together."""
    return b"".join(document.text for document in islice(documents(seed), count)).decode().splitlines()


LINES = training_lines(0)


def of_level(level: str, seed: int = 0) -> list[Item]:
    return [item for item in items(seed) if item.level == level]


LEVELS = list(dict.fromkeys(item.level for item in items(0)))


def test_the_same_seed_gives_the_same_questions_and_text_on_every_machine():
    text = "".join(f"{item}\n" for item in items(0)) + "\n".join(LINES)
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "6576ad8409b3b47c"
    assert items(1) != items(0)
    assert training_lines(1, 3) != training_lines(0, 3)


def test_levels_go_from_trivial_to_hard_with_as_many_items_as_a_test_needs():
    assert list(KINDS) == ["arithmetic", "facts", "reading"]
    assert [level for level in LEVELS if "seen" in level] == [
        "sums_1_digit_seen", "sums_2_digits_seen", "products_1_digit_seen", "sums_3_digits_seen", "sums_4_digits_seen",
        "products_2_digits_seen",
    ]  # fmt: skip
    assert [level for level in LEVELS if "people" in level] == ["people_8", "people_64", "people_512"]
    assert LEVELS[-3:] == ["code_of_two_letters", "one_of_three_values", "sentence_about_a_person"]
    for level in LEVELS:
        assert 16 <= len(of_level(level)) <= 128
    assert len({(item.level, item.prompt) for item in items(0)}) == len(items(0))


def test_every_question_fits_the_shortest_context_of_a_study():
    assert max(len(item.prompt + item.answer) for item in items(0)) < 64


def numbers(line: str) -> tuple[str, tuple[int, int]] | None:
    """The sign and the unordered pair of a line of arithmetic, whose result must be right."""
    match = re.fullmatch(r"(\d+)([+*])(\d+)=(\d+)", line.strip())
    if match is None:
        return None
    one, sign, other, result = int(match[1]), match[2], int(match[3]), int(match[4])
    assert WHOLE[sign](one, other) == result
    return sign, (min(one, other), max(one, other))


def test_pairs_that_are_kept_out_stand_nowhere_in_the_training_text():
    taught = {found for line in LINES if (found := numbers(line)) is not None}
    assert len(taught) > 1000
    for level in LEVELS:
        pairs = [numbers(item.prompt + item.answer) for item in of_level(level)]
        if level.endswith("_kept_out"):
            assert not taught & set(pairs)
        elif level.endswith("_seen"):
            assert set(pairs) <= taught


def test_what_is_asked_of_people_is_stated_in_the_training_text():
    stated = set(LINES)
    for level in ("people_8", "people_64"):
        assert all((item.prompt + item.answer).strip() in stated for item in of_level(level))
    counts = [sum(f"{item.prompt}{item.answer}".strip() == line for line in LINES) for item in of_level("people_8")]
    assert min(counts) > 50


def test_reading_is_about_people_whom_training_never_saw_and_its_answer_stands_in_front():
    text = "\n".join(LINES)
    for item in of_level("sentence_about_a_person"):
        name = " ".join(item.prompt.split()[:2])
        assert name not in text
        assert item.answer.strip() in item.prompt
        assert item.answer.strip() in VALUES[item.asked]
    for level in LEVELS[-3:-1]:
        assert all(item.answer.strip() in item.prompt for item in of_level(level))


def test_each_kind_has_a_third_of_the_text_and_each_lesson_its_share():
    drawn = list(islice(documents(0), 300))
    sizes = {kind: sum(len(one.text) for one in drawn if kind in one.id) for kind in KINDS}
    assert max(sizes.values()) < 1.05 * min(sizes.values())
    code = sum(len(line) + 1 for line in LINES if re.fullmatch(r"(\w\w) \1 \1", line))
    reading = code + sum(len(line) + 1 for line in LINES if "?" in line or re.match(r"(red|tan|sky) \w,", line))
    assert code / reading == pytest.approx(0.6, abs=0.01)


@pytest.mark.parametrize("share", [0.0, -0.1, 0.6, float("nan")])
def test_a_share_that_no_text_can_have_is_refused(share):
    with pytest.raises(UserError, match="not a share"):
        Mixture(share=share, seed=0)


@pytest.fixture(scope="module", params=["bytes", "bpe:300"])
def texts(request: pytest.FixtureRequest, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Text, Text]:
    """The corpus without probes, and with them."""
    folder = tmp_path_factory.mktemp("texts")
    plain = prepare([str(corpus)], tokenizer=request.param, folder=folder / "plain")
    return plain, prepare([str(corpus)], tokenizer=request.param, folder=folder / "mixed", probes=MIXTURE)


def test_held_out_text_is_the_same_with_and_without_probes(texts):
    plain, mixed = texts
    for split in ("validation", "test"):
        assert np.array_equal(plain.tokens(split), mixed.tokens(split))
        assert plain.facts.splits.of(split) == mixed.facts.splits.of(split)
    assert mixed.overlap == plain.overlap


def test_probes_have_their_share_of_the_train_split_spread_over_all_of_it(texts):
    plain, mixed = texts
    record = mixed.facts.probes
    assert plain.facts.probes is None
    assert (record.share, record.seed) == (MIXTURE.share, MIXTURE.seed)
    assert mixed.train_tokens == plain.train_tokens + record.tokens
    assert record.tokens / mixed.train_tokens == pytest.approx(0.08, abs=1100 / mixed.train_tokens)
    rows = mixed.manifest.collect().to_dicts()
    probes = [row for row in rows if row["source"] == SOURCE]
    assert {row["split"] for row in probes} == {"train"}
    assert sum(row["tokens"] + 1 for row in probes) == record.tokens
    assert (len(probes), sum(row["bytes"] for row in probes)) == (record.documents, record.bytes)
    assert len({row["id"] for row in rows}) == len(rows)
    middle = np.median([row["first_token"] for row in probes]) / mixed.train_tokens
    assert middle == pytest.approx(0.5, abs=0.1)
    users = [row["digest"] for row in rows if row["source"] != SOURCE]
    assert users == [row["digest"] for row in plain.manifest.collect().to_dicts()]


def test_share_and_seed_are_part_of_a_texts_name(texts, corpus: Path, tmp_path: Path):
    plain, mixed = texts
    name = mixed.tokenizer.name
    others = [Mixture(share=0.08, seed=1), Mixture(share=0.1, seed=0)]
    made = [
        prepare([str(corpus)], tokenizer=name, folder=tmp_path / str(number), probes=mixture)
        for number, mixture in enumerate(others)
    ]
    assert len({text.digest for text in (plain, mixed, *made)}) == 4
    assert len({text.facts.request for text in (plain, mixed, *made)}) == 4
    again = prepare([str(corpus)], tokenizer=name, folder=tmp_path / "0", probes=others[1])  # makes it again
    assert again.digest == made[1].digest
    assert open_text(tmp_path / "0").facts == made[1].facts
