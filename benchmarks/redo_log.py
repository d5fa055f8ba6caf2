"""The log against the raw floor in the same run: `python benchmarks/redo_log.py [directory]`. About ten seconds."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import threading
import time
from queue import SimpleQueue

import uvloop

from jetwire_server.clock import SystemClock
from jetwire_server.files.gate import Gate
from jetwire_server.files.local import LocalFiles
from jetwire_server.redo.log import Log
from jetwire_server.redo.records import HEADER_BYTES, Kind

PAYLOAD = os.urandom(200)
COMMITS = 1500
ROUNDS = 5


def raw(directory: str, *, grows: bool) -> float:
    """Append and fdatasync of the same bytes, to a file that grows or (quicker) to an allocated one: seconds each."""
    path = os.path.join(directory, "raw")
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    if not grows:
        os.posix_fallocate(fd, 0, 5 << 20)
    os.fsync(fd)
    data, at = PAYLOAD + bytes(HEADER_BYTES), 4096
    began = time.perf_counter()
    for _ in range(COMMITS):
        os.pwrite(fd, data, at)
        os.fdatasync(fd)
        at += len(data)
    took = time.perf_counter() - began
    os.close(fd)
    os.remove(path)
    return took / COMMITS


async def handed_over(directory: str) -> float:
    """The same through a bare thread and back to the loop: what any writer thread costs here. Seconds each."""
    path = os.path.join(directory, "raw")
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    os.posix_fallocate(fd, 0, 5 << 20)
    os.fsync(fd)
    loop = asyncio.get_running_loop()
    queue: SimpleQueue[asyncio.Future[None] | None] = SimpleQueue()
    data = PAYLOAD + bytes(HEADER_BYTES)

    def run() -> None:
        at = 4096
        while (future := queue.get()) is not None:
            os.pwrite(fd, data, at)
            os.fdatasync(fd)
            at += len(data)
            loop.call_soon_threadsafe(future.set_result, None)

    thread = threading.Thread(target=run)
    thread.start()
    began = time.perf_counter()
    for _ in range(COMMITS):
        future = loop.create_future()
        queue.put(future)
        await future
    took = time.perf_counter() - began
    queue.put(None)
    thread.join()
    os.close(fd)
    os.remove(path)
    return took / COMMITS


async def commits(log: Log, committers: int, total: int) -> float:
    """Durable commits, each committer one after the other: seconds each."""

    async def one() -> None:
        for _ in range(total // committers):
            await log.write(Kind.COMMIT, PAYLOAD)

    began = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(committers)))
    return (time.perf_counter() - began) / total


def read(directory: str) -> float:
    """Records parsed a second, payloads of 200 bytes, files in the page cache."""
    log = Log(LocalFiles(directory), Gate(SystemClock()), SystemClock())
    log.open()
    began = time.perf_counter()
    count = sum(1 for _ in log.records())
    return count / (time.perf_counter() - began)


async def main() -> None:
    sys.setswitchinterval(0.0005)
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as directory:
        clock = SystemClock()
        log = Log(LocalFiles(directory), Gate(clock), clock)
        log.create(os.urandom(16), incarnation=1)
        log.begin()
        rounds = []
        for _ in range(ROUNDS):
            rounds.append(
                (
                    raw(directory, grows=True),
                    raw(directory, grows=False),
                    await handed_over(directory),
                    await commits(log, 1, COMMITS),
                    await commits(log, 32, COMMITS * 8),
                )
            )
        await log.close()
        raws, over, bare, ones, many = (sorted(column)[ROUNDS // 2] for column in zip(*rounds, strict=True))
        print(f"append and fdatasync  {raws * 1e6:8.1f} us")
        print(f"allocated before      {over * 1e6:8.1f} us")
        print(f"through a bare thread {bare * 1e6:8.1f} us   {bare / over:.2f} x the latter")
        print(f"one committer         {ones * 1e6:8.1f} us   {ones / raws:.2f} x append and fdatasync (at most 1.5)")
        print(f"                                    {ones / over:.2f} x the same in an allocated file")
        print(f"32 committers         {many * 1e6:8.1f} us   {ones / many:.1f} x the rate of one (at least 12)")
        print(f"read back             {read(directory):8,.0f} records/s (at least 300,000)")


if __name__ == "__main__":
    uvloop.run(main())
