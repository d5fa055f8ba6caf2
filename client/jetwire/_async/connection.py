"""One connection: every method by its ESE name, notifications, and the end of it."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Any, Self

from jetwire import address, local
from jetwire._async.methods import Methods
from jetwire._async.transport import Transport, open_transport
from jetwire.errors import ConnectionLost, JetwireError

Listener = Callable[[str, Any], None]


class Connection(Methods):
    """A connection to a server.

        async with Connection("tcp://127.0.0.1:3731") as c:
            sesid = (await c.BeginSession(instance=1))["sesid"]

    Many calls may be under way at once; calls that name the same session run in the order they were made. A lost
    connection is not mended behind your back: its sessions are over, so every later call raises `ConnectionLost`.
    """

    def __init__(self, url: str | None = None, *, token: str | None = None, tls: ssl.SSLContext | None = None) -> None:
        self.url = url or local.default_url()
        self._address = address.parse(self.url)
        self._token = token or local.default_token(self.url)
        if self._token and not (self._token.isascii() and self._token.isprintable()):
            raise JetwireError("a token has only letters, digits and signs of ASCII")  # HTTP's headers carry no others
        self._tls = tls
        self._transport: Transport | None = None
        self._listeners: list[Listener] = []
        self.opened = 0  # how often: what was begun before the last time is over

    async def open(self) -> Self:
        await self.close()
        self._transport = await open_transport(self._address, self._notified, self._tls, self._token)
        self.opened += 1
        return self

    async def close(self) -> None:
        transport, self._transport = self._transport, None
        if transport is not None:
            await transport.close()

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def alive(self) -> bool:
        return self._transport is not None and self._transport.alive

    @property
    def instead_for_sessions(self) -> str | None:
        """The address that carries sessions, if this one does not: over HTTP a session ends with its request."""
        return (
            self._address._replace(scheme="wss" if self._address.secure else "ws").url
            if self._address.scheme in ("http", "https")
            else None
        )

    async def call(self, method: str, /, **params: Any) -> Any:
        """Calls any method by name; parameters that are None are left out."""
        if self._transport is None:
            raise ConnectionLost(f"not connected to {self.url}")
        return await self._transport.call(method, {name: value for name, value in params.items() if value is not None})

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Calls `listener(method, params)` for each notification; the returned function stops that."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def _notified(self, method: str, params: Any) -> None:
        for listener in list(self._listeners):
            listener(method, params)
