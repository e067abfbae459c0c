"""The files of the pages that servers show, with their media types."""

from __future__ import annotations

from importlib import resources

MEDIA_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}


def page_file(name: str) -> tuple[bytes, str]:
    """What a file of a page holds, and its media type."""
    found = (resources.files("sparsedial.showing") / "assets" / name).read_bytes()
    return found, MEDIA_TYPES[name.rpartition(".")[2]]
