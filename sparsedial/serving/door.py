"""Who may ask a server: whoever has its key; without one, on a loopback address, what runs on this machine alone."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from sparsedial.serving.refused import Refused

SAFE = {  # how browsers are to treat what a server sends
    "Content-Security-Policy": "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
OWN_NAMES = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, kw_only=True)
class Door:
    """What a request must show to come in."""

    key: str | None  # asked for as `Authorization: Bearer KEY`
    loopback: bool  # whether the server listens on this machine alone
    open: frozenset[str]  # paths that need no key

    def check(self, path: str, headers: Mapping[str, str]) -> None:
        """Raises: Refused for a request that may not come in.

        Without a key, a page of another site could ask in its reader's browser: directly, which the origin shows, or
        under a name of its own that leads here (DNS rebinding), which the host shows. Ports do not matter: one may lead
        through a tunnel.
        """
        if self.key is not None:
            if path not in self.open and not self._has_key(headers.get("authorization", "")):
                words = "this server needs its key, as the header `Authorization: Bearer KEY`"
                raise Refused(401, words, code="invalid_api_key")
            return
        host, origin = headers.get("host", ""), headers.get("origin")
        if self.loopback and _name(host) not in OWN_NAMES:
            raise Refused(403, f"this server answers only requests to {OWN_NAMES[0]}", code="foreign_host")
        if origin is not None and origin.partition("://")[2] != host:
            raise Refused(403, "this server answers no pages of other sites", code="foreign_origin")

    def _has_key(self, given: str) -> bool:
        scheme, _, key = given.partition(" ")
        return scheme.lower() == "bearer" and hmac.compare_digest(key.strip().encode(), (self.key or "").encode())


def _name(host: str) -> str | None:
    """The name in a host header, without its port; None where it is none."""
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:  # of a bracket that is not closed
        return None
