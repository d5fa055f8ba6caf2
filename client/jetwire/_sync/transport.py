"""Messages to and from a server, blocking. Hand-written for each twin; what stands above is not."""

from __future__ import annotations

import asyncio
import http.client
import socket
import ssl
import threading
from collections.abc import Callable
from typing import Any, Protocol

from jetwire._async import transport as async_transport
from jetwire.address import Address
from jetwire.errors import ConnectionLost
from jetwire.wire import decode, encode_call

Notify = Callable[[str, Any], None]
_READ_BYTES = 256 * 1024


class Transport(Protocol):
    """A connection that carries one call at a time."""

    @property
    def alive(self) -> bool: ...
    def call(self, method: str, params: dict[str, Any]) -> Any: ...
    def close(self) -> None: ...


class StreamTransport:
    """TCP and Unix sockets: one line a message. The fastest way there is for a program that does one thing at a time."""

    def __init__(self, sock: socket.socket, notify: Notify) -> None:
        self._socket = sock
        self._notify = notify
        self._rest = b""
        self._last_id = 0
        self._lock = threading.Lock()
        self.alive = True

    @classmethod
    def open(cls, address: Address, notify: Notify, tls: ssl.SSLContext | None) -> StreamTransport:
        try:
            if address.scheme == "unix":
                sock = socket.socket(socket.AF_UNIX)
                sock.connect(address.path)
            else:
                sock = socket.create_connection((address.host, address.port))
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if tls is not None:
                    sock = tls.wrap_socket(sock, server_hostname=address.host)
        except OSError as error:
            raise ConnectionLost(f"no server at {address.path or f'{address.host}:{address.port}'}: {error}") from error
        return cls(sock, notify)

    def call(self, method: str, params: dict[str, Any]) -> Any:
        with self._lock:
            if not self.alive:
                raise ConnectionLost("the connection is closed")
            self._last_id += 1
            try:
                self._socket.sendall(encode_call(self._last_id, method, params) + b"\n")
                return self._answer(self._last_id)
            except OSError as error:
                self.alive = False
                raise ConnectionLost(str(error)) from error
            except BaseException as error:
                if not isinstance(error, Exception):
                    self.alive = False  # interrupted in the middle of an answer: what comes next is not ours
                    self._socket.close()
                raise

    def close(self) -> None:
        self.alive = False
        self._socket.close()

    def _answer(self, call_id: int) -> Any:
        while True:
            for answer in decode(self._line()):
                if answer.method is not None:
                    self._notify(answer.method, answer.params)
                elif answer.id == call_id:
                    return answer.value()
                elif answer.error is not None:
                    self.alive = False
                    raise ConnectionLost(answer.error.message)

    def _line(self) -> bytes:
        parts: list[bytes] = []
        data = self._rest
        while True:
            end = data.find(b"\n")
            if end >= 0:
                parts.append(data[:end])
                self._rest = data[end + 1 :]
                return b"".join(parts)
            if data:
                parts.append(data)
            data = self._socket.recv(_READ_BYTES)
            if not data:
                raise ConnectionResetError("the server closed the connection")


class HttpTransport:
    """One POST a call: sessions do not outlive it, so it is for Batch, snapshots, backups and instances."""

    def __init__(self, address: Address, tls: ssl.SSLContext | None, token: str | None) -> None:
        self._address = address
        self._headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
        self._http = (
            http.client.HTTPSConnection(address.host, address.port, context=tls)
            if address.secure
            else http.client.HTTPConnection(address.host, address.port)
        )
        self.alive = True

    def call(self, method: str, params: dict[str, Any]) -> Any:
        try:
            self._http.request("POST", self._address.path, encode_call(1, method, params), self._headers)
            response = self._http.getresponse()
            body = response.read()
        except (OSError, http.client.HTTPException) as error:
            self._http.close()
            raise ConnectionLost(f"{self._address.url}: {error}") from error
        if response.status not in (200, 413):
            raise ConnectionLost(f"{self._address.url} answered {response.status} {response.reason}")
        return decode(body)[0].value()

    def close(self) -> None:
        self.alive = False
        self._http.close()


class LoopTransport:
    """WebSocket: the asynchronous transport on a loop of its own in a thread."""

    def __init__(self, address: Address, notify: Notify, tls: ssl.SSLContext | None, token: str | None) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="jetwire", daemon=True)
        self._thread.start()
        try:
            self._inner: async_transport.Transport = self._run(async_transport.WebSocketTransport.open(address, notify, tls, token))
        except BaseException:
            self._stop()
            raise

    @property
    def alive(self) -> bool:
        return self._inner.alive

    def call(self, method: str, params: dict[str, Any]) -> Any:
        return self._run(self._inner.call(method, params))

    def close(self) -> None:
        self._run(self._inner.close())
        self._stop()

    def _run(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


def open_transport(address: Address, notify: Notify, tls: ssl.SSLContext | None, token: str | None) -> Transport:
    if address.secure and tls is None:
        tls = ssl.create_default_context()
    if address.scheme in ("ws", "wss"):
        return LoopTransport(address, notify, tls, token)
    if address.scheme in ("http", "https"):
        return HttpTransport(address, tls, token)
    transport = StreamTransport.open(address, notify, tls)
    if token:
        transport.call("Hello", {"token": token})
    return transport
