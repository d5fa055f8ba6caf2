"""The client's objects against a real server, over every transport that keeps a session."""

# ruff: noqa: PT012 - what is raised is raised within a transaction
from __future__ import annotations

import asyncio
import math
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest

import jetwire
import jetwire.sync
from jetwire.errors import HandleDead, JetwireError, KeyDuplicate, RecordNotFound, WriteConflict
from tests.support.server_process import ServerProcess

LASTING = ["tcp", "unix", "ws"]
PEOPLE = {"id": "Long", "name": "Text", "age": "Short"}


@pytest.fixture(params=LASTING)
def url(request: pytest.FixtureRequest, shared_server: ServerProcess) -> str:
    return shared_server.addresses[request.param]


async def people(session: jetwire.Session, database: str, **more: Any) -> jetwire.Table:
    db = await session.open(database, create=True)
    return await db.create_table("people", PEOPLE, primary="id", **more)


async def test_the_first_twenty_lines(url: str, database: str) -> None:
    async with jetwire.connect(url) as server, server.session() as session:
        table = await people(session, database, indexes={"byName": "+name"}, unique={"byAge": ["-age", "+id"]})
        async with session.transaction() as transaction:
            await table.insert({"id": 1, "name": "Ada", "age": 36}, {"id": 2, "name": "alan", "age": 41})
        assert transaction.commit_id
        assert await table.get(1) == {"id": 1, "name": "Ada", "age": 36}
        assert await table.get(3) is None
        assert await table.get("ALAN", index="byName", columns=["id"]) == {"id": 2}
        assert [r["id"] async for r in table.range(index="byAge")] == [2, 1]
        assert await table.count() == 2
        assert await table.upsert({"id": 2, "age": 42}, {"id": 3, "name": "Grace"}) == 2
        assert await table.replace({"id": 3, "age": 85}) == 1
        assert await table.get(3) == {"id": 3, "name": "Grace", "age": 85}
        assert await table.delete({"id": 1}) == 1
        assert [r["id"] async for r in table.range()] == [2, 3]
    async with jetwire.connect(url) as server, server.session() as session:  # and it is still there for others
        db = await session.open(database)
        assert await db.tables() == ["people"]
        async with await db.table("people") as table:
            assert await table.get(2) == {"id": 2, "name": "alan", "age": 42}


async def test_ranges(url: str, database: str) -> None:
    async with jetwire.connect(url) as server, server.session() as session:
        table = await people(session, database, indexes={"byName": "+name", "byAgeName": ["-age", "+name"]})
        async with session.transaction():
            await table.insert(*({"id": n, "name": f"n{n:04}", "age": n % 10} for n in range(0, 500, 2)))

        async def ids(*args: Any, **options: Any) -> list[int]:
            return [record["id"] async for record in table.range(*args, **options)]

        evens = list(range(0, 500, 2))
        assert await ids(page=7) == evens
        assert await ids(page=7, reverse=True) == evens[::-1]
        assert await ids(page=250) == evens
        assert await ids(page=1000) == evens
        assert await ids(10, 20) == [10, 12, 14, 16, 18, 20], "both ends are included"
        assert await ids(9, 21) == [10, 12, 14, 16, 18, 20]
        assert await ids(10, 20, reverse=True, page=2) == [20, 18, 16, 14, 12, 10]
        assert await ids(9, 21, reverse=True, page=2) == [20, 18, 16, 14, 12, 10]
        assert await ids(490) == [490, 492, 494, 496, 498]
        assert await ids(None, 4) == [0, 2, 4]
        assert await ids(490, reverse=True) == [498, 496, 494, 492, 490]
        assert await ids(None, 4, reverse=True) == [4, 2, 0]
        assert await ids() == evens, "an earlier range leaves nothing behind"
        for nothing in ((11, 11), (1000, None), (None, -1), (20, 10)):
            assert await ids(*nothing) == []
            assert await ids(*nothing, reverse=True) == []
        assert await ids("N0010", "n0014", index="byName") == [10, 12, 14]
        assert await ids((8,), (8,), index="byAgeName", page=9) == [n for n in evens if n % 10 == 8], "a part of a key"
        assert await ids((8, "n0018"), (8, "n0038"), index="byAgeName") == [18, 28, 38]
        assert [r async for r in table.range(4, 4, columns=["age"])] == [{"age": 4}]


