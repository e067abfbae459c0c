"""A page in the browser of this machine, where it has one."""

from __future__ import annotations

import webbrowser

from sparsedial.showing.notes import note


def open_page(address: str) -> None:
    """Open a page in the browser; where there is none, say so: many machines that serve have no screen."""
    if not webbrowser.open(address):
        note(f"no browser was found here; open {address} in one")
