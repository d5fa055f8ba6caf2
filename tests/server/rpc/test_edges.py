"""The table of edge cases over every transport of a real server: the same answers everywhere."""

from __future__ import annotations

import asyncio
import http.client
import json
from typing import Any

import aiohttp
import pytest

from tests.support.edge_cases import BYTE_CASES, CASES, TEXT_CASES, Case, fits
from tests.support.server_process import ServerProcess

SENTINEL = b'{"jsonrpc":"2.0","method":"Ping","id":"that was all"}'


def wrong_ones(cases: list[Case], answers: list[Any]) -> list[str]:
    return [f"{name}: {answer!r:.200}" for (name, _, expected), answer in zip(cases, answers, strict=True) if not fits(answer, expected)]


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_lines(server: ServerProcess, kind: str) -> None:
    answers: list[Any] = []
    with server.connect(kind) as lines:
        for _, message, _ in CASES:
            assert b"\n" not in message
            lines.send(message + b"\n" + SENTINEL + b"\n")
            got = []
            while (answer := lines.read()) != {"jsonrpc": "2.0", "id": "that was all", "result": {}}:
                got.append(answer)
            assert len(got) <= 1
            answers.append(got[0] if got else None)
    assert wrong_ones(CASES, answers) == []


async def test_websocket(server: ServerProcess) -> None:
    answers: list[Any] = []
    async with aiohttp.ClientSession() as session, session.ws_connect(server.addresses["ws"], max_msg_size=0) as socket:
        for _, message, _ in TEXT_CASES:
            await socket.send_str(message.decode())
            await socket.send_str(SENTINEL.decode())
            got = []
            while (answer := await socket.receive_json()) != {"jsonrpc": "2.0", "id": "that was all", "result": {}}:
                got.append(answer)
            assert len(got) <= 1
            answers.append(got[0] if got else None)
    assert wrong_ones(TEXT_CASES, answers) == []


def test_post(server: ServerProcess) -> None:
    answers: list[Any] = []
    connection = http.client.HTTPConnection("127.0.0.1", server.http_port)
    for _, message, expected in CASES:
        connection.request("POST", "/rpc", body=message, headers={"Content-Type": "application/json"})
        response = connection.getresponse()
        body = response.read()
        assert response.status == (204 if expected is None else 200)
        assert expected is None or response.headers["Content-Type"].startswith("application/json")
        answers.append(json.loads(body) if body else None)
    connection.close()
    assert wrong_ones(CASES, answers) == []


async def test_a_websocket_frame_that_is_no_text_closes_it_with_a_reason(server: ServerProcess) -> None:
    async with aiohttp.ClientSession() as session:
        async with session.ws_connect(server.addresses["ws"]) as socket:
            await socket.send_bytes(SENTINEL)
            assert (await socket.receive()).type is aiohttp.WSMsgType.CLOSE
            assert socket.close_code == 1003
        for name, message, _ in BYTE_CASES:
            async with session.ws_connect(server.addresses["ws"]) as socket:
                await socket.send_frame(message, aiohttp.WSMsgType.TEXT)
                closed = await asyncio.wait_for(socket.receive(), 5)
                assert closed.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED), name


def test_the_table_has_something_to_say_on_each_transport() -> None:
    assert wrong_ones(CASES, ["x"] * len(CASES)) != []
