"""Messages to and from a server, blocking. Hand-written for each twin; what stands above is not."""

from __future__ import annotations

import asyncio
import http.client
import logging
import os
import selectors
import socket
import ssl
import threading
from collections.abc import Callable, Coroutine
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import TYPE_CHECKING, Any, Protocol

from jetwire.address import Address
from jetwire.errors import ConnectionLost, JetwireError
from jetwire.sockets import CONNECT_SECONDS, keep_alive
from jetwire.wire import Answer, decode, decode_one, encode_call, http_refusal, no_http, unreachable

if TYPE_CHECKING:
    from jetwire._async.web import WebSocketTransport

Notify = Callable[[str, Any], None]
_READ_BYTES = 256 * 1024
_CLOSED = "the connection is closed, or another process's"
_log = logging.getLogger("jetwire")


def _wake(sock: socket.socket) -> None:
    """Ends a socket's connection, so that a thread that waits for it goes on: closing alone leaves it waiting."""
    with suppress(OSError):
        socket.socket.shutdown(sock, socket.SHUT_RDWR)  # not TLS's own, after which another thread might write in the clear


def _refuse_within(caller: int) -> None:
    """A listener or a signal handler that makes a call within a call of its own thread would wait for itself."""
    if caller == threading.get_ident():
        raise JetwireError("a call of this thread is under way on this connection: listeners and signal handlers need one of their own")


def leaving(error: BaseException | None) -> AbstractContextManager[None]:
    """For the asynchronous twin's sake: here whoever interrupts a call has closed its connection."""
    return nullcontext()


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
        self._caller = 0  # the thread whose call is under way
        self._process = os.getpid()
        self._open = True

    @classmethod
    def open(cls, address: Address, notify: Notify, tls: ssl.SSLContext | None) -> StreamTransport:
        try:
            if address.scheme == "unix":
                sock = socket.socket(socket.AF_UNIX)
                sock.connect(address.path)
            else:
                sock = socket.create_connection((address.host, address.port), CONNECT_SECONDS)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                keep_alive(sock)
                if tls is not None:
                    sock = tls.wrap_socket(sock, server_hostname=address.host)  # closes the plain one itself when it fails
                sock.settimeout(None)
        except OSError as error:
            raise unreachable(address.path or f"{address.host}:{address.port}", error) from error
        return cls(sock, notify)

    @property
    def alive(self) -> bool:
        return self._open and os.getpid() == self._process  # a fork has the socket too, but its parent's are the answers

    def call(self, method: str, params: dict[str, Any]) -> Any:
        if not self.alive:
            raise ConnectionLost(_CLOSED)
        _refuse_within(self._caller)
        with self._lock:
            try:
                self._caller = threading.get_ident()
                self._last_id += 1
                data = encode_call(self._last_id, method, params) + b"\n"
                answer = self._exchange(data)
            finally:
                self._caller = 0
        return answer.value()

    def close(self) -> None:
        """Also from another thread than the one that waits for an answer, which gets `ConnectionLost`."""
        if self.alive:
            _wake(self._socket)
        self._open = False
        self._socket.close()

    def _exchange(self, data: bytes) -> Answer:
        try:
            self._socket.sendall(data)
            return self._answer(self._last_id)
        except OSError as error:
            lost = f"the connection was lost: {error}" if self._open else _CLOSED
            self.close()
            raise ConnectionLost(lost) from error
        except BaseException:
            self.close()  # interrupted in the middle of an answer: what comes next is not ours
            raise

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
                raise ConnectionLost("the server closed the connection" if self._open else _CLOSED)


class HttpTransport:
    """One POST a call: sessions do not outlive it, so it is for Batch, snapshots, backups and instances."""

    def __init__(self, address: Address, tls: ssl.SSLContext | None, token: str | None) -> None:
        self._address = address
        self._headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
        self._http = (
            http.client.HTTPSConnection(address.host, address.port, context=tls, timeout=CONNECT_SECONDS)
            if address.secure
            else http.client.HTTPConnection(address.host, address.port, timeout=CONNECT_SECONDS)
        )
        self._http.auto_open = 0  # a connection that another thread has closed stays so
        self._lock = threading.Lock()
        self._caller = 0  # the thread whose call is under way
        self._process = os.getpid()
        self._open = True

    @property
    def alive(self) -> bool:
        return self._open and os.getpid() == self._process

    def call(self, method: str, params: dict[str, Any]) -> Any:
        if not self.alive:
            raise ConnectionLost(_CLOSED)
        _refuse_within(self._caller)
        body = encode_call(1, method, params)
        with self._lock:
            try:
                self._caller = threading.get_ident()
                response, answer = self._exchange(body)
            finally:
                self._caller = 0
        if response.status != 200:
            raise http_refusal(self._address.url, response.status, answer.decode(errors="replace").strip() or response.reason)
        return decode_one(answer).value()

    def close(self) -> None:
        sock = self._http.sock
        if self.alive and sock is not None:
            _wake(sock)
        self._open = False
        self._http.close()

    def _exchange(self, body: bytes) -> tuple[http.client.HTTPResponse, bytes]:
        try:
            self._connect()
            self._http.request("POST", self._address.path, body, self._headers)
            response = self._http.getresponse()
            return response, response.read()
        except (OSError, http.client.HTTPException) as error:
            self._http.close()
            if isinstance(error, http.client.BadStatusLine) and not isinstance(error, http.client.RemoteDisconnected):
                raise no_http(self._address.url) from error
            if isinstance(error, ssl.SSLError):
                raise unreachable(self._address.url, error) from error
            raise ConnectionLost(f"{self._address.url}: {error}") from error
        except BaseException:
            self._http.close()  # interrupted: the rest of this answer is not the next one's
            raise

    def _connect(self) -> None:
        """Makes a connection, also where the server has ended an idle one: noticed later, a call would seem to be lost."""
        if not self._open:
            raise ConnectionLost(_CLOSED)
        if (sock := self._http.sock) is not None:
            with selectors.DefaultSelector() as selector:
                try:
                    selector.register(sock, selectors.EVENT_READ)
                except ValueError:  # closed by another thread just now
                    raise ConnectionLost(_CLOSED) from None
                if not selector.select(0):
                    return
            self._http.close()
        self._http.connect()
        sock = self._http.sock
        if sock is None or not self._open:  # closed by another thread meanwhile
            raise ConnectionLost(_CLOSED)
        keep_alive(sock)
        sock.settimeout(None)


class LoopTransport:
    """WebSocket: the asynchronous transport on a loop of its own in a thread. Listeners are called in that thread."""

    def __init__(self, address: Address, notify: Notify, tls: ssl.SSLContext | None, token: str | None) -> None:
        from jetwire._async.web import WebSocketTransport  # aiohttp takes longer to import than all the rest

        self._process = os.getpid()
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
        return self._lasts() and self._inner.alive

    def call(self, method: str, params: dict[str, Any]) -> Any:
        if not self._lasts():
            raise ConnectionLost(_CLOSED)
        _refuse_within(self._thread.ident or 0)  # where listeners are called
        try:
            return self._run(self._inner.call(method, params))
        except Exception:
            raise
        except BaseException:
            self.close()  # interrupted: what the session has come to is unknown, as on a stream
            raise

    def close(self) -> None:
        if self._lasts():
            try:
                self._run(self._inner.close())
            finally:
                self._stop()

    def _lasts(self) -> bool:
        """Whether the loop still runs; in a fork it does not, for its thread is the parent's."""
        return os.getpid() == self._process and not self._loop.is_closed()

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
