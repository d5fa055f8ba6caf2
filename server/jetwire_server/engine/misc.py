"""Sizes, space and idle work of databases; what can be asked about a database."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from jetwire_protocol.data.flags import (
    DbInfo,
    DefragmentGrbit,
    IdleGrbit,
    OpenDatabaseGrbit,
    ResizeDatabaseGrbit,
)
from jetwire_protocol.data.parameters import Param
from jetwire_protocol.errors import Err, JetError, Wrn
from jetwire_server import limits
from jetwire_server.engine.catalog import check_name
from jetwire_server.engine.compact import Progress, copy_database
from jetwire_server.engine.database import Database, OpenDatabase, safe_path
from jetwire_server.engine.defragment import Defragmentation
from jetwire_server.engine.fileinfo import FORMAT_VERSION, UNAVAILABLE, database_misc
from jetwire_server.engine.info import InfoCalls
from jetwire_server.engine.zeroed import finish_zeroed

if TYPE_CHECKING:
    from jetwire_server.engine.instance import Instance

D = DefragmentGrbit
_IDLE_BITS = int(IdleGrbit.IdleCompact | IdleGrbit.IdleStatus | IdleGrbit.IdleFlushBuffers)
_DEFRAGMENT_BITS = int(
    D.DefragmentBatchStart | D.DefragmentBatchStop | D.DefragmentAvailSpaceTreesOnly | D.DefragmentBTree | D.DefragmentBTreeBatch
)
_DEFRAGMENT_VERBS = (D.DefragmentBatchStart, D.DefragmentBatchStop, D.DefragmentBTree, D.DefragmentBTreeBatch)
_PAGES_MAX = 0x7FFFFFFE
_PAGES_MIN = 256  # of SetDatabaseSize
_LCID_ENGLISH = 0x409


def _nobody(done: int, total: int) -> None:
    """Wants to know how far a copy is."""


def _pages(instance: Instance, size: int) -> int:
    return -(-size // instance.parameters.number(Param.DatabasePageSize))


def database_pages(instance: Instance, database: Database) -> int:
    """The database's size in the instance's pages: what its file holds, and what is reserved for it."""
    return _pages(instance, max(instance.store.database_bytes(database.slot), instance.store.space_bytes(database.slot)))


def _pages_free(instance: Instance, database: Database) -> int:
    return database_pages(instance, database) - _pages(instance, instance.store.database_bytes(database.slot))


_LEVELS: dict[int, Callable[[Instance, OpenDatabase], Any]] = {
    DbInfo.Filename: lambda instance, handle: handle.database.path,
    DbInfo.LCID: lambda instance, handle: _LCID_ENGLISH,
    DbInfo.Options: lambda instance, handle: int(OpenDatabaseGrbit.DbExclusive) if handle.database.exclusive else 0,
    DbInfo.Transactions: lambda instance, handle: limits.TRANSACTION_LEVELS_MAX,
    DbInfo.Version: lambda instance, handle: FORMAT_VERSION,
    DbInfo.Filesize: lambda instance, handle: database_pages(instance, handle.database),
    DbInfo.SpaceOwned: lambda instance, handle: database_pages(instance, handle.database),
    DbInfo.SpaceAvailable: lambda instance, handle: _pages_free(instance, handle.database),
    DbInfo.Misc: lambda instance, handle: database_misc(instance, handle.database),
    DbInfo.PageSize: lambda instance, handle: instance.parameters.number(Param.DatabasePageSize),
    DbInfo.FilesizeOnDisk: lambda instance, handle: database_pages(instance, handle.database),
}


class MiscCalls(InfoCalls):
    """A session's calls on space and idle work."""

    async def get_database_info(self, dbid: int, level: int = 0) -> Any:
        """The answer of a `DbInfo` level; sizes are pages here."""
        self.check()
        handle = self.database(dbid)
        if level in UNAVAILABLE:
            raise JetError(Err.FeatureNotAvailable, f"level {level}")
        answer = _LEVELS.get(level)
        if answer is None:
            raise JetError(Err.InvalidParameter, f"level {level}")
        return answer(self.instance, handle)

    # -- sizes ------------------------------------------------------------------------------------------------
    async def grow_database(self, dbid: int, pages: int) -> int:
        """Takes at least so many pages of the disk for the database; answers how many it has. DiskFull if there is no room."""
        return await self.resize_database(dbid, pages, int(ResizeDatabaseGrbit.ResizeDatabaseOnlyGrow))

    async def resize_database(self, dbid: int, pages: int, grbit: int = 0) -> int:
        """Takes more pages of the disk or gives some back, never those in use; answers how many there are."""
        self.check()
        if grbit & ~int(ResizeDatabaseGrbit.ResizeDatabaseOnlyGrow | ResizeDatabaseGrbit.ResizeDatabaseOnlyShrink):
            raise JetError(Err.InvalidGrbit)
        handle = self.database(dbid)
        if not 0 < pages <= _PAGES_MAX:
            raise JetError(Err.InvalidParameter, f"{pages} pages")
        self.check_writable(handle)
        database = handle.database
        now = database_pages(self.instance, database)
        forbidden = ResizeDatabaseGrbit.ResizeDatabaseOnlyGrow if pages < now else ResizeDatabaseGrbit.ResizeDatabaseOnlyShrink
        if not grbit & forbidden:
            await self._reserve(database, pages)
        return database_pages(self.instance, database)

    async def set_database_size(self, name: str, pages: int) -> int:
        """Takes at least so many pages of the disk for a database that is not attached; answers how many it has. It never shrinks."""
        self.check()
        path = safe_path(name)
        if not _PAGES_MIN <= pages <= _PAGES_MAX:
            raise JetError(Err.InvalidParameter, f"{pages} pages")
        return await self.instance.carry_through(self._set_size(path, pages))

    async def _set_size(self, path: str, pages: int) -> int:
        async with self.instance.changing_databases():
            if self._attached(path) is not None:
                raise JetError(Err.DatabaseInUse, path)
            slot = await self.instance.store.attach_database(path, borrowed=True)
            try:
                database = Database(slot, path)
                if pages > database_pages(self.instance, database):
                    await self._reserve(database, pages)
                return database_pages(self.instance, database)
            finally:
                await self.instance.store.detach_database(slot)

    async def _reserve(self, database: Database, pages: int) -> None:
        await self.instance.store.reserve_space(database.slot, pages * self.instance.parameters.number(Param.DatabasePageSize))

    # -- idle work ----------------------------------------------------------------------------------------------
    async def idle(self, grbit: int = 0) -> None:
        """Cleans up versions (IdleCompact); says how full their memory is (IdleStatus)."""
        self.check()
        if grbit & ~_IDLE_BITS:
            raise JetError(Err.InvalidParameter)
        if grbit & IdleGrbit.IdleFlushBuffers:
            raise JetError(Err.InvalidGrbit)
        await finish_zeroed(self)  # type: ignore[arg-type]  # every holder of these calls is a session
        if grbit & IdleGrbit.IdleCompact:
            await self.instance.store.checkpoint()
        if grbit & IdleGrbit.IdleStatus and self.instance.store.fullness() > limits.VERSION_FULLNESS_WARNED:
            self.warning = Wrn.IdleFull

    async def defragment(
        self, dbid: int, table_name: str | None = None, passes: int | None = None, seconds: int | None = None, grbit: int = 0
    ) -> tuple[int, int]:
        """Starts or stops giving back what deletions left (see `defragment`); answers the passes made and the seconds it took.

        Started, it goes on by itself until so many passes or seconds are over (None: until it is stopped).
        """
        self.check()
        handle = self.database(dbid)
        verbs = [verb for verb in _DEFRAGMENT_VERBS if grbit & verb]
        if grbit & ~_DEFRAGMENT_BITS or len(verbs) != 1:
            raise JetError(Err.InvalidGrbit)
        if (verbs[0] is D.DefragmentBTree) != (table_name is not None):
            raise JetError(Err.InvalidParameter, "a table's name goes with DefragmentBTree, and only with it")
        if handle.read_only:
            raise JetError(Err.DatabaseFileReadOnly)
        if self.read_only:
            raise JetError(Err.TransReadOnly)
        if table_name is not None:
            check_name(table_name, "table")
            async with self.operation(write=False) as txn:
                await handle.database.catalog.table(txn, table_name)
        database = handle.database
        running = database.defragmenting
        if verbs[0] is D.DefragmentBatchStop:
            if running is None:
                self.warning = Wrn.DefragNotRunning
                return 0, 0
            await running.stop()
            return running.passes, running.seconds
        if running is not None:
            self.warning = Wrn.DefragAlreadyRunning
            return 0, 0
        own = type(self)(self.instance, self.instance.engine.new_handle())
        most = passes if verbs[0] is D.DefragmentBatchStart else 1
        started = Defragmentation(own, database, most, seconds)  # type: ignore[arg-type]  # every holder of these calls is a session
        await started.start()
        return started.passes, started.seconds

    async def compact(self, source: str, destination: str, grbit: int = 0, progress: Progress = _nobody) -> None:
        """Copies a database, row by row in key order, into a new file without holes; online, as of one moment.

        It goes on when its caller is cancelled, and leaves no file when it fails.
        """
        self.check()
        if self.level:
            raise JetError(Err.InTransaction)
        paths = safe_path(source), safe_path(destination)
        told = progress
        try:
            await self.instance.carry_through(self._compact(*paths, grbit, lambda done, total: told(done, total)))
        finally:
            told = _nobody  # who has left is told nothing more

    async def _compact(self, source: str, destination: str, grbit: int, progress: Progress) -> None:
        self.instance.check_no_backup()
        async with self.instance.changing_databases():
            await copy_database(self.instance, source, destination, grbit, progress)
