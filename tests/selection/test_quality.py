"""Each rule of quality measures what it says, and its threshold decides."""

from __future__ import annotations

from pathlib import Path

import polars
import pytest

import sparsedial
from sparsedial.errors import UserError
from sparsedial.selection.judging import Measured, Nearest
from sparsedial.selection.page import Page, repeated_runs_share, top_run_share
from sparsedial.selection.quality import FAMILIES, QUALITY_RULES
from sparsedial.text.manifest import read_manifest
from sparsedial.verbs.select import settings as select_settings
from tests.selection.planted import prose

PROSE = (
    "The old harbour had been quiet for years, and nobody expected that to change. In the spring a ship with grey sails"
    " came in, and people of the town walked down to see who would have come so far.\n"
    "They waited for an hour. When the captain stepped off, she asked for bread, water and a place to rest her crew.\n"
    "Nobody knew her language well, but the baker tried. It was enough. By the evening they all sat together, and the"
    " ship stayed for the whole summer."
)
NUMBERED = [f"word{number}" for number in range(100)]


def measured(name: str, text: str) -> float:
    return QUALITY_RULES[name].of(Page(text))


def keeps(name: str, text: str) -> bool:
    return QUALITY_RULES[name].keeps(measured(name, text))


def test_plain_prose_keeps_all_rules():
    assert [name for name in QUALITY_RULES if not keeps(name, PROSE)] == []


BROKEN = {
    "gopher_few_words": "A short page that the reader has with him.",
    "gopher_many_words": "the word " * 50_001,
    "gopher_short_words": "a be to of I we it " * 20,
    "gopher_long_words": "incomprehensibilities " * 60,
    "gopher_hashes": PROSE + " #" * 20,
    "gopher_ellipses": PROSE + " …" * 10 + " ..." * 10,
    "gopher_bullets": "\n".join(f"- point {number}" for number in range(20)),
    "gopher_ellipsis_lines": "\n".join(f"read more of {number}..." for number in range(4)) + "\nend",
    "gopher_letters": "1 2 3 4 letter " * 20,
    "gopher_stop_words": " ".join(NUMBERED) + " the",
    "gopher_duplicate_lines": "one\ntwo\none\none\ntwo",
    "gopher_duplicate_paragraphs": "one\n\ntwo\n\none\n\none",
    "gopher_duplicate_line_characters": "a long line that comes twice\na\nb\nc\na long line that comes twice",
    "gopher_duplicate_paragraph_characters": "a long one, twice\n\na\n\nb\n\nc\n\na long one, twice",
    "gopher_top_2_words": "all day " * 4 + " ".join(NUMBERED[:12]),
    "gopher_top_3_words": "all day long " * 4 + " ".join(NUMBERED[:20]),
    "gopher_top_4_words": "all day long now " * 4 + " ".join(NUMBERED[:25]),
    **{
        f"gopher_repeated_{count}_words": " ".join([*NUMBERED[:30], *NUMBERED[:count], "x", *NUMBERED[:count]])
        for count in range(5, 11)
    },
    "c4_sentences": "One ends here. Two ends here. Three ends here.\nA line without an end\nAlso. not.",
    "c4_lorem_ipsum": PROSE + " Lorem  ipsum and LOREM IPSUM dolor.",
    "c4_curly_brackets": PROSE + " if (x) { y }",
    "fineweb_line_ends": "\n".join(["A menu entry"] * 8 + ["One ends."]),
    "fineweb_duplicate_lines": "\n".join([*map(str, range(10, 50)), "ten chars.", "ten chars."]),
    "fineweb_lists": "one\ntwo\nthree four\nfive",
    "fineweb_short_lines": "short\nshort\nshort\nA line of this text that is longer than thirty characters.",
}


