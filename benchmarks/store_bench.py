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
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Coroutine
from queue import SimpleQueue
from time import perf_counter, process_time, thread_time
from typing import Any

import lmdb
import uvloop

from jetwire_protocol.errors import JetError
from jetwire_server.clock import SystemClock
from jetwire_server.files.gate import Gate
from jetwire_server.files.local import LocalFiles
from jetwire_server.redo.log import Log
from jetwire_server.redo.names import LogNames
from jetwire_server.store.embedded.store import EmbeddedStore
from jetwire_server.store.interface import Commit, Tree, tree_id

VALUE = bytes(range(200))
COMMIT_ROUNDS = 9


def anonymous_mib() -> float:
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("RssAnon")) / 1024


def key_of(i: int) -> bytes:
    return b"%010d" % i


async def open_store(directory: str, *, circular: bool = True) -> EmbeddedStore:
    clock = SystemClock()
    gate = Gate(clock)
    files = LocalFiles(f"{directory}/data", watch=gate.wrote)
    files.make_directory("")
    journal = Log(files, gate, clock, names=LogNames("log"))
    store = EmbeddedStore(journal, files, LocalFiles(f"{directory}/scratch"), gate, clock, circular=circular)
    await store.start()
    return store


SLEEPER = """
import select, time
print("ready", flush=True)
late = 0.0
while True:
    at = time.perf_counter()
    if select.select([0], [], [], 0.001)[0]:
        break
    late = max(late, time.perf_counter() - at - 0.001)
print(late)
"""


