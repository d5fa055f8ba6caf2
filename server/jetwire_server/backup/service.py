"""The streaming backup calls by name, for the whole server: one backup an instance."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

from jetwire_protocol.data.flags import BackupGrbit, EndExternalBackupGrbit
from jetwire_protocol.errors import Err, JetError
from jetwire_server import limits
from jetwire_server.backup.external import ExternalRestore
from jetwire_server.backup.states import TABLE, Call, State
from jetwire_server.backup.streaming import Backup
from jetwire_server.clock import Clock
from jetwire_server.engine.instance import Instance
from jetwire_server.engine.instance import State as Life
from jetwire_server.store.embedded.assemble import Storage

T = TypeVar("T")
log = logging.getLogger(__name__)

_END_BITS = int(
    EndExternalBackupGrbit.BackupEndNormal
    | EndExternalBackupGrbit.BackupEndAbort
    | EndExternalBackupGrbit.BackupTruncateDone
    | EndExternalBackupGrbit.BackupNoDbHeaderUpdate
)


class BackupService:
    """`storage_of` answers what an initialised instance stands on."""

    def __init__(self, clock: Clock, storage_of: Callable[[Instance], Storage], external: ExternalRestore) -> None:
        self._clock = clock
        self.storage_of = storage_of
        self.external = external
        self._running: dict[int, Backup] = {}
        self._known: set[int] = set()  # handles of instances that tell of their end
        self._watcher: asyncio.Task[None] | None = None

    # -- the calls ----------------------------------------------------------------------------------------------
    async def begin(self, instance: Instance, grbit: int = 0, owner: object | None = None) -> Backup:
        if grbit & ~int(BackupGrbit.BackupIncremental):
            raise JetError(Err.InvalidGrbit)
        self.check_may_begin(instance)
        full = not grbit
        storage = self.storage_of(instance)
        if not full and storage.store.circular:
            raise JetError(Err.InvalidBackup, "an incremental backup needs logs that circular logging removes")
        await self.look()
        instance.check_no_backup()
        backup = Backup(instance, storage, self._clock, full=full, owner=owner)
        self._running[instance.handle] = backup
        if instance.handle not in self._known:
            self._known.add(instance.handle)
            instance.before_end.append(partial(self._ended, instance))
        try:
            await backup.begin()
        except BaseException:
            self._forget(backup)
            raise
        self._watch()
        instance.emit(210 if full else 211)
        return backup

    def check_may_begin(self, instance: Instance) -> None:
        if instance.state is Life.INITIALISING:
            raise JetError(Err.BackupNotAllowedYet, f"{instance.name} is starting")
        instance.check_serving()

    def find(self, instance: Instance) -> Backup:
        """The instance's backup, or NoBackup."""
        instance.check_serving()
        backup = self._running.get(instance.handle)
        if backup is None:
            raise JetError(Err.NoBackup)
        return backup

    def get_attach_info(self, instance: Instance) -> list[str]:
        backup = self.find(instance)
        backup.step(Call.GET_ATTACH_INFO)
        return backup.attached()

    async def open(self, instance: Instance, name: str) -> tuple[int, int]:
        """The file's handle and size."""
        backup = self.find(instance)
        if not name:
            raise JetError(Err.InvalidParameter, "a file must be named")
        parts = name.replace("\\", "/").split("/")
        if ".." in parts or "\0" in name or not parts[0]:
            raise JetError(Err.InvalidPath, f"{name!r} leaves the instance's directory")
        opened = await self._or_cancel(backup, backup.open(name), spared=Err.MissingFileToBackup)
        instance.emit(220, file=opened.name, size=opened.size)
        return opened.handle, opened.size

    async def read(self, instance: Instance, handle: int, size: int, offset: int | None = None) -> bytes:
        backup = self.find(instance)
        try:
            return await self._or_cancel(backup, backup.read(handle, size, offset), spared=Err.ReadVerifyFailure)
        except JetError as error:
            if error.code in (Err.ReadVerifyFailure, Err.DiskIO):
                instance.emit(218, error=error.code)
            raise

    async def close(self, instance: Instance, handle: int) -> None:
        opened = await self.find(instance).close(handle)
        instance.emit(221 if opened.ended else 222, file=opened.name)

    async def get_log_info(self, instance: Instance) -> tuple[list[str], int, int, str]:
        """The files of the log phase, and the generations among them."""
        backup = self.find(instance)
        manifest = await self._or_cancel(backup, backup.prepare_logs(Call.GET_LOG_INFO))
        instance.emit(223, firstLog=manifest.gen_low, lastLog=manifest.gen_high)
        return backup.log_files(), manifest.gen_low, manifest.gen_high, manifest.base_name

    async def get_truncate_log_info(self, instance: Instance) -> list[str]:
        backup = self.find(instance)
        await self._or_cancel(backup, backup.prepare_logs(Call.GET_TRUNCATE_LOG_INFO))
        return backup.removable()

    async def truncate(self, instance: Instance) -> None:
        backup = self.find(instance)
        with backup.at_work():
            gone = await backup.truncate()
        if gone:
            instance.emit(224, firstLog=gone[0], lastLog=gone[-1])
        else:
            instance.emit(225)

    async def end(self, instance: Instance, grbit: int = 0) -> None:
        """Ends the backup in any case; an error says that what was read is no backup."""
        if grbit & ~_END_BITS:
            raise JetError(Err.InvalidGrbit)
        aborts = bool(grbit & EndExternalBackupGrbit.BackupEndAbort)
        if aborts and grbit & EndExternalBackupGrbit.BackupEndNormal:
            raise JetError(Err.InvalidParameter, "either normal or abort")
        backup = self.find(instance)
        error = None if aborts else TABLE[backup.state, Call.END].error
        if not aborts and error is None and backup.unread():
            error = Err.BackupAbortByCaller
        truncated = backup.state is State.TRUNCATED or bool(grbit & EndExternalBackupGrbit.BackupTruncateDone)
        try:
            if error is None and not aborts and truncated and not grbit & EndExternalBackupGrbit.BackupNoDbHeaderUpdate:
                await backup.stamp()
        finally:
            self._forget(backup)
            told = backup.finished  # when it was given up because its caller was silent
            await asyncio.shield(backup.finish())
        if error is not None:
            if not told:
                instance.emit(226 if error == Err.BackupAbortByServer else 215)
            raise JetError(error, "the backup ended before everything was read")
        instance.emit(215 if aborts else 213)

    def stop(self, instance: Instance) -> None:
        """Further calls of the backup fail, but for closing and ending."""
        backup = self._running.get(instance.handle)
        if backup is not None:
            backup.state = State.STOPPED

    async def connection_closed(self, owner: object) -> None:
        """Its backups are aborted with it."""
        for backup in list(self._running.values()):
            if backup.owner is owner:
                self._forget(backup)
                await backup.finish()
                backup.instance.emit(215)

    # -- within -------------------------------------------------------------------------------------------------
    def _forget(self, backup: Backup) -> None:
        """Not the next one, which may have begun while this one's last calls were on their way."""
        if self._running.get(backup.instance.handle) is backup:
            del self._running[backup.instance.handle]

    async def _ended(self, instance: Instance) -> None:
        """The instance ends: what the backup holds of it is given back."""
        self._known.discard(instance.handle)
        backup = self._running.pop(instance.handle, None)
        if backup is not None and not backup.finished:
            await backup.finish()
            instance.emit(226)

    def _watch(self) -> None:
        if self._watcher is None or self._watcher.done():
            self._watcher = asyncio.get_running_loop().create_task(self._look_forever(), name="backup watcher")

    async def _look_forever(self) -> None:
        while any(not backup.finished for backup in self._running.values()):
            await asyncio.sleep(limits.BACKUP_LOOK_SECONDS)
            await self.look()

    async def look(self) -> None:
        """Gives up backups whose callers are silent; if one comes back, it is told `JET_errBackupAbortByServer`."""
        for backup in list(self._running.values()):
            if backup.silent and not backup.finished:
                backup.state = State.STOPPED
                try:
                    await backup.finish()
                except JetError as error:  # its files cannot be removed, say: the others' silence counts all the same
                    log.error("a backup of %s that was given up: %s", backup.instance.name, error)
                backup.instance.emit(226)

    async def _or_cancel(self, backup: Backup, work: Awaitable[T], spared: Err | None = None) -> T:
        """A failure ends the whole backup, as the documentation has it; a call out of order does not."""
        try:
            with backup.at_work():
                return await work
        except JetError as error:
            harmless = (Err.InvalidBackupSequence, Err.BackupAbortByServer, Err.InvalidParameter, Err.OutOfMemory, spared)
            if error.code not in harmless and not backup.finished:
                self._forget(backup)
                await backup.finish()
                backup.instance.emit(214, error=error.code)
            raise
