"""The machines of a study in words."""

from __future__ import annotations

from sparsedial.records.launch import Launch
from sparsedial.units import count_words


def machines_sentence(launch: Launch) -> str:
    """`a trained 20 runs, b 14; 1 run was begun anew, since its worker was gone`."""
    hosts = ", ".join(f"{host.name} {count_words(host.runs, 'run')}" for host in launch.hosts)
    again = launch.attempts_superseded
    begun = f"; {count_words(again, 'run')} went on elsewhere, since a worker was gone" if again else ""
    return hosts + begun
