"""What is kept for scans is never older than what a transaction would see: random writes of two sessions beside random scans."""

from __future__ import annotations

import asyncio
import gc
import json
import random
from typing import Any

import pytest

from jetwire.wire import encode_call
from jetwire_server import limits
from jetwire_server.engine.scan_cache import BYTES, ScanCache
from jetwire_server.engine.straight_scan import scan_from
from jetwire_server.rpc import straight_scan
from jetwire_server.rpc.answers import PENDING
from jetwire_server.rpc.peer import Peer
from jetwire_server.store.embedded import journal, publishing

PeerAndAnswers = tuple[Peer, asyncio.Queue[bytes], int]
KEYS = 400


class Table:
    """A table open in two sessions, what should be in it, and scans of it."""

    def __init__(self, peer: PeerAndAnswers, seed: int = 0, name: str = "t") -> None:
        self.peer, self.answers, self.first = peer
        self.dice = random.Random(seed)
        self.name = name
        self.rows: dict[int, str] = {}
        self.cursors: list[dict[str, int]] = []

    async def ask(self, method: str, params: dict[str, Any]) -> Any:
        answer = self.peer.receive(encode_call(1, method, params))
        got = json.loads(await self.answers.get() if answer is PENDING else answer)  # type: ignore[arg-type]
        assert "result" in got, got
        return got["result"]

    async def start(self) -> Table:
        mine = self.peer.sessions[self.first]
        columns = [{"name": "id", "coltyp": "Long"}, {"name": "v", "coltyp": "LongText", "cp": 1200}]
        create = {"name": self.name, "columns": columns, "indexes": [{"name": "p", "key": ["+id"], "grbit": ["IndexPrimary"]}]}
        made = await self.ask("CreateTableColumnIndex", {"sesid": self.first, "dbid": next(iter(mine.opened)), "tablecreate": create})
        await self.ask("CloseTable", {"sesid": self.first, "tableid": made["tableid"]})
        other = await mine.instance.begin_session()
        self.peer.sessions[other.id] = other
        for session, dbid in ((mine, next(iter(mine.opened))), (other, await other.open_database("a.edb"))):
            cursor = await session.open_table(dbid, self.name)
            self.cursors.append({"sesid": session.id, "tableid": cursor.id})
        await self.put("insert", dict.fromkeys(range(0, KEYS, 2), "first"))
        for cursor in self.cursors:  # the first use of a cursor reads the table's description
            await self.ask("Move", {**cursor, "numRows": "First"})
        return self

    async def put(self, mode: str, rows: dict[int, str], cursor: int = 0) -> None:
        records = [{"id": n} if mode == "delete" else {"id": n, "v": v} for n, v in rows.items()]
        await self.ask("PutRecords", {**self.cursors[cursor], "records": records, "mode": mode})
        for number, value in rows.items():
            if mode == "delete":
                del self.rows[number]
            else:
                self.rows[number] = value

    async def write(self) -> None:
        dice = self.dice
        cursor = dice.randrange(2)
        there = dice.sample(sorted(self.rows), min(len(self.rows), dice.choice([1, 1, 2, 30])))
        free = [n for n in dice.sample(range(KEYS), 5) if n not in self.rows]
        kind = dice.randrange(5)
        value = f"{dice.random()}" * dice.choice([1, 1, 3])
        if kind == 0:
            await self.put("insert", dict.fromkeys(free, value), cursor)
        elif kind == 1:
            await self.put("delete", dict.fromkeys(there[:2], ""), cursor)
        elif kind == 2 and dice.random() < 0.5:
            # Rolled back, or committed by the calls of a transaction; nobody else sees anything meanwhile.
            before = dict(self.rows)
            await self.ask("BeginTransaction", {"sesid": self.cursors[cursor]["sesid"]})
            await self.put("upsert", dict.fromkeys([*there, *free], value), cursor)
            after, self.rows = self.rows, before
            await self.check(1 - cursor)
            if dice.random() < 0.5:
                await self.ask("CommitTransaction", {"sesid": self.cursors[cursor]["sesid"]})
                self.rows = after
            else:
                await self.ask("Rollback", {"sesid": self.cursors[cursor]["sesid"]})
        else:
            await self.put("replace", dict.fromkeys(there, value), cursor)

    async def scan(self, start: int, limit: int, stop: int | None = None, cursor: int = 0) -> tuple[list[tuple[int, str]], bool]:
        at = self.cursors[cursor]
        calls = [
            {"method": "MakeKey", "params": {**at, "data": start, "grbit": ["NewKey"]}},
            {"method": "Seek", "params": {**at, "grbit": ["SeekGE"]}},
        ]
        if stop is not None:
            calls.append({"method": "MakeKey", "params": {**at, "data": stop, "grbit": ["NewKey"]}})
            calls.append({"method": "SetIndexRange", "params": {**at, "grbit": ["RangeInclusive", "RangeUpperLimit"]}})
        calls.append({"method": "GetRecords", "params": {**at, "limit": limit}})
        last = (await self.ask("Batch", {"calls": calls, "transaction": False}))["results"][-1]
        return [(record["id"], record["v"]) for record in last["records"]], last["more"]

    async def check(self, cursor: int) -> None:
        """A scan from anywhere says what should be there."""
        dice = self.dice
        start, limit = dice.randrange(KEYS), dice.choice([1, 2, 10, 50, 100, 1000])
        stop = dice.choice([None, None, start + dice.randrange(200)])
        expected = sorted((n, v) for n, v in self.rows.items() if n >= start and (stop is None or n <= stop))
        if expected:
            assert await self.scan(start, limit, stop, cursor) == (expected[:limit], len(expected) > limit)

    async def drive(self, turns: int) -> None:
        for _ in range(turns):
            if self.dice.random() < 0.3:
                await self.write()
            await self.check(self.dice.randrange(2))

    @property
    def cache(self) -> ScanCache:
        cursor = self.peer.sessions[self.first].cursors[self.cursors[0]["tableid"]]
        found: ScanCache = cursor.plan.table.compiled["scans"]
        return found


