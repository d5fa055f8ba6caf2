"""The limit of connections: one too many is told so and closed; those that stand are not touched."""

from __future__ import annotations

import asyncio
import json

import pytest

from jetwire_server import limits
from jetwire_server.clock import ManualClock
from jetwire_server.events import EventLog
from jetwire_server.rpc.handlers import connection
from jetwire_server.rpc.http import HttpListener
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


async def test_a_body_that_does_not_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "HTTP_BODY_SECONDS", 0.05)
    service = Service("1", ManualClock(), EventLog(), Gatekeeper())
    listener = HttpListener(service, dict)
    host, port = await listener.start("127.0.0.1", 0)
    try:
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(b"POST /rpc HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\n{")
        async with asyncio.timeout(5):
            assert b" 408 " in await reader.readline()
        writer.close()
    finally:
        await listener.stop()
