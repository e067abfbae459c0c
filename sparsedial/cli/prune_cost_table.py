"""The tables of `prune --dry-run` and of `dial --measure --dry-run`."""

from __future__ import annotations

from collections.abc import Sequence

from sparsedial.cli.rows import Rows, lines
from sparsedial.records.dry_run import DialDryRun, PruneDryRun
from sparsedial.units import count_words, human_bytes, human_count, human_seconds


def prune_dry_table(cost: PruneDryRun) -> str:
    """What turning parts off would cost."""
    steps = f", and {count_words(cost.search_steps, 'share')} tried before" if cost.search_steps else ""
    texts = f"{human_count(cost.calibration_tokens)} calibrate, {human_count(cost.scored_tokens)} score"
    held = cost.memory_bytes
    memory = cost.memory_bytes_reason or "" if held is None else f"{human_bytes(held)}, of the weights"
    return lines(
        [
            ("parameters", _parameters(cost.total_parameters, cost.active_parameters)),
            ("what stays", _left(cost)),
            ("tokens", f"{texts} the original and {count_words(cost.choices, 'choice')}{steps}"),
            *_time(cost.seconds, cost.not_counted),
            ("memory", memory),
            *([] if cost.disk_bytes is None else [("disk", f"{human_bytes(cost.disk_bytes)}, of the weights")]),
        ]
    )


def dial_dry_table(cost: DialDryRun) -> str:
    """What measuring settings would cost."""
    count = len(cost.settings)
    gates = f", {human_count(cost.calibration_tokens)} measure gates" if cost.calibration_tokens else ""
    return lines(
        [
            ("parameters", _parameters(cost.total_parameters, cost.active_parameters)),
            ("settings", f"{count}: {', '.join(cost.settings)}"),
            ("tokens", f"{human_count(cost.scored_tokens)} score each setting{gates}"),
            *_time(cost.seconds, cost.not_counted),
            ("memory", f"{human_bytes(cost.memory_bytes)}, of the weights"),
        ]
    )


def _parameters(total: int, active: int) -> str:
    return f"{human_count(total)} total, {human_count(active)} active"


def _left(cost: PruneDryRun) -> str:
    if cost.keep is None or cost.left_total_parameters is None or cost.left_active_parameters is None:
        return f"not known: {cost.left_reason}"
    share = "all" if cost.keep == 1 else f"{cost.keep:.4g}"
    return f"{share}: {_parameters(cost.left_total_parameters, cost.left_active_parameters)}"


def _time(seconds: float, not_counted: Sequence[str]) -> Rows:
    about = f"about {human_seconds(round(seconds) or 1)}, without"
    return [("time", f"{about} {not_counted[0]}"), *(("", f"and {more}") for more in not_counted[1:])]
