"""A server is killed in the middle of a client's work, and comes back: what the program is told, and what it finds again."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import uvloop

import jetwire
import jetwire.sync
from jetwire import ConnectionLost, HandleDead
from tests.support.server_process import ServerProcess

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


def again(server: ServerProcess) -> ServerProcess:
    """The same server on the same ports."""
    return ServerProcess(server.data, http=f"127.0.0.1:{server.http_port}", tcp=f"127.0.0.1:{server.tcp_port}")


def run(loop: str, main: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(main)


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("kind", ["tcp", "ws"])
def test_killed_under_inserts(tmp_path: Path, kind: str, loop: str):
    """Every task is told that the connection is lost; the same server object goes on with the next; what was acknowledged is there."""

    async def main() -> None:
        process = ServerProcess(tmp_path / "data")
        acknowledged: set[int] = set()
        told: list[BaseException] = []

        async def insert(session: jetwire.Session, first: int) -> None:
            table = await (await session.open("a.edb")).table("t")
            number = first
            try:
                while True:
                    await table.insert({"id": number})
                    acknowledged.add(number)
                    number += 10
            except ConnectionLost as error:
                told.append(error)
            with pytest.raises(HandleDead, match="ended with its connection"):
                await table.insert({"id": number})
            await session.close()  # nothing is left to close, and that is no error

        async with jetwire.connect(process.addresses[kind]) as server:
            async with server.session() as session:
                await (await session.open("a.edb", create=True)).create_table("t", {"id": "Long"}, primary="id")
            sessions = [await server.begin_session() for _ in range(4)]
            tasks = [asyncio.create_task(insert(session, n)) for n, session in enumerate(sessions)]
            while len(acknowledged) < 40:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            process.kill()
            async with asyncio.timeout(10):
                await asyncio.gather(*tasks)
            assert len(told) == 4
            assert not any(session.alive for session in sessions)
            with pytest.raises(ConnectionLost, match="no server at"):
                await server.begin_session()
            with again(process):
                async with server.session() as session:
                    table = await (await session.open("a.edb")).table("t")
                    found = {record["id"] async for record in table.range()}
                    assert acknowledged <= found
                    assert len(found - acknowledged) <= 4, "one a task, whose answer was lost"
                    assert not sessions[0].alive, "an old session does not come back as another"

    run(loop, main())


def test_killed_while_a_commit_waits_for_a_thaw(tmp_path: Path):
    """A blocking client in the middle of a transaction: what was not acknowledged was not promised, and is whole or not there."""
    process = ServerProcess(tmp_path / "data")
    with jetwire.sync.connect(process.addresses["tcp"]) as server:
        with server.session() as session:
            session.open("a.edb", create=True).create_table("t", {"id": "Long"}, primary="id")
        operator = jetwire.sync.Connection(process.addresses["tcp"]).open()
        snap = operator.OSSnapshotPrepare()["snapId"]
        session = server.begin_session()
        table = session.open("a.edb").table("t")
        operator.OSSnapshotFreeze(snap, leaseMs=60_000)
        threading.Timer(0.3, process.kill).start()
        began = time.monotonic()
        with pytest.raises(ConnectionLost), session.transaction():
            table.insert({"id": 1}, {"id": 2})
        assert time.monotonic() - began < 10
        with pytest.raises(HandleDead):
            table.get(1)
        operator.close()
        with again(process), server.session() as session:
            assert session.open("a.edb").table("t").count() in (0, 2)
