"""One streaming backup: what is read when, from which copies, and what it leaves behind.

Nothing is frozen. A database is read from a copy that LMDB makes of one state of its pages while everything goes on; the
log from where recovery of these pages would begin is pinned until the end. Any state of the pages with the log from
there on is what a crash could have left, so a restore is a recovery.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

from jetwire_protocol.errors import Err, JetError
from jetwire_server import limits
from jetwire_server.backup.logs import LogsOfBackup
from jetwire_server.backup.manifest import BackupFile, BackupManifest
from jetwire_server.backup.opened import OpenedFile, check_copy, copy_database, open_in_memory, open_on_disk
from jetwire_server.backup.stamp import Stamp, load_stamp, save_stamp
from jetwire_server.backup.states import TABLE, Call, State
from jetwire_server.clock import Clock
from jetwire_server.engine.instance import Instance
from jetwire_server.files.local import LocalFiles
from jetwire_server.files.whole import read_whole
from jetwire_server.redo.position import Position
from jetwire_server.store.embedded.assemble import SCRATCH_DIRECTORY, Storage

SCRATCH_BACKUP = "backup"


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
        self._turn = asyncio.Lock()  # calls of one backup may come together; each finds what the one before has left
        self._checking: asyncio.Task[BackupFile] | None = None  # of the copy that is open: it goes on if its caller hangs up
        self._logs = LogsOfBackup(storage)
        self._checkpoint = b""
        self._stamp: Stamp | None = None
        self._done: dict[str, BackupFile] = {}  # databases that were read whole
        self._memory: dict[str, bytes] = {}  # of the log phase, beside the log files: the checkpoint file and the manifest
        self._read: set[str] = set()
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
                    begin = checkpoint.position
                    # Of a database that was detached since then a restore knows only that it is gone.
                    self._consistent = (log.end, self._storage.store.published)
                else:
                    self._stamp = self._last_backup()
                    self._logs.detached.update(self._stamp.detached)
                    begin = Position.at(self._stamp.next_generation, 0)
                if self.finished:  # meanwhile, by another call
                    raise JetError(Err.NoBackup, "the backup was ended while it began")
                self._logs.pin(begin)
            if not self.full and self._logs.low not in log.generations():
                raise JetError(Err.MissingFileToBackup, f"log generation {self._logs.low:X} is gone: make a full backup")
        except BaseException:
            await self.finish()
            raise

    def _last_backup(self) -> Stamp:
        stamp = load_stamp(self._storage.files)
        if stamp is None or not self._signatures().items() <= stamp.databases.items() or stamp.incarnation != self._storage.log.incarnation:
            raise JetError(Err.MissingFullBackup, "there was no full backup of every attached database yet")
        return stamp

    def _signatures(self) -> dict[str, str]:
        return {file.path: file.head.signature.hex() for file in self._storage.store.files.values()}

    async def finish(self) -> None:
        """The backup is over, well or not."""
        if self.finished:
            return
        self.finished = True
        if self.state is not State.STOPPED:
            self.state = State.NONE
        try:
            await self._close_opened()
            await asyncio.to_thread(self._clear_scratch)  # the next one begins with that too
        finally:
            self._logs.close()
            self.instance.backups -= 1

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
        async with self._turn:
            slot = next((s for s, p in self._storage.store.databases().items() if p.lower() == path.lower()), None)
            self.step(Call.OPEN_DATABASE if slot is not None else Call.OPEN_LOG)
            if self.opened is not None:
                raise JetError(Err.OutOfMemory, f"{self.opened.name} is open; one file at a time")
            if slot is not None:
                self.opened = await copy_database(self._storage.store.files[slot], self._scratch, f"{slot}.copy")
                if self.finished:  # meanwhile, by another call
                    await self._close_opened()
                    raise JetError(Err.NoBackup, "the backup was ended while the database was copied")
                # The copy may hold parts of any commit up to now: a restore cannot stop earlier.
                self._consistent = max(self._consistent, (self._storage.log.end, self._storage.store.published))
            elif path in self._memory:
                self.opened = open_in_memory(path, self._memory[path])
            elif path in self._logs.files:
                self.opened = await open_on_disk(self._storage.files, path)
            else:
                raise JetError(Err.MissingFileToBackup, f"{path} is no file of this backup", path=path)
            return self.opened

    async def read(self, handle: int, size: int, offset: int | None = None) -> bytes:
        """The next bytes; `offset` goes back to what was read before."""
        async with self._turn:
            self.step(Call.READ)
            opened = self._find(handle)
            opened.aim(size, offset)
            if not opened.checked:
                await self._check(opened)
            return await opened.read(size)

    async def _check(self, opened: OpenedFile) -> None:
        """A backup with damage in it must not push out a good one: the copy is read whole before it is handed out."""
        if self._checking is None:
            self._checking = asyncio.get_running_loop().create_task(check_copy(self._scratch, opened))
        try:
            self._done[opened.name] = await asyncio.shield(self._checking)
        except JetError:
            await self._close_opened()
            raise
        opened.checked = True

    async def close(self, handle: int) -> OpenedFile:
        async with self._turn:
            self.step(Call.CLOSE)
            opened = self._find(handle)
            await self._close_opened()
            return opened

    async def _close_opened(self) -> None:
        opened, self.opened = self.opened, None
        if opened is not None:
            if opened.ended:
                self._read.add(opened.name)
            opened.close()
        checking, self._checking = self._checking, None
        if checking is not None:  # the next copy has the name of this one
            await asyncio.gather(asyncio.shield(checking), return_exceptions=True)

    def _find(self, handle: int) -> OpenedFile:
        if self.opened is None or self.opened.handle != handle:
            raise JetError(Err.InvalidParameter, f"handle {handle} is not open")
        return self.opened

    # -- logs ---------------------------------------------------------------------------------------------------
    async def prepare_logs(self, call: Call) -> BackupManifest:
        """Rolls the log once; from here on only logs are read."""
        async with self._turn:
            self.step(call)
            if self.manifest is None:
                self._check_databases()
                moment = self._clock.now()  # of what was committed up to here nothing is missing
                await self._logs.roll(from_position=self.full)
                self._check_databases()  # one that was being made when the backup began may have come meanwhile
                self.manifest = self._describe(moment)
                self._memory[self.manifest.name] = self.manifest.encode()
            self.state = TABLE[self.state, call].after
            return self.manifest

    def _check_databases(self) -> None:
        """What is to be backed up has all that a restore will ask for."""
        missing = [name for name in self.attached() if name not in self._read] if self.full else []
        if missing:
            raise JetError(Err.InvalidBackupSequence, f"not read whole yet: {', '.join(missing)}")
        if not self.full and (strangers := self._logs.strangers()):
            raise JetError(Err.MissingFullBackup, f"not as the last full backup has it: {', '.join(strangers)}")

    def _describe(self, moment: float) -> BackupManifest:
        names, logs = self._storage.log.names, self._logs
        if self.full:
            self._memory[names.checkpoint] = self._checkpoint
        memory = [_described(path, content) for path, content in self._memory.items()]
        consistent, commit = self._consistent
        return BackupManifest(
            kind="full" if self.full else "incremental",
            instance=self.instance.name,
            time=moment,
            signature=self._storage.log.signature.hex(),
            incarnation=self._storage.log.incarnation,
            base_name=names.base,
            log_directory=names.directory,
            gen_low=logs.low,
            gen_high=logs.high,
            position=str(logs.begin),
            end=str(logs.end),
            consistent=str(consistent),
            consistent_commit=commit,
            databases=tuple(self.attached()),
            files=(*self._done.values(), *memory, *logs.files.values()),
            previous=self._stamp.digest if self._stamp else "",
        ).sealed()

    def log_files(self) -> list[str]:
        """In the order they are best read: the manifest last."""
        checkpoint = [name for name in self._memory if self.manifest is None or name != self.manifest.name]
        return [*checkpoint, *self._logs.files, *([self.manifest.name] if self.manifest else [])]

    def removable(self) -> list[str]:
        return self._logs.removable()

    async def truncate(self) -> list[int]:
        """Removes what neither recovery nor this backup's continuation needs; answers which."""
        async with self._turn:
            self.step(Call.TRUNCATE)
            unread = [name for name in self._logs.files if name not in self._read]
            if unread:
                raise JetError(Err.LogFileNotCopied, f"not read whole yet: {', '.join(unread)}")
            gone = await self._logs.truncate()
            self.state = TABLE[self.state, Call.TRUNCATE].after  # it may have been stopped meanwhile
            return gone

    async def stamp(self) -> None:
        """From here on an incremental backup continues this one."""
        assert self.manifest is not None
        manifest = self.manifest
        before = self._stamp
        databases = before.databases if before else self._signatures()
        detached = tuple(sorted(self._logs.detached)) if before else ()
        stamp = Stamp(manifest.gen_high + 1, manifest.time, databases, manifest.digest, manifest.incarnation, detached)

        def work() -> None:
            with self._storage.gate.permit("backup stamp"):
                save_stamp(self._storage.files, stamp)

        await asyncio.to_thread(work)

    def unread(self) -> list[str]:
        """What the caller has not fetched of what belongs to the backup."""
        return [name for name in (*self._logs.files, *self._memory) if name not in self._read]


def _described(path: str, content: bytes) -> BackupFile:
    return BackupFile(path, len(content), hashlib.sha256(content).hexdigest())
