"""The server's metrics, read from its HTTP port."""

from __future__ import annotations

import ssl
import urllib.request
from http.client import HTTPException

from jetwire import address
from jetwire.address import DEFAULT_HTTP_PORT
from jetwire.local import card_of

_SECONDS = 2.0


def address_of(url: str) -> str:
    """Where the metrics of the server at an address are: on its HTTP port, as far as that is known, else on the default one."""
    where = address.parse(url)
    if where.scheme in ("tcp", "tcps", "unix") and (card := card_of(url)) is not None and "http" in card.addresses:
        where = address.parse(card.addresses["http"])
    if where.scheme in ("ws", "http", "wss", "https"):
        return f"http{'s' if where.secure else ''}://{_host(where.host)}:{where.port}/metrics"
    return f"http{'s' if where.secure else ''}://{_host(where.host or '127.0.0.1')}:{DEFAULT_HTTP_PORT}/metrics"


def _host(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def read(url: str, token: str | None, tls: ssl.SSLContext | None = None) -> dict[str, float]:
    """Name (with its labels) to value; nothing if the server does not show them to us there."""
    try:
        request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"} if token else {})
        with urllib.request.urlopen(request, timeout=_SECONDS, context=tls) as answer:
            return parse(answer.read().decode())
    except (OSError, ValueError, HTTPException):
        return {}


def parse(text: str) -> dict[str, float]:
    """Prometheus' text format, without the buckets of histograms: their sums and counts are enough here."""
    found = {}
    for line in text.splitlines():
        name, _, value = line.rpartition(" ")
        if name and not line.startswith("#") and "_bucket{" not in name:
            found[name] = float(value)
    return found