async def test_a_table_can_be_used_while_it_is_walked(url: str, database: str) -> None:
    async with jetwire.connect(url) as server, server.session() as session:
        table = await people(session, database)
        await table.insert(*({"id": n, "age": 0} for n in range(20)))
        seen = []
        async for record in table.range(page=3):
            seen.append(record["id"])
            await table.replace({"id": record["id"], "age": 1})
            assert await table.get(0) == {"id": 0, "age": 1}
            inner = [r["id"] async for r in table.range(5, 8, page=2)]
            assert inner == [5, 6, 7, 8]
        assert seen == list(range(20))
        assert all([r["age"] == 1 async for r in table.range()])


async def test_a_range_after_a_rollback(url: str, database: str) -> None:
    """The cursor of a range that was walked inside a transaction goes with it; the next range must not mind."""
    async with jetwire.connect(url) as server, server.session() as session:
        table = await people(session, database)
        await table.insert({"id": 1}, {"id": 2})
        with pytest.raises(ZeroDivisionError):
            async with session.transaction():
                assert [r["id"] async for r in table.range()] == [1, 2]
                raise ZeroDivisionError
        assert [r["id"] async for r in table.range()] == [1, 2]


async def test_transactions(url: str, database: str) -> None:
    async with jetwire.connect(url) as server, server.session() as session, server.session() as other:
        table = await people(session, database)
        theirs = await (await other.open(database)).table("people")
        async with session.transaction():
            await table.insert({"id": 1})
            assert await theirs.get(1) is None, "not before it is committed"
            with pytest.raises(ZeroDivisionError):
                async with session.transaction():
                    await table.insert({"id": 2})
                    raise ZeroDivisionError
            async with session.transaction():
                await table.insert({"id": 3})
        assert [r["id"] async for r in theirs.range()] == [1, 3]
        async with session.transaction() as transaction:
            await table.insert({"id": 4})
            await transaction.rollback()
        async with session.transaction(lazy=True) as transaction:
            await table.insert({"id": 5})
            await transaction.commit()
            with pytest.raises(JetwireError, match="over"):
                await transaction.commit()
        assert [r["id"] async for r in theirs.range()] == [1, 3, 5]
        with pytest.raises(JetwireError):
            async with session.transaction(read_only=True):
                await table.insert({"id": 6})
        async with other.transaction():  # one snapshot for all that is read in it
            assert await theirs.count() == 3
            await table.insert({"id": 7})
            assert await theirs.count() == 3
        assert await theirs.count() == 4


async def test_errors_are_typed(url: str, database: str) -> None:
    async with jetwire.connect(url) as server, server.session() as session, server.session() as other:
        table = await people(session, database, unique={"byName": "+name"})
        await table.insert({"id": 1, "name": "a"})
        with pytest.raises(KeyDuplicate):
            await table.insert({"id": 2, "name": "b"}, {"id": 1, "name": "c"})
        assert await table.get(2) is None, "all or none"
        with pytest.raises(KeyDuplicate):
            await table.insert({"id": 3, "name": "A"})
        with pytest.raises(RecordNotFound):
            await table.replace({"id": 9, "age": 1})
        theirs = await (await other.open(database)).table("people")
        async with session.transaction():
            await table.replace({"id": 1, "age": 1})
            with pytest.raises(WriteConflict) as caught:
                await theirs.replace({"id": 1, "age": 2})
            assert caught.value.retryable