@pytest.mark.parametrize("seed", range(4))
async def test_scans_see_what_was_committed(peer: PeerAndAnswers, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SCAN_CACHE_STRETCH_ROWS", 1 + seed * 5)
    monkeypatch.setattr(limits, "SCAN_CACHE_CHANGES_MAX", 20)
    table = await Table(peer, seed).start()
    await table.drive(250)
    await peer[0].sessions[peer[2]].instance.store.checkpoint()
    await table.drive(150)
    assert table.cache._served > table.cache._built / 4 > 0, "hardly anything was kept: nothing was shown"


async def test_control_a_cache_that_is_not_told_is_found(peer: PeerAndAnswers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ScanCache, "written", lambda self, keys: None)
    table = await Table(peer).start()
    with pytest.raises(AssertionError):
        await table.drive(100)


async def test_a_large_commit_is_seen_whole_or_not_at_all(peer: PeerAndAnswers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publishing, "SLICE_ROWS", 10)
    monkeypatch.setattr(journal, "LARGE_ROWS", 20)
    table = await Table(peer).start()
    seen = set()
    for turn in range(10):
        writing = asyncio.create_task(table.put("replace", dict.fromkeys(range(0, KEYS, 2), f"turn {turn}")))
        while not writing.done():
            rows, _ = await table.scan(0, 1000, cursor=1)
            assert len({value for _, value in rows}) == 1, "half a commit"
            seen.add(rows[0][1])
            await asyncio.sleep(0)
        await writing
        rows, _ = await table.scan(0, 1000, cursor=1)
        assert {value for _, value in rows} == {f"turn {turn}"}
    assert len(seen) > 1


async def test_a_database_that_was_detached_leaves_nothing(peer: PeerAndAnswers) -> None:
    table = await Table(peer).start()
    await table.drive(5)
    cache = table.cache
    assert cache._stretches
    session = peer[0].sessions[peer[2]]
    store = session.instance.store
    tree = session.cursors[table.cursors[0]["tableid"]].at.tree
    assert store.watcher_of(tree) is cache
    for one in list(session.instance.sessions.values()):
        for cursor in list(one.cursors.values()):
            cursor.close()
        for dbid in list(one.opened):
            await one.close_database(dbid)
    await session.detach_database("a.edb")
    assert store.watcher_of(tree) is None
    assert not cache._stretches


async def test_a_column_that_is_added_is_told_at_once(peer: PeerAndAnswers) -> None:
    table = await Table(peer).start()
    await table.drive(5)
    await table.ask("AddColumn", {**table.cursors[0], "columnname": "w", "columndef": {"coltyp": "Long"}})
    await table.ask("PutRecords", {**table.cursors[0], "records": [{"id": 0, "w": 7}], "mode": "replace"})
    for _ in range(3):
        at = table.cursors[1]
        calls = [
            {"method": "MakeKey", "params": {**at, "data": 0, "grbit": ["NewKey"]}},
            {"method": "Seek", "params": {**at, "grbit": ["SeekGE"]}},
            {"method": "GetRecords", "params": {**at, "limit": 2}},
        ]
        records = (await table.ask("Batch", {"calls": calls}))["results"][-1]["records"]
        assert records[0]["w"] == 7
        assert "w" not in records[1]


async def test_memory_is_bounded(peer: PeerAndAnswers, monkeypatch: pytest.MonkeyPatch) -> None:
    gc.collect()  # caches of other tests
    before = BYTES.value
    monkeypatch.setattr(limits, "SCAN_CACHE_BYTES", before + 20_000)
    monkeypatch.setattr(limits, "SCAN_CACHE_PAUSE_SCANS", 5)
    monkeypatch.setattr(limits, "SCAN_CACHES_MAX", 2)
    tables = [await Table(peer, name=f"t{n}").start() for n in range(3)]
    most = 0.0
    for _ in range(60):
        for table in tables:
            await table.check(0)
            most = max(most, BYTES.value - before)
    assert 20_000 < most < 30_000
    del table, tables
    for session in peer[0].sessions.values():
        for cursor in session.cursors.values():
            cursor.plan.table.compiled["scans"].forget()
    assert BYTES.value == before


async def test_a_cache_of_no_use_pauses(peer: PeerAndAnswers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SCAN_CACHE_BYTES", 1)
    monkeypatch.setattr(limits, "SCAN_CACHE_PAUSE_SCANS", 3)
    taken = 0
    monkeypatch.setattr(straight_scan, "scan_from", _counting := _Counting(scan_from))
    table = await Table(peer).start()
    for _ in range(20):
        await table.check(0)
        taken += table.cache._pause > 0
    assert taken > 10
    assert _counting.answered == 20


class _Counting:
    def __init__(self, call: Any) -> None:
        self._call = call
        self.answered = 0

    def __call__(self, *given: Any) -> Any:
        found = self._call(*given)
        self.answered += found is not None
        return found
