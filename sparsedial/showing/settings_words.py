"""The measured settings of a checkpoint in words: for the table of the command line, and for the dial page."""

from __future__ import annotations

from statistics import mean

from sparsedial.records.dial import PageSettings, SettingPoint, Tick
from sparsedial.records.dial_file import DialFile, DialPoint
from sparsedial.records.setting import Setting
from sparsedial.shape.turned import DEFAULT
from sparsedial.showing.numbers import grown_words, rate_words
from sparsedial.units import human_bytes, human_count, human_joules

HEADS = ("active", "added loss,\nnats per token", "written,\ntokens/s", "read,\ntokens/s", "memory", "energy\na token")
CLOSE = 3  # times: of sizes that lie within it few of the ticks would be seen, so they are ticks themselves
TICKS = tuple(float(f"{digits}e{power}") for power in range(3, 13) for digits in (1, 1.5, 2, 3, 5, 7))


def setting_name(point: DialPoint, dial: DialFile, *, short: bool = False) -> str:
    """A setting's name, marked where it is the one of training."""
    name = short_name(point.setting) if short else point.setting.name
    return f"{name} (default)" if point.setting.name == dial.default != DEFAULT else name


def short_name(setting: Setting) -> str:
    """A setting's name; where each layer has a number of its own, with their mean, since dial.json lists them."""
    numbers = setting.top_k_experts
    _, *others = setting.name.split(",")
    return ",".join([f"k={mean(numbers):.3g} by layer", *others]) if isinstance(numbers, tuple) else setting.name


def energy_words(dial: DialFile) -> str | None:
    """How the energy of a written token is known, which is the same for all settings."""
    energies = [point.costs and point.costs.joules_per_token for point in dial.settings]
    return next((f"{energy.basis}, {energy.source}" for energy in energies if energy), None)


def setting_cells(point: DialPoint) -> list[str]:
    """What was measured of a setting, as `HEADS` names it."""
    costs = point.costs
    if costs is None:
        return [human_count(point.setting.active_parameters), *[""] * (len(HEADS) - 1)]
    energy, rates = costs.joules_per_token, (costs.decode_tokens_per_second, costs.prefill_tokens_per_second)
    return [
        human_count(point.setting.active_parameters),
        "" if point.loss_increase is None else grown_words(point.loss_increase),
        *("" if rate is None else rate_words(rate) for rate in rates),
        "" if costs.peak_memory_bytes is None else human_bytes(costs.peak_memory_bytes),
        "" if energy is None else human_joules(energy.joules),
    ]


def page_settings(dial: DialFile) -> PageSettings:
    """A checkpoint's settings as the dial page shows them."""
    measured = [(point, point.costs) for point in dial.settings if point.costs is not None]
    points = [
        SettingPoint(
            name=short_name(point.setting),
            active_parameters=point.setting.active_parameters,
            loss=next(iter(costs.loss.values())).loss,
        )
        for point, costs in measured
        if costs.loss
    ]
    texts = sorted({name for _, costs in measured for name in costs.loss})
    sizes, energy = {point.active_parameters for point in points}, energy_words(dial)
    close = sizes if sizes and max(sizes) < CLOSE * min(sizes) else set[int]()
    return PageSettings(
        heads=("setting", *(" ".join(head.split("\n")) for head in HEADS)),
        rows=tuple((setting_name(point, dial), *setting_cells(point)) for point in dial.settings),
        points=tuple(sorted(points, key=lambda point: point.active_parameters)),
        ticks=tuple(Tick(value=value, text=human_count(value)) for value in sorted({*TICKS, *close})),
        note=f"Measured on {', '.join(texts)}, with {dial.machine.processor}. The law's line is about its own text."
        + (f" Energy of a written token: {energy}." if energy else "")
        + "".join(f" Note: {words}." for words in dial.warnings),
    )