@pytest.mark.parametrize("name", QUALITY_RULES)
def test_a_text_that_breaks_a_rule_is_known(name):
    assert not keeps(name, BROKEN[name])
    assert QUALITY_RULES[name].source
    assert QUALITY_RULES[name].says


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("gopher_few_words", "one two\nthree", 3),
        ("gopher_long_words", "ab cdef", 3),
        ("gopher_hashes", "# a b #c", 2 / 4),
        ("gopher_ellipses", "a... b … c d", 2 / 5),
        ("gopher_bullets", "• a\n  - b\nc\n\n", 2 / 4),
        ("gopher_ellipsis_lines", "a...\nb…\nc", 2 / 3),
        ("gopher_letters", "a1 12 -- b", 2 / 4),
        ("gopher_stop_words", "The (the) and, OF theme", 3),
        ("gopher_duplicate_lines", "a\n a \nb\n\n", 1 / 3),
        ("gopher_duplicate_paragraphs", "a\nb\n \na\nb\n\nc", 1 / 3),
        ("gopher_duplicate_line_characters", "aaa\nb\naaa", 3 / 9),
        ("gopher_duplicate_paragraph_characters", "aaa\n\nb\n\naaa", 3 / 11),
        ("gopher_top_2_words", "aa b x aa b y", 8 / 13),
        ("gopher_top_2_words", "a b c d", 0),
        ("gopher_top_3_words", "a b", 0),
        ("gopher_repeated_5_words", "a b c d e X a b c d e", 5 / 21),
        ("gopher_repeated_5_words", "a b c d e f a b c d e f", 6 / 23),
        ("gopher_repeated_5_words", "a b c d", 0),
        ("c4_sentences", 'He said "No." She left! Did he?\nnot counted. no\nToo short.', 3),
        ("c4_sentences", "This needs Javascript to be on.\nIt is a line.", 1),
        ("c4_lorem_ipsum", "Lorem ipsum", 1),
        ("c4_curly_brackets", "{{}}", 2),
        ("fineweb_line_ends", "a.\nb\n“c”\nd。\ne. \n", 2 / 5),
        ("fineweb_short_lines", f"{'a' * 30}\n{'a' * 31}", 1 / 2),
        ("fineweb_lists", "a\nb\nc d\n", 3 / 4),
        ("fineweb_duplicate_lines", "aaa\nb\naaa", 3 / 7),
        ("gopher_few_words", "a -- b2 …", 2),
        ("c4_sentences", "We use cookies on this page.\nIt ends so...\nIt is all [12]here [edit]now.", 1),
    ],
)
def test_a_rule_measures(name, text, value):
    assert measured(name, text) == pytest.approx(value)


@pytest.mark.parametrize("name", [name for name in QUALITY_RULES if name.startswith("fineweb_")])
@pytest.mark.parametrize("text", [f"One ends.\n{'a' * 30}\nOne ends.\n{'a' * 31}", "A line.\n\nAnother one."])
def test_lines_that_end_as_on_windows_are_measured_as_others(name, text):
    assert measured(name, text.replace("\n", "\r\n")) == measured(name, text)


def test_what_measures_just_the_threshold_stays():
    for name, rule in QUALITY_RULES.items():
        assert rule.keeps(rule.threshold), name
        assert (rule.least is None) != (rule.most is None)


def slow_repeats(words: list[str], count: int) -> float:
    """The same, word by word."""
    seen, covered = set(), set()
    for at in range(len(words) - count + 1):
        run = tuple(words[at : at + count])
        covered |= set(range(at, at + count)) if run in seen else set()
        seen.add(run)
    return sum(len(words[at]) for at in covered) / len(" ".join(words))


@pytest.mark.parametrize("count", [2, 3, 5, 10])
def test_runs_are_those_of_a_readable_twin(count):
    for seed in range(20):
        words = (prose(seed, 20) * 3)[: 30 + seed]
        page = Page(" ".join(words))
        assert repeated_runs_share(page, count) == pytest.approx(slow_repeats(words, count))
        runs = [tuple(words[at : at + count]) for at in range(len(words) - count + 1)]
        most = max(map(runs.count, runs))
        longest = max(len(" ".join(run)) for run in runs if runs.count(run) == most)
        share = min(1.0, most * longest / len(" ".join(words))) if most > 1 else 0.0
        assert top_run_share(page, count) == pytest.approx(share)


@pytest.mark.parametrize("text", ["a", "\u00a0", "word", "\u2003\n\u00a0\n"])
@pytest.mark.parametrize("name", QUALITY_RULES)
def test_the_smallest_documents_are_measured(name, text):
    assert 0 <= measured(name, text) < 1e6


