"""A server is killed in the middle of a client's work, and comes back: what the program is told, and what it finds again."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

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


class Client:
    """One program with four tasks that insert until their server is killed, and then looks at what became of it."""

    def __init__(self, number: int, kind: str) -> None:
        self.name = f"t{number}"
        self.kind = kind
        self.acknowledged: set[int] = set()
        self.told: list[BaseException] = []

    async def insert(self, session: jetwire.Session, first: int) -> None:
        table = await (await session.open("a.edb")).table(self.name)
        number = first
        try:
            while True:
                await table.insert({"id": number})
                self.acknowledged.add(number)
                number += 10
        except (ConnectionLost, HandleDead) as error:  # in the middle of a call, or between two
            self.told.append(error)
        with pytest.raises(HandleDead, match="ended with its connection"):
            await table.insert({"id": number})
        await session.close()  # nothing is left to close, and that is no error

    async def live(self, process: ServerProcess, dead: threading.Event, back: threading.Event) -> None:
        async with jetwire.connect(process.addresses[self.kind]) as server:
            async with server.session() as session:
                await (await session.open("a.edb", create=True)).create_table(self.name, {"id": "Long"}, primary="id")
            sessions = [await server.begin_session() for _ in range(4)]
            async with asyncio.timeout(60):
                await asyncio.gather(*(self.insert(session, n) for n, session in enumerate(sessions)))
            assert dead.is_set(), "control: nobody was told before the server was killed"
            assert len(self.told) == 4
            assert any(isinstance(error, ConnectionLost) for error in self.told)
            assert not any(session.alive for session in sessions)
            with pytest.raises(ConnectionLost, match=r"no server at|reset by peer"):  # it may still be dying
                await server.begin_session()
            self.told.append(ConnectionLost("and nobody answers"))
            assert await asyncio.to_thread(back.wait, 60)
            async with server.session() as session:
                table = await (await session.open("a.edb")).table(self.name)
                found = {record["id"] async for record in table.range()}
                assert self.acknowledged <= found
                assert len(found - self.acknowledged) <= 4, "one a task, whose answer was lost"
                assert not sessions[0].alive, "an old session does not come back as another"


def wait_until(true: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_killed_under_inserts(tmp_path: Path) -> None:
    """Every task is told that the connection is lost; the same server object goes on with the next; what was acknowledged is there.

    Over either transport, on either event loop: four programs, each in a thread, work on one server.
    """
    ways = [(kind, loop) for kind in ("tcp", "ws") for loop in LOOPS]
    clients = [Client(number, kind) for number, (kind, _) in enumerate(ways)]
    dead, back = threading.Event(), threading.Event()
    complaints: list[str] = []  # of what was let go without being closed
    process = ServerProcess(tmp_path / "data")

    def run(client: Client, loop: str) -> None:
        with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
            runner.get_loop().set_exception_handler(lambda loop, context: complaints.append(context["message"]))
            runner.run(client.live(process, dead, back))

    with ThreadPoolExecutor(len(ways)) as pool:
        programs = [pool.submit(run, client, loop) for client, (_, loop) in zip(clients, ways, strict=True)]

        def every(true: Callable[[Client], bool]) -> Callable[[], bool]:
            return lambda: all(true(client) or program.done() for client, program in zip(clients, programs, strict=True))

        try:
            wait_until(every(lambda client: len(client.acknowledged) >= 40))
            dead.set()
            process.kill()
            wait_until(every(lambda client: len(client.told) == 5))
            with again(process):
                back.set()
                for program in programs:
                    program.result(60)
        finally:
            process.process.kill()
            back.set()
    for client in clients:
        client.told.clear()  # exceptions know the frames that they came from
    gc.collect()
    assert complaints == []


@pytest.mark.parametrize("kind", ["tcp", "ws"])
def test_a_blocking_client_lets_go_of_what_it_lost(tmp_path: Path, kind: str) -> None:
    """Each connection has a socket, over WebSocket a thread too: connecting anew ends them."""
    process = ServerProcess(tmp_path / "data")
    with jetwire.sync.connect(process.addresses[kind]) as server:
        server.instances()
        held = threads_and_descriptors()
        for _ in range(2):
            process.kill()
            with pytest.raises(ConnectionLost):
                server.instances()
            process = again(process)
            with server.session():
                assert threads_and_descriptors() == held
    process.kill()


def threads_and_descriptors() -> tuple[int, int]:
    """How many this process has."""
    gc.collect()
    return threading.active_count(), len(os.listdir("/proc/self/fd"))


def test_killed_while_a_commit_waits_for_a_thaw(tmp_path: Path) -> None:
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
