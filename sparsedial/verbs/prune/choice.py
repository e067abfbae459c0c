"""The parts of `prune`: the checkpoint and its texts, and the choice of what stays."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from sparsedial.model.checkpoint import model_of
from sparsedial.model.far import far_model
from sparsedial.model.reading import read_checkpoint
from sparsedial.model.stream import NamedTensor
from sparsedial.model.transformer import Transformer
from sparsedial.pruning.kept import Choice
from sparsedial.pruning.methods import Ask
from sparsedial.pruning.parts import PARTS, Part
from sparsedial.pruning.searching import Search
from sparsedial.pruning.second import SecondText
from sparsedial.pruning.shelf import Shelf, shelf_of
from sparsedial.pruning.sizing import choose_by_size, shares_of
from sparsedial.pruning.target import Target
from sparsedial.pruning.windows import Windows
from sparsedial.records.evaluation import CheckpointName
from sparsedial.records.prune import SearchStep
from sparsedial.shape.shape import Shape
from sparsedial.showing.notes import note
from sparsedial.text.prepare import Text
from sparsedial.verbs.checkpoint_names import name_of
from sparsedial.verbs.prune.prunable import require_memory, require_part, require_target
from sparsedial.verbs.prune.settings import PruneSettings
from sparsedial.verbs.prune.tasks import AskedTasks
from sparsedial.verbs.prune.texts import texts

Builder = Callable[[Shape, Iterable[NamedTensor]], Transformer]


@dataclass(frozen=True, kw_only=True, eq=False)
class Work:
    """The original, read and checked, what is asked of it, and the texts."""

    name: CheckpointName  # of the original, as it was when it was read
    shape: Shape
    tensors: Sequence[NamedTensor]
    build: Builder  # of a model, whole in memory or a layer at a time
    model: Transformer
    ask: Ask
    target: Target
    tasks: AskedTasks
    calibrating: Windows
    scored: Mapping[str, Windows]  # by text; the calibration's first
    again: bool  # whether the calibration is so short that it is scored itself
    second: SecondText
    text: Text | None  # the calibration text, split, where it is also trained on: its test split is scored

    @property
    def far(self) -> bool:
        """Whether models read their layers from files, one at a time."""
        return self.build is far_model

    @property
    def texts(self) -> tuple[Windows, Windows | None]:
        """Those that decide the result."""
        return self.calibrating, self.second.windows

    @property
    def part(self) -> Part:
        """What is turned off."""
        return PARTS[self.ask.how.part]


def opened(settings: PruneSettings, asks: Sequence[Ask], home: Path | None = None) -> Work:
    """Read the checkpoint and the texts; what can be refused is refused before a weight is read.

    The first of what is asked for is the work's. In `home` is the calibration text, where it is also trained on.

    Raises: UserError as `prune`.
    """

    checkpoint = read_checkpoint(settings.checkpoint, torch.bfloat16)
    shape = checkpoint.shape
    target = settings.target if settings.targets else Target("keep", asks[0].keep)
    for ask in asks:
        require_part(shape, ask, settings.checkpoint)
        require_target(target, shape, checkpoint.tensors, ask)
    tasks = AskedTasks.of(settings.asking())
    read = texts(settings, shape, home)
    build = far_model if settings.layer_by_layer else model_of
    if build is model_of:
        require_memory(shape, asks, target)
    name, model = name_of(settings.checkpoint), build(shape, checkpoint.tensors)
    tasks.require(settings.checkpoint, model)
    return Work(
        name=name,
        shape=shape,
        tensors=checkpoint.tensors,
        build=build,
        model=model,
        ask=asks[0],
        target=target,
        tasks=tasks,
        calibrating=read.calibrating,
        scored=read.scored,
        again=read.again,
        second=read.second,
        text=read.text,
    )


def chosen(work: Work, shelf: Shelf) -> Choice:
    """Calibrate, and choose what keeps the target. On the shelf is what was found of that before.

    Raises: UserError for a calibration text that the model knows less of than a uniform guess does, or a target that
    nothing keeps.
    """
    own, target = shelf.under(work.ask.how.part), work.target
    chooser = work.part.calibrate(work.model, torch.from_numpy(work.calibrating.ids_WS1), (work.ask,), own)
    if target.kind == "keep":
        return chooser(work.ask)

    def choose(keep: float) -> Choice:
        return chooser(replace(work.ask, keep=keep))

    if not target.how.searched:
        return choose_by_size(target, work.shape, work.tensors, work.ask, choose)

    def report(step: SearchStep, reached: float) -> None:
        note(f"{step.keep:.4g} of the {work.ask.how.part} stay: {target.how.words(reached)}")

    def forget(keep: float) -> None:
        shelf_of(own, replace(work.ask, keep=keep)).clear()

    search = Search(
        target=target,
        model=work.model,
        tensors=work.tensors,
        text=work.scored[work.calibrating.source],
        report=report,
        shelf=shelf,
        forget=forget,
    )
    return search.choice(shares_of(work.shape, work.ask), choose)
