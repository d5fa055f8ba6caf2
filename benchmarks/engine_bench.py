"""The engine in process, on the embedded store: inserts, seeks and bulk reads, and how each grows with the table.

    python -m benchmarks.engine_bench [--rows 1000,10000,100000] [--rounds 3] [--save]

Microseconds of this process's CPU, all threads (on a busy machine wall time says more about the neighbours), and wall time beside
it; the median of the rounds. The bounds are for CPU. "server read" is GetRecord through a peer, from its bytes to the answer's.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import sys
import tempfile
from collections.abc import Awaitable, Callable
from functools import partial
from statistics import median
from time import perf_counter, process_time
from typing import Any

import uvloop

from benchmarks.figures import RESULTS, Figure
from jetwire_protocol.data.flags import AddColumnGrbit, Coltyp, CreateIndexGrbit, Prep, SeekGrbit
from jetwire_server.clock import SystemClock
from jetwire_server.engine.columns import ColumnCreate
from jetwire_server.engine.cursor import Cursor
from jetwire_server.engine.indexes import IndexCreate
from jetwire_server.engine.session import Session
from jetwire_server.engine.tables import TableCreate
from jetwire_server.engine.whole_records import Wanted, put_records, records_from
from jetwire_server.events import EventLog
from jetwire_server.files.local import LocalFiles
from jetwire_server.hosting import Hosting
from jetwire_server.rpc import handlers as handlers  # registers them
from jetwire_server.rpc.peer import Peer
from jetwire_server.rpc.security import Gatekeeper
from jetwire_server.rpc.service import Service

TRANSACTION_ROWS = 1000
SEEKS = 3000
NEW_ROWS = 3000
PAGE = 500
BULK = "bulk read, a row"
BOUNDS = {"insert, 1 index": 40.0, "seek and retrieve all": 10.0, BULK: 1e6 / 300_000, "server read": 15.0}

TEXT = ["".join(random.Random(n).choices("abcdefghijklmnopqrstuvwxyz0123456789 ", k=100)) for n in range(64)]
WIDE = [ColumnCreate("id", Coltyp.Long, grbit=AddColumnGrbit.ColumnFixed)] + [
    ColumnCreate(f"f{n}", Coltyp.Text, 255, cp=1252) for n in range(10)
]
# Ten columns of the usual kinds, one of them with an index.
MIXED = [
    ColumnCreate("id", Coltyp.Long, grbit=AddColumnGrbit.ColumnFixed),
    ColumnCreate("customer", Coltyp.Long, grbit=AddColumnGrbit.ColumnFixed),
    ColumnCreate("amount", Coltyp.Currency, grbit=AddColumnGrbit.ColumnFixed),
    ColumnCreate("weight", Coltyp.IEEEDouble, grbit=AddColumnGrbit.ColumnFixed),
    ColumnCreate("sent", Coltyp.Bit, grbit=AddColumnGrbit.ColumnFixed),
    ColumnCreate("kind", Coltyp.Short, grbit=AddColumnGrbit.ColumnFixed),
    ColumnCreate("name", Coltyp.Text, 255, cp=1252),
    ColumnCreate("street", Coltyp.Text, 255, cp=1252),
    ColumnCreate("town", Coltyp.Text, 255, cp=1252),
    ColumnCreate("digest", Coltyp.Binary, 32),
]
PRIMARY = IndexCreate("primary", ("+id",), CreateIndexGrbit.IndexPrimary)


def wide_row(number: int) -> list[Any]:
    return [number, *(TEXT[(number + place) % 64] for place in range(10))]


def mixed_row(number: int) -> list[Any]:
    name = TEXT[number % 64]
    return [
        number,
        number * 7919 % 10_007,
        number * 100,
        number / 3,
        bool(number & 1),
        number % 100,
        name[:20],
        name[20:45],
        name[45:60],
        bytes(16),
    ]


def columns_of(cursor: Cursor, columns: list[ColumnCreate]) -> list[int]:
    ids = {column.name: column.id for column in cursor.table.columns}
    return [ids[column.name] for column in columns]


async def cost(work: Callable[[], Awaitable[object]], count: int) -> tuple[float, float]:
    """Microseconds of CPU and of wall time each."""
    gc.collect()
    used, began = process_time(), perf_counter()
    await work()
    return (process_time() - used) / count * 1e6, (perf_counter() - began) / count * 1e6


async def filled(session: Session, dbid: int, name: str, columns: list[ColumnCreate], row: Any, rows: int, *more: IndexCreate) -> Cursor:
    made = await session.create_table_column_index(dbid, TableCreate(name, columns=columns, indexes=(PRIMARY, *more)))
    made.cursor.close()
    cursor = await session.open_table(dbid, name)
    ids = columns_of(cursor, columns)
    for start in range(0, rows, TRANSACTION_ROWS):
        await put_records(cursor, [dict(zip(ids, row(n), strict=True)) for n in range(start, start + TRANSACTION_ROWS)], "insert")
    return cursor


class Bench:
    def __init__(self, service: Service, session: Session, dbid: int) -> None:
        self.service, self.session, self.dbid = service, session, dbid

    async def at(self, rows: int, rounds: int) -> dict[str, tuple[float, float]]:
        mixed = await filled(self.session, self.dbid, f"mixed{rows}", MIXED, mixed_row, rows, IndexCreate("byCustomer", ("+customer",)))
        wide = await filled(self.session, self.dbid, f"wide{rows}", WIDE, wide_row, rows)
        found: dict[str, list[tuple[float, float]]] = {}
        for turn in range(rounds):
            keys = random.Random(turn).choices(range(rows), k=SEEKS)
            new = range(rows + turn * NEW_ROWS, rows + (turn + 1) * NEW_ROWS)
            bulk_rounds = max(1, 20_000 // rows)
            bulk_rows = min(rows, 20_000)
            measured = {
                "insert, 1 index": (partial(self.insert, mixed, new), NEW_ROWS),
                "seek and retrieve all": (partial(self.seek, mixed, keys), SEEKS),
                "the same, one transaction": (partial(self.seek_in_transaction, mixed, keys), SEEKS),
                BULK: (partial(self.bulk, wide, bulk_rows, bulk_rounds), bulk_rows * bulk_rounds),
                "server read": (partial(self.through_peer, self.read_calls(wide, keys)), SEEKS),
            }
            for title, (work, count) in measured.items():
                found.setdefault(title, []).append(await cost(work, count))
        return {title: (median(one for one, _ in costs), median(two for _, two in costs)) for title, costs in found.items()}

    async def insert(self, cursor: Cursor, numbers: range) -> None:
        ids = columns_of(cursor, MIXED)
        for start in range(numbers.start, numbers.stop, TRANSACTION_ROWS):
            await self.session.begin_transaction()
            for number in range(start, start + TRANSACTION_ROWS):
                await cursor.prepare_update(Prep.Insert)
                for columnid, value in zip(ids, mixed_row(number), strict=True):
                    await cursor.set_column(columnid, value)
                await cursor.update()
            await self.session.commit_transaction(0)

    async def seek(self, cursor: Cursor, keys: list[int]) -> None:
        for key in keys:
            cursor.make_key(key, 1)
            await cursor.seek(SeekGrbit.SeekEQ)
            await cursor.retrieve_all()

    async def seek_in_transaction(self, cursor: Cursor, keys: list[int]) -> None:
        await self.session.begin_transaction()
        await self.seek(cursor, keys)
        await self.session.commit_transaction(0)

    async def bulk(self, cursor: Cursor, rows: int, times: int) -> None:
        for _ in range(times):
            await cursor.move(-(1 << 31))
            left = rows
            while left > 0:
                records, more = await records_from(cursor, min(PAGE, left), Wanted())
                left -= len(records)
                if not more:
                    break

    def read_calls(self, cursor: Cursor, keys: list[int]) -> list[bytes]:
        params = {"sesid": self.session.id, "tableid": cursor.id}
        calls = [{"jsonrpc": "2.0", "id": key, "method": "GetRecord", "params": {**params, "key": [key]}} for key in keys]
        return [json.dumps(call).encode() for call in calls]

    async def through_peer(self, calls: list[bytes]) -> None:
        peer = Peer(self.service, lambda _: None, role="admin")
        peer.sessions[self.session.id] = self.session
        for call in calls:
            answer = peer.receive(call)
            assert type(answer) is bytes, answer
        peer.sessions.clear()
        await peer.close()


async def run(given: argparse.Namespace) -> dict[int, dict[str, tuple[float, float]]]:
    with tempfile.TemporaryDirectory(prefix="engine") as directory:
        hosting = Hosting(LocalFiles(directory), SystemClock(), EventLog())
        await hosting.start()
        instance = next(iter(hosting.engine.instances.values()))
        session = await instance.begin_session()
        dbid = await session.create_database("bench.edb")
        service = Service("bench", SystemClock(), EventLog(), Gatekeeper(), engine=hosting.engine)
        bench = Bench(service, session, dbid)
        out = {rows: await bench.at(rows, given.rounds) for rows in given.rows}
        await session.end_session()
        await hosting.stop()
        return out


def save(found: dict[int, dict[str, tuple[float, float]]]) -> None:
    (RESULTS / "engine_bench.json").write_text(json.dumps(found, indent=1) + "\n")
    titles = list(next(iter(found.values())))
    each: dict[str, list[tuple[int, float]]] = {title: [(rows, round(found[rows][title][0], 2)) for rows in found] for title in titles}
    bulk = {BULK: each.pop(BULK)}
    Figure("The engine in process, as the table grows", "lines", "rows in the table", "us of CPU each", each, log_x=True).save(
        "engine_growth"
    )
    bound = {"300,000 rows a second": BOUNDS[BULK]}
    Figure("Bulk reads, as the table grows", "lines", "rows in the table", "us of CPU a row", bulk, bound, log_x=True).save("engine_bulk")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=lambda text: [int(n) for n in text.split(",")], default=[1000, 10_000, 100_000])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--save", action="store_true", help="the figures as JSON (rows, what was measured, CPU and wall time) and the plots' data"
    )
    given = parser.parse_args()
    found = uvloop.run(run(given))
    if given.save:
        save(found)
    print(f"{'us of CPU (of wall time)':28}" + "".join(f"{rows:>18,}" for rows in given.rows) + f"{'bound':>8}")
    missed = 0
    for title in next(iter(found.values())):
        costs = [found[rows][title] for rows in given.rows]
        bound = BOUNDS.get(title)
        missed += bound is not None and max(cpu for cpu, _ in costs) > bound
        told = "".join(f"{f'{cpu:.2f} ({wall:.2f})':>18}" for cpu, wall in costs)
        print(f"{title:28}{told}{'' if bound is None else f'{bound:8.1f}'}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
