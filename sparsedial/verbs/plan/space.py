"""The law of a plan, and the candidate shapes with their costs: those of a study, or those of the wide search."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from sparsedial.errors import UserError
from sparsedial.law.fence import fence
from sparsedial.law.law import Law, read_law
from sparsedial.law.literature import LING, PUBLISHED, published
from sparsedial.machine.devices import Device, find_device
from sparsedial.machine.profile import Profile, read_profile
from sparsedial.planning.candidates import MOST_EXPERTS, RATIOS, TOP_KS, candidates, rungs
from sparsedial.planning.costs import Costs
from sparsedial.records.grid import LayoutFile
from sparsedial.records.kinds import kind_of
from sparsedial.records.law import LAW_FILE
from sparsedial.records.profile import PROFILE_FILE
from sparsedial.records.study import STUDY_FILE, read_study
from sparsedial.shape.shapes import Shapes
from sparsedial.verbs.origin import require_study_has

DEFAULT_LAW = "abnar"
DEFAULT_CONTEXT, DEFAULT_VOCABULARY = 2048, 50_432  # what Abnar et al. 2025 trained with
SEQUENCES = 8  # per step on a measured machine, where no study set a batch


@dataclass(frozen=True, kw_only=True)
class FoundLaw:
    """A law by name or file."""

    law: Law
    misleads: str | None  # where a published one does
    study: Path | None  # the folder of the study that it came from

    @functools.cached_property
    def layout(self) -> LayoutFile | None:
        """The grid of its study; None without one. It is read once: the dial page needs it at every change."""
        return self.study and read_study(self.study / STUDY_FILE).frozen.layout

    @functools.cached_property
    def profile(self) -> Profile | None:
        """The machine that its study was measured on; None without one, read once as well."""
        return self.study and read_profile(self.study / PROFILE_FILE)


class Asked(Protocol):
    """The settings of a plan that determine the candidate shapes and their costs."""

    @property
    def context(self) -> int | None: ...
    @property
    def vocab_size(self) -> int | None: ...
    @property
    def max_experts(self) -> int | None: ...
    @property
    def top_k(self) -> int | None: ...
    @property
    def device(self) -> str | None: ...
    @property
    def devices(self) -> int: ...
    @property
    def price(self) -> float | None: ...


def find_law(name: str) -> FoundLaw:
    """A published law by name, or the law in a law.json or a study's folder.

    Raises: UserError for an unknown name, or a file that does not hold a law.
    """
    path = Path(name)
    if name not in PUBLISHED and (path.exists() or path.suffix == ".json"):
        file = path / LAW_FILE if path.is_dir() else path
        if kind_of(file) == "study":
            file = file.parent / LAW_FILE
        if file.name == LAW_FILE:
            require_study_has(file)
        study = file.parent if (file.parent / STUDY_FILE).exists() else None
        return FoundLaw(law=read_law(file), misleads=None, study=study)
    if name == LING.name:
        beside = "every plan shows its answer beside other laws"
        raise UserError("ling gives a ratio of compute, not a loss", hint=beside, field="law")
    if "/" in name and name.partition("/")[0] not in {known.partition("/")[0] for known in PUBLISHED}:
        raise UserError(f"{name}: no such file or folder", hint="name a published law, a law.json or a study's folder")
    law = published(name)
    assert isinstance(law, Law)
    return FoundLaw(law=law, misleads=f"{name}: {PUBLISHED[name].misleads}", study=None)


def space(asked: Asked, found: FoundLaw) -> tuple[Shapes, Costs]:
    """The candidate shapes and their costs: a study's own ladder and profile, or the wide search on a named device.

    The wide search holds the sparsity of a law that knows a single one.

    Raises: UserError for a context or a vocabulary other than the study's, and for too many chosen experts.
    """
    layout = found.layout
    if layout is not None:
        _require_its(asked, layout)
        return rungs(layout.ladder, layout.experts), _costs(asked, found, layout.batch, layout.ladder.context)
    context = asked.context or DEFAULT_CONTEXT
    most = max(asked.max_experts or 0, MOST_EXPERTS)
    if asked.top_k and asked.top_k * RATIOS[0] > most:
        raise UserError(
            f"{asked.top_k} needs at least {asked.top_k * RATIOS[0]} experts, and at most {most} are considered",
            hint=f"<max_experts> {asked.top_k * RATIOS[-1]}",
            field="top_k",
        )
    shapes = candidates(
        vocab_size=asked.vocab_size or DEFAULT_VOCABULARY,
        context=context,
        max_experts=most,
        top_ks=(asked.top_k,) if asked.top_k else TOP_KS,
        only_ratio=fence(found.law).ratio,
    )
    return shapes, _costs(asked, found, SEQUENCES, context)


def _require_its(asked: Asked, layout: LayoutFile) -> None:
    """A study's law is about its own context and tokenizer: another one would change every loss."""
    for field, given in (("context", asked.context), ("vocab_size", asked.vocab_size)):
        own = getattr(layout.ladder, field)
        if given not in (None, own):
            raise UserError(
                f"{given:,} is not what this study's models have, {own:,}, and its law is about these alone",
                hint=f"leave <{field}> out, or study the text again with another tokenizer or context",
                field=field,
            )


def _costs(asked: Asked, found: FoundLaw, batch: int, context: int) -> Costs:
    machine: Device | Profile | None
    if asked.device is None:
        machine = found.profile
    elif asked.device.endswith(".json") or Path(asked.device).is_file():
        machine = read_profile(Path(asked.device))
    else:
        machine = find_device(asked.device)
    return Costs(
        machine=machine,
        devices=asked.devices,
        dollars_per_hour=asked.price,
        batch=batch,
        context=context,
    )
