"""The engine in process, on the embedded store: inserts, seeks and bulk reads, and how each grows with the table.

    python -m benchmarks.engine_bench [--rows 1000,10000,100000] [--rounds 3] [--save]

Microseconds of this process's CPU, all threads (on a busy machine wall time says more about the neighbours), and wall time beside
it; the median of the rounds. The bounds are for CPU. "server read" is GetRecord through a peer, from its bytes to the answer's.

Reads are measured at rest: what was loaded is in the pages, and no checkpoint runs. What a checkpoint costs stands on lines of its
own: the CPU of moving what was just inserted into the pages, and reads beside one (of these the CPU of the loop's thread alone).
"the table's loading" is all rows by PutRecords, a thousand a transaction, with the checkpoints that ran meanwhile and after it.
Beside the seeks stand bare LMDB gets of the same keys from the same file: what a larger table costs under any engine, in levels of
its tree and misses of the processor's caches. Before each round both tables are read through, so that their pages are in memory and
mapped; "first touch" is before that: the system maps pages then, and reads those that it has let go meanwhile.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import random
import sys
import tempfile
from collections.abc import Awaitable, Callable
from functools import partial
from statistics import median
from time import perf_counter, process_time, thread_time
from typing import Any

import uvloop

from benchmarks.figures import RESULTS, Figure
from jetwire_protocol.data.flags import AddColumnGrbit, Coltyp, CreateIndexGrbit, Prep, SeekGrbit
from jetwire_server.__main__ import COLLECT_AFTER, SWITCH_SECONDS
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
from jetwire_server.store.embedded.layout import tree_prefix
from jetwire_server.store.embedded.store import EmbeddedStore
from jetwire_server.store.interface import tree_number, tree_slot

TRANSACTION_ROWS = 1000
SEEKS = 3000
NEW_ROWS = 3000
BESIDE_ROWS = 10_000  # inserted, so that a checkpoint has something to do beside the seeks
PAGE = 500
INSERT, ITS_CHECKPOINT, INSERT_IN_ALL = "insert, 1 index", "  its checkpoint", "  both"
LOAD = "  the table's loading"
SEEK, BARE_GET, SEEK_BESIDE = "seek and retrieve all", "  bare LMDB get", "  beside a checkpoint"
FIRST_SEEK, FIRST_GET = "  first touch", "  first touch, bare get"
IN_TRANSACTION = "  in one transaction"
BULK = "bulk read, a row"
SERVER_READ = "server read"
BOUNDS = {INSERT: 40.0, INSERT_IN_ALL: 40.0, SEEK: 10.0, BULK: 1e6 / 300_000, SERVER_READ: 15.0}
TITLES = [  # as they are printed
    *(INSERT, ITS_CHECKPOINT, INSERT_IN_ALL, LOAD),
    *(SEEK, BARE_GET, FIRST_SEEK, FIRST_GET, SEEK_BESIDE, IN_TRANSACTION),
    *(BULK, SERVER_READ),
]

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


Cost = tuple[float, float]
Work = Callable[[], Awaitable[object]]


async def cost(work: Work, count: int) -> Cost:
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
    def __init__(self, service: Service, store: EmbeddedStore, session: Session, dbid: int) -> None:
        self.service, self.store, self.session, self.dbid = service, store, session, dbid

    async def at(self, rows: int, rounds: int) -> dict[str, Cost]:
        used, began = process_time(), perf_counter()
        mixed = await filled(self.session, self.dbid, f"mixed{rows}", MIXED, mixed_row, rows, IndexCreate("byCustomer", ("+customer",)))
        await self.store.checkpoint()
        loading = (process_time() - used) / rows * 1e6, (perf_counter() - began) / rows * 1e6
        wide = await filled(self.session, self.dbid, f"wide{rows}", WIDE, wide_row, rows)
        await self.store.checkpoint()
        first, other = (random.Random(name).choices(range(rows), k=SEEKS) for name in ("first", "other"))
        found: dict[str, list[Cost]] = {
            LOAD: [loading],
            FIRST_GET: [await cost(self.bare_gets(mixed, first), SEEKS)],
            FIRST_SEEK: [await cost(partial(self.seek, mixed, other), SEEKS)],
        }
        bulk_rounds = max(1, 20_000 // rows)
        bulk_rows = min(rows, 20_000)
        free = rows
        for turn in range(rounds):
            for cursor in (mixed, wide):
                await self.bulk(cursor, rows, 1)  # its pages are in memory, and mapped; most are not in the processor's caches
            keys = random.Random(turn).choices(range(rows), k=SEEKS)
            new, beside = range(free, free + NEW_ROWS), range(free + NEW_ROWS, free + NEW_ROWS + BESIDE_ROWS)
            free = beside.stop
            measured: dict[str, tuple[Work, int]] = {
                SEEK: (partial(self.seek, mixed, keys), SEEKS),
                BARE_GET: (self.bare_gets(mixed, keys), SEEKS),
                IN_TRANSACTION: (partial(self.seek_in_transaction, mixed, keys), SEEKS),
                BULK: (partial(self.bulk, wide, bulk_rows, bulk_rounds), bulk_rows * bulk_rounds),
                SERVER_READ: (partial(self.through_peer, self.read_calls(wide, keys)), SEEKS),
                INSERT: (partial(self.insert, mixed, new), NEW_ROWS),
                ITS_CHECKPOINT: (self.store.checkpoint, NEW_ROWS),
            }
            now = {title: await cost(work, count) for title, (work, count) in measured.items()}
            now[INSERT_IN_ALL] = (now[INSERT][0] + now[ITS_CHECKPOINT][0], now[INSERT][1] + now[ITS_CHECKPOINT][1])
            now[SEEK_BESIDE] = await self.seek_beside_checkpoint(mixed, keys, beside)
            for title, one in now.items():
                found.setdefault(title, []).append(one)
        return {title: (median(cpu for cpu, _ in found[title]), median(wall for _, wall in found[title])) for title in TITLES}

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

    async def seek_beside_checkpoint(self, cursor: Cursor, keys: list[int], new: range) -> Cost:
        """Microseconds a seek of the loop's thread's CPU, and of wall time, while these new rows are moved into the pages."""
        await self.insert(cursor, new)
        moving = asyncio.ensure_future(self.store.checkpoint())
        used = waited = 0.0
        done = 0
        while not moving.done():
            some = [keys[(done + i) % len(keys)] for i in range(50)]
            cpu, wall = thread_time(), perf_counter()
            await self.seek(cursor, some)
            used += thread_time() - cpu
            waited += perf_counter() - wall
            done += len(some)
            await asyncio.sleep(0)  # the checkpoint's own turns on the loop are not in it
        await moving
        return used / done * 1e6, waited / done * 1e6

    def bare_gets(self, cursor: Cursor, keys: list[int]) -> Work:
        """What LMDB alone takes to find these records."""
        rows = cursor.plan.rows
        assert rows.maker is not None
        prefix = tree_prefix(tree_number(rows.tree))
        full_keys = [prefix + rows.maker.key([key]) for key in keys]

        async def work() -> None:
            view = self.store.files[tree_slot(rows.tree)].view()
            get = view._get
            for key in full_keys:
                assert get(key) is not None
            view.close()

        return work

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


async def run(given: argparse.Namespace) -> dict[int, dict[str, Cost]]:
    with tempfile.TemporaryDirectory(prefix="engine") as directory:
        hosting = Hosting(LocalFiles(directory), SystemClock(), EventLog())
        await hosting.start()
        instance = next(iter(hosting.engine.instances.values()))
        session = await instance.begin_session()
        dbid = await session.create_database("bench.edb")
        service = Service("bench", SystemClock(), EventLog(), Gatekeeper(), engine=hosting.engine)
        store = instance.store
        assert isinstance(store, EmbeddedStore)
        gc.collect()
        gc.freeze()  # as a server does once it has started
        bench = Bench(service, store, session, dbid)
        out = {rows: await bench.at(rows, given.rounds) for rows in given.rows}
        await session.end_session()
        await hosting.stop()
        return out


def save(found: dict[int, dict[str, Cost]]) -> None:
    (RESULTS / "engine_bench.json").write_text(json.dumps(found, indent=1) + "\n")
    shown = {title: [(rows, round(found[rows][title][0], 2)) for rows in found] for title in TITLES}
    each = {title.strip(): shown[title] for title in (INSERT_IN_ALL, INSERT, SEEK, BARE_GET, SERVER_READ)}
    each["insert and its checkpoint"] = each.pop(INSERT_IN_ALL.strip())
    Figure("The engine in process, as the table grows", "lines", "rows in the table", "us of CPU each", each, log_x=True).save(
        "engine_growth"
    )
    bulk = {BULK: shown[BULK]}
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
    sys.setswitchinterval(SWITCH_SECONDS)
    gc.set_threshold(*COLLECT_AFTER)
    found = uvloop.run(run(given))
    if given.save:
        save(found)
    print(f"{'us of CPU (of wall time)':28}" + "".join(f"{rows:>18,}" for rows in given.rows) + f"{'bound':>8}")
    missed = 0
    for title in TITLES:
        costs = [found[rows][title] for rows in given.rows]
        bound = BOUNDS.get(title)
        missed += bound is not None and max(cpu for cpu, _ in costs) > bound
        told = "".join(f"{f'{cpu:.2f} ({wall:.2f})':>18}" for cpu, wall in costs)
        print(f"{title:28}{told}{'' if bound is None else f'{bound:8.1f}'}")
    ratios = "".join(f"{found[rows][SEEK][0] / found[rows][BARE_GET][0]:>18.1f}" for rows in given.rows)
    print(f"{'seek, of bare gets':28}{ratios}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
