"""Messages to and from a server, over HTTP: WebSocket and POST."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

import aiohttp

from jetwire._async.transport import CLOSE_SECONDS, Notify, Pending
from jetwire.address import Address
from jetwire.errors import ConnectionLost
from jetwire.sockets import CONNECT_SECONDS, keep_alive
from jetwire.wire import decode_one, encode_call, http_refusal, no_http, unreachable


class WebSocketTransport:
    """One text frame a message."""

    def __init__(self, http: aiohttp.ClientSession, socket: aiohttp.ClientWebSocketResponse, notify: Notify) -> None:
        self._http = http
        self._socket = socket
        self._pending = Pending(notify)
        self._reader = asyncio.create_task(self._read())

    @classmethod
    async def open(cls, address: Address, notify: Notify, tls: ssl.SSLContext | None, token: str | None) -> WebSocketTransport:
        http = aiohttp.ClientSession(headers=_bearer(token))
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                socket = await http.ws_connect(
                    address.url, ssl=tls or True, max_msg_size=0, timeout=aiohttp.ClientWSTimeout(ws_close=CLOSE_SECONDS)
                )
            keep_alive(socket.get_extra_info("socket"))
        except BaseException as error:
            await http.close()
            if isinstance(error, aiohttp.WSServerHandshakeError):
                raise http_refusal(address.url, error.status, error.message) from error
            if isinstance(error, aiohttp.ClientError | OSError):
                raise _failed(address.url, error) from error
            raise
        return cls(http, socket, notify)

    @property
    def alive(self) -> bool:
        return self._pending.alive

    async def call(self, method: str, params: dict[str, Any]) -> Any:
        message, future = self._pending.new(method, params)
        try:
            await self._socket.send_str(message.decode())
        except (aiohttp.ClientError, OSError) as error:
            self._pending.fail(error)
        return (await future).value()

    async def close(self) -> None:
        if self._pending.orphaned:
            return
        self._pending.fail(ConnectionLost("the connection is closed"))
        try:
            await self._socket.close()
            await asyncio.wait([self._reader])
        finally:
            await self._http.close()

    async def _read(self) -> None:
        reason: BaseException = ConnectionLost("the connection's reader was cancelled")  # as at the end of an event loop
        try:
            async for message in self._socket:
                if message.type is aiohttp.WSMsgType.TEXT:
                    self._pending.receive(message.data)
            reason = ConnectionLost(f"the server closed the connection (WebSocket close code {self._socket.close_code})")
        except Exception as error:
            reason = error
        finally:
            self._pending.fail(reason)
            await self._socket.close()


class HttpTransport:
    """One POST a call: sessions do not outlive it, so it is for Batch, snapshots, backups and instances."""

    def __init__(self, address: Address, tls: ssl.SSLContext | None, token: str | None) -> None:
        # No time-out: recovery, backups and commits that wait for a thaw take as long as they take.
        self._http = aiohttp.ClientSession(headers=_bearer(token), timeout=aiohttp.ClientTimeout(total=None, sock_connect=30))
        self._address = address
        self._tls = tls
        self._loop = asyncio.get_running_loop()

    @property
    def alive(self) -> bool:
        return not (self._http.closed or self._loop.is_closed())

    async def call(self, method: str, params: dict[str, Any]) -> Any:
        if self._loop is not asyncio.get_running_loop():
            raise ConnectionLost("the connection belongs to another event loop")
        url, body = self._address.url, encode_call(1, method, params)
        try:
            async with self._http.post(url, data=body, headers={"Content-Type": "application/json"}, ssl=self._tls or True) as response:
                answer = await response.read()
        except (aiohttp.ClientError, OSError) as error:
            raise _failed(url, error) from error
        if response.status != 200:
            raise http_refusal(url, response.status, answer.decode(errors="replace").strip() or response.reason or "")
        return decode_one(answer).value()

    async def close(self) -> None:
        if not self._loop.is_closed():
            await self._http.close()


def _failed(url: str, error: Exception) -> ConnectionLost:
    """What went wrong, without what aiohttp has to say of its own objects."""
    if isinstance(error, aiohttp.ClientResponseError):
        return no_http(url)
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return unreachable(url, error.certificate_error)
    return unreachable(url, error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error)


def _bearer(token: str | None) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"} if token else {}
