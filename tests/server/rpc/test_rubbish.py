"""Bytes that mean nothing, over the transports that `test_serving` leaves: nobody is hurt, nothing grows, all else is answered."""

from __future__ import annotations

import json
import random
from typing import Any

import aiohttp
import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.server.rpc.test_edges import SENTINEL
from tests.support.edge_cases import CASES
from tests.support.server_process import ServerProcess

SHAPES = [message for _, message, _ in CASES if len(message) < 500]
HALVES = ["[", '{"jsonrpc":"2.0"', "\0", '{"id":']
SHARED = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
GROWTH_BYTES_MAX = 16 << 20


def is_last(answer: Any) -> bool:
    return isinstance(answer, dict) and answer.get("id") == "that was all"


@SHARED
@given(st.lists(st.one_of(st.binary(max_size=300), st.sampled_from(SHAPES)), max_size=8))
def test_unix(server: ServerProcess, rubbish: list[bytes]) -> None:
    with server.connect("unix") as lines:
        lines.send(b"\n".join([*rubbish, SENTINEL, b""]))
        while not is_last(answer := lines.read()):
            assert "Traceback" not in json.dumps(answer)


@SHARED
@given(st.lists(st.one_of(st.text(max_size=300), st.sampled_from(HALVES), st.from_regex(r'\{"[a-z]{0,4}":.*')), max_size=8))
async def test_websocket(server: ServerProcess, rubbish: list[str]) -> None:
    async with aiohttp.ClientSession() as session, session.ws_connect(server.addresses["ws"]) as socket:
        for text in rubbish:
            await socket.send_str(text)
        await socket.send_str(SENTINEL.decode())
        while not is_last(answer := await socket.receive_json(timeout=20)):
            assert "Traceback" not in json.dumps(answer)


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_rubbish_does_not_make_it_grow(server: ServerProcess, kind: str) -> None:
    process = psutil.Process(server.process.pid)
    chance = random.Random(1)

    def round_of(connections: int) -> None:
        for _ in range(connections):
            with server.connect(kind) as lines:
                pieces = [chance.randbytes(chance.randrange(200)) if chance.random() < 0.3 else chance.choice(SHAPES) for _ in range(500)]
                lines.send(b"\n".join([*pieces, SENTINEL, b""]))
                while not is_last(lines.read()):
                    pass

    round_of(4)
    before = process.memory_info().rss
    round_of(40)
    assert process.memory_info().rss - before < GROWTH_BYTES_MAX, "20,000 messages on 40 connections"
    assert "Traceback" not in server.errors.read_text()
