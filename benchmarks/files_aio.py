"""What an awaited file call costs: our thread pool, aiofiles, and a plain call that blocks the loop.

`python -m benchmarks.files_aio`: microseconds a call, the median of five rounds taken in turn. Ratios hold, figures drift.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import aiofiles

from jetwire_server.files.asynchronous import AsyncFiles
from jetwire_server.files.local import LocalFiles

ROUNDS = 5
SIZES = {"read 4 KiB": 4 << 10, "read 1 MiB": 1 << 20}


async def microseconds(call: Callable[[], Awaitable[object]], calls: int, waiters: int) -> float:
    async def work() -> None:
        for _ in range(calls // waiters):
            await call()

    start = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(waiters)))
    return (time.perf_counter() - start) / (calls // waiters * waiters) * 1e6


async def main() -> None:
    with tempfile.TemporaryDirectory(dir=".") as root, ThreadPoolExecutor(4) as executor:
        files = AsyncFiles(LocalFiles(root), executor)
        files.files.replace("data", bytes(1 << 20))
        file = files.files.open("data")
        async with aiofiles.open(Path(root) / "data", "rb", executor=executor) as theirs:
            for what, size in SIZES.items():

                async def ours(size: int = size) -> bytes:
                    return await files.call(file.read, 0, size)

                async def aio(size: int = size) -> bytes:
                    await theirs.seek(0)
                    return await theirs.read(size)

                async def plain(size: int = size) -> bytes:
                    return file.read(0, size)

                for waiters in (1, 32):
                    ways = {"our pool": ours, "plain, blocking": plain}
                    if waiters == 1:  # a file of aiofiles has one position: it cannot be shared
                        ways["aiofiles (seek, read)"] = aio
                    results: dict[str, list[float]] = {name: [] for name in ways}
                    for _ in range(ROUNDS):
                        for name, way in ways.items():
                            results[name].append(await microseconds(way, 640, waiters))
                    for name, figures in results.items():
                        print(f"{what:11} {waiters:3} waiters  {name:22} {statistics.median(figures):8.1f} us")

        async def replace_ours() -> None:
            await files.call(files.files.replace, "manifest", bytes(2_000))

        async def replace_aio() -> None:
            """The same steps, without the confinement of the path."""
            loop = asyncio.get_running_loop()
            async with aiofiles.open(Path(root) / "m.new", "wb", executor=executor) as new:
                await new.write(bytes(2_000))
                await new.flush()
                await loop.run_in_executor(executor, files.files.open("m.new").sync)
            await loop.run_in_executor(executor, files.files.rename, "m.new", "m")
            await loop.run_in_executor(executor, files.files.sync_directory)

        both: dict[str, list[float]] = {"our pool": [], "aiofiles": []}
        for _ in range(ROUNDS):
            both["our pool"].append(await microseconds(replace_ours, 50, 1))
            both["aiofiles"].append(await microseconds(replace_aio, 50, 1))
        for name, figures in both.items():
            print(f"replace 2 KB durably     {name:22} {statistics.median(figures):8.1f} us")


if __name__ == "__main__":
    asyncio.run(main())
