"""kill -9 of a whole `jetwired` under the load of real clients: what the wire acknowledged is there after the restart.

Each client inserts numbered records and counts them in a record of its own, in one transaction; a secondary index
follows. So what must be there after a kill follows from how far each client came.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import jetwire
from jetwire.errors import JetwireError
from tests.crash.killing import failpoint_names
from tests.support.server_process import ServerProcess

CLIENTS = 4
FIRST = 1_000_000  # client number `c` inserts the records from c * FIRST + 1 on; its counter is record c * FIRST
COLUMNS = {"id": "Long", "name": "Text", "text": "LongText", "count": "Long"}


@dataclass
class Result:
    cycles: int = 0
    acknowledged: int = 0
    places: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)


@dataclass
class Progress:
    """Of one client: commits that were acknowledged, and begun."""

    floor: int = 0
    ceiling: int = 0


def text_of(client: int, n: int) -> str:
    return f"{client}/{n} " * Random(f"{client}/{n}").choice((1, 5, 400))


async def _work(url: str, client: int, progress: Progress) -> None:
    """Until the server is gone."""
    try:
        async with jetwire.connect(url) as server, server.session() as session:
            table = await (await session.open("a.edb")).table("records")
            n = progress.floor
            while True:
                n += 1
                async with session.transaction():
                    await table.insert({"id": client * FIRST + n, "name": f"{client}-{n:07}", "text": text_of(client, n)})
                    await table.upsert({"id": client * FIRST, "count": n})
                    progress.ceiling = n
                progress.floor = n
    except (JetwireError, OSError):
        return


async def _load(url: str, progress: list[Progress], seconds: float, server: ServerProcess) -> bool:
    """Kills the server when its time has come; True if it had died by itself before, at its failpoint."""
    tasks = [asyncio.create_task(_work(url, client, its)) for client, its in enumerate(progress, 1)]
    await asyncio.wait(tasks, timeout=seconds)
    died = server.process.poll() is not None
    server.process.kill()
    await asyncio.wait(tasks)
    return died


async def _prepare(url: str) -> None:
    async with jetwire.connect(url) as server, server.session() as session:
        database = await session.open("a.edb", create=True)
        await (await database.create_table("records", COLUMNS, primary="id", indexes={"byName": "+name"})).close()


async def _verify(url: str, progress: list[Progress]) -> None:
    """An AssertionError says which promise was broken; afterwards the progress is what was found."""
    async with jetwire.connect(url) as server, server.session() as session:
        table = await (await session.open("a.edb")).table("records")
        records = {record["id"]: record async for record in table.range()}
        by_name = [record["id"] async for record in table.range(index="byName") if "name" in record]
    for client, its in enumerate(progress, 1):
        counter = records.pop(client * FIRST, {"count": 0})["count"]
        assert its.floor <= counter <= its.ceiling, f"client {client}: {counter} commits, {its.floor} acknowledged, {its.ceiling} begun"
        for n in range(1, counter + 1):
            record = records.pop(client * FIRST + n, None)
            assert record is not None, f"client {client}: record {n} of {counter} is missing"
            assert record["text"] == text_of(client, n), f"client {client}: record {n} is another one"
        its.floor = its.ceiling = counter
    assert not records, f"half a commit: records {sorted(records)[:5]}"
    assert len(by_name) == sum(its.floor for its in progress), f"{len(by_name)} entries of the index byName"


def run(seed: int, *, cycles: int) -> Result:
    result, rng = Result(), Random(f"served/{seed}")
    names = [name for name in failpoint_names() if name.endswith(("_write", "_sync"))]  # the others are seldom met under this load
    progress = [Progress() for _ in range(CLIENTS)]
    with tempfile.TemporaryDirectory(prefix="jetwire-served-") as directory:
        data = Path(directory, "data")
        for cycle in range(cycles):
            place = rng.choice(names) if cycle and rng.random() < 0.5 else ""
            armed = f"{place}=kill:{rng.choice((3, 12, 25, 60))}" if place else ""
            try:
                server = ServerProcess(data, JETWIRE_FAILPOINTS=armed)
            except AssertionError as error:
                if not place:
                    result.failures.append(f"seed {seed}, cycle {cycle}: {error}")
                    return result
                result.places[place] += 1  # killed before it was ready
                result.cycles += 1
                continue
            try:
                with server:
                    if cycle == 0:
                        asyncio.run(_prepare(server.addresses["tcp"]))
                    asyncio.run(_verify(server.addresses["tcp"], progress))
                    before = sum(its.floor for its in progress)
                    died = asyncio.run(_load(server.addresses["tcp"], progress, rng.uniform(0.05, 0.6), server))
                    result.places[place if died else "random time"] += 1
                    result.acknowledged += sum(its.floor for its in progress) - before
            except (AssertionError, JetwireError, OSError) as error:
                result.failures.append(f"seed {seed}, cycle {cycle}, {place or 'random time'}: {error!r}")
                return result
            result.cycles += 1
    return result
