"""The straight road and the general road, given the same bytes: odd spellings of JSON, odd values, odd envelopes, cursors in any state.

As `test_straight`, but what differs is the text of the messages. More seeds: `python -m tests.server.rpc.test_straight_spelled 1000 200`.
"""

from __future__ import annotations

import asyncio
import base64
import json
import random
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jetwire_server.clock import SystemClock
from jetwire_server.engine.place import GAP, ON
from jetwire_server.events import EventLog
from jetwire_server.rpc import handlers as handlers  # registers them
from jetwire_server.rpc import straight, straight_scan
from jetwire_server.rpc.answers import PENDING
from jetwire_server.rpc.peer import Peer
from jetwire_server.rpc.record_reader import RecordReader
from jetwire_server.rpc.security import Gatekeeper
from jetwire_server.rpc.service import Service
from tests.support.hosted import Hosted, rows_of

NUMBERS = {
    "UnsignedByte": (0, 2**8 - 1),
    "Short": (-(2**15), 2**15 - 1),
    "UnsignedShort": (0, 2**16 - 1),
    "Long": (-(2**31), 2**31 - 1),
    "UnsignedLong": (0, 2**32 - 1),
    "LongLong": (-(2**63), 2**63 - 1),
    "Currency": (-(2**63), 2**63 - 1),
    "UnsignedLongLong": (0, 2**64 - 1),
}
FLOATS = ("IEEESingle", "IEEEDouble", "DateTime")
KINDS = [*NUMBERS, *FLOATS, "Bit", "GUID", "Text", "Text", "Binary", "LongText", "LongText", "LongBinary"]
TEXTS = [
    "a",
    "A",
    "aa",
    "x" * 39,
    "x" * 41,
    "é",
    "你",
    "%s",
    "a%",
    "z\t",
    "\x7f",
    "\0",
    "'",
    '"',
    "\\",
    "{}",
    "€",
    "😀",
    "e\u0301",
    "ÿ",
    "\x81",
]
TEXTS += ["y" * 512, "y" * 1024, "y" * 1025, "é" * 513, "\u2028", "\uffff"]
GUIDS = ["00112233-4455-6677-8899-aabbccddeeff", "{00112233-4455-6677-8899-AABBCCDDEEFF}", "00112233445566778899aabbccddeeff"]
ODD = ["null", "true", "false", '""', "0", "-0", "-0.0", "1.0", "1e0", "1E1", "1.5", "1e308", "1e309", "5e-324", "NaN", "01", ".5", "+1"]
ODD += ["123456789012345678901234567890", "18446744073709551616", "9223372036854775808", "9007199254740993", "3.5e38", "2147483648"]
ODD += ['"NaN"', '"-Infinity"', '"12"', '"+1"', '"1_0"', '"000000000000000000001"', '"2026-11-21T07:00:00Z"', '"2026-W47-6"', "{}", "[]"]
ODD += ['{"base64":""}', '{"base64":"AAAAAA=="}', '{"base64":5}', "[1]", '["a","b"]', "[null]", '"AP8="', '"AP8"', '"AP8=\\n"']
ODD += ['"\\ud800"', '"\\ud83d\\ude00"', '"\\u0000"']
ODD += ["1" + "0" * 400, "-1" + "0" * 400, "1" + "0" * 5000]
BITS = ["0", "1"] * 20 + ["[]", '["CommitLazyFlush"]', "2", "1.0", "true", "-0", "null", '"CommitLazyFlush"', '["x"]']
IDS = ["1"] * 50 + ["-0", "1.0", '"x"', "18446744073709551616", "1e2", "true", "[]"]


