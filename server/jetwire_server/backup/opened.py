"""The one file of a backup that may be open at a time: a copy of a database, a log file, or one that is only in memory."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count

from jetwire_protocol.errors import Err, JetError
from jetwire_server import limits
from jetwire_server.backup.manifest import BackupFile, sha256_of
from jetwire_server.files.local import LocalFile, LocalFiles
from jetwire_server.store.embedded.check import check_database
from jetwire_server.store.embedded.pages import PageFile

PAGE_BYTES = 4096
_handles = count(1)


@dataclass
class OpenedFile:
    """Read from its beginning to its end. `content` is that of a file in memory, which has no `file`."""

    handle: int
    name: str
    size: int
    file: LocalFile | None = None
    content: bytes = b""
    database: bool = False
    offset: int = 0
    checked: bool = True  # a copy of a database is not, at first
    ended: bool = False
    closed: bool = False

    def aim(self, size: int, offset: int | None) -> None:
        """Refuses what cannot be read; `offset` goes back to what was read before."""
        if size <= 0 or size > limits.BACKUP_READ_BYTES_MAX or (self.database and size % PAGE_BYTES):
            raise JetError(
                Err.InvalidParameter,
                f"bufferSize is 1 to {limits.BACKUP_READ_BYTES_MAX}, for a database a multiple of {PAGE_BYTES}",
            )
        if offset is not None:
            if not 0 <= offset <= self.offset:
                raise JetError(Err.InvalidParameter, f"{self.offset} bytes were read; reading goes on there, or before")
            self.offset = offset

    async def read(self, size: int) -> bytes:
        if self.file is None:
            data = self.content[self.offset : self.offset + size]
        else:
            data = await asyncio.to_thread(self.file.read, self.offset, size)
        self.offset += len(data)
        self.ended = self.offset >= self.size
        return data

    def close(self) -> None:
        self.closed = True
        if self.file is not None:
            self.file.close()


def open_in_memory(name: str, content: bytes) -> OpenedFile:
    return OpenedFile(next(_handles), name, len(content), content=content)


async def open_on_disk(files: LocalFiles, name: str) -> OpenedFile:
    file = await _in_a_thread(lambda: files.open(name, read_only=True))
    return OpenedFile(next(_handles), name, file.size(), file)


async def copy_database(source: PageFile, scratch: LocalFiles, copy: str) -> OpenedFile:
    """A copy of one state of its pages, made while everything goes on."""

    def work() -> LocalFile:
        file = scratch.open(copy, create=True)
        try:
            file.truncate(0)
            source.copy_to(file.fileno())
        except BaseException:
            file.close()
            raise
        return file

    file = await _in_a_thread(work)
    return OpenedFile(next(_handles), source.path, file.size(), file, database=True, checked=False)


async def _in_a_thread(work: Callable[[], LocalFile]) -> LocalFile:
    """Opens a file. If nobody wants it any more when it is open, it is closed."""
    task = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        task.add_done_callback(lambda done: None if done.cancelled() or done.exception() else done.result().close())
        raise


async def check_copy(scratch: LocalFiles, opened: OpenedFile) -> BackupFile:
    """Reads the copy of a database whole, and answers its size and digest. It gives way at each step, and ends when the copy is closed."""
    assert opened.file is not None
    copy = opened.file.path

    def work() -> BackupFile:
        for fault in check_database(scratch, copy):
            if fault is not None:
                raise JetError(Err.ReadVerifyFailure, f"{opened.name}: {fault}; the backup of this database is given up")
            if opened.closed:
                raise JetError(Err.BackupAbortByCaller, f"{opened.name} was closed while it was checked")
            time.sleep(limits.BACKUP_BREATHE_SECONDS)
        return sha256_of(scratch, copy)

    found = await asyncio.to_thread(work)
    return BackupFile(opened.name, found.size, found.sha256)
