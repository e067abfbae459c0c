"""`profile`: seconds, joules and bytes of a training step on this machine, as a function of the shape."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path

from sparsedial.errors import UserError
from sparsedial.machine.at_once import NUMBERS
from sparsedial.machine.memory import Memory, measure_memory, step_bytes
from sparsedial.machine.profile import VALUE_BYTES
from sparsedial.records.answers import Measured
from sparsedial.records.profile import PROFILE_FILE
from sparsedial.records.record import write
from sparsedial.records.tiles import TILES_FILE
from sparsedial.settings import setting
from sparsedial.shape.ladder import Ladder
from sparsedial.shape.shape import Shape
from sparsedial.showing.progress import Progress
from sparsedial.store import check_writable
from sparsedial.units import human_bytes, human_seconds, parse_seconds

EXPERTS = (0, 8, 64)  # of the timed shapes: dense, and towards both ends of the dial
MEMORY_EXPERTS = (0, 64)  # of the shapes whose memory is measured, each with the batch and a quarter of it
LEAST = {"batch": 1, "context": 8, "vocab_size": 2, "time": 1.0}


@dataclass(frozen=True, kw_only=True)
class ProfileSettings:
    """The device, the batch and the time to measure with."""

    time: float = setting(
        60.0,
        "time for timing steps, at least a few per shape; before that, measuring memory takes half a minute or more",
        "T",
        parse=parse_seconds,
    )
    device: str = setting("auto", "device to measure", "cpu|cuda")
    threads: int | None = setting(None, "CPU threads [one per core]", "N")
    batch: int = setting(8, "sequences per step", "B")
    context: int = setting(256, "tokens per sequence", "N")
    vocab_size: int = setting(4096, "vocabulary size", "V")
    widths: tuple[int, ...] = setting((32, 64, 128, 256), "d_model of the measured shapes", "D,…")
    tune: bool = setting(False, "also time the experts' GPU kernels with other tiles, and write the fastest")
    out: Path = setting(Path(PROFILE_FILE), "the file to write", "FILE")

    def __post_init__(self) -> None:
        for name, least in LEAST.items():
            if getattr(self, name) < least:
                raise UserError(f"{getattr(self, name):g} is too small", hint=f"{least:g} or more", field=name)
        if len(set(self.widths)) < 2 or min(self.widths) < 8:
            raise UserError("needs at least two widths, each 8 or more", hint="like 64,128,256", field="widths")


def profile(settings: ProfileSettings) -> Measured:
    """Measure seconds, joules and bytes of training steps here, and write the profile that `plan --device` takes.

    Raises: UserError for impossible shapes, or a missing GPU.
    """
    from sparsedial.runs.devices import pick_device, pick_threads, training_dtype
    from sparsedial.runs.measuring import measure_on

    device, threads = pick_device(settings.device), pick_threads(settings.threads)
    value_bytes = VALUE_BYTES[training_dtype(device)]
    ladder = Ladder(vocab_size=settings.vocab_size, context=settings.context)
    widths = sorted(set(settings.widths))
    check_writable(settings.out)
    _check_memory(ladder.shape(widths[-1], max(EXPERTS)), settings, device, value_bytes)
    with Progress() as progress:
        if settings.tune:
            progress.note(_tuned(device, settings.out.with_name(TILES_FILE)))
        memory = _memory(settings, ladder, widths, device, threads, value_bytes, progress)
        progress.note(f"timing steps: {human_seconds(settings.time)} or more")

        def turn(done: int, of: int) -> None:
            progress.cell("timing", "timing steps", done, of)

        shapes = [ladder.shape(width, experts) for width in widths for experts in EXPERTS]
        measure = measure_on(device, threads, turn, memory, at_once=() if device == "cpu" else NUMBERS)
        measured = measure(shapes, settings.batch, settings.context, settings.time)
    write(settings.out, measured)
    return Measured(**measured, out=str(settings.out))


def _tuned(device: str, out: Path) -> str:
    """Tune the experts' tiles and write them; or why there is nothing to tune."""
    from sparsedial.kernels import triton_launch

    if device == "cpu" or not triton_launch.available():
        return "nothing to tune: tiles are those of a GPU's Triton kernels, and none run here"
    from sparsedial.kernels.tuned import NAMED
    from sparsedial.runs.tuning import tune_here

    found = tune_here()
    if found is None:
        return "nothing to tune: the table of tiles has no row for this GPU, which takes the small ones"
    write(out, found)
    return f"tuned {len(found.kernels)} kernels; runs in the folder of {out} read it, others with {NAMED}={out}"


def _memory(
    settings: ProfileSettings,
    ladder: Ladder,
    widths: list[int],
    device: str,
    threads: int,
    value_bytes: int,
    progress: Progress,
) -> Memory:
    """The memory model, calibrated with runs of ten steps at the smallest width and the two largest."""
    from sparsedial.runs.timed import peak_bytes

    shapes = [ladder.shape(width, experts) for width in sorted({widths[0], *widths[-2:]}) for experts in MEMORY_EXPERTS]
    batches = sorted({max(1, settings.batch // 4), settings.batch})
    runs, number = len(shapes) * len(batches), itertools.count()

    def peak(shape: Shape, batch: int, context: int) -> float:
        progress.cell("memory", "measuring memory", next(number), runs)
        return peak_bytes(shape, batch, context, device, threads)

    progress.note(f"measuring memory: {runs} runs of ten steps")
    memory = measure_memory(peak, shapes, batches, settings.context, value_bytes)
    progress.forget("memory")
    return memory


def _check_memory(largest: Shape, settings: ProfileSettings, device: str, value_bytes: int) -> None:
    """Raises: UserError where the largest shape's step cannot fit, before anything is measured."""
    from sparsedial.runs.card_memory import device_bytes

    held = device_bytes(device)
    needed = float(step_bytes(largest, settings.batch, settings.context, value_bytes).total)
    if needed > held:
        raise UserError(
            f"a step of width {largest.d_model} with {largest.experts} experts needs {human_bytes(needed)}"
            f" of memory, and this device has {human_bytes(held)}",
            hint="give smaller <widths>, <batch>, <context> or <vocab_size>",
        )
