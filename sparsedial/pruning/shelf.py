"""What a command has found so far: in memory, or in a folder where the same command goes on from it.

The name of a file of tensors ends in the digest of its content, and a record holds its own digest. So what was cut
short or changed is not believed: it counts as not found yet.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

from torch import Tensor

from sparsedial.errors import UserError, keeping
from sparsedial.model.shards import write_file
from sparsedial.model.stored import stored_in
from sparsedial.pruning.methods import Ask
from sparsedial.pruning.pace import Pace
from sparsedial.records.record import Record, plain, try_read, write
from sparsedial.store import Fault, digest, lock

R = TypeVar("R", bound=Record)
Group = Mapping[str, Callable[[], Tensor]]  # tensors by name, each fetched on demand
OF_DIGEST = 16  # letters of a command's digest that name a folder


class Shelf:
    """Groups of tensors, and records, by name. Whole numbers are kept as floating-point ones."""

    def __init__(self, folder: Path | None = None, heard: Callable[[int, int], None] = lambda done, of: None) -> None:
        """Without a folder all is held in memory. `heard` gets how many layers of how many a calibration has done."""
        self._folder, self.heard = folder, heard
        self._groups: dict[str, Group] = {}  # that were kept, or found whole
        self._records: dict[str, Record] = {}
        self._under: dict[str, Shelf] = {}

    def under(self, name: str) -> Shelf:
        """A shelf of its own on this one."""
        folder = None if self._folder is None else self._folder / name
        return self._under.setdefault(name, Shelf(folder, self.heard))

    def put(self, name: str, tensors: Mapping[str, Tensor]) -> Group:
        """Keep a group, in place of one of the same name.

        Raises: UserError where it cannot be written.
        """
        self.drop(name)
        self._groups[name] = (
            {key: lambda tensor=tensor: tensor for key, tensor in tensors.items()}
            if self._folder is None
            else self._written(name, tensors, self._folder)
        )
        return self._groups[name]

    def _written(self, name: str, tensors: Mapping[str, Tensor], folder: Path) -> Group:
        partial = folder / f"{name}.partial"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_file(partial, tensors)
            return _lying(partial.rename(folder / f"{name}.{_sha256(partial)}.safetensors"))
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise UserError(
                f"cannot write {partial}: {error.strerror or error}",
                hint="free some space; the same command goes on from where it was",
            ) from error

    def get(self, name: str) -> Group | None:
        """A group; None where it was not kept, or is not whole."""
        if name not in self._groups:
            for file in self._files(name):
                if file.name == f"{name}.{_sha256(file)}.safetensors":
                    self._groups[name] = _lying(file)
        return self._groups.get(name)

    def drop(self, name: str) -> None:
        """Forget a group, if there is one."""
        self._groups.pop(name, None)
        for file in self._files(name):
            file.unlink()

    def _files(self, name: str) -> list[Path]:
        return [] if self._folder is None else list(self._folder.glob(f"{name}.*.safetensors"))

    def write(self, name: str, record: Record) -> None:
        """Keep a record.

        Raises: UserError where it cannot be written.
        """
        self._records[name] = record
        if self._folder is not None:
            write(self._folder / f"{name}.json", record)

    def read(self, name: str, kind: type[R]) -> R | None:
        """A record of this kind; None where it was not kept, or is not whole."""
        if name not in self._records and self._folder is not None:
            found = try_read(self._folder / f"{name}.json", kind)
            if not isinstance(found, Fault):
                self._records[name] = found
        record = self._records.get(name)
        return record if isinstance(record, kind) else None

    def clear(self) -> None:
        """Forget everything on it."""
        self._groups, self._records, self._under = {}, {}, {}
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


def shelf_of(shelf: Shelf, ask: Ask) -> Shelf:
    """Where what is found for one method at one share is kept."""
    return shelf.under(digest(plain(ask))[:OF_DIGEST])


def _sha256(file: Path) -> str:
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _lying(file: Path) -> Group:
    return {name: stored.read for name, stored in stored_in(file).items()}


@contextlib.contextmanager
def shelf_beside(out: Path, key: str, say: Callable[[str], None]) -> Iterator[Shelf]:
    """The shelf of a command that writes `out`, in a hidden folder beside it; `key` is the digest of what decides all.

    The folder goes when the command is done, or is refused for one of its settings. Stopped in any other way, it stays,
    and the command of the same key finds it. One of another key does not use it, and says so.

    Raises: UserError where another process has it, or it cannot be written.
    """
    home = out.with_name(f".{out.name}.unfinished")
    with lock(home):
        own = home / key[:OF_DIGEST]
        if any(path.is_dir() and path != own for path in home.iterdir()):
            say(f"{home} holds what another command has found, with other settings or texts; it is not used")
        try:
            with keeping("what was found so far is", own):
                yield Shelf(own, Pace(say).heard)
        except UserError as error:
            if error.field is not None:  # the same command would be refused again
                shutil.rmtree(own, ignore_errors=True)
            raise
        else:
            shutil.rmtree(home, ignore_errors=True)
        finally:
            if not any(path.is_dir() for path in home.glob("*")):
                shutil.rmtree(home, ignore_errors=True)