async def test_retry_until_nobody_is_in_the_way(url: str, database: str) -> None:
    """Eight tasks count one record up at once: every step arrives, none twice."""
    async with jetwire.connect(url) as server:
        async with server.session() as session:
            table = await people(session, database)
            await table.insert({"id": 1, "age": 0})
        tries = 0

        async def worker() -> None:
            async with server.session() as session:
                table = await (await session.open(database)).table("people")

                async def step() -> None:
                    nonlocal tries
                    tries += 1
                    record = await table.get(1)
                    assert record
                    await asyncio.sleep(0)
                    await table.replace({"id": 1, "age": record["age"] + 1})

                for _ in range(5):
                    await session.retry(step, attempts=1000)

        await asyncio.gather(*(worker() for _ in range(8)))
        async with server.session() as session:
            table = await (await session.open(database)).table("people")
            assert await table.get(1) == {"id": 1, "age": 40}
        assert tries > 40, "nobody was ever in the way: the test shows nothing"


async def test_every_type_comes_back(url: str, database: str) -> None:
    types = {
        "bit": ("Bit", True),
        "byte": ("UnsignedByte", 255),
        "short": ("Short", -32768),
        "ushort": ("UnsignedShort", 65535),
        "long": ("Long", -(2**31)),
        "ulong": ("UnsignedLong", 2**32 - 1),
        "longlong": ("LongLong", -(2**63)),
        "money": ("Currency", 2**63 - 1),
        "single": ("IEEESingle", 0.5),
        "double": ("IEEEDouble", 0.1),
        "when": ("DateTime", datetime(1850, 3, 4, 5, 6, 7, 89, tzinfo=UTC)),
        "guid": ("GUID", uuid4()),
        "text": ("Text", "Grüße 𝄞 \x00 end"),
        "long_text": ("LongText", "ä" * 100_000),
        "binary": ("Binary", bytes(range(255))),
        "long_binary": ("LongBinary", bytes(range(256)) * 1000),
    }
    async with jetwire.connect(url) as server, server.session() as session:
        db = await session.open(database, create=True)
        table = await db.create_table("all", {"id": "Long", **{name: kind for name, (kind, _) in types.items()}}, primary="id")
        record = {name: value for name, (_, value) in types.items()}
        await table.insert({"id": 1, **record})
        await table.insert({"id": 2, "double": math.inf, "text": "", "long_binary": b""})
        assert await table.get(1) == {"id": 1, **record}
        assert await table.get(2) == {"id": 2, "double": math.inf, "text": "", "long_binary": b""}
        assert [r async for r in table.range(1, 1, columns=["guid", "when"])] == [{"guid": record["guid"], "when": record["when"]}]
        assert isinstance((await table.get(1) or {})["guid"], UUID)


async def test_several_values_of_a_column(url: str, database: str) -> None:
    async with jetwire.connect(url) as server, server.session() as session:
        db = await session.open(database, create=True)
        tags = {"coltyp": "LongText", "grbit": ["ColumnTagged", "ColumnMultiValued"]}
        table = await db.create_table("notes", {"id": "Long", "tags": tags}, primary="id", indexes={"byTag": "+tags"})
        await table.insert({"id": 1, "tags": ["red", "green"]}, {"id": 2, "tags": "green"}, {"id": 3})
        assert (await table.get(1) or {})["tags"] == ["red", "green"]
        assert (await table.get(2) or {})["tags"] == "green"
        assert "tags" not in (await table.get(3) or {})
        assert [r["id"] async for r in table.range("green", "green", index="byTag")] == [1, 2]


async def test_what_is_too_large_is_refused_and_nothing_else_is_hurt(shared_server: ServerProcess, database: str) -> None:
    async with jetwire.connect(shared_server.addresses["tcp"]) as server, server.session() as session:
        db = await session.open(database, create=True)
        table = await db.create_table("big", {"id": "Long", "data": "LongBinary"}, primary="id")
        big = {"data": b"x" * 1_000_000}
        with pytest.raises(jetwire.RpcError, match="Too large"):
            await table.insert(*({"id": n, **big} for n in range(10)))
        assert session.alive
        for n in range(3):
            await table.insert({"id": n, **big})
        assert [r["id"] async for r in table.range(columns=["id"])] == [0, 1, 2]


