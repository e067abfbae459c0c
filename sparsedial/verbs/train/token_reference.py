"""The reference model that selects the tokens of `train` and `study`: trained if none is given, and what it lost."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sparsedial.model.digests import digest_of
from sparsedial.records.evaluation import CheckpointName
from sparsedial.records.token_selection import ReferenceLossesFile, ReferenceModelCost, StudyTokens
from sparsedial.runs.policy import Listener
from sparsedial.runs.run_store import RunStore
from sparsedial.selection.reference import train_reference
from sparsedial.selection.token_losses import (
    OTHERWISE,
    ScoringModel,
    expected_cost,
    require_reference,
    score_tokens,
    stride_of,
)
from sparsedial.shape.config import load_config
from sparsedial.store import Fault
from sparsedial.text.prepare import Text
from sparsedial.text.reference_losses import try_losses
from sparsedial.text.tokenizer import load_tokenizer
from sparsedial.units import human_count, human_percent
from sparsedial.verbs.train.started import FoundStart

FOLDER = "reference"  # in the command's folder: the model that it trained
NOTE_SECONDS = 30.0  # between two lines about how far a reference model has read


@dataclass(frozen=True, kw_only=True)
class AskedTokens:
    """A token selection that is asked for, on a text whose windows have a context."""

    share: float
    given: FoundStart | None  # None: a reference model is trained
    context: int
    device: str
    threads: int  # that read; the reference model is trained with one
    seed: int  # of the reference model

    def require_fits(self, text: Text) -> None:
        """Raises: UserError where the reference model that is given cannot score this text's windows."""
        if self.given is not None:
            path = self.given.name.path
            require_reference(self.given.shape, load_tokenizer(Path(path)), text, self.context, path)

    def expected(self, text: Text) -> ReferenceModelCost:
        """What the reference model costs; measured on a few steps where it has not been paid yet.

        Raises: UserError where the text is too small to train one.
        """
        self.require_fits(text)
        held = self._held(text)
        if held is not None:
            return held.cost
        return expected_cost(
            text,
            self.given and self.given.shape,
            context=self.context,
            seed=self.seed,
            device=self.device,
            threads=self.threads,
        )

    def made(self, text: Text, out: Path, listener: Listener, note: Callable[[str], None]) -> StudyTokens:
        """The losses of the reference model, which is trained first if none is given; both only if they are not there.

        Raises: UserError where the model does not fit the text, the text is too small, or a file cannot be written.
        """
        self.require_fits(text)
        facts = self._held(text)
        if facts is None:
            model = self._model(text, out, listener)
            note(f"the reference model reads {human_count(text.train_tokens)} train tokens")
            facts = score_tokens(
                text,
                model,
                context=self.context,
                device=self.device,
                threads=self.threads,
                report=_now_and_then(note),
            )
        return StudyTokens(share=self.share, reference=facts)

    def _held(self, text: Text) -> ReferenceLossesFile | None:
        """What is known of the losses beside the text, if they are whole and those of this model."""
        found = try_losses(text)
        if isinstance(found, Fault):
            return None
        facts, windows = found.facts, (self.context, stride_of(self.context))
        digest = self.given and self.given.name.digest
        same = facts.run is not None if digest is None else facts.run is None and facts.reference.digest == digest
        return facts if same and (facts.context_tokens, facts.stride_tokens) == windows else None

    def _model(self, text: Text, out: Path, listener: Listener) -> ScoringModel:
        if self.given is not None:
            return ScoringModel(name=self.given.name, run=None)
        store = RunStore(out / FOLDER)
        run = train_reference(
            text,
            store,
            seed=self.seed,
            device=self.device,
            listener=listener,
            context=self.context,
            field="token_share",
            otherwise=OTHERWISE,
        )
        folder = store.checkpoint(run.hash)
        family = str(load_config(folder).get("model_type"))
        name = CheckpointName(path=str(folder.resolve()), digest=digest_of(folder), family=family)
        return ScoringModel(name=name, run=run)


def _now_and_then(note: Callable[[str], None]) -> Callable[[int, int], None]:
    """Says from time to time how much of the train split is read."""
    said = time.monotonic()

    def report(done: int, of: int) -> None:
        nonlocal said
        if time.monotonic() - said > NOTE_SECONDS:
            said = time.monotonic()
            note(f"the reference model has read {human_percent(done / of)} of them")

    return report
