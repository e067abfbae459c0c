"""The Hugging Face Hub where there is a network, and what it left on disk where there is none."""

from __future__ import annotations

import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import datasets.config
import huggingface_hub.constants

SECONDS = 4.0  # to wait for an answer


@contextmanager
def hub() -> Iterator[None]:
    """Offline where the Hub does not answer: its client looks on disk then, and does not try again for minutes."""
    offline = huggingface_hub.constants.HF_HUB_OFFLINE
    _set_offline(offline or not _answers(huggingface_hub.constants.ENDPOINT))
    try:
        yield
    finally:
        _set_offline(offline)


def _set_offline(offline: bool) -> None:
    modules: tuple[Any, ...] = huggingface_hub.constants, datasets.config
    for module in modules:
        module.HF_HUB_OFFLINE = offline


def _answers(url: str) -> bool:
    """Whether a server answers in time, whatever it says. Looking up its name has no timeout of its own."""
    found = []

    def ask() -> None:
        try:
            urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=SECONDS).close()
        except urllib.error.HTTPError:
            pass
        except (OSError, ValueError):
            return
        found.append(True)

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(SECONDS)
    return bool(found)