class Spelled:
    """One schema, two tables of it; the second one's calls never take the straight road."""

    def __init__(self, peer: Peer, answers: asyncio.Queue[bytes], sesid: int, seed: int) -> None:
        self.peer, self.answers, self.sesid = peer, answers, sesid
        self.session = peer.sessions[sesid]
        self.seed, self.dice = seed, random.Random(seed)
        self.taken = 0
        self.tables: list[int] = []

    # -- what is said -----------------------------------------------------------------------------------------
    def string(self, text: str) -> str:
        if self.dice.random() < 0.75:
            return json.dumps(text, ensure_ascii=self.dice.random() < 0.5)
        escaped = [f"\\u{ord(c):04x}" if c < "\uffff" and self.dice.random() < 0.5 else json.dumps(c)[1:-1] for c in text]
        return f'"{"".join(escaped)}"'

    def ordinary(self, kind: str) -> str:
        dice = self.dice
        if kind in NUMBERS:
            low, high = NUMBERS[kind]
            return str(dice.choice([*(max(low, n) for n in (-1, 0, 1, 2, 7)), low, high]))
        if kind in FLOATS:
            return dice.choice(["0", "1", "0.5", "-0.0", "-3", "1e10", "0.1", "-0"])
        if kind == "Bit":
            return dice.choice(["true", "false"])
        if kind == "GUID":
            return json.dumps(dice.choice(GUIDS))
        if "Binary" in kind:
            return json.dumps(base64.b64encode(dice.randbytes(dice.choice([1, 2, 8, 9, 40]))).decode())
        return self.string(dice.choice(TEXTS))

    def value(self, name: str, odd: bool) -> str:
        dice = self.dice
        if dice.random() < (0.2 if odd else 0):
            return dice.choice(ODD)
        if self.pool.get(name) and dice.random() < 0.9:
            return dice.choice(self.pool[name])
        return str(dice.randrange(12)) if name == "id" else self.ordinary(self.columns[name])

    def record(self) -> str:
        dice = self.dice
        odd = dice.random() < 0.3
        members = [(name, self.value(name, odd)) for name in self.columns if name == "id" or dice.random() < 0.95]
        if odd and dice.random() < 0.1:
            members.append((dice.choice([*self.columns, "ID", "nothing", ""]), self.value("id", True)))  # twice, or of another name
        if odd:
            dice.shuffle(members)
        space = dice.choice(["", " ", "\t", "\r"]) if odd else ""
        told = [f"{space}{self.string(name) if odd else json.dumps(name)}{space}:{space}{value}" for name, value in members]
        return "{" + ",".join(told) + "}"

    def put(self) -> tuple[str, str]:
        dice = self.dice
        records = ",".join(self.record() for _ in range(dice.choice([1] * 9 + [0, 3])))
        mode = f',"mode":"{dice.choice(["insert", "replace", "replace", "upsert", "delete"])}"' if dice.random() < 0.7 else ""
        grbit = f',"grbit":{dice.choice(BITS)}' if dice.random() < 0.5 else ""
        return "PutRecords", f'{self.cursor},"records":[{records}]{mode}{grbit}'

    def key(self) -> list[str]:
        return [self.value(name, self.dice.random() < 0.1) for name in self.keys]

    def get(self) -> tuple[str, str]:
        more = self.dice.choice([""] * 9 + [',"columns":null', ',"indexname":"primary"', ',"x":1'])
        return "GetRecord", f'{self.cursor},"key":[{",".join(self.key())}]{more}'

    def scan(self) -> tuple[str, str]:
        dice = self.dice
        calls = [self.call("SetCurrentIndex", "")] if dice.random() < 0.4 else []
        calls += self.made("FullColumnStartLimit")
        calls.append(self.call("Seek", ',"grbit":' + dice.choice(['["SeekGE"]'] * 9 + ["8", '["SeekGT"]', "8.0"])))
        if dice.random() < 0.5:
            calls += self.made("FullColumnEndLimit")
            bits = dice.choice(['["RangeInclusive","RangeUpperLimit"]'] * 9 + ["3", "2", '["RangeUpperLimit"]'])
            calls.append(self.call("SetIndexRange", f',"grbit":{bits}'))
        calls.append(self.call("GetRecords", ',"limit":' + dice.choice(["1", "2", "5", "100", "0", "1.0"])))
        if dice.random() < 0.05:
            calls.remove(dice.choice(calls))
        return "Batch", f'"calls":[{",".join(calls)}]'

    def made(self, end: str) -> list[str]:
        key, end = self.key(), self.dice.choice(["", end])
        bits = [[*([] if place else ["NewKey"]), *([end] if end and place == len(key) - 1 else [])] for place in range(len(key))]
        return [self.call("MakeKey", f',"data":{value},"grbit":{json.dumps(bit)}') for value, bit in zip(key, bits, strict=True)]

    @property
    def cursor(self) -> str:
        return f'"sesid":{self.sesid},"tableid":@T@'

    def call(self, method: str, more: str) -> str:
        return f'{{"method":"{method}","params":{{{self.cursor}{more}}}}}'

    def message(self) -> str:
        dice = self.dice
        method, params = dice.choice([self.put, self.put, self.get, self.scan])()
        parts = [f'"method":"{method}"', f'"params":{{{params}}}', f'"id":{dice.choice(IDS)}', '"jsonrpc":"2.0"']
        odd = dice.random()
        if odd < 0.03:
            parts.append(dice.choice(['"extra":1', '"id":7', '"jsonrpc":"1.0"', parts[0], parts[1]]))
        elif odd < 0.06:
            dice.shuffle(parts)
        elif odd < 0.08:
            parts.remove(dice.choice([parts[0], parts[1], parts[3]]))
        return "{" + ",".join(parts) + "}"

    # -- saying it --------------------------------------------------------------------------------------------
    async def say(self, text: str, number: int, barred: bool) -> bytes | None:
        head = straight.HEAD
        if barred:
            straight.HEAD = 1 << 30  # type: ignore[misc]
        try:
            answer = self.peer.receive(text.replace("@T@", str(self.tables[number])).encode())
        finally:
            straight.HEAD = head  # type: ignore[misc]
        if answer is PENDING:
            await asyncio.wait_for(self.peer.idle(), 10)
            answer = self.answers.get_nowait() if not self.answers.empty() else None
        assert answer is None or isinstance(answer, bytes)
        return answer

    async def ask(self, method: str, **params: Any) -> Any:
        self.tables.append(0)
        try:
            text = json.dumps({"jsonrpc": "2.0", "id": 1, "params": {"sesid": self.sesid, **params}, "method": method})
            return json.loads(await self.say(text, -1, True) or b"{}")
        finally:
            self.tables.pop()

    async def create(self) -> bool:
        """False if the dice made a schema that nobody may have."""
        dice = self.dice
        letters = dice.choices(["c", "ü", "c%", 'q"', "b\\"], k=6)
        kinds = dice.choices(KINDS, k=dice.choice([1, 3, 6]))
        self.columns = {f"{letters[n]}{n}": kind for n, kind in enumerate(kinds)}
        columns = []
        for name, kind in self.columns.items():
            column: dict[str, Any] = {"name": name, "coltyp": kind, "cp": dice.choice([1200, 1252]) if "Text" in kind else 0}
            if kind in ("Text", "Binary"):
                column["max"] = dice.choice([0, 1, 3, 40, 41])
            column["grbit"] = dice.choice([[], [], ["ColumnFixed"] if "Long" not in kind[:4] or kind in NUMBERS else [], ["ColumnTagged"]])
            column["grbit"] = [
                *column["grbit"],
                *(["ColumnMultiValued"] if "ColumnTagged" in column["grbit"] and dice.random() < 0.5 else []),
            ]
            if dice.random() < 0.3:
                column["defaultValue"] = json.loads(self.ordinary_of(kind))
            columns.append(column)
        others = list(self.columns)
        self.columns["id"] = "Long"
        columns.append({"name": "id", "coltyp": "Long"})
        self.keys = dice.choice([["id"], ["id"], [dice.choice(others), "id"]])
        indexes: list[dict[str, Any]] = [{"name": "primary", "key": [dice.choice("+-") + k for k in self.keys], "grbit": ["IndexPrimary"]}]
        for number in range(dice.choice([0, 1, 2])):
            key = [dice.choice("+-") + name for name in dice.sample(list(self.columns), dice.choice([1, 2]))]
            bits = dice.choice([[], ["IndexUnique"], ["IndexIgnoreAnyNull"], ["IndexCrossProduct"], ["IndexDisallowNull"]])
            index: dict[str, Any] = {"name": f"i{number}", "key": key, "grbit": bits}
            if dice.random() < 0.3:
                bit = dice.choice(["IndexColumnMustBeNull", "IndexColumnMustBeNonNull"])
                index["conditionalColumns"] = [{"name": dice.choice(others), "grbit": [bit]}]
            indexes.append(index)
        self.pool = {name: [self.ordinary(self.columns[name]) for _ in range(2)] for name in self.keys if name != "id"}
        dbid = next(iter(self.session.opened))
        for number in range(2):
            create = {"name": f"spelled {self.seed} {number}", "columns": columns, "indexes": indexes}
            made = await self.ask("CreateTableColumnIndex", dbid=dbid, tablecreate=create)
            if "error" in made:
                return False
            self.tables.append(made["result"]["tableid"])
            await self.ask("Move", tableid=self.tables[-1], numRows="First")
        return True

    def ordinary_of(self, kind: str) -> str:
        return '"a"' if "Text" in kind else self.ordinary(kind)

    async def state(self, number: int) -> tuple[Any, ...]:
        cursor = self.session.cursors[self.tables[number]]
        place = (cursor.key, cursor.bookmark) if cursor.state == ON else cursor.key if cursor.state == GAP else None
        return (cursor.buffer is None, cursor.range_low, cursor.range_high, cursor.state, place, cursor.session.warning)

    async def turn(self) -> None:
        dice = self.dice
        before = dice.random()
        for table in self.tables:
            if before < 0.1:
                await self.ask("SetCurrentIndex", tableid=table, indexname="i0" if before < 0.03 else None)
            elif before < 0.2:
                await self.ask("PrepareUpdate", tableid=table, prep="Insert")
            elif before < 0.3:
                await self.ask("Move", tableid=table, numRows="First" if before < 0.25 else 1)
        text = self.message()
        taken = self.taken
        answers = [await self.say(text, 0, False)]
        took = self.taken > taken
        answers.append(await self.say(text, 1, True))
        shown = [(answer or b"").replace(b"tableid %d" % table, b"") for answer, table in zip(answers, self.tables, strict=True)]
        assert not took or (shown[0] == shown[1] and await self.state(0) == await self.state(1)), (self.seed, text, answers)

    async def contents(self, number: int) -> list[dict[bytes, bytes]]:
        plan = self.session.cursors[self.tables[number]].plan
        txn = await self.session.instance.store.begin()
        try:
            return [await rows_of(txn, one.tree) for one in sorted([plan.rows, *plan.secondary], key=lambda one: one.name)]
        finally:
            await txn.rollback()

    async def run(self, turns: int) -> None:
        if await self.create():
            for _ in range(turns):
                await self.turn()
            assert await self.contents(0) == await self.contents(1), self.seed
        for table in self.tables:
            await self.ask("CloseTable", tableid=table)


