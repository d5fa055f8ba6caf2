"""Messages to and from a server, blocking. Hand-written for each twin; what stands above is not."""

from __future__ import annotations

import asyncio
import http.client
import logging
import socket
import ssl
import threading
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Protocol

from jetwire.address import Address
from jetwire.errors import ConnectionLost
from jetwire.wire import Answer, decode, decode_one, encode_call, http_refusal, no_http, unreachable

if TYPE_CHECKING:
    from jetwire._async.web import WebSocketTransport

Notify = Callable[[str, Any], None]
_READ_BYTES = 256 * 1024
_log = logging.getLogger("jetwire")


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
                    sock = tls.wrap_socket(sock, server_hostname=address.host)  # closes the plain one itself when it fails
        except OSError as error:
            raise unreachable(address.path or f"{address.host}:{address.port}", error) from error
        return cls(sock, notify)

    def call(self, method: str, params: dict[str, Any]) -> Any:
        with self._lock:
            if not self.alive:
                raise ConnectionLost("the connection is closed")
            self._last_id += 1
            data = encode_call(self._last_id, method, params) + b"\n"
            try:
                self._socket.sendall(data)
                answer = self._answer(self._last_id)
            except OSError as error:
                self.close()
                raise ConnectionLost(f"the connection was lost: {error}") from error
            except BaseException:
                self.close()  # interrupted in the middle of an answer: what comes next is not ours
                raise
        return answer.value()

    def close(self) -> None:
        self.alive = False
        self._socket.close()

    def _answer(self, call_id: int) -> Answer:
        while True:
            for answer in decode(self._line()):
                if answer.method is not None:
                    try:
                        self._notify(answer.method, answer.params)
                    except Exception:
                        _log.exception("a listener failed at the notification %s", answer.method)
                elif answer.id == call_id or answer.message_limit is not None:
                    return answer
                elif answer.error is not None and not isinstance(answer.id, int):
                    raise ConnectionLost(answer.error.text)

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
                raise ConnectionLost("the server closed the connection")


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
            if isinstance(error, http.client.BadStatusLine) and not isinstance(error, http.client.RemoteDisconnected):
                raise no_http(self._address.url) from error
            if isinstance(error, ssl.SSLError):
                raise unreachable(self._address.url, error) from error
            raise ConnectionLost(f"{self._address.url}: {error}") from error
        if response.status != 200:
            raise http_refusal(self._address.url, response.status, body.decode(errors="replace").strip() or response.reason)
        return decode_one(body).value()

    def close(self) -> None:
        self.alive = False
        self._http.close()


class LoopTransport:
    """WebSocket: the asynchronous transport on a loop of its own in a thread. Listeners are called in that thread."""

    def __init__(self, address: Address, notify: Notify, tls: ssl.SSLContext | None, token: str | None) -> None:
        from jetwire._async.web import WebSocketTransport  # aiohttp takes longer to import than all the rest

        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="jetwire", daemon=True)
        self._thread.start()
        try:
            self._inner: WebSocketTransport = self._run(WebSocketTransport.open(address, notify, tls, token))
        except BaseException:
            self._stop()
            raise

    @property
    def alive(self) -> bool:
        return not self._loop.is_closed() and self._inner.alive

    def call(self, method: str, params: dict[str, Any]) -> Any:
        if self._loop.is_closed():
            raise ConnectionLost("the connection is closed")
        try:
            return self._run(self._inner.call(method, params))
        except Exception:
            raise
        except BaseException:
            self.close()  # interrupted: what the session has come to is unknown, as on a stream
            raise

    def close(self) -> None:
        if not self._loop.is_closed():
            try:
                self._run(self._inner.close())
            finally:
                self._stop()

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
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
    transport = StreamTransport.open(address, notify, tls if address.secure else None)
    if token:
        try:
            transport.call("Hello", {"token": token})
        except BaseException:
            transport.close()
            raise
    return transport
