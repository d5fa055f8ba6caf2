"""The HTTP port: WebSocket and POST at /rpc, health, metrics, the OpenRPC document and whatever pages the server adds."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, cast

import msgspec
from aiohttp import WSCloseCode, WSMsgType, web

from jetwire_protocol.openrpc import document
from jetwire_server import limits, metrics
from jetwire_server.metrics import Counter
from jetwire_server.rpc import live
from jetwire_server.rpc.answers import PENDING, Gathered
from jetwire_server.rpc.eager import Waiting, begin
from jetwire_server.rpc.peer import Peer
from jetwire_server.rpc.security import NOBODY, Identity
from jetwire_server.rpc.service import REFUSED, SLOW_READERS, Service

Page = Callable[[], tuple[str, str]]  # content type and text
Handle = Callable[[web.Request], Awaitable[web.StreamResponse]]

# What answers without authentication.
OPEN_PATHS = frozenset({"/livez", "/readyz", "/rpc"})


TIMED_OUT = Counter("jetwire_http_timeouts_total", "HTTP requests whose head or body did not come whole in time")
_TOO_SLOW = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
_NO_ROOM = b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 21\r\n\r\ntoo many connections\n"


def _is_news(record: logging.LogRecord) -> bool:
    """Clients go away in the middle of a request: aiohttp would tell it with a traceback each time."""
    return record.exc_info is None or not isinstance(record.exc_info[1], ConnectionError)


logging.getLogger("aiohttp.server").addFilter(_is_news)


class _Full(asyncio.Protocol):
    """One connection too many: it is told so."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        writable = cast(asyncio.Transport, transport)  # uvloop's is none by name
        writable.write(_NO_ROOM)
        writable.close()