def counted(spelled: list[Spelled], taken: Counter[str], name: str, take: Callable[..., Any]) -> Callable[..., Any]:
    def count(peer: Peer, data: bytes) -> Any:
        out = take(peer, data)
        spelled[-1].taken += bool(out)
        taken[name] += bool(out)
        return out

    return count


async def drive(peer: Peer, answers: asyncio.Queue[bytes], sesid: int, seeds: range, patch: pytest.MonkeyPatch) -> Counter[str]:
    spelled: list[Spelled] = []
    taken: Counter[str] = Counter()
    for road, name in ((straight, "get_record"), (straight, "put_records"), (straight_scan, "scan")):
        patch.setattr(road, name, counted(spelled, taken, name, getattr(road, name)))
    for seed in seeds:
        spelled.append(Spelled(peer, answers, sesid, seed))
        await spelled[-1].run(120)
    return taken


async def test_both_roads_read_the_same_bytes_the_same_way(
    peer: tuple[Peer, asyncio.Queue[bytes], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = await drive(*peer, range(20), monkeypatch)
    assert min(taken[name] for name in ("get_record", "put_records", "scan")) > 20, "hardly anything was compared"


@pytest.mark.plain
async def test_control_a_road_that_takes_every_text_for_plain_is_found(
    peer: tuple[Peer, asyncio.Queue[bytes], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    read = RecordReader.read
    monkeypatch.setattr(RecordReader, "read", lambda self, records, *, plain: read(self, records, plain=True))
    with pytest.raises(AssertionError):
        await drive(*peer, range(20), monkeypatch)


async def more(first: int, count: int, directory: Path) -> None:
    hosted = await Hosted(directory).start()
    await hosted.session.create_database("a.edb")
    service = Service("test", SystemClock(), EventLog(), Gatekeeper(), engine=hosted.hosting.engine)
    answers: asyncio.Queue[bytes] = asyncio.Queue()
    one = Peer(service, answers.put_nowait, role="admin", kind="test")
    one.sessions[hosted.session.id] = hosted.session
    with pytest.MonkeyPatch.context() as patch:
        print(await drive(one, answers, hosted.session.id, range(first, first + count), patch))
    one.sessions.clear()
    await one.close()
    await hosted.stop()


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as made:
        asyncio.run(more(int(sys.argv[1]), int(sys.argv[2]), Path(made)))
