"""Numbers with units, as people write and read them."""

from __future__ import annotations

import math
import re
from typing import Any

from sparsedial.errors import UserError

COUNT_UNITS = {"": 1, "k": 1e3, "m": 1e6, "b": 1e9, "g": 1e9, "t": 1e12, "p": 1e15, "e": 1e18}
SECOND_UNITS = {"": 1, "s": 1, "sec": 1, "min": 60, "m": 60, "h": 3600, "d": 86400, "ms": 1e-3}
BYTE_UNITS = {
    "": 1,
    "b": 1,
    **{f"{prefix}b": 1000**power for power, prefix in enumerate("kmgtp", start=1)},
    **{f"{prefix}ib": 1024**power for power, prefix in enumerate("kmgtp", start=1)},
}
JOULE_UNITS = {
    "": 1, "mj": 1e-3, "j": 1, "kj": 1e3, "Mj": 1e6, "gj": 1e9,
    "mwh": 3.6, "wh": 3600, "kwh": 3.6e6, "Mwh": 3.6e9, "gwh": 3.6e12,
}  # fmt: skip
SHARE_UNITS = {"": 1, "%": 0.01}

YEAR = 365.25 * 86400  # seconds

_QUANTITY = re.compile(r"\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*([A-Za-z]*|%)\s*")
_PART = re.compile(r"(\d+\.?\d*|\.\d+)\s*([A-Za-z]+)")
_UNIT = r"(?:%|min|m?s|h|days|years|[kMGTPE]?B|[km]?J|[kMGT]?Wh|W|FLOPs|nats)(?!\w)"
_TIED = re.compile(rf"(?<=\d) (?={_UNIT})|(?<=min|. h) (?=\d\d (?:s|min)\b)")
_PARTS = re.compile(rf"\s*(?:{_PART.pattern}\s*)+")


def _unit(written: str, units: dict[str, float]) -> str:
    """A unit as its table spells it: in any case, but for a first letter that means milli or mega."""
    mega = f"M{written[1:].lower()}"
    return mega if written.startswith("M") and mega in units else written.lower()


def _parse(text: str | float, units: dict[str, float], field: str, example: str) -> float:
    match = _QUANTITY.fullmatch(str(text))
    if match is None or _unit(match[2], units) not in units:
        raise UserError(f"cannot read '{text}'", hint=f"write it like {example}", field=field)
    value = float(match[1]) * units[_unit(match[2], units)]
    if not math.isfinite(value) or value <= 0:
        raise UserError(f"{text} is not a positive number", hint=f"write it like {example}", field=field)
    return value


def parse_count(text: str | float, field: str = "number", example: str = "1e18, 131B or 40k") -> float:
    """A positive count such as `1e18`, `3e9`, `131B` or `40k`; errors name the field."""
    return _parse(text, COUNT_UNITS, field, example)


def parse_counts(value: Any, field: str = "numbers") -> tuple[float, ...]:
    """Positive counts from `20k,50k`, a list or a single number."""
    items = value.split(",") if isinstance(value, str) else value if isinstance(value, list | tuple) else [value]
    return tuple(parse_count(item, field) for item in items)


def parse_number(text: str | float, field: str = "number") -> float:
    """A finite number such as `0.34`, `-0.1` or `1e3`, without a unit; errors name the field."""
    try:
        value = float(text)
    except ValueError:
        raise UserError(f"cannot read '{text}'", hint="write it like 0.34, without a unit", field=field) from None
    if not math.isfinite(value):
        raise UserError(f"{text} is not a finite number", hint="write it like 0.34", field=field)
    return value


def parse_seconds(text: str | float, field: str = "time") -> float:
    """Positive seconds from `90`, `10m`, `1.5h`, `2d`, or parts from the largest unit down, like `1h30m`."""
    example = "90s, 10m, 1.5h or 1h30m"
    parts = _PART.findall(str(text))
    sizes = [SECOND_UNITS.get(unit.lower(), 0) for _, unit in parts]
    if len(parts) < 2 or 0 in sizes or sizes != sorted(set(sizes), reverse=True) or _PARTS.fullmatch(str(text)) is None:
        return _parse(text, SECOND_UNITS, field, example)
    return _parse(
        sum(float(value) * size for (value, _), size in zip(parts, sizes, strict=True)), {"": 1}, field, example
    )


