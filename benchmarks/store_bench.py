"""The store against the raw floor it stands on, as ratios in one run.

    python benchmarks/store_bench.py [--rows 200000]

Absolute figures drift with the machine; the ratios are what the project promises (see the bounds printed beside them).
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import random
import shutil
import sys
import tempfile
from time import perf_counter
from typing import Any

import lmdb

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from jetwire_server.clock import SystemClock
from jetwire_server.files.gate import Gate
from jetwire_server.files.local import LocalFiles
from jetwire_server.store.embedded.store import EmbeddedStore
from jetwire_server.store.interface import Tree, tree_id

VALUE = bytes(range(200))


def anonymous_mib() -> float:
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("RssAnon")) / 1024


def key_of(i: int) -> bytes:
    return b"%010d" % i


async def open_store(directory: str) -> EmbeddedStore:
    clock = SystemClock()
    gate = Gate(clock)
    files = LocalFiles(f"{directory}/data", watch=gate.wrote)
    files.make_directory("")
    from tests.server.store.plain_journal import PlainJournal

    store = EmbeddedStore(PlainJournal(), files, LocalFiles(f"{directory}/scratch"), gate, clock)
    await store.start()
    return store


def raw_bulk(path: str, rows: int) -> float:
    env = lmdb.open(path, subdir=False, lib_version=1, map_size=1 << 40)
    started = perf_counter()
    for base in range(0, rows, 10_000):
        with env.begin(write=True) as txn:
            for i in range(base, min(base + 10_000, rows)):
                txn.put(key_of(i), VALUE)
    seconds = perf_counter() - started
    env.close()
    return seconds


async def store_bulk(store: EmbeddedStore, tree: Tree, rows: int) -> tuple[float, float, float]:
    gc.collect()
    before = peak = anonymous_mib()
    worst_stall = 0.0
    stop = False

    async def watch() -> None:
        nonlocal worst_stall
        while not stop:
            at = perf_counter()
            await asyncio.sleep(0.001)
            worst_stall = max(worst_stall, perf_counter() - at - 0.001)

    watcher = asyncio.create_task(watch())
    started = perf_counter()
    for base in range(0, rows, 10_000):
        writer = await store.begin()
        for i in range(base, min(base + 10_000, rows)):
            writer.put(tree, key_of(i), VALUE)
            if i % 500 == 499:
                await asyncio.sleep(0)
        await writer.commit()
        peak = max(peak, anonymous_mib())
    await store.checkpoint()
    seconds = perf_counter() - started
    stop = True
    await watcher
    return seconds, peak - before, worst_stall * 1000


def raw_gets(path: str, keys: list[bytes]) -> float:
    env = lmdb.open(path, subdir=False, lib_version=1, map_size=1 << 40)
    with env.begin() as txn:
        started = perf_counter()
        for key in keys:
            txn.get(key)
        seconds = perf_counter() - started
    env.close()
    return seconds


async def store_gets(store: EmbeddedStore, tree: Tree, keys: list[bytes]) -> float:
    reader = await store.begin()
    started = perf_counter()
    for key in keys:
        await reader.get(tree, key)
    seconds = perf_counter() - started
    await reader.rollback()
    return seconds


def raw_walk(path: str) -> float:
    env = lmdb.open(path, subdir=False, lib_version=1, map_size=1 << 40)
    with env.begin() as txn:
        started = perf_counter()
        for _key, _value in txn.cursor().iternext():
            pass
        seconds = perf_counter() - started
    env.close()
    return seconds


async def store_walk(store: EmbeddedStore, tree: Tree) -> float:
    reader = await store.begin()
    started = perf_counter()
    low = None
    while rows := await reader.scan(tree, low):
        low = rows[-1][0] + b"\0"
    seconds = perf_counter() - started
    await reader.rollback()
    return seconds


def line(what: str, ours: float, raw: float, count: int, bound: str) -> None:
    print(f"{what:<44} {ours / count * 1e6:8.2f} us  raw {raw / count * 1e6:6.2f} us  {ours / raw:5.2f} x   (bound {bound})")


async def main(rows: int) -> None:
    directory = tempfile.mkdtemp(prefix="jetwire-bench-")
    raw = f"{directory}/raw.db"
    try:
        raw_seconds = raw_bulk(raw, rows)
        store = await open_store(directory)
        tree = tree_id(await store.create_database("a.edb"), 16)
        seconds, grown, stall = await store_bulk(store, tree, rows)
        line("bulk, a row", seconds, raw_seconds, rows, "4 x")
        print(f"{'':<44} anonymous memory +{grown:.0f} MiB (bound 600), longest stall of the loop {stall:.1f} ms")
        picker = random.Random(1)
        keys = [key_of(picker.randrange(rows)) for _ in range(100_000)]
        raw_gets(raw, keys)
        line("get, cold timeline", await best(store_gets, store, tree, keys), min(raw_gets(raw, keys) for _ in range(3)), len(keys), "4 x")
        line("scan in chunks of 1,000, a row", await best(store_walk, store, tree), min(raw_walk(raw) for _ in range(3)), rows, "5 x")
        writer = await store.begin()
        hot = sorted({key_of(picker.randrange(rows)) for _ in range(10_000)})
        for key in hot:
            writer.put(tree, key, VALUE)
        await writer.commit()
        keys = [picker.choice(hot) for _ in range(100_000)]
        line("get, hot timeline", await best(store_gets, store, tree, keys), min(raw_gets(raw, keys) for _ in range(3)), len(keys), "3 x")
        await store.stop()
    finally:
        shutil.rmtree(directory)


async def best(measure: Any, *args: Any) -> float:
    return min([await measure(*args) for _ in range(3)])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000)
    sys.setswitchinterval(0.0005)
    gc.set_threshold(50_000, 20, 50)
    asyncio.run(main(parser.parse_args().rows))
