"""Where a server is: an address as text, and where one is looked for when none is given."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from jetwire.errors import JetwireError

DEFAULT_HTTP_PORT = 3730
DEFAULT_TCP_PORT = 3731
_SCHEMES = {"tcp": DEFAULT_TCP_PORT, "tcps": DEFAULT_TCP_PORT, "ws": DEFAULT_HTTP_PORT, "wss": DEFAULT_HTTP_PORT}
_SCHEMES |= {"http": DEFAULT_HTTP_PORT, "https": DEFAULT_HTTP_PORT, "unix": 0}
_ALIASES = {"tls": "tcps"}  # as the server names it
_RUN_DIRECTORIES = ("{XDG_RUNTIME_DIR}/jetwire", "/run/jetwire")
SOCKET_NAME = "jetwire.sock"


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
    parts = urlsplit(text if "://" in text else f"tcp://{text}")
    scheme = _ALIASES.get(parts.scheme, parts.scheme)
    if scheme not in _SCHEMES:
        raise JetwireError(f"{text}: an address begins with one of {', '.join(sorted(_SCHEMES))}")
    if scheme == "unix":
        return Address("unix", "", 0, parts.netloc + parts.path)
    try:
        port = parts.port or _SCHEMES[scheme]
    except ValueError as error:
        raise JetwireError(f"{text}: {error}") from None
    http = scheme in ("ws", "wss", "http", "https")
    return Address(scheme, parts.hostname or "127.0.0.1", port, (parts.path.rstrip("/") or "/rpc") if http else "")


def default() -> str:
    """`JETWIRE_URL` if it is set; else a local server's socket in `$XDG_RUNTIME_DIR/jetwire` or `/run/jetwire`; else its TCP port."""
    if url := os.environ.get("JETWIRE_URL"):
        return url
    for place in _RUN_DIRECTORIES:
        path = Path(place.format(XDG_RUNTIME_DIR=os.environ.get("XDG_RUNTIME_DIR", "/nowhere")), SOCKET_NAME)
        if path.is_socket() and os.access(path, os.W_OK):
            return f"unix://{path}"
    return f"tcp://127.0.0.1:{DEFAULT_TCP_PORT}"


def default_token() -> str | None:
    """`JETWIRE_TOKEN`, or what stands in the file that `JETWIRE_TOKEN_FILE` names (default: `~/.config/jetwire/token`), if any."""
    if token := os.environ.get("JETWIRE_TOKEN"):
        return token
    home = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    file = Path(os.environ.get("JETWIRE_TOKEN_FILE") or Path(home, "jetwire", "token"))
    try:
        return file.read_text(encoding="utf-8").strip() or None
    except FileNotFoundError:
        return None
    except OSError as error:
        raise JetwireError(f"{file}: {error.strerror}") from error
