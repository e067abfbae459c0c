"""What an engine is doing in the text format of Prometheus."""

from __future__ import annotations

from sparsedial.serving.asks import Load

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
PREFIX = "sparsedial_"
METRICS = {  # name: its kind, its field of Load, what it counts
    "slots": ("gauge", "slots", "Answers that can be written at once."),
    "slots_busy": ("gauge", "busy", "Answers that are being written."),
    "answers_waiting": ("gauge", "waiting", "Answers that wait for a slot."),
    "prompt_tokens_read_total": ("counter", "tokens_read", "Tokens of prompts that were read."),
    "prompt_tokens_cached_total": ("counter", "tokens_cached", "Tokens of prompts that a slot held."),
    "tokens_written_total": ("counter", "tokens_written", "Tokens that were written."),
    "busy_seconds_total": ("counter", "seconds_busy", "Seconds in which the model computed."),
    "joules_total": ("counter", "joules", "Joules that the machine used in them."),
}


def metrics_text(load: Load) -> str:
    """A few lines for each number.

    Source: Prometheus, "Exposition formats"
    """
    return "".join(
        f"# HELP {PREFIX}{name} {words}\n# TYPE {PREFIX}{name} {kind}\n{PREFIX}{name} {getattr(load, field)!r}\n"
        for name, (kind, field, words) in METRICS.items()
    )
