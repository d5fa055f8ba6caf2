"""A process that writes until it is killed, and says what it was promised.

Every transaction moves an amount between two of ten accounts, counts itself in by an escrow add, and notes its number
under its writer's key. A line on stdout is an acknowledged commit.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys

from jetwire_protocol.errors import Err, JetError
from jetwire_server import failpoints, limits
from jetwire_server.clock import SystemClock
from jetwire_server.files.gate import Gate
from jetwire_server.files.local import LocalFiles
from jetwire_server.redo.log import Log
from jetwire_server.redo.names import LogNames
from jetwire_server.store.embedded.store import EmbeddedStore
from jetwire_server.store.interface import Tree, tree_id

ACCOUNTS, START, WRITERS = 10, 1000, 4


async def open_store(directory: str) -> EmbeddedStore:
    clock = SystemClock()
    gate = Gate(clock)
    files = LocalFiles(f"{directory}/data", watch=gate.wrote)
    files.make_directory("")
    journal = Log(files, gate, clock, names=LogNames("log"), file_kb=128)
    store = EmbeddedStore(journal, files, LocalFiles(f"{directory}/scratch"), gate, clock, circular=True)
    await store.start()
    return store


def amount(value: bytes | None) -> int:
    assert value is not None
    return int.from_bytes(value[:8], "little", signed=True)


async def move(store: EmbeddedStore, tree: Tree, writer: int, number: int, pick: random.Random) -> bool:
    one = await store.begin()
    try:
        source, target = pick.sample(range(ACCOUNTS), 2)
        sum_ = pick.randrange(100)
        for account, change in ((source, -sum_), (target, sum_)):
            key = b"account%d" % account
            one.put(tree, key, (amount(await one.get(tree, key)) + change).to_bytes(8, "little", signed=True) + bytes(300))
        one.add(tree, b"count", 0, 8, 1)
        one.put(tree, b"writer%d" % writer, number.to_bytes(8, "little"))
        await one.commit()
    except JetError as error:
        await one.rollback()
        if error.code != Err.WriteConflict:
            raise
        return False
    return True


async def write_for_ever(store: EmbeddedStore, tree: Tree, writer: int, number: int) -> None:
    pick = random.Random(writer * 1_000_003 + number)
    while True:
        number += 1
        while not await move(store, tree, writer, number, pick):  # noqa: ASYNC110
            await asyncio.sleep(0)
        os.write(1, b"%d %d\n" % (writer, number))


async def checkpoint_for_ever(store: EmbeddedStore) -> None:
    while True:
        bulk = await store.new_unpublished(1)  # never named: recovery frees what there is of it
        await bulk.put_many((b"%05d" % i, bytes(50)) for i in range(300))
        await store.checkpoint()
        await bulk.free()


async def main(directory: str) -> None:
    limits.VERSION_BYTES_CHECKPOINT = 50_000
    store = await open_store(directory)
    tree = tree_id(1, 1)
    if not store.databases():
        await store.create_database("a.edb")
        first = await store.begin()
        for account in range(ACCOUNTS):
            first.put(tree, b"account%d" % account, START.to_bytes(8, "little"))
        for writer in range(WRITERS):
            first.put(tree, b"writer%d" % writer, bytes(8))
        first.put(tree, b"count", bytes(8))
        await first.commit()
    reader = await store.begin()
    done = [amount(await reader.get(tree, b"writer%d" % writer)) for writer in range(WRITERS)]
    await reader.rollback()
    failpoints.arm_from_environment(os.environ.get("JETWIRE_FAILPOINTS", ""))
    os.write(1, b"started\n")
    await asyncio.gather(checkpoint_for_ever(store), *[write_for_ever(store, tree, i, done[i]) for i in range(WRITERS)])


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
