"""Sockets that do not wait for ever for somebody who is not there. No call has a time-out: recovery takes as long as it takes."""

from __future__ import annotations

import socket
from typing import Protocol

CONNECT_SECONDS = 30.0  # to be connected, with TLS and WebSocket where they are asked for
_KEEPALIVE = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 4}  # seconds, seconds, times


class _Options(Protocol):
    """A socket, or what an event loop shows of one."""

    @property
    def family(self) -> int: ...
    def setsockopt(self, level: int, option: int, value: int, /) -> None: ...


def keep_alive(sock: _Options) -> None:
    """Whoever waits for an answer learns within two minutes that the other machine has vanished; one that is only slow stays."""
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE.items():
            if hasattr(socket, name):  # not every system lets programs say how long
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
