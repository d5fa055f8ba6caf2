"""How programs on this machine find the server without being told where it is.

In the user's runtime directory lie a Unix socket and a card: the addresses, and where tokens are required one that is
good as long as this server lives. Whoever can read the card (its owner, root) could also use the socket. A lock says
whose they are: what a killed server left is replaced, what a living one has is left alone.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from jetwire_protocol.errors import JetError
from jetwire_server.files.directory_lock import DirectoryLock
from jetwire_server.files.local import LocalFiles

SOCKET_NAME = "jetwire.sock"
CARD_NAME = "server.json"


def runtime_directory(environment: Mapping[str, str] = os.environ) -> str:
    """Where clients look: `$XDG_RUNTIME_DIR/jetwire`, or `/run/jetwire` for a user without one."""
    own = environment.get("XDG_RUNTIME_DIR")
    return f"{own}/jetwire" if own else "/run/jetwire"


class LocalDoor:
    """One server's place in a runtime directory."""

    def __init__(self, directory: Path) -> None:
        self._files = LocalFiles(directory)
        self._lock = DirectoryLock(self._files)
        self._taken = False

    @property
    def socket(self) -> Path:
        return Path(self._files.root, SOCKET_NAME)

    def take(self) -> None:
        """Makes the directory if need be, and clears away what a dead server left. `JetError` says why it cannot be had."""
        self._files.make_directory("")
        self._lock.acquire()
        self._taken = True
        self._clear()

    def show(self, addresses: Mapping[str, str], token: str | None) -> None:
        """Puts the card there, whole or not at all."""
        card = {"pid": os.getpid(), "addresses": dict(addresses), "token": token}
        self._files.replace(CARD_NAME, json.dumps(card, indent=1).encode() + b"\n")

    def leave(self) -> None:
        """Takes the card and the socket away, if they are ours."""
        if self._taken:
            self._taken = False
            with suppress(JetError):  # somebody emptied the directory, or took the rights to it: nothing of ours is left to find
                self._clear()
            self._lock.release()

    def _clear(self) -> None:
        for name in (CARD_NAME, SOCKET_NAME):
            if self._files.exists(name):
                self._files.remove(name)
