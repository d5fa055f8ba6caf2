# Generated from jetwire/_async by client/twins.py; do not edit.
"""A server as an object: instances, sessions, snapshots."""

from __future__ import annotations

import ssl
from collections.abc import Generator
from contextlib import contextmanager
from typing import Self, TypedDict

from jetwire._sync.connection import Connection
from jetwire._sync.session import Session
from jetwire.errors import JetwireError


class _Options(TypedDict):
    token: str | None
    tls: ssl.SSLContext | None


class Server:
    """What `connect` gives.

    with jetwire.sync.connect() as server:
        with server.session() as session:
            ...
    """

    def __init__(self, url: str | None = None, *, token: str | None = None, tls: ssl.SSLContext | None = None) -> None:
        self._options = _Options(token=token, tls=tls)
        self.connection = Connection(url, **self._options)

    def __enter__(self) -> Self:
        self.connection.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()

    def live_connection(self) -> Connection:
        """The connection, or a new one if it was lost: sessions of the old one stay dead, since their work is gone."""
        if not self.connection.alive:
            fresh = Connection(self.connection.url, **self._options).open()
            if self.connection.alive:  # another task was quicker
                fresh.close()
            else:
                lost, self.connection = self.connection, fresh
                lost.close()  # it may still hold a socket, or a thread
        return self.connection

    def instances(self) -> dict[str, int]:
        """The running instances, by name."""
        return _instances(self.live_connection())

    @contextmanager
    def session(self, instance: str = "default") -> Generator[Session, None]:
        """A session of an instance, ended at the end of the block: what is not committed is rolled back."""
        session = self.begin_session(instance)
        with session:
            yield session

    def begin_session(self, instance: str = "default") -> Session:
        """Begins a session; `close` ends it."""
        connection = self.live_connection()
        other = connection.instead_for_sessions
        if other is not None:
            raise JetwireError(f"over HTTP a session ends with its request: use {other}")
        running = _instances(connection)
        if instance not in running:
            raise JetwireError(f"no running instance is called {instance!r}; there are {', '.join(sorted(running)) or 'none'}")
        answer = connection.BeginSession(running[instance])
        return Session(connection, answer["sesid"])


def _instances(connection: Connection) -> dict[str, int]:
    hello = connection.Hello(client="jetwire-python")
    return {row["name"]: row["instance"] for row in hello["instances"]}


def connect(url: str | None = None, *, token: str | None = None, tls: ssl.SSLContext | None = None) -> Server:
    """A server at an address (default: `JETWIRE_URL`, else the local one): `with connect() as server: ...`."""
    return Server(url, token=token, tls=tls)
