"""Units of losses are told by the words of a column's name."""

from __future__ import annotations

import pytest

from sparsedial.law.loss_units import _unit_of


@pytest.mark.parametrize(
    ("name", "unit"),
    [
        ("bpb", "bits per byte or character"),
        ("val/bpb", "bits per byte or character"),
        ("eval/bits_per_byte", "bits per byte or character"),
        ("Bits per Byte", "bits per byte or character"),
        ("evalBitsPerByte", "bits per byte or character"),
        ("c4-en BPB (mean)", "bits per byte or character"),
        ("bits per character", "bits per byte or character"),
        ("loss_bits", "bits"),
        ("Loss [bits/token]", "bits"),
        ("Perplexity", "perplexity"),
        ("wikitext.ppl", "perplexity"),
        ("val_ppl_2", "perplexity"),
        ("loss", None),
        ("loss_8bit", None),
        ("orbit_loss", None),
        ("application loss", None),
    ],
)
def test_the_words_of_a_name_tell_the_unit(name, unit):
    found = _unit_of(name)
    assert (found and found.says) == unit
