"""The limit of connections: one too many is told so and closed; those that stand are not touched."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from collections.abc import AsyncIterator
from typing import cast

import pytest
import trustme
from aiohttp import StreamReader
from aiohttp.base_protocol import BaseProtocol
from aiohttp.test_utils import make_mocked_request

from jetwire_server.clock import ManualClock
from jetwire_server.events import EventLog
from jetwire_server.rpc.handlers import connection
from jetwire_server.rpc.http import TIMED_OUT, HttpListener
from jetwire_server.rpc.security import Gatekeeper
from jetwire_server.rpc.service import Service
from jetwire_server.rpc.tcp import listen_tcp

PING = b'{"jsonrpc":"2.0","id":1,"method":"Ping"}\n'
assert connection


async def test_one_too_many() -> None:
    service = Service("1", ManualClock(), EventLog(), Gatekeeper(), connections_max=2)
    listener = await listen_tcp(service, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    streams = []
    for _ in range(2):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(PING)
        assert json.loads(await reader.readline())["result"] == {}
        streams.append((reader, writer))
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    refused = json.loads(await reader.readline())
    assert (refused["error"]["code"], refused["error"]["data"]) == (-32003, {"limit": "connections", "max": 2})
    assert await reader.read() == b""
    writer.close()
    streams[0][1].write(PING)
    assert json.loads(await streams[0][0].readline())["result"] == {}
    streams[1][1].close()
    while service.full:  # noqa: ASYNC110
        await asyncio.sleep(0.001)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(PING)
    assert json.loads(await reader.readline())["result"] == {}
    writer.close()
    streams[0][1].close()
    listener.close()
    while service.peers:  # noqa: ASYNC110
        await asyncio.sleep(0.001)


@pytest.fixture
async def web() -> AsyncIterator[tuple[Service, HttpListener, int]]:
    """An HTTP listener on a clock of the test's own; two connections at most."""
    service = Service("1", ManualClock(), EventLog(), Gatekeeper(), connections_max=2, http_body_seconds=0.05)
    listener = HttpListener(service, dict)
    _, port = await listener.start("127.0.0.1", 0)
    yield service, listener, port
    await listener.stop()


async def test_a_body_that_does_not_come(web: tuple[Service, HttpListener, int]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", web[2])
    before = TIMED_OUT.value
    writer.write(b"POST /rpc HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\n{")
    async with asyncio.timeout(5):
        assert b" 408 " in await reader.readline()
    assert TIMED_OUT.value == before + 1
    writer.close()


async def test_a_head_that_does_not_come(web: tuple[Service, HttpListener, int]) -> None:
    """Silent, or a byte now and then: the time counts from the connection's beginning. Whoever has asked once is left alone."""
    service, listener, port = web
    clock = cast(ManualClock, service.clock)
    good_reader, good = await asyncio.open_connection("127.0.0.1", port)
    good.write(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert b" 200 " in await good_reader.read(4096)
    reader, slow = await asyncio.open_connection("127.0.0.1", port)
    slow.write(b"GET /livez HTTP/1.1\r\nHost: ")
    await asyncio.sleep(0.05)
    listener.sweep(clock.boot())  # which sees it for the first time
    for _ in range(3):
        clock.advance(service.http_head_seconds / 3 - 0.1)
        slow.write(b"l")
        listener.sweep(clock.boot())
        await asyncio.sleep(0.01)
    with pytest.raises(TimeoutError):  # control: until then it has its time
        async with asyncio.timeout(0.1):
            await reader.read(1)
    clock.advance(1)
    listener.sweep(clock.boot())
    async with asyncio.timeout(5):
        assert b" 408 " in await reader.read()
    good.write(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
    async with asyncio.timeout(5):
        assert b" 200 " in await good_reader.read(4096)
    good.close()
    slow.close()


async def test_a_head_that_does_not_come_after_a_long_handshake() -> None:
    """Who takes his time to begin TLS is not left alone for it."""
    certificate = trustme.CA().issue_cert("localhost")
    accepting, asking = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
    asking.check_hostname, asking.verify_mode = False, ssl.CERT_NONE
    certificate.configure_cert(accepting)
    service = Service("1", ManualClock(), EventLog(), Gatekeeper())
    clock = cast(ManualClock, service.clock)
    listener = HttpListener(service, dict)
    _, port = await listener.start("127.0.0.1", 0, accepting)
    try:
        with socket.create_connection(("127.0.0.1", port)) as plain:
            plain.setblocking(False)
            await asyncio.sleep(0.05)
            clock.advance(2)
            listener.sweep(clock.boot())
            reader, writer = await asyncio.open_connection(sock=plain, ssl=asking, server_hostname="localhost")
            await asyncio.sleep(0.05)
            for _ in range(2):
                listener.sweep(clock.boot())
                clock.advance(service.http_head_seconds + 1)
            listener.sweep(clock.boot())
            async with asyncio.timeout(5):
                assert b" 408 " in await reader.read()
            writer.close()
    finally:
        await listener.stop()


async def test_one_http_connection_too_many(web: tuple[Service, HttpListener, int]) -> None:
    streams = [await asyncio.open_connection("127.0.0.1", web[2]) for _ in range(3)]
    async with asyncio.timeout(5):
        assert (await streams[2][0].read()).startswith(b"HTTP/1.1 503 ")
    streams[0][1].write(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert b" 200 " in await streams[0][0].readline(), "those that stand are not touched"
    for _, writer in streams:
        writer.close()


async def test_who_has_gone_before_the_body_is_waited_for_is_no_error_of_ours(web: tuple[Service, HttpListener, int]) -> None:
    gone = BaseProtocol(asyncio.get_running_loop())
    request = make_mocked_request("POST", "/rpc", payload=StreamReader(gone, 1 << 16))
    with pytest.raises(ConnectionError):
        await web[1]._post(request)


async def test_one_connection_in_trouble_does_not_leave_the_others_unwatched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jetwire_server.limits.SWEEP_SECONDS", 0.001)
    service = Service("1", ManualClock(), EventLog(), Gatekeeper())
    looked: list[float] = []

    def trouble(now: float) -> None:
        raise RuntimeError("in trouble")

    service.sweeps += [trouble, looked.append]
    sweeper = asyncio.create_task(service.sweep_forever())
    await asyncio.sleep(0.1)
    assert len(looked) > 2
    sweeper.cancel()
