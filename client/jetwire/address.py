"""Where a server is: an address as text."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import urlsplit

from jetwire.errors import JetwireError

DEFAULT_HTTP_PORT = 3730
DEFAULT_TCP_PORT = 3731
_SCHEMES = {"tcp": DEFAULT_TCP_PORT, "tcps": DEFAULT_TCP_PORT, "ws": DEFAULT_HTTP_PORT, "wss": DEFAULT_HTTP_PORT}
_SCHEMES |= {"http": DEFAULT_HTTP_PORT, "https": DEFAULT_HTTP_PORT, "unix": 0}
_ALIASES = {"tls": "tcps"}  # as the server names it


class Address(NamedTuple):
    """`tcp://host:port`, `tcps://...`, `ws://...`, `wss://...`, `http://...`, `https://...` or `unix:///path`."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def secure(self) -> bool:
        return self.scheme in ("tcps", "wss", "https")

    @property
    def url(self) -> str:
        """For the transports that go over HTTP."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}{self.path}"


def parse(text: str) -> Address:
    try:
        parts = urlsplit(text if "://" in text else f"tcp://{text}")
    except ValueError as error:
        raise JetwireError(f"{text}: {error}") from None
    scheme = _ALIASES.get(parts.scheme, parts.scheme)
    if scheme not in _SCHEMES:
        raise JetwireError(f"{text}: an address begins with one of {', '.join(sorted(_SCHEMES))}")
    if scheme == "unix":
        return Address("unix", "", 0, parts.netloc + parts.path)
    try:
        port = parts.port or _SCHEMES[scheme]
        (parts.hostname or "").encode("idna")  # as it will be looked up: no part is empty, or longer than names can be
    except ValueError as error:
        raise JetwireError(f"{text}: {error}") from None
    http = scheme in ("ws", "wss", "http", "https")
    return Address(scheme, parts.hostname or "127.0.0.1", port, (parts.path.rstrip("/") or "/rpc") if http else "")
