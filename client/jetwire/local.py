"""The server on this machine, found without being told where: by the card it leaves in the user's runtime directory."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import msgspec

from jetwire.address import DEFAULT_TCP_PORT, Address, parse
from jetwire.errors import JetwireError

SOCKET_NAME = "jetwire.sock"
CARD_NAME = "server.json"
_RUN_DIRECTORIES = ("{XDG_RUNTIME_DIR}/jetwire", "/run/jetwire")
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_PROBE_SECONDS = 0.5


class Card(msgspec.Struct):
    """What a server says of itself: address by kind (`unix`, `tcp`, `http`, `ws`), and a token where one is asked for."""

    addresses: dict[str, str] = {}
    token: str | None = None

    def knows(self, where: Address) -> bool:
        """Whether this card's server is the one at an address. Another machine's never is."""
        for text in self.addresses.values():
            own = parse(text)
            if where.scheme == own.scheme == "unix" and where.path == own.path:
                return True
            if own.port and where.port == own.port and where.host in {own.host, *_LOOPBACK} and where.secure == own.secure:
                return True
        return False


def default_url() -> str:
    """`JETWIRE_URL` if it is set; else a server found in `$XDG_RUNTIME_DIR/jetwire` or `/run/jetwire`; else the default TCP port."""
    if url := os.environ.get("JETWIRE_URL"):
        return url
    for directory in _run_directories():
        known = _card(directory).addresses
        for url in (known.get("unix", f"unix://{directory / SOCKET_NAME}"), known.get("tcp")):
            if url is not None and _answers(parse(url)):
                return url
    return f"tcp://127.0.0.1:{DEFAULT_TCP_PORT}"


def default_token(url: str) -> str | None:
    """`JETWIRE_TOKEN`; else what stands in the file that `JETWIRE_TOKEN_FILE` names (default: `~/.config/jetwire/token`);
    else, for the server of this machine, what its card says. A card's token is never shown to any other server.
    """
    if token := os.environ.get("JETWIRE_TOKEN"):
        return token
    home = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    file = Path(os.environ.get("JETWIRE_TOKEN_FILE") or Path(home, "jetwire", "token"))
    try:
        if token := file.read_text(encoding="utf-8").strip():
            return token
    except FileNotFoundError:
        pass
    except OSError as error:
        raise JetwireError(f"{file}: {error.strerror}") from error
    except UnicodeDecodeError:
        raise JetwireError(f"{file} holds no token: it is no text") from None
    card = card_of(url)
    return card.token if card is not None else None


def card_of(url: str) -> Card | None:
    """The card of the server at an address, if it is one of this machine's and left one."""
    where = parse(url)
    return next((card for directory in _run_directories() if (card := _card(directory)).knows(where)), None)


def _run_directories() -> Iterator[Path]:
    for place in _RUN_DIRECTORIES:
        yield Path(place.format(XDG_RUNTIME_DIR=os.environ.get("XDG_RUNTIME_DIR", "/nowhere")))


def _card(directory: Path) -> Card:
    """The card there, or an empty one: no server, another user's, or one that is being replaced."""
    try:
        return msgspec.json.decode((directory / CARD_NAME).read_bytes(), type=Card)
    except (OSError, msgspec.DecodeError):
        return Card()


def _answers(where: Address) -> bool:
    """Whether somebody listens there: a server that was killed leaves its card and its socket behind."""
    try:
        with socket.socket(socket.AF_UNIX if where.scheme == "unix" else socket.AF_INET6 if ":" in where.host else socket.AF_INET) as probe:
            probe.settimeout(_PROBE_SECONDS)
            probe.connect(where.path if where.scheme == "unix" else (where.host, where.port))
    except OSError:
        return False
    return True