def parse_bytes(text: str | float, field: str = "memory") -> float:
    """Positive bytes from `80GB`, `512MiB` or a plain number."""
    return _parse(text, BYTE_UNITS, field, "80GB or 512MiB")


def parse_joules(text: str | float, field: str = "energy") -> float:
    """Positive joules from `5e6`, `40MJ` or `2.5kWh`; `40mJ` are millijoules."""
    return _parse(text, JOULE_UNITS, field, "40MJ or 2.5kWh")


def parse_share(text: str | float, field: str = "share") -> float:
    """A share above 0 from `8%` or `0.08`."""
    return round(_parse(text, SHARE_UNITS, field, "8% or 0.08"), 12)  # 7 * 0.01 is not 0.07


def parse_share_or_zero(text: str | float, field: str = "share") -> float:
    """A share as others, or 0."""
    return 0.0 if str(text).strip() in ("0", "0.0", "0%") else parse_share(text, field)


def parse_growth(text: str | float, field: str = "growth") -> float:
    """A share from `2%` or `0.02`. A plain 2 is refused as a text: whoever writes it for 2 % would get 200 %."""
    share = parse_share(text, field)
    if share >= 1 and isinstance(text, str) and "%" not in text:
        spelled = f"{100 * share:g}%"
        raise UserError(f"{text} is {spelled}", hint=f"write {share:g}% or {spelled}, whichever you mean", field=field)
    return share


def parse_speed(text: str | float, field: str = "speed") -> float:
    """Positive tokens per second from `40tok/s` or a plain number."""
    number = re.sub(r"\s*tok(ens)?/s$", "", str(text).strip())
    return _parse(number, {"": 1}, field, "40tok/s")


def parse_times(text: str | float, field: str = "factor") -> float:
    """A positive factor from `1.5x` or a plain number."""
    return _parse(text, {"": 1, "x": 1}, field, "1.5x")


def parse_joules_per_token(text: str | float, field: str = "energy") -> float:
    """Positive joules per token from `2J/100tok`, `0.02J/tok` or a plain number."""
    match = re.fullmatch(r"(.+?)\s*J\s*/\s*(\d*)\s*tok(ens)?", str(text).strip())
    example = "2J/100tok or 0.02J/tok"
    if match is None:
        return _parse(text, {"": 1}, field, example)
    tokens = _parse(match[2] or "1", {"": 1}, field, example)
    return _parse(match[1], {"": 1}, field, example) / tokens


def bare_exponent(text: str) -> str:
    """A number with its exponent as people write it: `1e21` for `1e+21`."""
    return text.replace("e+0", "e").replace("e+", "e")


def with_minus(text: str) -> str:
    """A number as people read it: its sign is a minus, not a hyphen. What a command reads back keeps the hyphen."""
    return text.replace("-", "\N{MINUS SIGN}")


def signed(value: float, form: str = ".3f") -> str:
    """A difference with its sign: `+0.118`, `−0.009`."""
    return with_minus(f"{value:+{form}}")


def _rounded(value: float) -> float:
    """The value as three significant digits say it: its unit is that of what is written, `1M` for 999,999."""
    return float(f"{value:.3g}")


