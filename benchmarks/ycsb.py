"""YCSB A to F, durable inserts and bulk load over the client, beside PostgreSQL in interleaved rounds.

    python -m benchmarks.ycsb [--records 10000] [--seconds 0.5] [--rounds 3] [--connections 1,8,32] [--workloads ABCDEFL]
                              [--pinned] [--save]

Records of 10 x 100 bytes, keys drawn by Zipf's law (D: the latest are read most), one client process for both. In each round each
server takes its turn, so that a busy machine is unfair to both alike; the ratio is the median of the rounds' ratios. "us" is the
server's CPU an operation, user and system, all its threads and processes, and after the stroke the client's; where it is bounded
there are three times as many rounds, and what is held against the bound is the figure at the pace of the machine on which that was
set, by what PostgreSQL took there and takes here. The last line says how quick this one was meanwhile. `--pinned` puts client and servers
on one core. `--save` leaves each round's figures in `results/ycsb.jsonl` and the data of the plots beside it.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import random
import sys
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from time import perf_counter, process_time

import uvloop

from benchmarks.figures import RESULTS, Figure
from benchmarks.pace import Pace
from benchmarks.ycsb_peers import FIELD_BYTES, FIELDS, Client, Jetwire, JetwireClient, PostgreSQL, Record, pin, why_no_postgresql

ZIPF = 0.99
SCAN_ROWS = 100
PLOTTED = (8, 32)  # connections that have plots
LOAD_ROWS = 1000  # records a call
DRAWN = 20_000  # keys are drawn before the clock runs, and used again
SERVER_MICROSECONDS = {"C": (15, 20.0), "L": (40, 71.0)}
"""The most at 32 connections, on a machine where PostgreSQL takes so many: the one on which these bounds were set."""
VALUES = ["".join(random.Random(n).choices("abcdefghijklmnopqrstuvwxyz0123456789 ", k=FIELD_BYTES)) for n in range(64)]

Server = Jetwire | PostgreSQL
Figures = tuple[float, float, float]


@dataclass(frozen=True)
class Workload:
    """Shares of the operations; the rest are reads."""

    title: str
    update: float = 0.0
    insert: float = 0.0
    scan: float = 0.0
    modify: float = 0.0  # read, then update
    latest: bool = False
    bound: float = 1.0  # ratio to PostgreSQL at 8 and 32 connections


WORKLOADS = {
    "A": Workload("50 % update", update=0.5),
    "B": Workload("5 % update", update=0.05),
    "C": Workload("read", bound=1.3),
    "D": Workload("5 % insert, latest read", insert=0.05, latest=True),
    "E": Workload("scan <= 100, 5 % insert", scan=0.95, insert=0.05),
    "F": Workload("50 % read-modify-write", modify=0.5),
    "L": Workload("durable insert", insert=1.0, bound=1.1),
}


def record_of(number: int) -> Record:
    return {"k": key_of(number), **{name: VALUES[(number + place) % len(VALUES)] for place, name in enumerate(FIELDS)}}


def key_of(number: int) -> str:
    """Numbers that follow each other lie apart, as hashed keys do, but are unique: an odd factor, modulo a power of two."""
    return f"user{number * 0x9E3779B97F4A7C15 % 2**64:020d}"


class Dice:
    """What is drawn before the clock runs: which record, and which operation."""

    def __init__(self, records: int, seed: int) -> None:
        rng = random.Random(seed)
        weights = list(itertools.accumulate(1 / (rank + 1) ** ZIPF for rank in range(records)))
        self.ranks = rng.choices(range(records), cum_weights=weights, k=DRAWN)
        self.shares = [rng.random() for _ in range(DRAWN)]


class Run:
    """One server's records: how many there are grows with the inserts."""

    def __init__(self, server: Server, records: int) -> None:
        self.server = server
        self.count = records
        self.base = records
        self.clients: list[Client] = []

    async def load(self) -> Figures:
        """Rows a second and microseconds of CPU a row, one connection."""
        client = await self.server.connect()
        records = [record_of(number) for number in range(self.base)]
        used, own, began = self.server.cpu(), process_time(), perf_counter()
        for start in range(0, self.base, LOAD_ROWS):
            await client.load(records[start : start + LOAD_ROWS])
        took, mine = perf_counter() - began, process_time() - own
        spent = self.server.cpu() - used
        await client.close()
        return self.base / took, spent / self.base * 1e6, mine / self.base * 1e6

    async def connect(self, connections: int) -> None:
        self.clients = [await self.server.connect() for _ in range(connections)]

    async def close(self) -> None:
        for client in self.clients:
            await client.close()

    async def measure(self, workload: Workload, dice: Dice, seconds: float) -> Figures:
        """Operations a second, and microseconds of the server's and of the client's CPU an operation."""
        done = 0
        over = False

        async def work(client: Client, offset: int) -> None:
            nonlocal done
            for turn in itertools.count(offset):
                if over:
                    return
                await self._once(client, workload, dice.ranks[turn % DRAWN], dice.shares[turn % DRAWN], turn)
                done += 1

        tasks = [asyncio.create_task(work(client, n * DRAWN // len(self.clients))) for n, client in enumerate(self.clients)]
        await asyncio.sleep(0.1)
        before, used, own, began = done, self.server.cpu(), process_time(), perf_counter()
        await asyncio.sleep(seconds)
        count, spent, mine, took = done - before, self.server.cpu() - used, process_time() - own, perf_counter() - began
        over = True
        await asyncio.gather(*tasks)
        return count / took, spent / count * 1e6, mine / count * 1e6

    def _once(self, client: Client, workload: Workload, rank: int, share: float, turn: int) -> Awaitable[object]:
        # The latest records are those before the ones that are being inserted now.
        key = key_of(self.count - 1 - len(self.clients) - rank if workload.latest else rank)
        if share < workload.insert:
            self.count += 1
            return client.insert(record_of(self.count - 1))
        if share < workload.insert + workload.scan:
            return client.scan(key, 1 + turn % SCAN_ROWS)
        field, value = FIELDS[turn % len(FIELDS)], VALUES[turn % len(VALUES)]
        if share < workload.update:
            return client.update(key, field, value)
        if share < workload.modify:
            return self._modify(client, key, field, value)
        return client.read(key)

    async def _modify(self, client: Client, key: str, field: str, value: str) -> None:
        await client.read(key)
        await client.update(key, field, value)


@dataclass(frozen=True)
class Cell:
    """What was measured of one workload with so many connections, by server."""

    workload: str
    connections: int
    rounds: dict[str, list[Figures]]


def save(cells: list[Cell], pinned: bool) -> None:
    """The raw figures, and plots for 8 and for 32 connections: operations a second, and the server's CPU."""
    name = "ycsb_pinned.jsonl" if pinned else "ycsb.jsonl"
    (RESULTS / name).write_text("".join(json.dumps(asdict(cell)) + "\n" for cell in cells))
    if pinned:
        return
    for connections in PLOTTED:
        of_these = [cell for cell in cells if cell.connections == connections]
        if of_these:
            draw("operations a second", 0, of_these).save(f"ycsb_{connections}")
            draw("us of server CPU an operation", 1, of_these).save(f"ycsb_cpu_{connections}")


def draw(what: str, column: int, cells: list[Cell]) -> Figure:
    """Bars of the rounds' medians, one for each server and workload."""
    series = {
        server: [(cell.workload[0], round(median(one[column] for one in cell.rounds[server]), 1)) for cell in cells]
        for server in cells[0].rounds
    }
    return Figure(f"YCSB, {cells[0].connections} connections: {what}", "bars", "workload", what, series)


Report = Callable[[str, int, dict[str, list[Figures]], float | None, tuple[int, float] | None], None]


async def compare(runs: list[Run], given: argparse.Namespace, report: Report, pace: Pace) -> None:
    report("load", 1, {run.server.name: [await run.load()] for run in runs}, None, None)
    for connections in given.connections:
        for run in runs:
            await run.connect(connections)
        if given.pinned:
            for pid in [os.getpid(), *(pid for run in runs for pid in run.server.processes())]:
                pin(pid, {0})
        for letter in given.workloads:
            workload = WORKLOADS[letter]
            rounds: dict[str, list[Figures]] = {run.server.name: [] for run in runs}
            bounded = connections in PLOTTED and not given.pinned
            most = SERVER_MICROSECONDS.get(letter) if connections == 32 else None
            for turn in range(3 * given.rounds if bounded else given.rounds):
                pace.look()
                dice = Dice(given.records, turn)
                for run in runs if turn % 2 else reversed(runs):
                    rounds[run.server.name].append(await run.measure(workload, dice, given.seconds))
            report(f"{letter} {workload.title}", connections, rounds, workload.bound if bounded else None, most)
        for run in runs:
            await run.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--connections", type=lambda text: [int(n) for n in text.split(",")], default=[1, 8, 32])
    parser.add_argument("--workloads", default="ABCDEFL")
    parser.add_argument("--pinned", action="store_true")
    parser.add_argument("--save", action="store_true", help="each round's figures as JSON lines, and the plots' data, in results/")
    given = parser.parse_args()
    missed = 0
    pace = Pace()
    cells: list[Cell] = []

    def report(title: str, connections: int, rounds: dict[str, list[Figures]], bound: float | None, most: tuple[int, float] | None) -> None:
        nonlocal missed
        cells.append(Cell(title, connections, rounds))
        own, other = rounds["Jetwire"], rounds.get("PostgreSQL")
        rate, spent, client = (median(column) for column in zip(*own, strict=True))
        line = f"{title:26}{connections:4}{rate:10,.0f}{f'{spent:.1f} / {client:.1f}':>16}"
        if other:
            ratio = median(mine[0] / theirs[0] for mine, theirs in zip(own, other, strict=True))
            rate, theirs, client = (median(column) for column in zip(*other, strict=True))
            line += f"{rate:12,.0f}{f'{theirs:.1f} / {client:.1f}':>16}{ratio:8.2f}"
            if bound is not None:
                missed += ratio < bound
                line += f"{bound:7.1f}{'' if ratio >= bound else '  missed'}"
            if most is not None:
                at_its_pace = spent * most[1] / theirs
                missed += at_its_pace > most[0]
                line += f"  {at_its_pace:.1f} us where PostgreSQL takes {most[1]:.0f} (bound {most[0]})"
        print(line, flush=True)

    absent = why_no_postgresql()
    if absent:
        print(f"No comparison: {absent}.")
    with tempfile.TemporaryDirectory(prefix="ycsb") as directory:
        servers: list[Server] = [Jetwire(Path(directory))]
        if not absent:
            servers.append(PostgreSQL(Path(directory)))
        try:
            print(f"{'':26}{'conn':>4}{'Jetwire/s':>10}{'us':>16}{'PostgreSQL/s':>12}{'us':>16}{'ratio':>8}{'bound':>7}")
            uvloop.run(compare([Run(server, given.records) for server in servers], given, report, pace))
            print(pace)
        finally:
            for server in servers:
                server.stop()
    if given.save:
        save(cells, given.pinned)
    if JetwireClient.conflicts:
        print(f"Write conflicts, tried again: {JetwireClient.conflicts}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
