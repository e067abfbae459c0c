"""Rules of quality for English web pages, from three published filters. A new rule is a function and an entry.

Each rule measures a document and states what it may measure at least or at most. Rules that edit single lines of a page
are not here, since a selection copies no text; nor is C4's list of bad words.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from sparsedial.selection.page import (
    Page,
    duplicate_characters_share,
    duplicates_share,
    repeated_runs_share,
    top_run_share,
)

GOPHER = "Rae et al. 2021, arXiv 2112.11446, appendix A.1.1"
GOPHER_REPEATS = "Rae et al. 2021, arXiv 2112.11446, table A1"
C4 = "Raffel et al. 2020, arXiv 1910.10683, section 2.2"
FINEWEB = "Penedo et al. 2024, arXiv 2406.17557, section 3.6"

STOP_WORDS = frozenset(("the", "be", "to", "of", "and", "that", "have", "with"))
BULLETS = ("•", "‣", "◦", "▪", "-", "*")
ELLIPSES = ("...", "…")
TERMINAL = (".", "!", "?", '"')  # marks of C4
LINE_ENDS = (*TERMINAL, "'", "”", "’", "…", "。", "！", "？")  # more than C4's, for text with typographic quotes
SENTENCE_END = re.compile(r"[.!?]+[\"')\]]*(?=\s|$)")
LEAST_LINE_WORDS = 3  # of C4's lines
SHORT_LINE = 30  # characters


@dataclass(frozen=True, kw_only=True)
class QualityRule:
    """What is measured of a document, and what it may be."""

    family: str
    of: Callable[[Page], float]
    says: str
    source: str
    least: float | None = None
    most: float | None = None
    at: bool = True  # whether a document that measures just the threshold stays

    @property
    def threshold(self) -> float:
        """The bound that the rule has."""
        bound = self.most if self.least is None else self.least
        assert bound is not None, "a rule has one bound"
        return bound

    def keeps(self, value: float) -> bool:
        """Whether a document that measures this stays."""
        if value == self.threshold:
            return self.at
        return value > self.threshold if self.most is None else value < self.threshold


def words(page: Page) -> float:
    """Words, as white space separates them."""
    return len(page.words)


def mean_word_length(page: Page) -> float:
    """Characters of a word in the mean."""
    return float(page.lengths.mean())


def hashes_per_word(page: Page) -> float:
    """Hash symbols, over words."""
    return page.text.count("#") / len(page.words)


def ellipses_per_word(page: Page) -> float:
    """Ellipses, over words."""
    return sum(map(page.text.count, ELLIPSES)) / len(page.words)


def bullet_lines(page: Page) -> float:
    """The share of lines that begin with a bullet point."""
    return page.share_of([line for line in page.lines if line.startswith(BULLETS)])


def ellipsis_lines(page: Page) -> float:
    """The share of lines that end with an ellipsis."""
    return page.share_of([line for line in page.lines if line.endswith(ELLIPSES)])


def words_with_letters(page: Page) -> float:
    """The share of words that have at least one letter."""
    return sum(any(map(str.isalpha, word)) for word in page.words) / len(page.words)


def stop_words(page: Page) -> float:
    """How many of eight common English words it has."""
    return len(STOP_WORDS & {word.strip(".,;:!?\"'()").lower() for word in page.words})


def duplicate_lines(page: Page) -> float:
    """The share of lines that equal an earlier one."""
    return duplicates_share(page.lines)


def duplicate_paragraphs(page: Page) -> float:
    """The share of paragraphs that equal an earlier one."""
    return duplicates_share(page.paragraphs)


def duplicate_line_characters(page: Page) -> float:
    """The share of characters in lines that equal an earlier one."""
    return duplicate_characters_share(page.lines)


def duplicate_paragraph_characters(page: Page) -> float:
    """The share of characters in paragraphs that equal an earlier one."""
    return duplicate_characters_share(page.paragraphs)


def sentences(page: Page) -> float:
    """Sentences in the lines that C4 keeps: those that end with a terminal mark and have three words or more."""
    kept = (
        line
        for line in page.lines
        if line.endswith(TERMINAL) and len(line.split()) >= LEAST_LINE_WORDS and "javascript" not in line.lower()
    )
    return sum(len(SENTENCE_END.findall(line)) for line in kept)


def lorem_ipsum(page: Page) -> float:
    """How often the filler text begins."""
    return page.text.lower().count("lorem ipsum")


def curly_brackets(page: Page) -> float:
    """Opening curly brackets: a sign of code."""
    return page.text.count("{")


def punctuated_lines(page: Page) -> float:
    """The share of lines that end with punctuation."""
    return page.share_of([line for line in page.lines if line.endswith(LINE_ENDS)])


def short_lines(page: Page) -> float:
    """The share of lines of fewer than 30 characters."""
    return page.share_of([line for line in page.lines if len(line) < SHORT_LINE])


_gopher = partial(QualityRule, family="gopher", source=GOPHER)
_repeats = partial(QualityRule, family="gopher", source=GOPHER_REPEATS)
_c4 = partial(QualityRule, family="c4", source=C4)
_fineweb = partial(QualityRule, family="fineweb", source=FINEWEB, at=False)
TOP_RUNS = {2: 0.20, 3: 0.18, 4: 0.16}  # by words of a run
REPEATED_RUNS = {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}

QUALITY_RULES: Mapping[str, QualityRule] = {
    "gopher_few_words": _gopher(of=words, least=50, says="fewer than 50 words"),
    "gopher_many_words": _gopher(of=words, most=100_000, says="more than 100,000 words"),
    "gopher_short_words": _gopher(of=mean_word_length, least=3, says="words of fewer than 3 characters in the mean"),
    "gopher_long_words": _gopher(of=mean_word_length, most=10, says="words of more than 10 characters in the mean"),
    "gopher_hashes": _gopher(of=hashes_per_word, most=0.1, says="more than one hash symbol for ten words"),
    "gopher_ellipses": _gopher(of=ellipses_per_word, most=0.1, says="more than one ellipsis for ten words"),
    "gopher_bullets": _gopher(of=bullet_lines, most=0.9, says="over 90 % of lines with a bullet point"),
    "gopher_ellipsis_lines": _gopher(of=ellipsis_lines, most=0.3, says="over 30 % of lines that end with an ellipsis"),
    "gopher_letters": _gopher(of=words_with_letters, least=0.8, says="under 80 % of words with a letter"),
    "gopher_stop_words": _gopher(of=stop_words, least=2, says="fewer than two of eight common English words"),
    "gopher_duplicate_lines": _repeats(of=duplicate_lines, most=0.3, says="over 30 % of lines that come again"),
    "gopher_duplicate_paragraphs": _repeats(
        of=duplicate_paragraphs, most=0.3, says="over 30 % of paragraphs that come again"
    ),
    "gopher_duplicate_line_characters": _repeats(
        of=duplicate_line_characters, most=0.2, says="over 20 % of characters in lines that come again"
    ),
    "gopher_duplicate_paragraph_characters": _repeats(
        of=duplicate_paragraph_characters, most=0.2, says="over 20 % of characters in paragraphs that come again"
    ),
    **{
        f"gopher_top_{count}_words": _repeats(
            of=partial(top_run_share, words=count),
            most=most,
            says=f"over {most:.0%} of characters in its most frequent run of {count} words".replace("%", " %"),
        )
        for count, most in TOP_RUNS.items()
    },
    **{
        f"gopher_repeated_{count}_words": _repeats(
            of=partial(repeated_runs_share, words=count),
            most=most,
            says=f"over {most:.0%} of characters in runs of {count} words that come again".replace("%", " %"),
        )
        for count, most in REPEATED_RUNS.items()
    },
    "c4_sentences": _c4(of=sentences, least=5, says="fewer than five sentences in lines that end like a sentence"),
    "c4_lorem_ipsum": _c4(of=lorem_ipsum, most=0, says="the words lorem ipsum"),
    "c4_curly_brackets": _c4(of=curly_brackets, most=0, says="a curly bracket"),
    "fineweb_line_ends": _fineweb(
        of=punctuated_lines, least=0.12, says="at most 12 % of lines that end like a sentence"
    ),
    # of 0.01 in the code of datatrove; the paper says 0.1
    "fineweb_duplicate_lines": _fineweb(
        of=duplicate_line_characters, most=0.1, says="10 % or more of characters in lines that come again"
    ),
    "fineweb_short_lines": _fineweb(of=short_lines, most=0.67, says="67 % or more of lines under 30 characters"),
}
FAMILIES = tuple(dict.fromkeys(rule.family for rule in QUALITY_RULES.values()))