def human_count(value: float) -> str:
    """Three significant digits with k, M, B or T; powers of ten beyond."""
    value = _rounded(value)
    for limit, letter in ((1e15, None), (1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return bare_exponent(f"{value:.3g}") if letter is None else f"{value / limit:.3g}{letter}"
    return f"{value:.3g}"


def human_factor(value: float) -> str:
    """Three significant digits of how many times: `2.5`, `178,000` or `1.07M`."""
    return f"{float(f'{value:.3g}'):,.10g}" if value < 1e6 else human_count(value)


def count_words(count: int, noun: str) -> str:
    """`1 file`, or `2,000 files`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def human_seconds(value: float) -> str:
    """`4.2 ms`, `12.3 s`, `4 min 05 s`, `2 h 10 min`, `12.5 days` or `3.1 years`."""
    if _rounded(value) < 1:
        return f"{value * 1e3:.3g} ms"
    if value < 100:
        return f"{value:.3g} s"
    if value >= 2 * YEAR:
        years = value / YEAR
        return f"{years:.1f} years" if years < 1000 else f"{years:.3g} years"
    if value >= 48 * 3600:
        return f"{value / 86400:.1f} days"
    whole = round(value)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def spelled_seconds(value: float) -> str:
    """Seconds as `parse_seconds` reads them: `45s`, `10m`, `1.5h` or `2d`."""
    for letter, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if value >= size and float(f"{value / size:.4g}") * size == value:
            return f"{value / size:.4g}{letter}"
    return f"{value:.10g}s"


def spelled_at_least(value: float) -> str:
    """Rounded up to whole minutes, from two hours up to hours, from two days up to days, for `parse_seconds`."""
    letter, size = next((letter, size) for letter, size in (("d", 86400), ("h", 3600), ("m", 0.0)) if value >= 2 * size)
    return f"{math.ceil(value / (size or 60))}{letter}"


def human_bytes(value: float) -> str:
    """Decimal units, as disks and GPU makers count: `1.34 GB`."""
    for power, prefix in ((6, "EB"), (5, "PB"), (4, "TB"), (3, "GB"), (2, "MB"), (1, "kB")):
        if _rounded(abs(value)) >= 1000**power:
            return f"{value / 1000**power:.3g} {prefix}"
    return f"{value:.0f} B"


def dtype_name(dtype: object) -> str:
    """`float32` from PyTorch's `torch.float32`."""
    return str(dtype).removeprefix("torch.")


def human_percent(share: float, digits: int = 2) -> str:
    """A share in percent, to `digits` significant digits: `0.61 %`, `100 %`."""
    return with_minus(f"{float(f'{100 * share:.{digits}g}'):g} %")


def unbroken(text: str) -> str:
    """A text whose units stay on one line with their numbers, and minutes with their seconds."""
    return _TIED.sub("\N{NO-BREAK SPACE}", text)


def human_cost(currency: str, value: float) -> str:
    """A budget in its currency: `1e18 FLOPs`, `7.0 days`, `4.1 kJ`, `$2,500`, `$0.25`."""
    if currency == "flops":
        return bare_exponent(f"{value:.3g} FLOPs")
    return {"seconds": human_seconds, "joules": human_joules, "dollars": human_dollars}[currency](value)


def human_dollars(value: float) -> str:
    """`$2,500`, with cents below ten dollars, and below a cent two digits: `$0.0034`."""
    if value >= 10:
        return f"${value:,.0f}"
    return f"${value:.2f}" if value >= 0.01 else f"${value:.2g}"


def human_joules(value: float) -> str:
    """`0.26 mJ`, `12.3 J`, `4.5 kJ`, and from one kilowatt-hour up `1.5 kWh`, `700 MWh` or more."""
    for size, unit in ((3.6e15, "TWh"), (3.6e12, "GWh"), (3.6e9, "MWh"), (3.6e6, "kWh")):
        if _rounded(value / size) >= 1:
            return f"{value / size:.3g} {unit}"
    if _rounded(value) >= 1e6:
        return f"{value / 1e3:,.0f} kJ"
    if _rounded(value) >= 1e3:
        return f"{value / 1e3:.3g} kJ"
    return f"{value:.3g} J" if value >= 0.1 or value == 0 else f"{float(f'{value * 1e3:.3g}'):.10g} mJ"


OPTIMIZERS = {"adamw": "AdamW", "muon": "Muon"}  # as people write them


def family_name(experts: int) -> str:
    """`dense` or `32 experts`."""
    return f"{experts} experts" if experts else "dense"
