"""What sessions and transactions do when a call is cancelled or refused: said by a server that says what it is told."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import jetwire
from jetwire import Table
from jetwire.errors import EngineError, HandleDead, KeyDuplicate, WriteConflict
from tests.support.fake_server import SILENCE, FakeServer, Peer


class Engine:
    """Sessions and levels, no more; `refuse` and `silent` say what happens to which method."""

    def __init__(self) -> None:
        self.level = 0
        self.refuse: dict[str, list[int]] = {}
        self.silent: set[str] = set()

    async def __call__(self, call: dict[str, Any], peer: Peer) -> Any:
        method = call["method"]
        if method in self.silent:
            return SILENCE
        if self.refuse.get(method):
            await peer.error(call, self.refuse[method].pop(0), "", retryable=True)
            return SILENCE
        self.level += {"BeginTransaction": 1, "CommitTransaction": -1, "Rollback": -1}.get(method, 0)
        return {"Hello": {"instances": [{"name": "default", "instance": 1}]}, "BeginSession": {"sesid": 5}}.get(method, {})


async def test_a_commit_that_fails_is_rolled_back() -> None:
    engine = Engine()
    engine.refuse["CommitTransaction"] = [-1102]
    with FakeServer(engine) as fake:
        async with jetwire.connect(fake.tcp) as server, server.session() as session:
            with pytest.raises(WriteConflict):
                async with session.transaction():
                    pass
            assert engine.level == 0
            assert fake.methods[-2:] == ["CommitTransaction", "Rollback"]
            assert session.alive


async def test_a_rollback_that_fails_does_not_hide_the_reason() -> None:
    engine = Engine()
    engine.refuse["Rollback"] = [-1102]
    with FakeServer(engine) as fake:
        async with jetwire.connect(fake.tcp) as server, server.session() as session:
            with pytest.raises(ZeroDivisionError) as caught:
                async with session.transaction():
                    raise ZeroDivisionError
            assert "rollback failed" in caught.value.__notes__[0]


@pytest.mark.parametrize("method", ["BeginTransaction", "CommitTransaction"])
async def test_a_cancelled_boundary_of_a_transaction_leaves_only_closing(method: str) -> None:
    engine = Engine()
    engine.silent.add(method)
    with FakeServer(engine) as fake:
        async with jetwire.connect(fake.tcp) as server:
            async with server.session() as session:
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.05), session.transaction():
                        pass
                for work in (session.transaction, session.use):
                    with pytest.raises(HandleDead, match="cancelled"):
                        work()
                with pytest.raises(HandleDead, match="cancelled"):
                    await session.open("a.edb")
            assert fake.methods[-1] == "EndSession", "it can still be closed"


async def test_a_cancelled_body_is_rolled_back() -> None:
    engine = Engine()
    with FakeServer(engine) as fake:
        async with jetwire.connect(fake.tcp) as server, server.session() as session:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05), session.transaction():
                    await asyncio.sleep(5)
            assert engine.level == 0
            assert session.alive


async def test_retry_tries_again_only_what_may_succeed() -> None:
    engine = Engine()
    runs = 0

    async def work() -> int:
        nonlocal runs
        runs += 1
        return runs

    with FakeServer(engine) as fake:
        async with jetwire.connect(fake.tcp) as server, server.session() as session:
            engine.refuse["CommitTransaction"] = [-1102, -1102]
            assert await session.retry(work) == 3
            engine.refuse["CommitTransaction"] = [-1102] * 5
            with pytest.raises(WriteConflict):
                await session.retry(work, attempts=2)
            assert runs == 5
            engine.refuse["CommitTransaction"] = []
            assert engine.level == 0

            async def fails() -> None:
                nonlocal runs
                runs += 1
                raise KeyDuplicate(-1605)

            with pytest.raises(KeyDuplicate):
                await session.retry(fails)
            assert runs == 6


async def test_retry_within_a_transaction_leaves_it_to_the_outermost() -> None:
    engine = Engine()
    inner = outer = 0

    with FakeServer(engine) as fake:
        async with jetwire.connect(fake.tcp) as server, server.session() as session:

            async def small() -> None:
                nonlocal inner
                inner += 1
                if inner < 3:
                    raise WriteConflict(-1102, retryable=True)

            async def large() -> None:
                nonlocal outer
                outer += 1
                await session.retry(small)

            await session.retry(large)
            assert (inner, outer) == (3, 3)
            assert engine.level == 0


async def test_a_session_of_an_instance_that_is_not_there() -> None:
    with FakeServer(Engine()) as fake:
        async with jetwire.connect(fake.tcp) as server:
            with pytest.raises(jetwire.JetwireError, match="default"):
                await server.begin_session("other")


async def test_an_error_at_the_end_does_not_hide_the_one_before() -> None:
    engine = Engine()
    engine.refuse["EndSession"] = [-1104, -1104]
    with FakeServer(engine) as fake:
        async with jetwire.connect(fake.tcp) as server:
            with pytest.raises(ZeroDivisionError):
                async with server.session():
                    raise ZeroDivisionError
            with pytest.raises(EngineError):
                async with server.session():
                    pass


@pytest.mark.parametrize("within", [0.1, None], ids=["within the session", "around it"])
async def test_a_time_out_ends_also_where_nobody_answers(monkeypatch: pytest.MonkeyPatch, within: float | None) -> None:
    """The rollback and the ends of table and session are sent; they do not hold up for long who was cancelled."""
    monkeypatch.setattr("jetwire._async.transport.CLOSE_SECONDS", 0.1)
    engine = Engine()
    with FakeServer(engine) as fake:

        async def work() -> None:
            async with asyncio.timeout(None if within else 0.3), jetwire.connect(fake.tcp) as server, server.session() as session:
                table = Table(session, 7, "t", {})
                engine.silent |= {"M", "Rollback", "CloseTable", "EndSession"}
                async with asyncio.timeout(within), table, session.transaction():
                    await session.connection.call("M")

        task = asyncio.create_task(work())
        await asyncio.wait([task], timeout=5)
        assert task.done()
        assert isinstance(task.exception(), TimeoutError)
        assert fake.methods[-3:] == ["Rollback", "CloseTable", "EndSession"]


async def test_a_time_out_where_the_server_answers_leaves_the_session_as_it_was() -> None:
    engine = Engine()
    engine.silent.add("M")
    with FakeServer(engine) as fake:
        async with jetwire.connect(fake.tcp) as server, server.session() as session:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05), session.transaction():
                    await session.connection.call("M")
            assert engine.level == 0
            async with session.transaction():
                pass
            assert engine.level == 0


async def test_a_session_does_not_come_alive_with_the_next_connection() -> None:
    """Its number may be another session's there."""
    with FakeServer(Engine()) as fake:
        server = jetwire.connect(fake.tcp)
        async with server:
            old = await server.begin_session()
        async with server:
            other = await server.begin_session()
            assert other.id == old.id
            assert not old.alive
            with pytest.raises(HandleDead, match="ended with its connection"):
                old.use()
            await old.close()
            assert "EndSession" not in fake.methods
            assert other.alive


@pytest.mark.parametrize(("attempts", "tried"), [(3, 3), (1, 1), (0, 1), (-1, 1)])
async def test_a_retry_gives_up(attempts: int, tried: int) -> None:
    engine = Engine()
    engine.refuse["M"] = [-1102] * 9
    with FakeServer(engine) as fake:
        async with jetwire.connect(fake.tcp) as server, server.session() as session:
            with pytest.raises(WriteConflict):
                await session.retry(lambda: session.connection.call("M"), attempts=attempts)
            assert fake.methods.count("M") == tried
            assert engine.level == 0
