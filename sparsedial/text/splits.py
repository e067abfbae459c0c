"""Which documents are for training, which for choosing (validation), and which for the verdict (test)."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sparsedial.records.text import HeldOutCounts
from sparsedial.text.documents import Document
from sparsedial.text.spaces import squeezed

SPLITS = ("train", "validation", "test")
HELD_OUT = ("test", "validation")  # in the order in which they are filled
HELD_OUT_SHARE = 0.05  # of the bytes, for each of validation and test
HELD_OUT_MOST_BYTES = 16 * 2**20
OVERFULL = 1.1  # of its share of the bytes, which a held-out split may hold at most
PARTS_PER_TEXT = 40  # a document above twice the size of such a part is cut
PARTS_PER_SPLIT = 16  # of a document that no held-out split can hold


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """What is kept of a document between two readings of its corpus."""

    group: str
    size: int
    checksum: int
    fingerprint: bytes  # equal for texts that differ in white space only


def entry(document: Document) -> Entry:
    """What the split needs to know of a document."""
    words = hashlib.blake2b(squeezed(document.text), digest_size=16)
    return Entry(
        group=document.group,
        size=len(document.text),
        checksum=zlib.crc32(document.text),
        fingerprint=words.digest(),
    )


def is_same(document: Document, item: Entry) -> bool:
    """Whether this is still the document of the entry; fast, since every reading asks it."""
    found = (document.group, len(document.text), zlib.crc32(document.text))
    return found == (item.group, item.size, item.checksum)


def cuts(entries: Iterable[Entry]) -> dict[str, int]:
    """The groups to be cut, with the bytes of their parts: groups of more than a twentieth of the whole text.

    So a text in one file has at least twenty documents, and no held-out split is one long document. Where groups are
    too large to fill the held-out splits, which have 16 MiB at most, those that no split can hold are cut instead.
    """
    sizes = group_sizes(entries)
    part = max(1, sum(sizes.values()) // PARTS_PER_TEXT)
    long = {group: part for group, size in sizes.items() if size > 2 * part}
    quota = _quota(sizes)
    large = [group for group, size in sizes.items() if size > OVERFULL * quota]
    if long or not large or set(HELD_OUT) <= set(assign(sizes).values()):
        return long
    return dict.fromkeys(large, max(1, int(quota) // PARTS_PER_SPLIT))


def group_sizes(entries: Iterable[Entry]) -> dict[str, int]:
    """Bytes per group."""
    sizes: dict[str, int] = {}
    for item in entries:
        sizes[item.group] = sizes.get(item.group, 0) + item.size
    return sizes


def assign(sizes: Mapping[str, int]) -> dict[str, str]:
    """The split of each group: by a hash of its name, until test and then validation have their share of the bytes.

    Whole groups only, so a group larger than a held-out share always trains. Nothing but names and sizes matters, so
    the same text splits the same way everywhere.
    """
    quota = _quota(sizes)
    filled: dict[str, int] = dict.fromkeys(HELD_OUT, 0)
    splits: dict[str, str] = {}
    for group in sorted(sizes, key=lambda name: hashlib.sha256(name.encode(errors="surrogateescape")).digest()):
        split = next((name for name in HELD_OUT if _takes(filled[name], sizes[group], quota)), "train")
        splits[group] = split
        if split != "train":
            filled[split] += sizes[group]
    return splits


def _quota(sizes: Mapping[str, int]) -> float:
    """Bytes that each held-out split should have."""
    return min(HELD_OUT_SHARE * sum(sizes.values()), HELD_OUT_MOST_BYTES)


def _takes(filled: int, size: int, quota: float) -> bool:
    # stopping at 0.9 avoids filling the last gap with small groups only
    return filled < 0.9 * quota and filled + size <= OVERFULL * quota


def destinations(entries: Iterable[Entry], splits: Mapping[str, str]) -> tuple[list[str | None], HeldOutCounts]:
    """The split of each document in order, None for one that is left out; and how many were left out of each split.

    A held-out document is left out where, apart from white space, it equals a train document or an earlier held-out
    one. Of a pair in validation and test the one in validation is kept, so no test document was seen before.
    """
    listed = list(entries)
    seen = {item.fingerprint for item in listed if splits[item.group] == "train"}
    found: list[str | None] = [splits[item.group] for item in listed]
    removed: dict[str, int] = dict.fromkeys(SPLITS[1:], 0)
    for split in removed:  # validation before test
        for index, item in enumerate(listed):
            if found[index] != split:
                continue
            if item.fingerprint in seen:
                found[index] = None
                removed[split] += 1
            seen.add(item.fingerprint)
    return found, HeldOutCounts(**removed)