def test_the_nearest_documents_of_both_sides_are_kept():
    nearest = Nearest(QUALITY_RULES["gopher_few_words"])
    for number, value in enumerate([10, 49, 50, 51, 48, 47, 200, 20, 45, 46, 52, 53, 54, 55]):
        nearest.add(Measured(number, value))
    assert [one.value for one in nearest.broken] == [49, 48, 47, 46, 45]
    assert [one.value for one in nearest.stays] == [50, 51, 52, 53, 54]


def test_the_settings_know_the_families():
    assert select_settings.FAMILIES == FAMILIES


@pytest.fixture
def pages(tmp_path: Path) -> Path:
    """Sixty pages of prose, and twenty that each break a rule of Gopher, C4 or both."""
    (tmp_path / "text").mkdir()
    for number in range(60):
        own = f"On day {number} the {' '.join(prose(number, 12))}. "
        (tmp_path / "text" / f"good{number:02}.txt").write_text(PROSE + "\n" + own)
    for number in range(20):
        broken = f"{PROSE}\ncode {number} {' '.join(prose(900 + number, 60))} {{ }}."
        (tmp_path / "text" / f"bad{number:02}.txt").write_text(broken if number % 2 else f"short page {number}")
    return tmp_path / "text"


def test_what_breaks_a_rule_is_left_out_of_train_alone(pages, tmp_path):
    answer = sparsedial.select(pages, out=tmp_path / "kept", quality="gopher,c4", near=1, workers=1)
    rows = read_manifest(tmp_path / "kept" / "documents.parquet").collect()
    bad = rows.filter(polars.col("id").str.starts_with("bad"))
    train = bad.filter(polars.col("split") == "train")
    assert set(train["reason"]) == {"gopher_few_words", "c4_curly_brackets"}
    assert bad.filter(polars.col("split") != "train")["kept"].all()
    assert rows.filter(polars.col("id").str.starts_with("good"))["kept"].all()
    by_name = {one.name: one for one in answer.filters}
    assert by_name["c4_curly_brackets"].removed.documents == train.filter(reason="c4_curly_brackets").height
    assert by_name["gopher_few_words"].threshold == 50
    assert "arXiv 2112.11446" in by_name["gopher_few_words"].source
    assert answer.quality == ("gopher", "c4")
    shares = rows.filter(polars.col("split") == "train")
    assert (shares["quality"].is_between(0, 1)).all()
    assert ((shares["quality"] == 1) == shares["kept"]).all()
    assert rows.filter(polars.col("split") != "train")["quality"].is_null().all()


def test_the_page_shows_documents_on_both_sides_of_a_rule(pages, tmp_path):
    sparsedial.select(pages, out=tmp_path / "kept", quality="c4", workers=1)
    page = (tmp_path / "kept" / "examples.html").read_text()
    section = page.partition('id="c4_curly_brackets"')[2].partition("<h2")[0]
    left_out, stays = section.partition("<h3>Stay</h3>")[::2]
    assert "It measures 1." in left_out
    assert "It measures 0." in stays
    assert "It measures 1." not in stays


def test_a_copy_of_a_page_that_breaks_a_rule_breaks_it_too(pages, tmp_path):
    """What a rule leaves out is nobody's twin."""
    for number in range(20):
        text = (pages / f"bad{number:02}.txt").read_text()
        (pages / f"copy{number:02}.txt").write_text(text + " ")
    sparsedial.select(pages, out=tmp_path / "kept", quality="gopher,c4", workers=1)
    rows = {row["id"]: row for row in read_manifest(tmp_path / "kept" / "documents.parquet").collect().to_dicts()}
    for row in rows.values():
        assert row["duplicate_of"] is None or rows[row["duplicate_of"]]["kept"]


def test_a_text_of_which_all_breaks_a_rule_is_refused(tmp_path):
    (tmp_path / "code").mkdir()
    for number in range(60):
        (tmp_path / "code" / f"{number}.txt").write_text(f"{' '.join(prose(number, 40))} {{}}\n")
    with pytest.raises(UserError, match="documents of the train split break a rule of quality"):
        sparsedial.select(tmp_path / "code", out=tmp_path / "kept", quality="c4")
    assert not (tmp_path / "kept").exists()
