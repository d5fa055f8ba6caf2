"""A server that says what a test tells it to: lines over TCP, WebSocket and HTTP, in a thread with a loop of its own."""

from __future__ import annotations

import asyncio
import json
import ssl
import threading
from collections.abc import Awaitable, Callable
from typing import Any, Self

from aiohttp import WSMsgType, web

Send = Callable[[str | bytes], Awaitable[None]]
# Gets each call, and a function that sends raw text; returns a result, raises `Say`, or returns SILENCE.
Script = Callable[[dict[str, Any], "Peer"], Awaitable[Any]]
SILENCE = object()


class Peer:
    """One connection, as a script sees it."""

    def __init__(self, send: Send, close: Callable[[], Awaitable[None]]) -> None:
        self.send = send
        self.close = close
        self.turn = asyncio.Lock()  # for scripts that say one thing in several pieces

    async def answer(self, call: dict[str, Any], result: Any) -> None:
        await self.send(json.dumps({"jsonrpc": "2.0", "id": call["id"], "result": result}))

    async def error(self, call: dict[str, Any], code: int, message: str, **data: Any) -> None:
        await self.send(json.dumps({"jsonrpc": "2.0", "id": call["id"], "error": {"code": code, "message": message, "data": data}}))

    async def notify(self, method: str, params: Any) -> None:
        await self.send(json.dumps({"jsonrpc": "2.0", "method": method, "params": params}))


async def echo(call: dict[str, Any], peer: Peer) -> Any:
    """The plainest script: every call's answer is its params."""
    return call["params"]


class FakeServer:
    """`with FakeServer(script) as server: connect(server.tcp)`; `calls` is what it was asked, `headers` the HTTP ones."""

    def __init__(self, script: Script = echo, *, tls: ssl.SSLContext | None = None) -> None:
        self._script = script
        self._tls = tls
        self.calls: list[dict[str, Any]] = []
        self.headers: dict[str, str] = {}
        self.http_status = 200
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    def __enter__(self) -> Self:
        self._thread.start()
        self.do(self._start())
        return self

    def __exit__(self, *_: object) -> None:
        self.do(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def do(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    def drop_http(self) -> None:
        """Ends the connections of HTTP, as a server does with idle ones."""

        async def drop() -> None:
            for one in list(self._runner.server.connections if self._runner.server else []):
                if one.transport is not None:
                    one.transport.close()

        self.do(drop())

    @property
    def methods(self) -> list[str]:
        return [call["method"] for call in self.calls]

    async def _start(self) -> None:
        self._lines = await asyncio.start_server(self._serve_lines, "127.0.0.1", 0, ssl=self._tls, limit=64 << 20)
        app = web.Application(client_max_size=64 << 20)
        app.add_routes([web.get("/rpc", self._serve_socket), web.post("/rpc", self._serve_post)])
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=self._tls).start()
        secure = "s" if self._tls else ""
        self.tcp = f"tcp{secure}://localhost:{self._lines.sockets[0].getsockname()[1]}"
        port = self._runner.addresses[0][1]
        self.ws, self.http = f"ws{secure}://localhost:{port}/rpc", f"http{secure}://localhost:{port}/rpc"

    async def _stop(self) -> None:
        self._lines.close()
        for task in self._tasks:
            task.cancel()
        for writer in self._writers:
            if not writer.is_closing():  # Python 3.11.2 cannot abort a TLS transport that has lost its connection
                writer.transport.abort()
        await self._runner.cleanup()

    async def _take(self, data: bytes, peer: Peer) -> None:
        call = json.loads(data)
        self.calls.append(call)
        result = await self._script(call, peer)
        if result is not SILENCE:
            await peer.answer(call, result)

    def _spawn(self, data: bytes, peer: Peer) -> None:
        """Each call in a task: a script may keep one waiting and answer the next."""
        task = self._loop.create_task(self._take(data, peer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve_lines(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def send(text: str | bytes) -> None:
            """Text gets its end of line; bytes go as they are."""
            writer.write(text if isinstance(text, bytes) else text.encode() + b"\n")
            await writer.drain()

        async def close() -> None:
            writer.close()

        self._writers.add(writer)
        peer = Peer(send, close)
        while line := await reader.readline():
            self._spawn(line, peer)
        writer.close()

    async def _serve_socket(self, request: web.Request) -> web.StreamResponse:
        self.headers = dict(request.headers)
        if self.http_status != 200:
            return web.Response(status=self.http_status, text="refused")
        socket = web.WebSocketResponse(max_msg_size=0)
        await socket.prepare(request)

        async def send(text: str | bytes) -> None:
            await socket.send_str(text if isinstance(text, str) else text.decode())

        async def close() -> None:
            await socket.close()

        peer = Peer(send, close)
        async for message in socket:
            if message.type is WSMsgType.TEXT:
                self._spawn(message.data.encode(), peer)
        return socket

    async def _serve_post(self, request: web.Request) -> web.Response:
        self.headers = dict(request.headers)
        if self.http_status != 200:
            return web.Response(status=self.http_status, text="refused")
        answers: list[str] = []

        async def send(text: str | bytes) -> None:
            answers.append(text if isinstance(text, str) else text.decode())

        async def close() -> None:
            assert request.transport is not None
            request.transport.abort()

        await self._take(await request.read(), Peer(send, close))
        return web.Response(text=answers[0] if answers else "", content_type="application/json")
