"""Text of probes among the documents of a train split."""

from __future__ import annotations

from sparsedial.records.text import MixedProbes
from sparsedial.text.manifest import ManifestWriter, row_of
from sparsedial.text.probes import Mixture, documents
from sparsedial.text.shards import Shard


class Mixing:
    """Adds documents of probes to a train split that is being written, so that they always have their share of it."""

    def __init__(self, mixture: Mixture, train: Shard, manifest: ManifestWriter) -> None:
        self._mixture, self._train, self._manifest = mixture, train, manifest
        self._documents = documents(mixture.seed)
        self._count = self._tokens = self._bytes = 0

    def catch_up(self) -> None:
        """Add documents until their tokens have their share of those written so far."""
        while self._tokens < self._mixture.share * self._train.tokens:
            document = next(self._documents)
            added = self._train.add(document.text)
            self._manifest.add(row_of(document, "train", added))
            self._count += 1
            self._tokens += added.tokens + 1  # its end token
            self._bytes += len(document.text)

    def record(self) -> MixedProbes:
        """What was added."""
        return MixedProbes(
            share=self._mixture.share,
            seed=self._mixture.seed,
            documents=self._count,
            tokens=self._tokens,
            bytes=self._bytes,
        )
