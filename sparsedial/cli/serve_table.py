"""What `serve` would hold in memory, for people."""

from __future__ import annotations

from sparsedial.cli.rows import lines
from sparsedial.records.serving import ServeDryRun
from sparsedial.units import count_words, human_bytes, human_count


def serve_table(cost: ServeDryRun) -> str:
    """The name, the settings, and the memory of a server."""
    places = f"{count_words(cost.slots, 'answer')} of {cost.context_tokens:,} tokens at once"
    return lines(
        [
            ("name", cost.name),
            ("settings", f"{', '.join(cost.settings)}; {cost.default} unless a request asks for another"),
            ("weights", f"{human_bytes(cost.weight_bytes)}, {human_count(cost.total_parameters)} in {cost.dtype}"),
            ("cache", f"up to {human_bytes(cost.cache_bytes)}: {places}"),
            ("memory", f"{human_bytes(cost.memory_bytes)} in this machine"),
        ]
    )
