"""`profile`: what a training step takes on this machine, in seconds, joules and bytes, as a function of shape."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sparsedial.errors import UserError
from sparsedial.machine.energy import meter
from sparsedial.machine.hardware import describe, device_bytes
from sparsedial.machine.memory import measure_memory, step_bytes
from sparsedial.machine.profile import VALUE_BYTES, measure_profile
from sparsedial.shape.ladder import Ladder
from sparsedial.shape.shape import Shape
from sparsedial.showing.progress import Progress
from sparsedial.store import check_writable, write_json
from sparsedial.units import human_bytes, human_seconds, parse_seconds

EXPERTS = (0, 8, 64)  # of the shapes that are timed: dense, and towards both ends of the dial
MEMORY_EXPERTS = (0, 64)  # of those whose memory is measured, with a batch and a quarter of it


@dataclass(frozen=True, kw_only=True)
class ProfileSettings:
    """Where, with what batch, and for how long."""

    time: float = field(
        default=60.0,
        metadata={
            "parse": lambda text: parse_seconds(text, "--time"),
            "metavar": "T",
            "help": "to time steps, a few of each shape at least; measuring memory before takes half a minute or more",
        },
    )
    device: str = field(default="auto", metadata={"metavar": "cpu|cuda", "help": "where to train"})
    threads: int | None = field(default=None, metadata={"metavar": "N", "help": "of a CPU [one per core]"})
    batch: int = field(default=8, metadata={"metavar": "B", "help": "sequences of a step"})
    context: int = field(default=256, metadata={"metavar": "N", "help": "tokens of a sequence"})
    vocab_size: int = field(default=4096, metadata={"metavar": "V", "help": "of the tokenizer"})
    widths: tuple[int, ...] = field(
        default=(32, 64, 128, 256), metadata={"metavar": "D,…", "help": "d_model of the shapes that are measured"}
    )
    out: Path = field(default=Path("profile.json"), metadata={"metavar": "FILE", "help": "where it is written"})

    def __post_init__(self) -> None:
        for name, least in (("batch", 1), ("context", 8), ("vocab_size", 2), ("time", 1.0)):
            if getattr(self, name) < least:
                raise UserError(
                    f"profile: --{name.replace('_', '-')} {getattr(self, name):g} is too small",
                    hint=f"from {least:g} on",
                )
        if len(set(self.widths)) < 2 or min(self.widths) < 8:
            raise UserError("profile: --widths wants two widths or more, from 8 on", hint="like --widths 64,128,256")


def profile(settings: ProfileSettings) -> dict[str, Any]:
    """Measure seconds, joules and bytes of training steps here, and write the profile that `plan --device` takes.

    Raises: UserError for shapes that cannot be, or a GPU that is not there.
    """
    from sparsedial.sweep.phases import pick_device, pick_threads
    from sparsedial.sweep.timed import make_step, peak_bytes

    device, threads = pick_device(settings.device), pick_threads(settings.threads)
    dtype = "bfloat16" if device == "cuda" else "float32"
    ladder = Ladder(vocab_size=settings.vocab_size, context=settings.context)
    widths = sorted(set(settings.widths))
    check_writable(settings.out)
    _check_memory(ladder.shape(widths[-1], max(EXPERTS)), settings, device, VALUE_BYTES[dtype])
    held = [ladder.shape(width, experts) for width in sorted({widths[0], *widths[-2:]}) for experts in MEMORY_EXPERTS]
    batches = sorted({max(1, settings.batch // 4), settings.batch})
    number = itertools.count()
    with Progress() as progress:

        def peak(shape: Shape, batch: int, context: int) -> float:
            progress.cell("memory", "measuring memory", next(number), len(held) * len(batches))
            return peak_bytes(shape, batch, context, device, threads)

        progress.note(f"measuring memory: {len(held) * len(batches)} runs of ten steps")
        memory = measure_memory(peak, held, batches, settings.context, VALUE_BYTES[dtype])
        progress.forget("memory")
        progress.note(f"timing steps: {human_seconds(settings.time)} or more")
        measured = measure_profile(
            lambda shape, batch, context: make_step(shape, batch, context, device, threads),
            [ladder.shape(width, experts) for width in widths for experts in EXPERTS],
            batch=settings.batch,
            context=settings.context,
            budget_seconds=settings.time,
            machine=describe(),
            device=device,
            threads=threads,
            dtype=dtype,
            meter=meter(device, threads),
            memory=memory,
            told=lambda done, of: progress.cell("timing", "timing steps", done, of),
        )
    write_json(settings.out, measured.record())
    return {**measured.record(), "out": str(settings.out)}


def _check_memory(largest: Shape, settings: ProfileSettings, device: str, value_bytes: int) -> None:
    """Raises: UserError where the largest shape's step cannot fit, before anything is measured."""
    held = device_bytes(device)
    needed = float(step_bytes(largest, settings.batch, settings.context, value_bytes).total)
    if needed > held:
        raise UserError(
            f"profile: a step of width {largest.d_model} with {largest.experts} experts takes {human_bytes(needed)},"
            f" and there are {human_bytes(held)}",
            hint="take smaller --widths, --batch, --context or --vocab-size",
        )
