"""The text of another kind that is scored beside the calibration's: what the calibration cannot show shows there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sparsedial.errors import UserError
from sparsedial.pruning.windows import Windows, read_windows
from sparsedial.records.prune import SecondDomain, TakenFile
from sparsedial.text.corpus import Corpus, is_selection, open_corpus
from sparsedial.text.held_out_file import held_out_files
from sparsedial.text.tokenizer import Tokenizer
from sparsedial.units import count_words

NOT_GIVEN = "no second text was given"
LEAST_WINDOWS = 2  # of a file that is taken: how sure the loss of one is cannot be said


@dataclass(frozen=True, kw_only=True, eq=False)
class SecondText:
    """The second text, or why there is none."""

    windows: Windows | None
    taken: TakenFile | None = None  # where it is a file of the calibration text
    reason: str | None = None

    @property
    def record(self) -> SecondDomain | None:
        """What an answer says of it."""
        found = self.windows
        if found is None:
            return None
        return SecondDomain(source=found.source, digest=found.digest, tokens=found.tokens, taken=self.taken)


def taken_from(
    sources: Sequence[str], tokenizer: Tokenizer, *, vocab_size: int, context: int, tokens: int
) -> tuple[Sequence[str] | Corpus, SecondText]:
    """A text without the file that differs most from its others, and windows of that file with so many tokens.

    Where no file can be left out it is the whole text, and the reason.

    Raises: UserError for a text that is missing or bad.
    """
    if any(is_selection(Path(source).expanduser()) for source in sources):
        return sources, SecondText(windows=None, reason=f"{NOT_GIVEN}, and a selection is read as a whole")
    corpus, least = open_corpus(tuple(sources)), LEAST_WINDOWS * context
    for held_out in held_out_files(corpus, tokenizer, least):
        try:
            windows = read_windows(
                held_out.file, tokenizer, vocab_size=vocab_size, context=context, tokens=tokens, field="calibrate"
            )
        except UserError:
            continue  # shorter than it seemed, or one that is read among others and not alone
        taken = TakenFile(
            divergence_bits=held_out.divergence_bits,
            median_divergence_bits=held_out.median_divergence_bits,
            bytes_share=held_out.bytes_share,
            files=len(corpus.files),
        )
        return held_out.rest, SecondText(windows=windows, taken=taken)
    return corpus, SecondText(windows=None, reason=f"{NOT_GIVEN}, and {_why_not(corpus, least)}")


def _why_not(corpus: Corpus, least_tokens: int) -> str:
    """Why no file of a text can be left out."""
    name, files = ",".join(corpus.sources), len(corpus.files)
    if files == 1:
        return f"{name} is one file"
    return (
        f"of {name} with its {count_words(files, 'file')} none has both {least_tokens:,} tokens, which is"
        f" {LEAST_WINDOWS} windows, and at most a quarter of the text"
    )
