"""One streaming backup: what is read when, from which copies, and what it leaves behind.

Nothing is frozen. A database is read from a copy that LMDB makes of one state of its pages while everything goes on; the
log from where recovery of these pages would begin is pinned until the end. Any state of the pages with the log from
there on is what a crash could have left, so a restore is a recovery.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import count

import msgspec

from jetwire_protocol.errors import Err, JetError
from jetwire_server import limits
from jetwire_server.backup.manifest import BackupFile, BackupManifest, read_whole, sha256_of
from jetwire_server.backup.states import TABLE, Call, State
from jetwire_server.clock import Clock
from jetwire_server.engine.instance import Instance
from jetwire_server.files.local import LocalFile, LocalFiles
from jetwire_server.redo.position import Position
from jetwire_server.redo.reader import LogReader, discover
from jetwire_server.snapshot.instance import read_file
from jetwire_server.store.embedded.assemble import SCRATCH_DIRECTORY, Storage
from jetwire_server.store.embedded.check import check_database

STAMP_FILE = "backup.stamp"
SCRATCH_BACKUP = "backup"
PAGE_BYTES = 4096
_BREATHE_SECONDS = 0.001
_handles = count(1)


class Stamp(msgspec.Struct, frozen=True):
    """What a finished backup leaves in the instance: where the next incremental one begins."""

    next_generation: int
    time: float
    databases: tuple[str, ...]
    digest: str  # of its manifest
    incarnation: int


@dataclass
class OpenedFile:
    """The one file that may be open at a time. `content` is a file that exists only in memory."""

    handle: int
    name: str
    database: bool
    size: int
    file: LocalFile | None = None
    content: bytes = b""
    offset: int = 0
    checked: bool = False
    ended: bool = False


def load_stamp(files: LocalFiles) -> Stamp | None:
    data = read_file(files, STAMP_FILE)
    if data is None:
        return None
    try:
        return msgspec.json.decode(data, type=Stamp)
    except msgspec.DecodeError:
        return None


class Backup:
    """Made by `begin`; `finish` gives everything back, whatever happened."""

    def __init__(self, instance: Instance, storage: Storage, clock: Clock, *, full: bool, owner: object | None) -> None:
        self.instance = instance
        self.full = full
        self.owner = owner
        self.state = State.DATABASES if full else State.LOGS_DUE
        self.last_call = clock.boot()
        self.calls = 0  # under way: copying a large database may take longer than a caller may be silent
        self.finished = False
        self.opened: OpenedFile | None = None
        self.manifest: BackupManifest | None = None
        self._clock = clock
        self._storage = storage
        self._scratch = LocalFiles(f"{storage.files.root}/{SCRATCH_DIRECTORY}/{SCRATCH_BACKUP}")
        self._pinned = ExitStack()
        self._position = Position(0, 0, 0)
        self._checkpoint = b""
        self._stamp: Stamp | None = None
        self._done: dict[str, BackupFile] = {}  # databases that were read whole
        self._logs: dict[str, BackupFile] = {}  # of the log phase: files on disk
        self._memory: dict[str, bytes] = {}  # of the log phase: the checkpoint file and the manifest
        self._read: set[str] = set()
        self._removable: list[int] = []
        self._consistent = (Position(0, 0, 0), 0)

    # -- begin and end ------------------------------------------------------------------------------------------
    async def begin(self) -> None:
        log = self._storage.log
        self.instance.backups += 1
        try:
            with log.pin(Position(0, 0, 0)):  # until we know what to pin
                await asyncio.to_thread(self._scratch.make_directory, "")
                await asyncio.to_thread(self._clear_scratch)
                if self.full:
                    checkpoint = await asyncio.to_thread(log.checkpoint)
                    if checkpoint is None:
                        raise JetError(Err.CheckpointFileNotFound, log.names.checkpoint)
                    self._checkpoint = await asyncio.to_thread(read_whole, self._storage.files, log.names.checkpoint)
                    self._position = checkpoint.position
                else:
                    self._stamp = self._last_backup()
                    self._position = Position.at(self._stamp.next_generation, 0)
                self._pinned.enter_context(log.pin(self._position))
            if not self.full and self._position.generation not in log.generations():
                raise JetError(Err.MissingFileToBackup, f"log generation {self._position.generation:X} is gone: make a full backup")
        except BaseException:
            await self.finish()
            raise

    def _last_backup(self) -> Stamp:
        stamp = load_stamp(self._storage.files)
        attached = set(self._storage.store.databases().values())
        if stamp is None or not attached <= set(stamp.databases) or stamp.incarnation != self._storage.log.incarnation:
            raise JetError(Err.MissingFullBackup, "there was no full backup of every attached database yet")
        return stamp

    async def finish(self) -> None:
        """The backup is over, well or not."""
        if self.finished:
            return
        self.finished = True
        if self.state is not State.STOPPED:
            self.state = State.NONE
        self.close_opened()
        self._pinned.close()
        self.instance.backups -= 1
        await asyncio.to_thread(self._clear_scratch)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """While this is held the caller is not silent: it waits for an answer."""
        self.calls += 1
        try:
            yield
        finally:
            self.calls -= 1
            self.last_call = self._clock.boot()

    @property
    def silent(self) -> bool:
        return not self.calls and self._clock.boot() - self.last_call > limits.BACKUP_SILENT_SECONDS

    def _clear_scratch(self) -> None:
        for name in self._scratch.list():
            self._scratch.remove(name)

    # -- the table ----------------------------------------------------------------------------------------------
    def step(self, call: Call) -> None:
        """Looks the call up; an error of the table leaves everything as it was, but for END."""
        self.last_call = self._clock.boot()
        cell = TABLE[self.state, call]
        if cell.error is not None and call is not Call.END:
            raise JetError(cell.error, f"{call.value} in state {self.state.value!r}")
        needs_closed = call in (Call.GET_LOG_INFO, Call.GET_TRUNCATE_LOG_INFO, Call.TRUNCATE)
        if needs_closed and self.opened is not None:
            raise JetError(Err.InvalidBackupSequence, f"{self.opened.name} is still open")

    # -- databases ----------------------------------------------------------------------------------------------
    def attached(self) -> list[str]:
        return list(self._storage.store.databases().values())

    async def open(self, name: str) -> OpenedFile:
        path = "/".join(part for part in name.replace("\\", "/").split("/") if part not in ("", "."))
        if not path:
            raise JetError(Err.InvalidParameter, "a file's name is needed")
        slot = next((s for s, p in self._storage.store.databases().items() if p.lower() == path.lower()), None)
        self.step(Call.OPEN_DATABASE if slot is not None else Call.OPEN_LOG)
        if self.opened is not None:
            raise JetError(Err.OutOfMemory, f"{self.opened.name} is open; one file at a time")
        if slot is not None:
            self.opened = await self._copy_database(slot)
        elif path in self._memory:
            self.opened = OpenedFile(next(_handles), path, False, len(self._memory[path]), content=self._memory[path], checked=True)
        elif path in self._logs:
            file = await asyncio.to_thread(self._storage.files.open, path, read_only=True)
            self.opened = OpenedFile(next(_handles), path, False, file.size(), file, checked=True)
        else:
            raise JetError(Err.MissingFileToBackup, f"{path} is no file of this backup", path=path)
        return self.opened

    async def _copy_database(self, slot: int) -> OpenedFile:
        source = self._storage.store.files[slot]
        copy = f"{slot}.copy"

        def work() -> LocalFile:
            file = self._scratch.open(copy, create=True)
            try:
                file.truncate(0)
                source.copy_to(file.fileno())
            except BaseException:
                file.close()
                raise
            return file

        file = await asyncio.shield(asyncio.to_thread(work))
        # The copy may hold parts of any commit up to now: a restore cannot stop earlier.
        self._consistent = max(self._consistent, (self._storage.log.end, self._storage.store.published))
        return OpenedFile(next(_handles), source.path, True, file.size(), file)

    async def read(self, handle: int, size: int, offset: int | None = None) -> bytes:
        """The next bytes; `offset` goes back to what was read before."""
        self.step(Call.READ)
        opened = self._find(handle)
        if size <= 0 or size > limits.BACKUP_READ_BYTES_MAX or (opened.database and size % PAGE_BYTES):
            raise JetError(
                Err.InvalidParameter,
                f"bufferSize is 1 to {limits.BACKUP_READ_BYTES_MAX}, for a database a multiple of {PAGE_BYTES}",
            )
        if offset is not None:
            if not 0 <= offset <= opened.offset:
                raise JetError(Err.InvalidParameter, f"{opened.offset} bytes were read; reading goes on there, or before")
            opened.offset = offset
        if not opened.checked:
            opened.checked = True
            await self._check_copy(opened)
        if opened.file is None:
            data = opened.content[opened.offset : opened.offset + size]
        else:
            data = await asyncio.to_thread(opened.file.read, opened.offset, size)
        opened.offset += len(data)
        opened.ended = opened.offset >= opened.size
        return data

    async def _check_copy(self, opened: OpenedFile) -> None:
        """A backup with damage in it must not push out a good one: the copy is read whole before it is handed out."""
        assert opened.file is not None
        name = opened.file.path

        def work() -> BackupFile:
            for fault in check_database(self._scratch, name):
                if fault is not None:
                    raise JetError(Err.ReadVerifyFailure, f"{opened.name}: {fault}; the backup of this database is given up")
                time.sleep(_BREATHE_SECONDS)
            return sha256_of(self._scratch, name)

        try:
            found = await asyncio.to_thread(work)
        except JetError:
            self.close_opened()
            raise
        self._done[opened.name] = BackupFile(opened.name, found.size, found.sha256)

    def close(self, handle: int) -> None:
        self.step(Call.CLOSE)
        self._find(handle)
        self.close_opened()

    def close_opened(self) -> None:
        opened, self.opened = self.opened, None
        if opened is not None:
            if opened.ended:
                self._read.add(opened.name)
            if opened.file is not None:
                opened.file.close()

    def _find(self, handle: int) -> OpenedFile:
        if self.opened is None or self.opened.handle != handle:
            raise JetError(Err.InvalidParameter, f"handle {handle} is not open")
        return self.opened

    # -- logs ---------------------------------------------------------------------------------------------------
    async def prepare_logs(self, call: Call) -> None:
        """Rolls the log once; from here on only logs are read."""
        self.step(call)
        if self.manifest is None:
            missing = [name for name in self.attached() if name not in self._read] if self.full else []
            if missing:
                raise JetError(Err.InvalidBackupSequence, f"not read whole yet: {', '.join(missing)}")
            await self._prepare()
        self.state = TABLE[self.state, call].after

    async def _prepare(self) -> None:
        storage, names = self._storage, self._storage.log.names
        moment = self._clock.now()  # of what was committed up to here nothing is missing
        end = await storage.log.roll()
        low, high = self._position.generation, end.generation - 1
        files = [await asyncio.to_thread(sha256_of, storage.files, names.archived(n)) for n in range(low, high + 1)]
        await asyncio.to_thread(self._verify_logs, low, high)
        self._logs = {file.path: file for file in files}
        if self.full:
            self._memory[names.checkpoint] = self._checkpoint
        checkpoint = await asyncio.to_thread(storage.log.checkpoint)
        first_needed = min(checkpoint.position.generation if checkpoint else 0, high + 1)
        self._removable = [n for n in storage.log.generations() if n < first_needed]
        memory = [_described(path, content) for path, content in self._memory.items()]
        consistent, commit = self._consistent
        self.manifest = BackupManifest(
            kind="full" if self.full else "incremental",
            instance=self.instance.name,
            time=moment,
            signature=storage.log.signature.hex(),
            incarnation=storage.log.incarnation,
            base_name=names.base,
            log_directory=names.directory,
            gen_low=low,
            gen_high=high,
            position=str(self._position),
            end=str(end),
            consistent=str(consistent),
            consistent_commit=commit,
            databases=tuple(self.attached()),
            files=(*self._done.values(), *memory, *files),
            previous=self._stamp.digest if self._stamp else "",
        ).sealed()
        self._memory[self.manifest.name] = self.manifest.encode()

    def _verify_logs(self, low: int, high: int) -> None:
        log = self._storage.log
        try:
            generations = [one for one in discover(self._storage.files, log.names, since=low) if one.number <= high]
            last = 0
            for record in LogReader(self._storage.files, generations).records(self._position if self.full else None):
                if record.generation != last:
                    last = record.generation
                    time.sleep(_BREATHE_SECONDS)
        except JetError as error:
            raise JetError(Err.LogReadVerifyFailure, error.detail) from error

    def log_files(self) -> list[str]:
        """In the order they are best read: the manifest last."""
        checkpoint = [name for name in self._memory if self.manifest is None or name != self.manifest.name]
        return [*checkpoint, *self._logs, *([self.manifest.name] if self.manifest else [])]

    def removable(self) -> list[str]:
        return [self._storage.log.names.archived(n) for n in self._removable]

    async def truncate(self) -> list[int]:
        """Removes what neither recovery nor this backup's continuation needs; answers which."""
        self.step(Call.TRUNCATE)
        unread = [name for name in self._logs if name not in self._read]
        if unread:
            raise JetError(Err.LogFileNotCopied, f"not read whole yet: {', '.join(unread)}")
        assert self.manifest is not None
        self._pinned.close()  # all of it has been read
        self._pinned.enter_context(self._storage.log.pin(Position.at(self.manifest.gen_high + 1, 0)))
        gone = await asyncio.to_thread(self._truncate)
        self.state = State.TRUNCATED
        return gone

    def _truncate(self) -> list[int]:
        log = self._storage.log
        checkpoint = log.checkpoint()
        if checkpoint is None or not self._removable:
            return []
        limit = min(checkpoint.position, Position.at(self._removable[-1] + 1, 0))
        with self._storage.gate.permit("log truncation"):
            return log.truncate_before(limit)

    async def stamp(self) -> None:
        """From here on an incremental backup continues this one."""
        assert self.manifest is not None
        manifest = self.manifest
        databases = manifest.databases if self.full else self._stamp.databases if self._stamp else ()
        stamp = Stamp(manifest.gen_high + 1, manifest.time, databases, manifest.digest, manifest.incarnation)

        def work() -> None:
            with self._storage.gate.permit("backup stamp"):
                self._storage.files.replace(STAMP_FILE, msgspec.json.encode(stamp))

        await asyncio.to_thread(work)

    def unread(self) -> list[str]:
        """What the caller has not fetched of what belongs to the backup."""
        return [name for name in (*self._logs, *self._memory) if name not in self._read]


def _described(path: str, content: bytes) -> BackupFile:
    return BackupFile(path, len(content), hashlib.sha256(content).hexdigest())
