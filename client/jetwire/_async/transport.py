"""Messages to and from a server, one class a transport. Hand-written for each twin; what stands above is not."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import Any, Protocol

import aiohttp

from jetwire.address import Address
from jetwire.errors import ConnectionLost
from jetwire.wire import Answer, decode, encode_call

Notify = Callable[[str, Any], None]


class Transport(Protocol):
    """A connection that carries calls: many may be under way at once."""

    @property
    def alive(self) -> bool: ...
    async def call(self, method: str, params: dict[str, Any]) -> Any: ...
    async def close(self) -> None: ...


class _Pending:
    """The calls under way, by id."""

    def __init__(self, notify: Notify) -> None:
        self._notify = notify
        self._waiting: dict[int, asyncio.Future[Answer]] = {}
        self._last_id = 0
        self.lost: BaseException | None = None

    def new(self) -> tuple[int, asyncio.Future[Answer]]:
        if self.lost is not None:
            raise ConnectionLost(str(self.lost) or "the connection is closed")
        self._last_id += 1
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting[self._last_id] = future
        return self._last_id, future

    def receive(self, data: bytes) -> None:
        for answer in decode(data):
            if answer.method is not None:
                self._notify(answer.method, answer.params)
            elif isinstance(answer.id, int):
                future = self._waiting.pop(answer.id, None)
                if future is not None and not future.done():
                    future.set_result(answer)
            elif answer.error is not None:  # an error that answers no call in particular ends them all
                self.fail(ConnectionLost(answer.error.message))

    def fail(self, reason: BaseException) -> None:
        if self.lost is None:
            self.lost = reason
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(ConnectionLost(str(reason) or "the connection was lost"))
        self._waiting.clear()


class StreamTransport(asyncio.Protocol):
    """TCP and Unix sockets: one line a message."""

    def __init__(self, notify: Notify) -> None:
        self._pending = _Pending(notify)
        self._parts: list[bytes] = []
        self._writable = asyncio.Event()
        self._writable.set()
        self._closed = asyncio.Event()
        self._transport: asyncio.Transport

    @classmethod
    async def open(cls, address: Address, notify: Notify, tls: ssl.SSLContext | None) -> StreamTransport:
        loop = asyncio.get_running_loop()
        try:
            if address.scheme == "unix":
                _, protocol = await loop.create_unix_connection(lambda: cls(notify), address.path)
            else:
                _, protocol = await loop.create_connection(lambda: cls(notify), address.host, address.port, ssl=tls)
        except OSError as error:
            raise ConnectionLost(f"no server at {address.path or f'{address.host}:{address.port}'}: {error}") from error
        return protocol

    @property
    def alive(self) -> bool:
        return self._pending.lost is None

    async def call(self, method: str, params: dict[str, Any]) -> Any:
        call_id, future = self._pending.new()
        self._transport.write(encode_call(call_id, method, params) + b"\n")
        if not self._writable.is_set():
            await self._writable.wait()
        return (await future).value()

    async def close(self) -> None:
        self._transport.close()
        await self._closed.wait()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        *lines, rest = data.split(b"\n")
        if lines and self._parts:
            lines[0] = b"".join([*self._parts, lines[0]])
            self._parts.clear()
        if rest:
            self._parts.append(rest)
        for line in lines:
            if line:
                self._pending.receive(line)

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def connection_lost(self, error: Exception | None) -> None:
        self._pending.fail(error or ConnectionLost("the connection is closed"))
        self._writable.set()
        self._closed.set()


class WebSocketTransport:
    """One text frame a message."""

    def __init__(self, http: aiohttp.ClientSession, socket: aiohttp.ClientWebSocketResponse, notify: Notify) -> None:
        self._http = http
        self._socket = socket
        self._pending = _Pending(notify)
        self._reader = asyncio.create_task(self._read())

    @classmethod
    async def open(cls, address: Address, notify: Notify, tls: ssl.SSLContext | None, token: str | None) -> WebSocketTransport:
        http = aiohttp.ClientSession(headers=_bearer(token))
        try:
            socket = await http.ws_connect(address.url, ssl=tls or True, max_msg_size=0)
        except (aiohttp.ClientError, OSError) as error:
            await http.close()
            raise ConnectionLost(f"no server at {address.url}: {error}") from error
        return cls(http, socket, notify)

    @property
    def alive(self) -> bool:
        return self._pending.lost is None

    async def call(self, method: str, params: dict[str, Any]) -> Any:
        call_id, future = self._pending.new()
        await self._socket.send_str(encode_call(call_id, method, params).decode())
        return (await future).value()

    async def close(self) -> None:
        await self._socket.close()
        await self._reader
        await self._http.close()

    async def _read(self) -> None:
        reason: BaseException = ConnectionLost("the connection is closed")
        try:
            async for message in self._socket:
                if message.type is aiohttp.WSMsgType.TEXT:
                    self._pending.receive(message.data.encode())
        except Exception as error:
            reason = error
        finally:
            self._pending.fail(reason)


class HttpTransport:
    """One POST a call: sessions do not outlive it, so it is for Batch, snapshots, backups and instances."""

    def __init__(self, address: Address, tls: ssl.SSLContext | None, token: str | None) -> None:
        self._http = aiohttp.ClientSession(headers=_bearer(token))
        self._address = address
        self._tls = tls
        self.alive = True

    async def call(self, method: str, params: dict[str, Any]) -> Any:
        try:
            async with self._http.post(
                self._address.url, data=encode_call(1, method, params), headers={"Content-Type": "application/json"}, ssl=self._tls or True
            ) as response:
                body = await response.read()
                if response.status not in (200, 413):
                    raise ConnectionLost(f"{self._address.url} answered {response.status} {response.reason}")
        except (aiohttp.ClientError, OSError) as error:
            raise ConnectionLost(f"{self._address.url}: {error}") from error
        return decode(body)[0].value()

    async def close(self) -> None:
        self.alive = False
        await self._http.close()


def _bearer(token: str | None) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"} if token else {}


async def open_transport(address: Address, notify: Notify, tls: ssl.SSLContext | None, token: str | None) -> Transport:
    if address.secure and tls is None:
        tls = ssl.create_default_context()
    if address.scheme in ("ws", "wss"):
        return await WebSocketTransport.open(address, notify, tls, token)
    if address.scheme in ("http", "https"):
        return HttpTransport(address, tls, token)
    transport = await StreamTransport.open(address, notify, tls)
    if token:
        await transport.call("Hello", {"token": token})
    return transport
