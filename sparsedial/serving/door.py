"""Who may ask a server: whoever has its key; without one, on a loopback address, what runs on this machine alone."""

from __future__ import annotations

import hmac
import ipaddress
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
OWN_NAME = "localhost"


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
        if self.loopback and not _is_own(host):
            raise Refused(403, f"this server answers only requests to {OWN_NAME}", code="foreign_host")
        if origin is not None and origin.partition("://")[2] != host:
            raise Refused(403, "this server answers no pages of other sites", code="foreign_origin")

    def _has_key(self, given: str) -> bool:
        scheme, _, key = given.partition(" ")
        return scheme.lower() == "bearer" and hmac.compare_digest(key.strip().encode(), (self.key or "").encode())


def _is_own(host: str) -> bool:
    """Whether a host header leads to this machine whoever resolves it: by its own name, or by a loopback address."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name == OWN_NAME or ipaddress.ip_address(name).is_loopback
    except ValueError:  # another name, or a bracket that is not closed
        return False
