"""Rules of quality for English web pages, from three published filters. A new rule is a function and an entry.

Each rule measures a document and states what it may measure at least or at most. Rules that edit single lines of a page
are not here, since a selection copies no text; nor is C4's list of bad words. Values and definitions follow the code of
datatrove 0.10, but for what docs/data.md names.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from sparsedial.selection.page import (
    Page,
    duplicate_characters,
    duplicates_share,
    repeated_runs_share,
    top_run_share,
)

GOPHER = "Rae et al. 2021, arXiv 2112.11446, appendix A.1.1"
GOPHER_REPEATS = "Rae et al. 2021, arXiv 2112.11446, table A1"
C4 = "Raffel et al. 2020, arXiv 1910.10683, section 2.2"
FINEWEB = "Penedo et al. 2024, arXiv 2406.17557, section 3.6"

STOP_WORDS = frozenset(("the", "be", "to", "of", "and", "that", "have", "with"))
BULLETS = ("•", "-")
ELLIPSES = ("...", "…")
TERMINAL = (".", "!", "?", '"', "'")  # marks of C4
POLICIES = ("terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies")
CITATION = re.compile(r"\[\d*]|\[edit]|\[citation needed]")
LINE_ENDS = tuple(  # what ends a sentence in any script: Unicode's Sentence_Terminal
    "!.?\u0589\u061d\u061e\u061f\u06d4\u0700\u0701\u0702\u07f9\u0837\u0839\u083d\u083e\u0964\u0965\u104a\u104b"
    "\u1362\u1367\u1368\u166e\u1735\u1736\u17d4\u17d5\u17d6\u17d9\u17da\u1803\u1809\u1944\u1945\u1aa8\u1aa9"
    "\u1aaa\u1aab\u1b5a\u1b5b\u1b5e\u1b5f\u1b7d\u1b7e\u1c3b\u1c3c\u1c7e\u1c7f\u203c\u203d\u2047\u2048\u2049"
    "\u2e2e\u2e3c\u2e53\u2e54\u3002\ua4ff\ua60e\ua60f\ua6f3\ua6f7\ua876\ua877\ua8ce\ua8cf\ua92f\ua9c8\ua9c9"
    "\uaa5d\uaa5e\uaa5f\uaaf0\uaaf1\uabeb\ufe52\ufe56\ufe57\uff01\uff0e\uff1f\uff61\U00010a56\U00010a57"
    "\U00010f55\U00010f56\U00010f57\U00010f58\U00010f59\U00010f86\U00010f87\U00010f88\U00010f89\U00011047"
    "\U00011048\U000110be\U000110bf\U000110c0\U000110c1\U00011141\U00011142\U00011143\U000111c5\U000111c6"
    "\U000111cd\U000111de\U000111df\U00011238\U00011239\U0001123b\U0001123c\U000112a9\U0001144b\U0001144c"
    "\U000115c2\U000115c3\U000115c9\U000115ca\U000115cb\U000115cc\U000115cd\U000115ce\U000115cf\U000115d0"
    "\U000115d1\U000115d2\U000115d3\U000115d4\U000115d5\U000115d6\U000115d7\U00011641\U00011642\U0001173c"
    "\U0001173d\U0001173e\U00011944\U00011946\U00011a42\U00011a43\U00011a9b\U00011a9c\U00011c41\U00011c42"
    "\U00011ef7\U00011ef8\U00011f43\U00011f44\U00016a6e\U00016a6f\U00016af5\U00016b37\U00016b38\U00016b44"
    "\U00016e98\U0001bc9f\U0001da88"
)
SENTENCE_END = re.compile(r"[.!?]+[\"')\]]*(?=\s|$)")
LEAST_LINE_WORDS, MOST_WORD_LETTERS = 3, 1000  # of C4's lines
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

    @property
    def threshold(self) -> float:
        """The bound that the rule has."""
        bound = self.most if self.least is None else self.least
        assert bound is not None, "a rule has one bound"
        return bound

    def keeps(self, value: float) -> bool:
        """Whether a document that measures this stays; one that measures just the threshold does."""
        return value >= self.threshold if self.most is None else value <= self.threshold


def words(page: Page) -> float:
    """Words, as white space separates them, with a letter or a digit."""
    return int(page.spoken.sum())


def mean_word_length(page: Page) -> float:
    """Characters of a word with a letter or a digit in the mean."""
    return float(page.lengths[page.spoken].mean()) if page.spoken.any() else 0.0


def hashes_per_word(page: Page) -> float:
    """Hash symbols, over words."""
    return page.text.count("#") / len(page.words)


def ellipses_per_word(page: Page) -> float:
    """Ellipses, over words."""
    return sum(map(page.text.count, ELLIPSES)) / len(page.words)


def bullet_lines(page: Page) -> float:
    """The share of lines, blank ones among them, that begin with a bullet point."""
    lines = page.text.splitlines()
    return sum(line.lstrip().startswith(BULLETS) for line in lines) / len(lines)


def ellipsis_lines(page: Page) -> float:
    """The share of lines, blank ones among them, that end with an ellipsis."""
    lines = page.text.splitlines()
    return sum(line.rstrip().endswith(ELLIPSES) for line in lines) / len(lines)


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
    return duplicate_characters(page.lines) / len(page.text)


def duplicate_paragraph_characters(page: Page) -> float:
    """The share of characters in paragraphs that equal an earlier one."""
    return duplicate_characters(page.paragraphs) / len(page.text)


def sentences(page: Page) -> float:
    """Sentences in the lines that C4 keeps."""
    return sum(len(SENTENCE_END.findall(line)) for line in map(_cited, page.lines) if _kept_by_c4(line))


def _cited(line: str) -> str:
    return CITATION.sub("", line)


def _kept_by_c4(line: str) -> bool:
    """Whether C4 keeps a line: three words that end like a sentence, none of them endless, and no notice."""
    held, small = line.split(), line.lower()
    return (
        line.endswith(TERMINAL)
        and not line.endswith("...")
        and len(held) >= LEAST_LINE_WORDS
        and max(map(len, held)) <= MOST_WORD_LETTERS
        and "javascript" not in small
        and not any(policy in small for policy in POLICIES)
    )


def lorem_ipsum(page: Page) -> float:
    """How often the filler text begins."""
    return page.text.lower().count("lorem ipsum")


def curly_brackets(page: Page) -> float:
    """Opening curly brackets: a sign of code."""
    return page.text.count("{")


def punctuated_lines(page: Page) -> float:
    """The share of lines that end with a mark that ends sentences, in any script."""
    return sum(line.endswith(LINE_ENDS) for line in page.whole_lines) / len(page.whole_lines)


def short_lines(page: Page) -> float:
    """The share of lines of at most 30 characters."""
    return sum(len(line) <= SHORT_LINE for line in page.whole_lines) / len(page.whole_lines)


def duplicate_whole_line_characters(page: Page) -> float:
    """The share of characters in lines that equal an earlier one, white space around them included."""
    return duplicate_characters(page.whole_lines) / max(1, len(page.text.replace("\r\n", "").replace("\n", "")))


def new_lines_per_word(page: Page) -> float:
    """Ends of lines, over words: a list has many."""
    return page.text.count("\n") / len(page.words)


_gopher = partial(QualityRule, family="gopher", source=GOPHER)
_repeats = partial(QualityRule, family="gopher", source=GOPHER_REPEATS)
_c4 = partial(QualityRule, family="c4", source=C4)
_fineweb = partial(QualityRule, family="fineweb", source=FINEWEB)
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
    "fineweb_line_ends": _fineweb(of=punctuated_lines, least=0.12, says="under 12 % of lines that end like a sentence"),
    "fineweb_short_lines": _fineweb(of=short_lines, most=0.67, says="over 67 % of lines of 30 characters or fewer"),
    # the paper has 0.1; its text was made by the code
    "fineweb_duplicate_lines": _fineweb(
        of=duplicate_whole_line_characters, most=0.01, says="over 1 % of characters in lines that come again"
    ),
    # in the code alone
    "fineweb_lists": _fineweb(of=new_lines_per_word, most=0.3, says="more than three line ends for ten words"),
}
FAMILIES = tuple(dict.fromkeys(rule.family for rule in QUALITY_RULES.values()))
