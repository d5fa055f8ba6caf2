"""Sizes, space and idle work of databases; what can be asked about a database."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from jetwire_protocol.data.flags import (
    Cbtyp,
    DbInfo,
    Dbstate,
    DefragmentGrbit,
    Filetype,
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
_FORMAT_VERSION, _FORMAT_UPDATE = 0x620, 20  # of the databases whose behaviour is followed
_LCID_ENGLISH = 0x409
_UNAVAILABLE = frozenset({DbInfo.Connect, DbInfo.Country, DbInfo.Cp, DbInfo.Collate, DbInfo.Isam, DbInfo.Upgrade})


def database_pages(instance: Instance, database: Database) -> int:
    """The database's size in the instance's pages: what its file holds, or what was promised to it."""
    page = instance.parameters.number(Param.DatabasePageSize)
    return max(-(-instance.store.database_bytes(database.slot) // page), database.pages_promised)


def database_misc(instance: Instance, database: Database) -> dict[str, Any]:
    """JET_DBINFOMISC of an attached database: what this engine has of it."""
    return {
        "version": _FORMAT_VERSION,
        "update": _FORMAT_UPDATE,
        "dbstate": int(Dbstate.CleanShutdown if database.read_only else Dbstate.DirtyShutdown),
        "shadowingDisabled": True,
        "upgradeDb": False,
        "pageSize": instance.parameters.number(Param.DatabasePageSize),
        "repairCount": 0,
        "badChecksum": 0,
    }


_FILE_LEVELS: dict[int, Callable[[Instance, Database], Any]] = {
    DbInfo.Filesize: lambda instance, database: instance.store.database_bytes(database.slot),
    DbInfo.FilesizeOnDisk: lambda instance, database: instance.store.database_bytes(database.slot),
    DbInfo.Misc: database_misc,
    DbInfo.DBInUse: lambda instance, database: True,
    DbInfo.PageSize: lambda instance, database: instance.parameters.number(Param.DatabasePageSize),
    DbInfo.FileType: lambda instance, database: int(Filetype.Database),
}

_LEVELS: dict[int, Callable[[Instance, OpenDatabase], Any]] = {
    DbInfo.Filename: lambda instance, handle: handle.database.path,
    DbInfo.LCID: lambda instance, handle: _LCID_ENGLISH,
    DbInfo.Options: lambda instance, handle: int(OpenDatabaseGrbit.DbExclusive) if handle.database.exclusive else 0,
    DbInfo.Transactions: lambda instance, handle: limits.TRANSACTION_LEVELS_MAX,
    DbInfo.Version: lambda instance, handle: _FORMAT_VERSION,
    DbInfo.Filesize: lambda instance, handle: database_pages(instance, handle.database),
    DbInfo.SpaceOwned: lambda instance, handle: database_pages(instance, handle.database),
    DbInfo.SpaceAvailable: lambda instance, handle: max(
        0,
        handle.database.pages_promised
        - instance.store.database_bytes(handle.database.slot) // instance.parameters.number(Param.DatabasePageSize),
    ),
    DbInfo.Misc: lambda instance, handle: database_misc(instance, handle.database),
    DbInfo.PageSize: lambda instance, handle: instance.parameters.number(Param.DatabasePageSize),
    DbInfo.FilesizeOnDisk: lambda instance, handle: database_pages(instance, handle.database),
}


def database_file_info(instance: Instance, path: str, level: int) -> Any:
    """GetDatabaseFileInfo of an attached database; sizes are bytes here."""
    if level in _UNAVAILABLE:
        raise JetError(Err.FeatureNotAvailable, f"level {level}")
    answer = _FILE_LEVELS.get(level)
    if answer is None:
        raise JetError(Err.InvalidParameter, f"level {level}")
    wanted = safe_path(path)
    for database in instance.databases.values():
        if database.path == wanted:
            return answer(instance, database)
    raise JetError(Err.FileNotFound, path)


class MiscCalls(InfoCalls):
    """A session's calls on space and idle work."""

    async def get_database_info(self, dbid: int, level: int = 0) -> Any:
        """The answer of a `DbInfo` level; sizes are pages here."""
        self.check()
        handle = self.database(dbid)
        if level in _UNAVAILABLE:
            raise JetError(Err.FeatureNotAvailable, f"level {level}")
        answer = _LEVELS.get(level)
        if answer is None:
            raise JetError(Err.InvalidParameter, f"level {level}")
        return answer(self.instance, handle)

    # -- sizes ------------------------------------------------------------------------------------------------
    async def grow_database(self, dbid: int, pages: int) -> int:
        """At least so many pages; answers how many there are. Files grow by themselves: no space is taken now."""
        return await self.resize_database(dbid, pages, int(ResizeDatabaseGrbit.ResizeDatabaseOnlyGrow))

    async def resize_database(self, dbid: int, pages: int, grbit: int = 0) -> int:
        """More or fewer pages, never fewer than are in use; answers how many there are."""
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
            database.pages_promised = pages
        return database_pages(self.instance, database)

    async def set_database_size(self, name: str, pages: int) -> int:
        """The size of a database that nobody has open."""
        self.check()
        path = safe_path(name)
        if not 0 < pages <= _PAGES_MAX:
            raise JetError(Err.InvalidParameter, f"{pages} pages")
        async with self.instance.attaching:
            if self._attached(path) is not None:
                raise JetError(Err.DatabaseInUse, path)
            slot = await self.instance.store.attach_database(path)
            try:
                return max(pages, database_pages(self.instance, Database(slot, path)))
            finally:
                await self.instance.store.detach_database(slot)

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
        """Starts or stops giving back what deletions left; answers the passes made and the seconds it took.

        Space is given back as the checkpoint goes: a pass is one checkpoint.
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
        now = self.instance.clock.boot()
        state = handle.database.defragmenting
        if verbs[0] is D.DefragmentBatchStop:
            if state is None:
                self.warning = Wrn.DefragNotRunning
                return 0, 0
            handle.database.defragmenting = None
            handle.database.callbacks.tell_all(Cbtyp.OnlineDefragCompleted)
            return 1, int(now - state)
        if state is not None:
            self.warning = Wrn.DefragAlreadyRunning
            return 0, 0
        await self.instance.store.checkpoint()
        if verbs[0] is D.DefragmentBatchStart and (passes is None or passes > 1) and (seconds is None or seconds != 0):
            handle.database.defragmenting = now
        else:
            handle.database.callbacks.tell_all(Cbtyp.OnlineDefragCompleted)
        return 1, 0

    async def compact(self, source: str, destination: str, grbit: int = 0, progress: Progress = lambda done, total: None) -> None:
        """Copies a database, row by row in key order, into a new file without holes; online, as of one moment."""
        self.check()
        if self.level:
            raise JetError(Err.InTransaction)
        self.instance.check_no_backup()
        async with self.instance.attaching:
            await copy_database(self.instance, safe_path(source), safe_path(destination), grbit, progress)
