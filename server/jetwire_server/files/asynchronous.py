"""Files for the event loop: plain calls made in a small thread pool of their own.

aiofiles does the same with more steps a call (benchmarks/files_aio.py holds the numbers), and neither knows our
errors, watches and failpoints, so the loop uses the same `Files` as the threads do.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor
from typing import ParamSpec, TypeVar

from jetwire_server.files.interface import Files
from jetwire_server.limits import FILE_CHUNK_BYTES

P = ParamSpec("P")
T = TypeVar("T")


class AsyncFiles:
    """`await files.call(files.files.replace, "manifest", data)`; the executor belongs to whoever made it."""

    def __init__(self, files: Files, executor: Executor) -> None:
        self.files = files
        self._executor = executor

    async def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The call's result. A cancelled caller still waits for its end: a permit held around it must outlive the write."""
        future = asyncio.get_running_loop().run_in_executor(self._executor, lambda: function(*args, **kwargs))
        cancelled = False
        while not future.done():
            try:
                await asyncio.wait({future})
            except asyncio.CancelledError:
                cancelled = True
        if cancelled:
            future.exception()  # looked at, so that nobody is told it never was
            raise asyncio.CancelledError
        return future.result()

    async def chunks(self, path: str, size: int = FILE_CHUNK_BYTES) -> AsyncIterator[bytes]:
        """A file from its beginning to where it ends when read, in pieces."""
        file = await self.call(self.files.open, path, read_only=True)
        try:
            offset = 0
            while data := await self.call(file.read, offset, size):
                yield data
                offset += len(data)
        finally:
            file.close()
