"""How fast models read and write one sequence, the energy of a token and their memory, by one protocol for all."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import TypeVar

import torch

from sparsedial.errors import UserError
from sparsedial.machine.energy import Meter, processor_meter, spent
from sparsedial.machine.hardware import peak_process_bytes
from sparsedial.machine.timing import Timing, measure_in_turn
from sparsedial.model.checkpoint import load
from sparsedial.model.decoder import Decoder
from sparsedial.model.gates import gates_of
from sparsedial.model.transformer import Transformer
from sparsedial.model.turned import at_setting
from sparsedial.pruning.windows import Windows
from sparsedial.records.evaluation import Joules
from sparsedial.records.prune import Quantiles
from sparsedial.runs.alone import alone
from sparsedial.shape.turned import Turned

ROUNDS, ROUND_SECONDS = 5, 0.3
CALLS = 2  # that are timed of a model: one reads, one writes
ENERGY_SECONDS = 1.0  # of decoding
READ, WRITTEN = 512, 32  # tokens of a call, where the context allows it
Name = TypeVar("Name", bound=Hashable)


@dataclass(frozen=True)
class Place:
    """Where a model is found: a checkpoint's folder, the setting of its dial, and its gates if they lie elsewhere."""

    folder: Path
    setting: Turned = Turned()  # noqa: RUF009  # it never changes
    gates: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Speed, energy and memory of one model."""

    prefill: Quantiles  # tokens per second
    decode: Quantiles
    joules_per_token: Joules  # decoded
    peak_memory_bytes: int | None  # None where it was not measured
    why_no_peak: str | None = None  # where that was tried


def least_seconds(calls: int) -> float:
    """The least seconds in which so many calls are timed in turns."""
    return calls * ROUNDS * ROUND_SECONDS


def speeds_of(
    models: Mapping[Name, Transformer], place: Callable[[Name], Place | None], text: Sequence[int] = ()
) -> dict[Name, Speed]:
    """The speed, energy and memory of each model, by its name; `place` says where a process of its own finds it, if the
    memory is to be measured.

    All are timed in turns, so that other work on the machine affects all alike, and on the ids of a text: how many
    experts or neurons take part may depend on them. Without a text they are drawn.
    """
    calls: dict[tuple[Name, str], Callable[[], None]] = {}
    counts: dict[tuple[Name, str], int] = {}
    for name, model in models.items():
        calls[name, "prefill"], counts[name, "prefill"] = _reading(model, text)
        calls[name, "decode"], counts[name, "decode"] = _writing(model, text)
    timings = measure_in_turn(calls, rounds=ROUNDS, round_seconds=ROUND_SECONDS)
    rates = {key: _rate(timing, counts[key]) for key, timing in timings.items()}
    return {
        name: Speed(
            prefill=rates[name, "prefill"],
            decode=rates[name, "decode"],
            joules_per_token=_energy(decode, counts[name, "decode"], timings[name, "decode"]),
            peak_memory_bytes=peak,
            why_no_peak=why,
        )
        for name in models
        for decode, (peak, why) in [(calls[name, "decode"], _peak_at(place(name)))]
    }


def decode_rates(models: Mapping[Name, Transformer], text: Sequence[int] = ()) -> dict[Name, Quantiles]:
    """Tokens per second that each model writes, timed in turns as in `speeds_of`."""
    writing = {name: _writing(model, text) for name, model in models.items()}
    calls = {name: call for name, (call, _) in writing.items()}
    timings = measure_in_turn(calls, rounds=ROUNDS, round_seconds=ROUND_SECONDS)
    return {name: _rate(timing, writing[name][1]) for name, timing in timings.items()}


def times_as_fast(before: Transformer, after: Transformer, text: Sequence[int] = ()) -> float:
    """Tokens per second that a model writes over those of another, by medians."""
    rates = decode_rates({"before": before, "after": after}, text)
    return rates["after"].median / rates["before"].median


def _peak_at(place: Place | None) -> tuple[int | None, str | None]:
    """As `peak_memory`, or why it is not known: what was measured before is not lost for it."""
    try:
        return place and peak_memory(place, torch.get_num_threads()), None
    except UserError as error:
        return None, error.problem


def peak_memory(place: Place, threads: int) -> int:
    """The most memory that a process holds which loads a checkpoint, reads one sequence and writes on; of all of it.

    It is measured in a process of its own.

    Units:  bytes
    Raises: UserError where that process is killed, as it is where memory runs out.
    """
    return alone(_peak_here, place, threads)


def _peak_here(place: Place, threads: int) -> int:
    torch.set_num_threads(threads)
    whole = load(place.folder)
    gates = gates_of(place.folder, whole.shape, [place.setting], place.gates)
    model = at_setting(whole, place.setting, gates)
    for call, _ in (_reading(model), _writing(model)):
        call()
    return peak_process_bytes()


def timed_ids(windows: Windows) -> list[int]:
    """The first ids of a text, as many as a call reads at most."""
    return windows.ids_WS1[:, 1:].flatten()[:READ].tolist()


def _reading(model: Transformer, text: Sequence[int] = ()) -> tuple[Callable[[], None], int]:
    """What reads one sequence, and how many tokens that are."""
    read, _ = _lengths(model)
    return _prefill(model, _ids(model, read, text)), read


def _writing(model: Transformer, text: Sequence[int] = ()) -> tuple[Callable[[], None], int]:
    """What writes the end of such a sequence, token by token, and how many tokens that are."""
    read, written = _lengths(model)
    ids = _ids(model, read, text)
    return _decode(model, ids[: read - written], ids[read - written :]), written


def _lengths(model: Transformer) -> tuple[int, int]:
    """Tokens that are read in a call, and of them those that another call writes."""
    read = min(READ, model.shape.context)
    return read, max(1, min(WRITTEN, read // 2))


def _ids(model: Transformer, count: int, text: Sequence[int]) -> list[int]:
    """So many ids of a text, again and again where it is shorter; without one they are drawn."""
    draw = random.Random(0)
    return list(islice(cycle(text), count)) or [draw.randrange(model.shape.vocab_size) for _ in range(count)]


def _prefill(model: Transformer, ids: list[int]) -> Callable[[], None]:
    decoder = Decoder(model, 1, len(ids))

    def call() -> None:
        decoder.cache.free(0)
        decoder.read([ids])

    return call


def _decode(model: Transformer, before: list[int], tokens: list[int]) -> Callable[[], None]:
    """Write these tokens after the same beginning again and again."""
    decoder = Decoder(model, 1, len(before) + len(tokens))
    if before:
        decoder.read([before])

    def call() -> None:
        decoder.cache.shrink(0, len(before))
        for token in tokens:
            decoder.step([token])

    return call


def _rate(timing: Timing, tokens: int) -> Quantiles:
    return Quantiles(
        median=tokens / timing.median_seconds,
        p10=tokens / timing.high_seconds,
        p90=tokens / timing.low_seconds,
        count=timing.count,
    )


def _energy(call: Callable[[], None], tokens: int, timing: Timing) -> Joules:
    """Of a token of a decoding call: metered once over a second or more of calls, else stated watts times its seconds,
    with their range."""
    power = processor_meter(torch.get_num_threads())
    if power.metered:
        return spent(power, _metered(call, power) / tokens)
    seconds = timing.median_seconds, timing.low_seconds, timing.high_seconds
    return spent(power, *(power.joules(each) / tokens for each in seconds))


def _metered(call: Callable[[], None], power: Meter) -> float:
    """Joules of a call, as the meter counts them."""
    calls, began = 0, time.perf_counter()
    power.begin()
    while not calls or time.perf_counter() - began < ENERGY_SECONDS:
        call()
        calls += 1
    return power.joules(time.perf_counter() - began) / calls
