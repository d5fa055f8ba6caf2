"""Messages to and from a server, over streams. Hand-written for each twin; what stands above is not."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable
from typing import Any, Protocol, cast

from jetwire.address import Address
from jetwire.errors import ConnectionLost, JetwireError
from jetwire.sockets import CONNECT_SECONDS, keep_alive
from jetwire.wire import LARGE_BYTES, Answer, decode, encode_call, unreachable

Notify = Callable[[str, Any], None]
_log = logging.getLogger("jetwire")
CLOSE_SECONDS = 2.0  # for what is still to be sent and answered, before the connection is cut


def leaving(error: BaseException | None) -> asyncio.Timeout:
    """What a block says on its way out is sent and done in its turn; one whose time is up does not wait long to hear of it."""
    return asyncio.timeout(CLOSE_SECONDS if isinstance(error, asyncio.CancelledError | TimeoutError) else None)


class Transport(Protocol):
    """A connection that carries calls: many may be under way at once."""

    @property
    def alive(self) -> bool: ...
    async def call(self, method: str, params: dict[str, Any]) -> Any: ...
    async def close(self) -> None: ...


class Pending:
    """The calls under way, by id."""

    def __init__(self, notify: Notify) -> None:
        self._notify = notify
        self._waiting: dict[int, asyncio.Future[Answer]] = {}
        self._large: dict[int, int] = {}  # bytes of those that may be too large
        self._last_id = 0
        self._loop = asyncio.get_running_loop()
        self._new_future = self._loop.create_future
        self.lost: BaseException | None = None

    @property
    def alive(self) -> bool:
        return self.lost is None and not self.orphaned

    @property
    def orphaned(self) -> bool:
        """Whether the event loop is over in which all this was: nothing can be done any more, and its sockets went with it."""
        return self._loop.is_closed()

    def new(self, method: str, params: dict[str, Any]) -> tuple[bytes, asyncio.Future[Answer]]:
        """A call's message, and what will be its answer."""
        if self.lost is not None:
            raise ConnectionLost(str(self.lost) or "the connection was lost")
        if self._loop is not asyncio.get_running_loop():
            raise ConnectionLost("the connection belongs to another event loop")
        self._last_id = call_id = self._last_id + 1
        message = encode_call(call_id, method, params)
        future: asyncio.Future[Answer] = self._new_future()
        self._waiting[call_id] = future
        if len(message) > LARGE_BYTES:
            self._large[call_id] = len(message)
        return message, future

    def receive(self, data: bytes | str) -> None:
        """One message; the answer to a call that was cancelled is dropped. `JetwireError` for what is no JSON-RPC."""
        for answer in decode(data):
            if type(answer.id) is int:
                self._answer(answer.id, answer)
            elif answer.method is not None:
                try:
                    self._notify(answer.method, answer.params)
                except Exception:
                    _log.exception("a listener failed at the notification %s", answer.method)
            elif (limit := answer.message_limit) is not None:
                for call_id in [one for one, size in self._large.items() if size > limit]:
                    self._answer(call_id, answer)
            elif answer.error is not None:  # an error that answers no call in particular ends them all
                self.fail(ConnectionLost(answer.error.text))

    def _answer(self, call_id: int, answer: Answer) -> None:
        if self._large:
            self._large.pop(call_id, None)
        future = self._waiting.pop(call_id, None)
        if future is not None and not future.done():
            future.set_result(answer)

    def fail(self, reason: BaseException) -> None:
        """No more answers will come: the first reason given is the one that every call gets."""
        if self.lost is None:
            self.lost = reason
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(ConnectionLost(str(self.lost) or "the connection was lost"))
                future.exception()  # looked at: a caller that was cancelled meanwhile will not
        self._waiting.clear()


class StreamTransport(asyncio.Protocol):
    """TCP and Unix sockets: one line a message."""

    def __init__(self, notify: Notify) -> None:
        self._pending = Pending(notify)
        self._parts: list[bytes] = []
        self._writable = asyncio.Event()
        self._writable.set()
        self._closed = asyncio.Event()
        self._transport: asyncio.Transport

    @classmethod
    async def open(cls, address: Address, notify: Notify, tls: ssl.SSLContext | None) -> StreamTransport:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                if address.scheme == "unix":
                    transport, protocol = await loop.create_unix_connection(lambda: cls(notify), address.path)
                else:
                    transport, protocol = await loop.create_connection(lambda: cls(notify), address.host, address.port, ssl=tls)
            keep_alive(transport.get_extra_info("socket"))
        except OSError as error:
            raise unreachable(address.path or f"{address.host}:{address.port}", error) from error
        return protocol

    @property
    def alive(self) -> bool:
        return self._pending.alive

    async def call(self, method: str, params: dict[str, Any]) -> Any:
        message, future = self._pending.new(method, params)
        self._transport.write(message + b"\n")
        if not self._writable.is_set():
            await self._writable.wait()
        return (await future).value()

    async def close(self) -> None:
        """Sends what is still to be sent, unless the server does not read; calls under way get `ConnectionLost`."""
        if self._pending.orphaned:
            return
        self._pending.fail(ConnectionLost("the connection is closed"))
        self._transport.close()
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._closed.wait()
        except BaseException as error:
            self._transport.abort()
            if not isinstance(error, TimeoutError):
                raise

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by name

    def data_received(self, data: bytes) -> None:
        if not self._parts and data.find(b"\n") == len(data) - 1:
            lines = [data]  # one whole answer: nearly always so
        else:
            *lines, rest = data.split(b"\n")
            if lines and self._parts:
                lines[0] = b"".join([*self._parts, lines[0]])
                self._parts.clear()
            if rest:
                self._parts.append(rest)
        try:
            for line in lines:
                if line:
                    self._pending.receive(line)
        except JetwireError as error:
            self._pending.fail(error)
            self._transport.abort()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def connection_lost(self, error: Exception | None) -> None:
        self._pending.fail(ConnectionLost(f"the connection was lost: {error}" if error else "the server closed the connection"))
        self._writable.set()
        self._closed.set()


async def open_transport(address: Address, notify: Notify, tls: ssl.SSLContext | None, token: str | None) -> Transport:
    if address.secure and tls is None:
        tls = ssl.create_default_context()
    if address.scheme in ("ws", "wss", "http", "https"):
        from jetwire._async.web import HttpTransport, WebSocketTransport  # aiohttp takes longer to import than all the rest

        if address.scheme in ("http", "https"):
            return HttpTransport(address, tls, token)
        return await WebSocketTransport.open(address, notify, tls, token)
    transport = await StreamTransport.open(address, notify, tls if address.secure else None)
    if token:
        try:
            await transport.call("Hello", {"token": token})
        except BaseException:
            await transport.close()
            raise
    return transport