class HttpListener:
    """One listening HTTP address."""

    def __init__(self, service: Service, ready: Callable[[], dict[str, Any]], pages: Mapping[str, Page] | None = None) -> None:
        self._service = service
        self._ready = ready
        self._app = web.Application(client_max_size=service.wire_limits.message_bytes, middlewares=[self._guard])
        self._app.add_routes(
            [
                web.get("/rpc", self._websocket),
                web.post("/rpc", self._post),
                web.get("/livez", self._livez),
                web.get("/readyz", self._readyz),
                web.get("/metrics", self._metrics),
                web.get("/openrpc.json", self._openrpc),
            ]
        )
        for path, page in (pages or {}).items():
            self._app.router.add_get(path, self._page(page))
        self._runner = web.AppRunner(self._app, access_log=None, handle_signals=False, shutdown_timeout=1.0)
        self._silent: dict[asyncio.BaseProtocol, float] = {}  # connections without a whole request yet, and since when
        self._heard: set[asyncio.BaseProtocol] = set()  # those that have had one
        self._unread: dict[asyncio.BaseProtocol, tuple[int, float]] = {}  # bytes that wait to be read, and since when they do
        self._server: asyncio.Server | None = None

    async def start(self, host: str, port: int, tls: ssl.SSLContext | None = None) -> tuple[str, int]:
        """Listens, and returns the address it got."""
        await self._runner.setup()
        loop = asyncio.get_running_loop()
        patience = self._service.http_head_seconds if tls else None
        self._server = await loop.create_server(
            self._connected, host, port, ssl=tls, ssl_handshake_timeout=patience, backlog=self._service.backlog
        )
        self._service.sweeps.append(self.sweep)
        address = self._server.sockets[0].getsockname()
        return address[0], address[1]

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        await self._runner.cleanup()

    # -- connections --------------------------------------------------------------------------------------------
    def _connected(self) -> asyncio.BaseProtocol:
        """What speaks HTTP on a new connection; aiohttp itself would wait for a first request for ever."""
        server = self._runner.server
        assert server is not None
        if len(server.connections) >= self._service.connections_max:
            REFUSED.value += 1
            return _Full()
        protocol: asyncio.BaseProtocol = server()
        return protocol

    def sweep(self, now: float) -> None:
        """Ends connections that dawdle over the head of their first request, or read nothing of their answers.

        The server knows a connection once its TLS handshake, however long that took, is over.
        """
        self._drop_slow_readers(now)
        assert self._runner.server is not None
        connections = self._runner.server.connections
        self._heard.intersection_update(connections)
        before, self._silent = self._silent, {}
        for protocol in connections:
            if protocol in self._heard:
                continue
            since = self._silent[protocol] = before.get(protocol, now)
            transport = protocol.transport
            if now - since > self._service.http_head_seconds and transport is not None and not transport.is_closing():
                TIMED_OUT.value += 1
                transport.write(_TOO_SLOW)
                transport.close()

    def _drop_slow_readers(self, now: float) -> None:
        server, before, self._unread = self._runner.server, self._unread, {}
        assert server is not None
        for protocol in server.connections:
            transport = protocol.transport
            if transport is None or not (size := transport.get_write_buffer_size()):
                continue
            then = before.get(protocol, (0, 0.0))
            self._unread[protocol] = since = then if then[0] == size else (size, now)
            if now - since[1] > self._service.slow_reader_seconds:
                SLOW_READERS.value += 1
                transport.abort()

    # -- who asks -----------------------------------------------------------------------------------------------
    @web.middleware
    async def _guard(self, request: web.Request, handler: Handle) -> web.StreamResponse:
        self._heard.add(request.protocol)
        gatekeeper = self._service.gatekeeper
        host = request.headers.get("Host", "")
        own = request.transport.get_extra_info("sockname") if request.transport is not None else None
        if not (gatekeeper.host_allowed(host) or (own and host.rpartition(":")[0].strip("[]") == own[0])):
            raise web.HTTPForbidden(text="this Host is not allowed; configure it with --allow-host\n")
        if not gatekeeper.origin_allowed(request.headers.get("Origin"), host):
            raise web.HTTPForbidden(text="this Origin is not allowed; configure it with --allow-origin\n")
        if request.path not in OPEN_PATHS and not self._identity(request).role:
            raise web.HTTPUnauthorized(text="not authenticated\n", headers={"WWW-Authenticate": "Bearer"})
        return await handler(request)

    def _identity(self, request: web.Request) -> Identity:
        """By the bearer token where one is given (a wrong one is nobody, wherever it comes from), else by the address."""
        gatekeeper = self._service.gatekeeper
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme:
            return gatekeeper.by_token(token.strip()) if scheme.lower() == "bearer" else NOBODY
        transport = request.transport
        if transport is None:
            return NOBODY
        return gatekeeper.by_address(transport.get_extra_info("peername"), transport.get_extra_info("peercert"))

    # -- calls --------------------------------------------------------------------------------------------------
    async def _post(self, request: web.Request) -> web.Response:
        try:
            async with asyncio.timeout(self._service.http_body_seconds):
                body = await request.read()
        except TimeoutError:
            TIMED_OUT.value += 1
            raise web.HTTPRequestTimeout(text="the body did not come\n", headers={"Connection": "close"}) from None
        except RuntimeError as error:  # aiohttp's word for who was gone before the body was waited for
            raise ConnectionResetError(str(error)) from None
        identity = self._identity(request)
        late: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

        def send(answer: bytes) -> None:
            if not late.done():
                late.set_result(answer)

        peer = Peer(self._service, send, role=identity.role, principal=identity.principal, kind="http", outlives_request=False)
        peer.in_turns = True
        try:
            answer = peer.receive(body)
            while type(answer) is Gathered:
                await asyncio.sleep(0)
                answer = answer.go_on()
            if answer is PENDING:
                await peer.idle()  # a notification that waits is waited for, and not answered
                answer = late.result() if late.done() else None
        finally:
            await asyncio.shield(peer.close())
        if answer is None:
            return web.Response(status=204)
        assert isinstance(answer, bytes)
        return web.Response(body=answer, content_type="application/json")

    async def _websocket(self, request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse(
            max_msg_size=self._service.wire_limits.message_bytes, compress=False, heartbeat=limits.WEBSOCKET_PING_SECONDS
        )
        if not socket.can_prepare(request):
            raise web.HTTPUpgradeRequired(text="GET /rpc is for WebSocket; send calls with POST\n", headers={"Upgrade": "websocket"})
        if self._service.full:
            REFUSED.value += 1
            raise web.HTTPServiceUnavailable(text="too many connections\n")
        await socket.prepare(request)
        connection = WebSocketConnection(self._service, socket, request.transport, self._identity(request))
        await connection.serve()
        return socket

    # -- pages --------------------------------------------------------------------------------------------------
    async def _livez(self, request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _readyz(self, request: web.Request) -> web.Response:
        status = 503 if self._service.draining else 200
        return web.json_response({"status": "draining" if self._service.draining else "ready", **self._ready()}, status=status)

    async def _metrics(self, request: web.Request) -> web.Response:
        live.measure(self._service.engine)
        return web.Response(body=metrics.render().encode(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    async def _openrpc(self, request: web.Request) -> web.Response:
        return web.Response(body=msgspec.json.encode(document(self._service.version)), content_type="application/json")

    def _page(self, page: Page) -> Handle:
        async def show(request: web.Request) -> web.Response:
            content_type, text = page()
            return web.Response(text=text, content_type=content_type)

        return show


class WebSocketConnection:
    """One WebSocket: a message a text frame."""

    def __init__(self, service: Service, socket: web.WebSocketResponse, transport: asyncio.Transport | None, identity: Identity) -> None:
        self._service = service
        self._socket = socket
        self._transport = transport
        self._blocked_since: float | None = None
        self._heard = True
        self._last_heard = service.clock.boot()
        self._peer = Peer(service, self._send, role=identity.role, principal=identity.principal, kind="websocket")
        self._peer.in_turns = True

    async def serve(self) -> None:
        """Until the connection closes. While an answer cannot be written, nothing more is read."""
        service, socket, receive = self._service, self._socket, self._peer.receive
        service.connections.add(self)
        clock = service.clock
        until = clock.boot() + limits.TURN_SECONDS
        try:
            async for message in socket:  # which does not wait as long as there are messages
                if clock.boot() > until:
                    await asyncio.sleep(0)
                    until = clock.boot() + limits.TURN_SECONDS
                self._heard = True
                if message.type is not WSMsgType.TEXT:
                    await socket.close(code=WSCloseCode.UNSUPPORTED_DATA, message=b"one text frame a message")
                    break
                answer = receive(message.data.encode())
                while type(answer) is Gathered:
                    await asyncio.sleep(0)
                    answer = answer.go_on()
                if type(answer) is bytes:
                    self._blocked_since = service.clock.boot()
                    await socket.send_frame(answer, WSMsgType.TEXT)
                    self._blocked_since = None
        except ConnectionError:
            pass  # the other side went away while it was being answered
        finally:
            service.connections.discard(self)
            await asyncio.shield(self._peer.close())

    def _send(self, message: bytes) -> None:
        """An answer that comes late, or a notification: into the transport at once, in order."""
        if self._socket.closed or self._transport is None or self._transport.is_closing():
            return
        if self._transport.get_write_buffer_size() > limits.UNREAD_BYTES_MAX:
            SLOW_READERS.value += 1
            self._transport.abort()
            return
        try:
            waiting = begin(self._socket.send_frame(message, WSMsgType.TEXT))
        except ConnectionError:
            return
        if type(waiting) is Waiting:
            self._service.later(_ignoring_a_lost_connection(waiting))

    def sweep(self, now: float) -> None:
        if self._heard:
            self._heard, self._last_heard = False, now
        service = self._service
        if self._blocked_since is not None and now - self._blocked_since > service.slow_reader_seconds:
            if self._transport is not None:
                SLOW_READERS.value += 1
                self._transport.abort()
        elif service.idle_seconds and now - self._last_heard > service.idle_seconds and not self._peer.busy():
            service.later(self._close(WSCloseCode.GOING_AWAY, "idle"))

    def close(self, reason: str) -> None:
        self._service.later(self._close(WSCloseCode.GOING_AWAY, reason))

    async def _close(self, code: int, reason: str) -> None:
        try:
            async with asyncio.timeout(1):
                await self._socket.close(code=code, message=reason.encode(), drain=False)
        except (TimeoutError, ConnectionError):
            if self._transport is not None:
                self._transport.abort()


async def _ignoring_a_lost_connection(waiting: Waiting) -> None:
    with suppress(ConnectionError):
        await waiting.rest()