class Watch:
    """How long the loop was away, and how much of that it worked: on a busy machine others have the processor meanwhile.

    Where a hypervisor stops the whole machine the clocks of its threads go on, so that its time looks like work. Hence the
    control: how late a process was that only sleeps.
    """

    def __init__(self) -> None:
        self.longest = self.working = self.sleeper_late = 0.0  # seconds
        self._stop = False
        self._sleeper = subprocess.Popen([sys.executable, "-c", SLEEPER], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._sleeper.stdout is not None
        self._sleeper.stdout.readline()

    async def run(self) -> None:
        while not self._stop:
            at, cpu = perf_counter(), thread_time()
            await asyncio.sleep(0.001)
            self.longest = max(self.longest, perf_counter() - at - 0.001)
            self.working = max(self.working, thread_time() - cpu)
        said, _ = await asyncio.to_thread(self._sleeper.communicate, b"enough")
        self.sleeper_late = float(said)

    def end(self) -> None:
        self._stop = True


def raw_bulk(path: str, rows: int) -> tuple[float, float]:
    cpu = process_time()
    env = lmdb.open(path, subdir=False, lib_version=1, map_size=1 << 40)
    started = perf_counter()
    for base in range(0, rows, 10_000):
        with env.begin(write=True) as txn:
            for i in range(base, min(base + 10_000, rows)):
                txn.put(key_of(i), VALUE)
    seconds = perf_counter() - started
    env.close()
    return seconds, process_time() - cpu


async def store_bulk(store: EmbeddedStore, tree: Tree, rows: int) -> tuple[float, float, float, Watch]:
    gc.collect()
    before = peak = anonymous_mib()
    watch = Watch()
    watcher = asyncio.create_task(watch.run())
    started, cpu = perf_counter(), process_time()
    for base in range(0, rows, 10_000):
        writer = await store.begin()
        for i in range(base, min(base + 10_000, rows)):
            writer.put(tree, key_of(i), VALUE)
            if i % 500 == 499:
                await asyncio.sleep(0)
        await writer.commit()
        peak = max(peak, anonymous_mib())
    await store.checkpoint()
    seconds, cpu = perf_counter() - started, process_time() - cpu
    watch.end()
    await watcher
    return seconds, cpu, peak - before, watch


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


def stall_of(watch: Watch) -> str:
    return (
        f"longest stall of the loop {watch.longest * 1000:.1f} ms (bound 20), longest work in one turn {watch.working * 1000:.1f} ms of "
        f"CPU, a process that only sleeps was late by {watch.sleeper_late * 1000:.1f} ms at most"
    )


def line(what: str, ours: float, raw: float, count: int, bound: str) -> None:
    print(f"{what:<44} {ours / count * 1e6:8.2f} us  raw {raw / count * 1e6:6.2f} us  {ours / raw:5.2f} x   (bound {bound})")


async def main(rows: int) -> None:
    directory = tempfile.mkdtemp(prefix="jetwire-bench-")
    raw = f"{directory}/raw.db"
    try:
        raw_seconds, raw_cpu = raw_bulk(raw, rows)
        store = await open_store(directory)
        tree = tree_id(await store.create_database("a.edb"), 16)
        seconds, cpu, grown, watch = await store_bulk(store, tree, rows)
        line("bulk, a row", seconds, raw_seconds, rows, "4 x")
        line("  the same, CPU of all threads", cpu, raw_cpu, rows, "none")
        print(f"{'':<44} anonymous memory +{grown:.0f} MiB (bound 600), {stall_of(watch)}")
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
        await commits(store, tree, directory)
        await during_checkpoint(store, tree, rows)
        await store.stop()
        await recovery(f"{directory}/recovery")
    finally:
        shutil.rmtree(directory)


def raw_commits(path: str, size: int, count: int, *, grows: bool) -> float:
    """Append + fdatasync of the same bytes: to a file that grows, or, which is quicker, over what was allocated before."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    if not grows:
        os.posix_fallocate(fd, 0, size * count)
    os.fsync(fd)
    data = bytes(size)
    started = perf_counter()
    for i in range(count):
        os.pwrite(fd, data, i * size)
        os.fdatasync(fd)
    seconds = perf_counter() - started
    os.close(fd)
    return seconds


async def handed_over(path: str, size: int, count: int) -> float:
    """The same bytes through a bare thread and back to the loop: what any writer thread costs here."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    os.posix_fallocate(fd, 0, size * count)
    os.fsync(fd)
    loop, queue, data = asyncio.get_running_loop(), SimpleQueue[asyncio.Future[None] | None](), bytes(size)

    def run() -> None:
        at = 0
        while (future := queue.get()) is not None:
            os.pwrite(fd, data, at)
            os.fdatasync(fd)
            at += size
            loop.call_soon_threadsafe(future.set_result, None)

    thread = threading.Thread(target=run)
    thread.start()
    started = perf_counter()
    for _ in range(count):
        future: asyncio.Future[None] = loop.create_future()
        queue.put(future)
        await future
    seconds = perf_counter() - started
    queue.put(None)
    thread.join()
    os.close(fd)
    return seconds


async def commits(store: EmbeddedStore, tree: Tree, directory: str) -> None:
    """In rounds, each with everything in it, for the disk's speed drifts; medians of the rounds."""
    loop = asyncio.get_running_loop()

    async def committer(name: int, count: int) -> None:
        for i in range(count):
            writer = await store.begin()
            writer.put(tree, b"c%d-%d" % (name, i), VALUE)
            await writer.commit()

    async def striker(name: int, count: int) -> None:
        """The same as the server does it for a call outside a transaction."""
        for i in range(count):
            done: asyncio.Future[Commit | JetError] = loop.create_future()
            stroke = store.stroke()
            stroke.put(tree, b"s%d-%d" % (name, i), VALUE)
            assert stroke.commit(tree, done.set_result)
            await done

    async def alone_and_together(work: Callable[[int, int], Coroutine[Any, Any, None]], number: int) -> tuple[float, float, float]:
        """How long one takes for all its commits; how long each of 32 does, and what CPU."""
        started = perf_counter()
        await work(number * 100, count)
        one = perf_counter() - started
        started, cpu = perf_counter(), process_time()
        await asyncio.gather(*[work(number * 100 + i, count) for i in range(1, 33)])
        return one, (perf_counter() - started) / 32, (process_time() - cpu) / 32

    count, size, file = 250, 300, f"{directory}/raw.log"
    rounds: dict[str, list[float]] = {}

    def note(**values: float) -> None:
        for name, value in values.items():
            rounds.setdefault(name, []).append(value)

    for number in range(COMMIT_ROUNDS):
        raw, over = raw_commits(file, size, count, grows=True), raw_commits(file, size, count, grows=False)
        hop = await handed_over(file, size, count)
        note(raw=raw, over=over, hop=hop, hop_over=hop / over)
        for name, work in (("commit", committer), ("stroke", striker)):
            one, many, cpu = await alone_and_together(work, number)
            note(**{name: one, f"{name}_raw": one / raw, f"{name}_over": one / over})
            note(**{f"{name}_many": many, f"{name}_times": one / many, f"{name}_cpu": cpu})
    median = {name: sorted(values)[COMMIT_ROUNDS // 2] for name, values in rounds.items()}

    def told(what: str, ours: str, below: str, bound: str = "") -> None:
        each = f"{median[ours] / count * 1e6:8.2f} us  raw {median[below] / count * 1e6:6.2f} us"
        print(f"{what:<44} {each}  {median[f'{ours}_{below}']:5.2f} x{bound}")

    told("overwrite + fdatasync through a bare thread", "hop", "over")
    for name, what in (("commit", "transaction"), ("stroke", "stroke")):
        told(f"durable {what} of one put, one committer", name, "raw", "   (bound 1.5 x)")
        told("  beside an overwrite in an allocated file", name, "over")
        together, alone = count / median[f"{name}_many"], count / median[name]
        share(f"durable {what}s/s, 32 committers", together, alone, f"{median[f'{name}_times']:5.1f} x", "12 x")
        print(f"{'':<44} {median[f'{name}_cpu'] / count * 1e6:8.2f} us of CPU each")


async def during_checkpoint(store: EmbeddedStore, tree: Tree, rows: int) -> None:
    """Reads and commits with and without a checkpoint beside them."""
    await store.checkpoint()
    picker = random.Random(2)
    keys = [key_of(picker.randrange(rows)) for _ in range(10_000)]

    async def load(seconds: float) -> tuple[float, float, Watch]:
        reads = written = 0
        watch = Watch()
        ends = perf_counter() + seconds

        async def reading() -> None:
            nonlocal reads
            while perf_counter() < ends:
                reader = await store.begin()
                for _ in range(20):
                    await reader.get(tree, keys[reads % 10_000])
                    reads += 1
                await reader.rollback()
                await asyncio.sleep(0)

        async def committing(name: int) -> None:
            nonlocal written
            while perf_counter() < ends:
                writer = await store.begin()
                writer.put(tree, b"l%d-%d" % (name, written), VALUE)
                await writer.commit()
                written += 1

        watcher = asyncio.create_task(watch.run())
        await asyncio.gather(reading(), *[committing(i) for i in range(8)])
        watch.end()
        await watcher
        return reads / seconds, written / seconds, watch

    alone = await load(2.0)
    for base in range(0, 100_000, 1000):
        writer = await store.begin()
        for i in range(base, base + 1000):
            writer.put(tree, b"x" + key_of(i), VALUE)
        await writer.commit(lazy=True)
    saving = asyncio.create_task(store.checkpoint())
    started = perf_counter()
    beside = await load(2.0)
    await saving
    took = perf_counter() - started
    share("reads/s beside a checkpoint", beside[0], alone[0], f"{beside[0] / alone[0] * 100:5.0f} %", "70 %")
    share("commits/s beside a checkpoint", beside[1], alone[1], f"{beside[1] / alone[1] * 100:5.0f} %", "70 %")
    print(f"{'the loop beside a checkpoint':<44} {stall_of(beside[2])}, in {took:.1f} s")
    print(f"{'the loop alone':<44} {stall_of(alone[2])}")


def share(what: str, ours: float, alone: float, ratio: str, bound: str) -> None:
    print(f"{what:<44} {ours:8,.0f}     alone {alone:8,.0f} {ratio}   (bound {bound})")


async def recovery(directory: str) -> None:
    store = await open_store(directory, circular=False)
    tree = tree_id(await store.create_database("a.edb"), 16)
    count = 50_000
    for i in range(count):
        writer = await store.begin()
        writer.put(tree, b"%d" % (i * 7919 % count), VALUE[:160])
        await writer.commit(lazy=True)
    await store.flush()
    store.gate.latch("crash")
    await store.stop(checkpoint=False)
    started, cpu = perf_counter(), process_time()
    store = await open_store(directory, circular=False)
    seconds, cpu = perf_counter() - started, process_time() - cpu
    assert await store.count(tree) == count
    print(f"{'recovery, log records/s':<44} {count / seconds:8,.0f}     a CPU second {count / cpu:8,.0f}   (bound 100,000)")
    await store.stop()


async def best(measure: Any, *args: Any) -> float:
    return min([await measure(*args) for _ in range(3)])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000)
    sys.setswitchinterval(0.0005)
    gc.set_threshold(50_000, 20, 50)
    uvloop.run(main(parser.parse_args().rows))