async def test_handles_know_when_they_are_dead(own_server: ServerProcess) -> None:
    async with jetwire.connect(own_server.addresses["tcp"]) as server:
        session = await server.begin_session()
        table = await people(session, "a.edb")
        await table.close()
        with pytest.raises(HandleDead, match="people"):
            await table.get(1)
        table = await (await session.open("a.edb")).table("people")
        await session.close()
        await session.close()
        with pytest.raises(HandleDead, match="closed"):
            await table.get(1)
        with pytest.raises(HandleDead):
            session.transaction()
        session = await server.begin_session()
        own_server.kill()
        with pytest.raises(JetwireError):
            await session.connection.Ping()
        with pytest.raises(HandleDead, match="connection"):
            await session.open("a.edb")
        with pytest.raises(jetwire.ConnectionLost):
            await server.begin_session()


async def test_a_server_object_outlives_its_connection(own_server: ServerProcess) -> None:
    async with jetwire.connect(own_server.addresses["tcp"]) as server:
        old = await server.begin_session()
        await server.connection.close()
        async with server.session() as new:
            assert new.alive
            assert not old.alive, "what an old session was doing is gone: it must not come back as another one"
            with pytest.raises(HandleDead):
                old.use()


async def test_a_cancelled_commit_leaves_a_session_that_can_only_be_closed(own_server: ServerProcess) -> None:
    """A commit that waits for a thaw is cancelled: whether it happened is unknown, and later work must not land inside it."""
    url = own_server.addresses["tcp"]
    async with jetwire.connect(url) as server, jetwire.Connection(url) as operator:
        async with server.session() as session:
            table = await people(session, "a.edb")
            snap = (await operator.OSSnapshotPrepare(grbit=["ContinueAfterThaw"]))["snapId"]
            await operator.OSSnapshotFreeze(snap, leaseMs=10_000)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1), session.transaction():
                    await table.insert({"id": 1})
            with pytest.raises(HandleDead, match="commit was cancelled"):
                await table.insert({"id": 2})
            await operator.OSSnapshotThaw(snap)
            await operator.OSSnapshotEnd(snap)
        async with server.session() as session:
            assert await (await (await session.open("a.edb")).table("people")).get(1) == {"id": 1}, "it was queued, so it came"


async def test_notifications_reach_listeners(own_server: ServerProcess) -> None:
    heard: list[Any] = []
    async with jetwire.Connection(own_server.addresses["tcp"]) as c:
        c.listen(lambda method, params: heard.append((method, params["topic"])))
        await c.Subscribe(["snapshot"])
        snap = (await c.OSSnapshotPrepare())["snapId"]
        await c.OSSnapshotAbort(snap)
        for _ in range(100):
            if heard:
                break
            await asyncio.sleep(0.01)
        assert ("event", "snapshot") in heard
        async with jetwire.connect(own_server.addresses["tcp"]) as server, server.session() as session:
            await session.open("new.edb", create=True)  # nothing of the session that ended stands in the way


async def test_http_does_what_needs_no_session(shared_server: ServerProcess, database: str) -> None:
    url = shared_server.addresses["http"]
    async with jetwire.connect(url) as server:
        instance = (await server.instances())["default"]
        calls: list[dict[str, Any]] = [
            {"method": "BeginSession", "params": {"instance": instance}},
            {"method": "CreateDatabase", "params": {"sesid": {"$ref": "0/sesid"}, "database": database}},
            {
                "method": "GetObjectInfo",
                "params": {"sesid": {"$ref": "0/sesid"}, "dbid": {"$ref": "1/dbid"}, "objtyp": 1, "infoLevel": "List"},
            },
        ]
        results = (await server.connection.Batch(calls))["results"]
        assert len(results) == 3
        with pytest.raises(jetwire.errors.InvalidSesid):
            await server.connection.EndSession(results[0]["sesid"])
    with jetwire.sync.Connection(url) as blocking:
        assert (await asyncio.to_thread(blocking.SnapshotStatus))["state"] == "none"


async def test_several_programs_make_one_database(url: str, database: str) -> None:
    """Whoever comes second opens what the first has made meanwhile."""

    async def program() -> None:
        async with jetwire.connect(url) as server, server.session() as session:
            assert await (await session.open(database, create=True)).tables() == []

    await asyncio.gather(*(program() for _ in range(8)))
