"""The digests of a checkpoint folder's files: written beside them, and checked before the files are read."""

from __future__ import annotations

import hashlib
from pathlib import Path

from sparsedial.errors import UserError
from sparsedial.records.dial_file import DIAL_FILE
from sparsedial.records.prune import PRUNE_FILE
from sparsedial.store import digest, read_json, write_json

SUMMARY = "sparsedial.json"  # a folder made by others has none
BESIDE = (SUMMARY, PRUNE_FILE, DIAL_FILE)  # files that say something of a checkpoint, and are no part of it


def write_digests(folder: Path) -> None:
    """Write the digest of every file that is there."""
    write_json(folder / SUMMARY, {"files_sha256": {path.name: sha256_of(path) for path in sorted(folder.iterdir())}})


def digest_of(folder: Path) -> str:
    """Hex SHA-256 of what decides a checkpoint's answers: its weights, its configurations and its tokenizer."""
    names = sorted(path for path in folder.iterdir() if path.suffix in (".safetensors", ".json", ".jinja", ".model"))
    return digest({path.name: sha256_of(path) for path in names if path.name not in BESIDE})


def verify(folder: Path) -> None:
    """Raises: UserError where a file is missing, cut short or edited since its digest was written."""
    if not (folder / SUMMARY).exists():
        return
    digests = read_json(folder / SUMMARY).get("files_sha256")
    if not isinstance(digests, dict) or any(Path(name).name != name for name in digests):
        raise UserError(f"{folder / SUMMARY}: holds no digests of this folder's files")
    for name, sha256 in digests.items():
        try:
            found = sha256_of(folder / name)
        except OSError as error:
            raise UserError(f"{folder / name}: missing or unreadable", hint="the checkpoint is not whole") from error
        if found != sha256:
            raise UserError(
                f"{folder / name}: its content does not match its digest", hint="it was cut short or edited"
            )


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of a file's content."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
