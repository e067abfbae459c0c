"""Loss spikes that were undone, in words."""

from __future__ import annotations

from sparsedial.records.run import Event


def event_words(event: Event) -> str:
    """A line about a spike that was undone."""
    loss = "NaN or infinity" if event.loss is None else f"{event.loss:.2f}"
    return (
        f"step {event.step}: the loss rose to {loss}; went back to step {event.back_to_step}"
        f" and skipped batch {event.batch_skipped}"
    )
