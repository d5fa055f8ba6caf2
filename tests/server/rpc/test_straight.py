"""The straight road and the general road, driven with the same random calls on twin tables: same answers, same rows, same entries.

Every message goes to one peer twice: once as it is, for the first table, and once for its twin with the straight road barred.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from typing import Any

import pytest

from jetwire._async.table import _range_calls as range_calls
from jetwire.wire import encode_call
from jetwire_protocol.data.flags import GetLockGrbit, Prep
from jetwire_server import limits
from jetwire_server.clock import SystemClock
from jetwire_server.engine import straight as engine_road
from jetwire_server.engine.cursor import Cursor
from jetwire_server.engine.straight_scan import scan_from
from jetwire_server.rpc import handlers as handlers  # registers them
from jetwire_server.rpc import straight, straight_scan
from jetwire_server.rpc.answers import PENDING
from jetwire_server.rpc.peer import Peer
from tests.support.hosted import rows_of

TYPES: dict[str, list[Any]] = {
    "Bit": [True, False, 1, "x"],
    "UnsignedByte": [0, 7, 255, 256, -1, "12"],
    "Short": [-32768, 5, 32768, 1.0],
    "Long": [0, 1, 2, 3, -(2**31), 2**31, "17", True, None],
    "UnsignedLong": [0, 9, 2**32 - 1, 2**32],
    "LongLong": [0, 2**63 - 1, -(2**63), 2**63, 2**70],
    "Currency": [1, "5", 2**53 + 1],
    "UnsignedLongLong": [0, 2**64 - 1, 2**64, -1],
    "IEEESingle": [0.5, 0.1, 1, "NaN", 1e300],
    "IEEEDouble": [0.5, 3, "Infinity", "x", 1e300],
    "DateTime": [2.5, 3, "2026-11-21T07:00:00Z", "never"],
    "GUID": ["00112233-4455-6677-8899-aabbccddeeff", "no"],
    "Text": ["", "a", "b", "a%b", "x" * 30, "x" * 300, "café", "你好", "\\ud800"[:1], "line\nfeed", 'quo"te', 5, {"base64": "QQA="}],
    "Binary": ["", "AP8=", "AAAA", "no base64!", {"base64": "AQ=="}, "A" * 400],
    "LongText": ["", "short", "y" * 1024, "y" * 1025, "z" * 5000, "é" * 700, ["a", "b"], ["one"]],
    "LongBinary": ["", "AP8=", "A" * 1400, "A" * 6000, ["AP8=", "AA=="]],
}

ORDINARY: dict[str, list[Any]] = {
    **{kind: [0, 1, 2, 100] for kind in TYPES if kind not in ("Bit", "GUID")},
    "Bit": [True, False],
    "GUID": TYPES["GUID"][:1],
    "Text": ["a", "b", "a%b", "x" * 30, "café"],
    "Binary": ["AP8=", "AAAA"],
    "LongText": ["short", "y" * 100, "a%b", 'quo"te'],
    "LongBinary": ["AP8=", "A" * 400],
}


class Twins:
    """One session with two tables of one schema, and a peer."""

    def __init__(self, peer: Peer, answers: asyncio.Queue[bytes], sesid: int, dbid: int, dice: random.Random) -> None:
        self.peer, self.answers, self.sesid, self.dbid, self.dice = peer, answers, sesid, dbid, dice
        self.made: Counter[str] = Counter()
        self.taken: Counter[str] = Counter()
        self.tables: list[int] = []
        self.columns: dict[str, str] = {}
        self.values: dict[str, list[Any]] = {}
        self.keys: list[str] = []

    async def create(self) -> bool:
        """False if the dice made a schema that nobody may have."""
        dice = self.dice
        columns = []
        for number, kind in enumerate(dice.choices(list(TYPES), k=7)):
            column: dict[str, Any] = {"name": f"c {number}", "coltyp": kind, "grbit": []}
            if "Text" in kind:
                column["cp"] = dice.choice([1200, 1252])
            if kind in ("Text", "Binary"):
                column["max"] = dice.choice([40, 255])
                column["grbit"] += dice.choice([[], [], ["ColumnFixed"]])
            if kind.startswith("Long") and kind not in ("Long", "LongLong"):
                column["grbit"] += dice.choice([[], ["ColumnTagged"], ["ColumnTagged", "ColumnMultiValued"]])
            elif dice.random() < 0.2:
                column["grbit"] += ["ColumnNotNULL"]
            elif kind == "Long" and number == 0:
                column["grbit"] += dice.choice([["ColumnAutoincrement"], ["ColumnVersion"], ["ColumnEscrowUpdate"]])
                if "ColumnEscrowUpdate" in column["grbit"]:
                    column |= {"default": "AAAAAA==", "grbit": [*column["grbit"], "ColumnFixed"]}
            columns.append(column)
            self.columns[column["name"]] = kind
            self.values[column["name"]] = TYPES[kind]
        columns.append({"name": "id", "coltyp": "Long", "grbit": ["ColumnFixed"]})
        self.columns["id"] = "Long"
        self.values["id"] = TYPES["Long"]
        self.keys = dice.choice([["id"], ["id"], [*dice.sample([n for n in self.columns if n != "id"], 1), "id"]])
        indexes: list[dict[str, Any]] = [{"name": "primary", "key": [dice.choice("+-") + k for k in self.keys], "grbit": ["IndexPrimary"]}]
        for number in range(dice.randrange(3)):
            name = dice.choice(list(self.columns))
            more = (
                []
                if self.columns[name].startswith("Long")
                else dice.choice([[], ["IndexUnique"], ["IndexIgnoreNull"], ["IndexDisallowNull"]])
            )
            indexes.append({"name": f"i{number}", "key": [dice.choice("+-") + name], "grbit": more})
        for number in range(2):
            create = {"name": f"{dice.getstate()[1][0]}_{number}", "columns": columns, "indexes": indexes}
            made = await self.ask("CreateTableColumnIndex", sesid=self.sesid, dbid=self.dbid, tablecreate=create)
            if "error" in made:
                assert made["error"]["code"] < 0, made
                return False
            self.tables.append(made["result"]["tableid"])
        return True

    async def ask(self, method: str, **params: Any) -> dict[str, Any]:
        call = {"method": method, "params": params, "id": 1, "jsonrpc": "2.0"}
        answer = self.peer.receive(json.dumps(call, separators=(",", ":")).encode())
        got: dict[str, Any] = json.loads(await self.answers.get() if answer is PENDING else answer)  # type: ignore[arg-type]
        return got

    def record(self) -> dict[str, Any]:
        dice = self.dice
        names = [name for name in self.columns if dice.random() < 0.8]
        if dice.random() < 0.75:
            return {**{name: dice.choice(ORDINARY[self.columns[name]]) for name in names}, "id": dice.randrange(12)}
        record = {name: None if dice.random() < 0.1 else dice.choice(self.values[name]) for name in names}
        if dice.random() < 0.9:
            record["id"] = dice.randrange(12)
        if dice.random() < 0.03:
            record["ID" if dice.random() < 0.5 else "nothing"] = 1
        return record

    def call(self) -> tuple[str, dict[str, Any]]:
        dice = self.dice
        if dice.random() < 0.4:
            key = [dice.choice(ORDINARY[self.columns[name]]) for name in self.keys[:-1]] + [dice.randrange(12)]
            return "GetRecord", {"key": key[: dice.choice([9, 9, 9, 1])]}
        if dice.random() < 0.4:
            return "Batch", {"calls": self.scan()}
        mode = dice.choice(["insert"] * 4 + ["replace"] * 4 + ["upsert", "delete", "merge"])
        count = dice.choice([1, 1, 1, 1, 0, 2, 3])
        return "PutRecords", {"records": [self.record() for _ in range(count)], "mode": mode, "grbit": dice.choice([0, 1])}

    def scan(self) -> list[dict[str, Any]]:
        """So many records from a key on, or nearly so."""
        dice = self.dice
        key = [dice.choice(ORDINARY[self.columns[name]]) for name in self.keys[:-1]] + [dice.randrange(-1, 13)]
        calls: list[dict[str, Any]] = [
            {"method": "MakeKey", "params": {"data": value, "grbit": [] if place else ["NewKey"]}} for place, value in enumerate(key)
        ]
        if dice.random() < 0.5:
            calls[-1]["params"]["grbit"].append("FullColumnStartLimit")
        calls.append({"method": "Seek", "params": {"grbit": ["SeekGE"]}})
        if dice.random() < 0.4:
            calls.insert(0, {"method": "SetCurrentIndex", "params": {}})
        if dice.random() < 0.4:
            key[-1] += dice.randrange(-1, 9)
            end = ["FullColumnEndLimit"] if dice.random() < 0.7 else []
            for place, value in enumerate(key):
                grbit = ([] if place else ["NewKey"]) + (end if place == len(key) - 1 else [])
                calls.append({"method": "MakeKey", "params": {"data": value, "grbit": grbit}})
            calls.append(
                {"method": "SetIndexRange", "params": {"grbit": dice.choice([["RangeInclusive", "RangeUpperLimit"]] * 4 + [3, 1, 2])}}
            )
        calls.append({"method": "GetRecords", "params": {"limit": dice.choice([1, 1, 2, 3, 5, 100, 5000])}})
        odd = dice.random()
        if odd < 0.05:
            calls.remove(dice.choice(calls))
        elif odd < 0.1:
            calls[-1]["params"] |= dice.choice([{"direction": "backward"}, {"columns": ["id"]}, {"limit": 0}, {"limit": -1}])
        elif odd < 0.2:
            one = dice.choice(calls)
            one["params"] = {
                **one["params"],
                **dice.choice(
                    [{"grbit": n} for n in (0, 1, 8, 9)] + [{"grbit": ["nothing"]}, {"grbit": [["NewKey"]]}, {"grbit": ["SeekGT"]}]
                ),
                **dice.choice([{}, {}, {"data": None}, {"data": ""}]),
            }
        elif odd < 0.25:
            calls.append(dice.choice(calls))
        return calls

    async def turn(self, monkeypatch: pytest.MonkeyPatch) -> None:
        method, params = self.call()
        transaction = self.dice.random() < 0.05
        more = self.dice.random() < 0.3
        answers = []
        for table, barred in zip(self.tables, (False, True), strict=True):
            with monkeypatch.context() as patch:
                if barred:
                    patch.setattr(straight, "HEAD", 1 << 30)
                else:
                    self._count(patch)
                if transaction:
                    await self.ask("BeginTransaction", sesid=self.sesid)
                answers.append(await self.say(method, table, params))
                if more:
                    answers[-1]["more"] = await self.ask("GetRecords", sesid=self.sesid, tableid=table, limit=2)
                place = await self.ask("GetBookmark", sesid=self.sesid, tableid=table)
                if transaction:
                    await self.ask("CommitTransaction", sesid=self.sesid)
            answers[-1]["place"] = place.get("result", place.get("error", {}).get("code"))
        assert answers[0] == answers[1], (method, params)

    async def say(self, method: str, table: int, params: dict[str, Any]) -> dict[str, Any]:
        cursor = {"sesid": self.sesid, "tableid": table}
        if method != "Batch":
            return await self.ask(method, **cursor, **params)
        return await self.ask("Batch", calls=[{**call, "params": {**cursor, **call["params"]}} for call in params["calls"]])

    def _count(self, patch: pytest.MonkeyPatch) -> None:
        for road, name in ((straight, "get_record"), (straight, "put_records"), (straight_scan, "scan")):
            take = getattr(road, name)

            def counted(peer: Peer, data: bytes, take: Any = take, name: str = name) -> Any:
                self.made[name] += 1
                out = take(peer, data)
                self.taken[name] += bool(out)
                return out

            patch.setattr(road, name, counted)

    def cursor(self, number: int) -> Cursor:
        found: Cursor = self.peer.sessions[self.sesid].cursors[self.tables[number]]
        return found

    async def contents(self, number: int) -> list[dict[bytes, bytes]]:
        cursor = self.cursor(number)
        txn = await cursor.session.instance.store.begin()
        try:
            plans = sorted([cursor.plan.rows, *cursor.plan.secondary], key=lambda plan: plan.name)
            return [await rows_of(txn, plan.tree) for plan in plans]
        finally:
            await txn.rollback()


async def drive(peer: tuple[Peer, asyncio.Queue[bytes], int], seed: int, monkeypatch: pytest.MonkeyPatch, turns: int = 120) -> Twins:
    one, answers, sesid = peer
    dbid = next(iter(one.sessions[sesid].opened))
    twins = Twins(one, answers, sesid, dbid, random.Random(seed))
    if not await twins.create():
        return twins
    for _ in range(turns):
        await twins.turn(monkeypatch)
    assert await twins.contents(0) == await twins.contents(1)
    return twins


async def test_both_roads_say_and_write_the_same(peer: tuple[Peer, asyncio.Queue[bytes], int], monkeypatch: pytest.MonkeyPatch) -> None:
    made: Counter[str] = Counter()
    taken: Counter[str] = Counter()
    for seed in range(25):
        twins = await drive(peer, seed, monkeypatch)
        made, taken = made + twins.made, taken + twins.taken
    for road in ("get_record", "put_records", "scan"):
        assert taken[road] > made[road] / 12, f"the straight road of {road} was hardly taken: nothing was compared"


@pytest.mark.plain
async def test_control_a_straight_road_that_forgets_an_index_is_found(
    peer: tuple[Peer, asyncio.Queue[bytes], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def forgetful(txn: Any, plan: Any, values: Any) -> bytes:
        row = plan.codec.encode(values)
        bookmark: bytes = plan.rows.maker.key([{**plan.defaults, **values}.get(c) for c in plan.rows.columns])
        txn.insert(plan.rows.tree, bookmark, row)
        return bookmark

    monkeypatch.setattr(engine_road, "insert_values", forgetful)
    found = 0
    for seed in range(8):
        try:
            await drive(peer, seed, monkeypatch)
        except AssertionError:
            found += 1
    assert found


async def test_control_a_scan_that_leaves_the_cursor_behind_is_found(
    peer: tuple[Peer, asyncio.Queue[bytes], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def forgetful(cursor: Cursor, *given: Any) -> Any:
        state, at, bookmark, row = cursor.state, cursor.key, cursor.bookmark, cursor._row
        out = scan_from(cursor, *given)
        cursor.state, cursor.key, cursor.bookmark, cursor._row = state, at, bookmark, row
        return out

    monkeypatch.setattr(straight_scan, "scan_from", forgetful)
    with pytest.raises(AssertionError):
        await drive(peer, 2, monkeypatch)


# -- what clients ask --------------------------------------------------------------------------------------------------
class Ten:
    """Ten records, and a count of the scans that took the straight road."""

    def __init__(self, peer: Peer, answers: asyncio.Queue[bytes], sesid: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.peer, self.answers, self.sesid = peer, answers, sesid
        self.taken = 0
        monkeypatch.setattr(straight_scan, "scan", self._counted(straight_scan.scan))

    def _counted(self, scan: Any) -> Any:
        def counted(peer: Peer, data: bytes) -> Any:
            answer = scan(peer, data)
            self.taken += answer is not None
            return answer

        return counted

    async def start(self) -> Ten:
        columns = [{"name": "id", "coltyp": "Long"}, {"name": "v", "coltyp": "LongText", "cp": 1200}]
        create = {"name": "ten", "columns": columns, "indexes": [{"name": "p", "key": ["+id"], "grbit": ["IndexPrimary"]}]}
        dbid = next(iter(self.peer.sessions[self.sesid].opened))
        made = await self.ask("CreateTableColumnIndex", {"sesid": self.sesid, "dbid": dbid, "tablecreate": create})
        self.table = {"sesid": self.sesid, "tableid": made["result"]["tableid"]}
        await self.ask("PutRecords", {**self.table, "records": [{"id": n, "v": "x" * 100} for n in range(10)]})
        await self.ask("Move", {**self.table, "numRows": "First"})  # the first use of a cursor reads the table's description
        return self

    async def ask(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        answer = self.peer.receive(encode_call(1, method, params))
        got: dict[str, Any] = json.loads(await self.answers.get() if answer is PENDING else answer)  # type: ignore[arg-type]
        return got

    async def scan(self, start: int, limit: int) -> dict[str, Any]:
        calls = [
            {"method": "MakeKey", "params": {**self.table, "data": start, "grbit": ["NewKey"]}},
            {"method": "Seek", "params": {**self.table, "grbit": ["SeekGE"]}},
            {"method": "GetRecords", "params": {**self.table, "limit": limit}},
        ]
        return await self.ask("Batch", {"calls": calls, "transaction": False})

    async def range(self, start: int, stop: int | None) -> dict[str, Any]:
        calls = range_calls(self.table["sesid"], self.table["tableid"], start, stop, None, False)
        calls.append({"method": "GetRecords", "params": {**self.table, "limit": 500, "direction": "forward"}})
        return await self.ask("Batch", {"calls": calls, "transaction": False})


@pytest.fixture
async def ten(peer: tuple[Peer, asyncio.Queue[bytes], int], monkeypatch: pytest.MonkeyPatch) -> Ten:
    return await Ten(*peer, monkeypatch).start()


def ids_of(answer: dict[str, Any]) -> list[int]:
    return [record["id"] for record in answer["result"]["results"][-1]["records"]]


async def test_what_the_client_asks_for_takes_the_straight_road(ten: Ten) -> None:
    answer = await ten.scan(3, 4)
    assert ids_of(answer) == [3, 4, 5, 6]
    assert answer["result"]["results"][:2] == [{}, {}]
    assert answer["result"]["results"][2]["more"] is True
    assert ids_of(await ten.range(7, None)) == [7, 8, 9]
    assert ids_of(await ten.range(2, 5)) == [2, 3, 4, 5]
    assert ten.taken == 3


async def test_a_long_value_beside_its_row_takes_the_general_road(ten: Ten) -> None:
    await ten.ask("PutRecords", {**ten.table, "mode": "replace", "records": [{"id": 4, "v": "y" * 5000}]})
    assert ids_of(await ten.scan(5, 4)) == [5, 6, 7, 8]
    assert ten.taken == 1
    answer = await ten.scan(3, 4)
    assert ids_of(answer) == [3, 4, 5, 6]
    assert answer["result"]["results"][-1]["records"][1]["v"] == "y" * 5000
    assert ten.taken == 1


async def test_limits_hold_on_the_straight_road(ten: Ten, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "RECORDS_BYTES", 300)
    taken = ten.taken
    answer = await ten.scan(0, 10)
    assert ten.taken == taken  # the general road ends a page where it is full
    assert ids_of(answer)[0] == 0
    monkeypatch.undo()
    ten.peer._result_bytes_max = ten.peer.service.result_bytes_max = 300
    assert (await ten.scan(0, 10))["error"]["code"] == -32004
    assert ids_of(await ten.scan(0, 1)) == [0]


async def test_who_may_not_read_gets_no_records(ten: Ten) -> None:
    ten.peer.role = ""
    assert (await ten.scan(0, 10))["error"]["code"] == -32001
    assert ten.taken == 0


# -- another's commit on its way --------------------------------------------------------------------------------------
class Two:
    """Two sessions of one peer on a table with one record."""

    def __init__(self, peer: Peer, answers: asyncio.Queue[bytes], sesid: int) -> None:
        self.peer, self.answers, self.first = peer, answers, sesid

    async def start(self) -> Two:
        mine = self.peer.sessions[self.first]
        other = await mine.instance.begin_session()
        self.peer.sessions[other.id] = other
        self.second = other.id
        create = {
            "name": "t",
            "columns": [{"name": "id", "coltyp": "Long"}, {"name": "v", "coltyp": "Long"}],
            "indexes": [{"name": "p", "key": ["+id"], "grbit": ["IndexPrimary"]}],
        }
        made = json.loads(
            self.say("CreateTableColumnIndex", self.first, dbid=next(iter(mine.opened)), tablecreate=create) or await self.next()
        )
        self.say("CloseTable", self.first, tableid=made["result"]["tableid"])
        opened = await other.open_database("a.edb")
        self.tables = {
            self.first: (await mine.open_table(next(iter(mine.opened)), "t")).id,
            self.second: (await other.open_table(opened, "t")).id,
        }
        self.put(self.first, 0, mode="insert")
        await self.next()
        return self

    def say(self, method: str, sesid: int, **params: Any) -> bytes | None:
        call = {"method": method, "params": {"sesid": sesid, **params}, "id": sesid, "jsonrpc": "2.0"}
        answer = self.peer.receive(json.dumps(call, separators=(",", ":")).encode())
        return None if answer is PENDING else answer  # type: ignore[return-value]

    def put(self, sesid: int, value: int, mode: str = "replace") -> bytes | None:
        return self.say("PutRecords", sesid, tableid=self.tables[sesid], records=[{"id": 1, "v": value}], mode=mode)

    def value(self) -> int:
        got = self.say("GetRecord", self.first, tableid=self.tables[self.first], key=[1])
        assert got is not None
        value: int = json.loads(got)["result"]["record"]["v"]
        return value

    async def next(self) -> bytes:
        return await asyncio.wait_for(self.answers.get(), 5)


async def test_a_replace_goes_on_top_of_a_commit_on_its_way(peer: tuple[Peer, asyncio.Queue[bytes], int]) -> None:
    two = await Two(*peer).start()
    for turn in range(20):
        assert two.put(two.first, 2 * turn) is None
        assert two.put(two.second, 2 * turn + 1) is None
        answers = [json.loads(await two.next()) for _ in range(2)]
        assert [answer["id"] for answer in answers] == [two.first, two.second]
        assert all(answer["result"] == {"count": 1} for answer in answers)
        assert two.value() == 2 * turn + 1


async def test_nobody_goes_on_top_of_an_open_transaction(peer: tuple[Peer, asyncio.Queue[bytes], int]) -> None:
    two = await Two(*peer).start()
    two.say("BeginTransaction", two.first)
    two.put(two.first, 1)
    refused = json.loads(two.put(two.second, 2) or await two.next())
    assert refused["error"]["message"] == "JET_errWriteConflict"
    two.say("Rollback", two.first)
    two.put(two.second, 3)
    assert json.loads(await two.next())["result"] == {"count": 1}
    assert two.value() == 3


@pytest.mark.parametrize("first", ["PrepareUpdate", "GetLock"])
async def test_a_replace_goes_on_top_of_a_transaction_that_had_locked_the_record(
    peer: tuple[Peer, asyncio.Queue[bytes], int], first: str
) -> None:
    two = await Two(*peer).start()
    session = two.peer.sessions[two.first]
    cursor = session.cursors[two.tables[two.first]]
    gate = session.instance.store.gate
    await session.begin_transaction()
    await cursor.move(-(2**31))
    if first == "GetLock":
        await cursor.get_lock(int(GetLockGrbit.ReadLock))
    await cursor.prepare_update(Prep.Replace)
    await cursor.set_column(2, 1)
    await cursor.update()
    await gate.freeze(SystemClock().boot() + 5, drain_until=SystemClock().boot() + 5)
    try:
        assert two.say("CommitTransaction", two.first) is None
        assert two.put(two.second, 2) is None
    finally:
        gate.thaw()
    answers = [json.loads(await two.next()) for _ in range(2)]
    assert ["result" in answer for answer in answers] == [True, True]
    assert two.value() == 2
    assert session.instance.store.locks_held() == 0


async def test_while_frozen_both_wait_for_the_thaw(peer: tuple[Peer, asyncio.Queue[bytes], int]) -> None:
    two = await Two(*peer).start()
    gate = two.peer.sessions[two.first].instance.store.gate
    await gate.freeze(SystemClock().boot() + 5, drain_until=SystemClock().boot() + 5)
    try:
        assert two.put(two.first, 1) is None
        assert two.put(two.second, 2) is None
        assert two.peer.busy()
        # A later call of a waiting session waits behind its commit.
        assert two.say("GetRecord", two.first, tableid=two.tables[two.first], key=[1]) is None
    finally:
        gate.thaw()
    answers = [json.loads(await two.next())["result"] for _ in range(3)]
    assert answers.count({"count": 1}) == 2
    assert two.value() == 2
    assert not two.peer.busy()


async def test_stopping_the_service_answers_a_commit_that_waits(peer: tuple[Peer, asyncio.Queue[bytes], int]) -> None:
    two = await Two(*peer).start()
    instance = two.peer.sessions[two.first].instance
    gate = instance.store.gate
    await gate.freeze(SystemClock().boot() + 5, drain_until=SystemClock().boot() + 5)
    assert two.put(two.first, 7) is None
    instance.stop_service()
    assert json.loads(await two.next())["error"]["message"] == "JET_errClientRequestToStopJetService"
    gate.thaw()
    await two.peer.idle()
    await instance.store.flush()
    await asyncio.sleep(0)
    txn = await instance.store.begin()
    cursor = two.peer.sessions[two.second].cursors[two.tables[two.second]]
    assert [cursor.plan.codec.decode(row) for row in (await rows_of(txn, cursor.plan.rows.tree)).values()] == [{1: 1, 2: 7}]
    await txn.rollback()


async def test_who_waits_for_the_end_of_a_put_hears_of_it(peer: tuple[Peer, asyncio.Queue[bytes], int]) -> None:
    """Two do, one of them a drain; and the connection may go first."""
    two = await Two(*peer).start()
    gate = two.peer.sessions[two.first].instance.store.gate
    for goes_first in (False, True):
        await gate.freeze(SystemClock().boot() + 5, drain_until=SystemClock().boot() + 5)
        assert two.put(two.first, 1) is None
        waiting = [asyncio.create_task(two.peer.idle()) for _ in range(2)]
        await asyncio.sleep(0)
        assert two.peer.busy()
        closing = asyncio.create_task(two.peer.close()) if goes_first else None
        await asyncio.sleep(0.01)
        assert goes_first == waiting[0].done()
        gate.thaw()
        await asyncio.wait_for(asyncio.gather(*waiting), 5)
        assert not two.peer.busy()
        if closing is not None:
            await closing
