"""A server as an object: instances, sessions, snapshots."""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Self, TypedDict

from jetwire._async.connection import Connection
from jetwire._async.session import Session
from jetwire.errors import JetwireError


class _Options(TypedDict):
    token: str | None
    tls: ssl.SSLContext | None


class Server:
    """What `connect` gives.

    async with jetwire.connect() as server:
        async with server.session() as session:
            ...
    """

    def __init__(self, url: str | None = None, *, token: str | None = None, tls: ssl.SSLContext | None = None) -> None:
        self._options = _Options(token=token, tls=tls)
        self.connection = Connection(url, **self._options)

    async def __aenter__(self) -> Self:
        await self.connection.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.connection.close()

    async def live_connection(self) -> Connection:
        """The connection, or a new one if it was lost: sessions of the old one stay dead, since their work is gone."""
        if not self.connection.alive:
            fresh = await Connection(self.connection.url, **self._options).open()
            if self.connection.alive:  # another task was quicker
                await fresh.close()
            else:
                lost, self.connection = self.connection, fresh
                await lost.close()  # it may still hold a socket, or a thread
        return self.connection

    async def instances(self) -> dict[str, int]:
        """The running instances, by name."""
        return await _instances(await self.live_connection())

    @asynccontextmanager
    async def session(self, instance: str = "default") -> AsyncGenerator[Session, None]:
        """A session of an instance, ended at the end of the block: what is not committed is rolled back."""
        session = await self.begin_session(instance)
        async with session:
            yield session

    async def begin_session(self, instance: str = "default") -> Session:
        """Begins a session; `close` ends it."""
        connection = await self.live_connection()
        other = connection.instead_for_sessions
        if other is not None:
            raise JetwireError(f"over HTTP a session ends with its request: use {other}")
        running = await _instances(connection)
        if instance not in running:
            raise JetwireError(f"no running instance is called {instance!r}; there are {', '.join(sorted(running)) or 'none'}")
        answer = await connection.BeginSession(running[instance])
        return Session(connection, answer["sesid"])


async def _instances(connection: Connection) -> dict[str, int]:
    hello = await connection.Hello(client="jetwire-python")
    return {row["name"]: row["instance"] for row in hello["instances"]}


def connect(url: str | None = None, *, token: str | None = None, tls: ssl.SSLContext | None = None) -> Server:
    """A server at an address (default: `JETWIRE_URL`, else the local one): `async with connect() as server: ...`."""
    return Server(url, token=token, tls=tls)
