"""Databases: attached to an instance, opened by sessions; and who has which table open."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from jetwire_protocol.data.flags import (
    AttachDatabaseGrbit,
    CreateDatabaseGrbit,
    DetachDatabaseGrbit,
    OpenDatabaseGrbit,
    OpenTableGrbit,
)
from jetwire_protocol.data.parameters import Param
from jetwire_protocol.errors import Err, JetError, Wrn
from jetwire_server import limits
from jetwire_server.engine.autoincrement import Counters
from jetwire_server.engine.callbacks import Callbacks
from jetwire_server.engine.catalog import Catalog, fold
from jetwire_server.engine.milestones import MilestoneBook
from jetwire_server.engine.transaction import TransactionLevels

if TYPE_CHECKING:
    from jetwire_server.engine.cursor import Cursor
    from jetwire_server.engine.defragment import Defragmentation
    from jetwire_server.engine.instance import Instance

_CREATE_BITS = int(
    CreateDatabaseGrbit.DbRecoveryOff
    | CreateDatabaseGrbit.DbVersioningOff
    | CreateDatabaseGrbit.DbShadowingOff
    | CreateDatabaseGrbit.DbOverwriteExisting
)
_ATTACH_BITS = int(
    AttachDatabaseGrbit.DbReadOnly
    | AttachDatabaseGrbit.DbDeleteCorruptIndexes
    | AttachDatabaseGrbit.DbRebuildCorruptIndexes
    | AttachDatabaseGrbit.DbDeleteUnicodeIndexes
    | AttachDatabaseGrbit.DbUpgrade
    | AttachDatabaseGrbit.DbEnableBackgroundMaintenance
    | AttachDatabaseGrbit.DbPurgeCacheOnAttach
)
_OPEN_BITS = int(AttachDatabaseGrbit.DbReadOnly | OpenDatabaseGrbit.DbExclusive)
_DETACH_BITS = int(DetachDatabaseGrbit.ForceDetach | DetachDatabaseGrbit.ForceCloseAndDetach)
_PAGES_MAX = 0x7FFFFFFE


@dataclass(slots=True)
class TableUse:
    """The cursors that have one table open, in all sessions."""

    cursors: list[Cursor] = field(default_factory=list)

    def check(self, session: object, grbit: int) -> None:
        """May this session open the table so? Its own cursors never stand in its way."""
        others = [c for c in self.cursors if c.session is not session]
        if not others:
            return
        if any(c.grbit & OpenTableGrbit.TableDenyRead for c in others):
            raise JetError(Err.TableLocked, "another session denies reading")
        read_only = grbit & OpenTableGrbit.TableReadOnly
        if not read_only and any(c.grbit & OpenTableGrbit.TableDenyWrite for c in others):
            raise JetError(Err.TableLocked, "another session denies writing")
        if grbit & OpenTableGrbit.TableDenyRead:
            raise JetError(Err.TableInUse, "another session has the table open")
        if grbit & OpenTableGrbit.TableDenyWrite and any(not c.grbit & OpenTableGrbit.TableReadOnly for c in others):
            raise JetError(Err.TableInUse, "another session has the table open for writing")


class Database:
    """An attached database."""

    def __init__(self, slot: int, path: str, *, read_only: bool = False) -> None:
        self.slot = slot
        self.path = path
        self.read_only = read_only
        self.catalog = Catalog(slot)
        self.callbacks = Callbacks()
        self.milestones = MilestoneBook()
        self.opens = 0
        self.opened_by: dict[object, int] = {}  # sessions, and how often each has it open
        self.exclusive: object | None = None  # the session that has it to itself
        self.defragmenting: Defragmentation | None = None
        self.uses: dict[int, TableUse] = {}  # by object id
        self._counters: Counters | None = None

    def counters(self, instance: Instance) -> Counters:
        """The numbers its tables give away."""
        if self._counters is None:
            self._counters = Counters(instance, self.catalog.tree)
        return self._counters

    def use(self, objid: int) -> TableUse:
        found = self.uses.get(objid)
        if found is None:
            found = self.uses[objid] = TableUse()
        return found

    def release(self, cursor: Cursor) -> None:
        use = self.uses.get(cursor.table.objid)
        if use is not None and cursor in use.cursors:
            use.cursors.remove(cursor)
            if not use.cursors:
                del self.uses[cursor.table.objid]


@dataclass(frozen=True, slots=True)
class OpenDatabase:
    """A session's handle on a database."""

    dbid: int
    database: Database
    read_only: bool


# What else stands in an instance's directory: the log and its checkpoint, notes, and what is emptied at the next start.
_ITS_OWN = re.compile(
    r"(scratch|restore\.(staging|work))(/.*)?"
    r"|(.*/)?([A-Za-z0-9]{3}(\.chk|\.log|tmp\.log|[0-9A-F]{8}\.log)|running|snapshot\.(marker|stamp)|backup\.stamp|restore\.(swap|unfinished))(\.new)?"
    r"|.*-lock",
    re.IGNORECASE | re.DOTALL,
)


def safe_path(path: str | None, *, any_file: bool = False) -> str:
    """A database's name inside the instance's directory (or any file's, for who only looks), or DatabaseInvalidPath."""
    if not path or "\0" in path or len(path.encode()) > limits.PATH_BYTES_MAX:
        what = f"a path has no NUL, and at most {limits.PATH_BYTES_MAX} bytes" if path else "a path is needed"
        raise JetError(Err.DatabaseInvalidPath, what)
    parts = path.replace("\\", "/").split("/")
    if parts[0] == "" or ":" in parts[0] or ".." in parts or parts[-1] in ("", "."):
        raise JetError(Err.DatabaseInvalidPath, f"{path!r} leaves the instance's directory")
    name = "/".join(p for p in parts if p not in ("", "."))
    if not any_file and _ITS_OWN.fullmatch(name):
        raise JetError(Err.DatabaseInvalidPath, f"{path!r} is a file of the instance's own, or would be taken for one")
    return name


class DatabaseCalls(TransactionLevels):
    """A session's calls on databases."""

    opened: dict[int, OpenDatabase]
    warning: int

    def database(self, dbid: int) -> OpenDatabase:
        found = self.opened.get(dbid)
        if found is None:
            raise JetError(Err.InvalidDatabaseId, f"dbid {dbid}")
        return found

    def _attached(self, path: str) -> Database | None:
        return next((d for d in self.instance.databases.values() if fold(d.path) == fold(path)), None)

    async def create_database(self, name: str, grbit: int = 0, max_pages: int = 0) -> int:
        """Creates, attaches and opens a database; answers its dbid."""
        self.check()
        if grbit & ~_CREATE_BITS:
            raise JetError(Err.InvalidGrbit)
        path = safe_path(name)
        if not 0 <= max_pages <= _PAGES_MAX:
            raise JetError(Err.DatabaseInvalidPages)
        self._outside_transaction()
        self._one_database()
        database = await self.instance.carry_through(self._create(path, overwrite=bool(grbit & CreateDatabaseGrbit.DbOverwriteExisting)))
        if self.instance.databases.get(database.slot) is not database:
            raise JetError(Err.DatabaseNotFound, f"{path} was made, and detached by another session")
        return self._open(database, read_only=False)

    async def _create(self, path: str, *, overwrite: bool) -> Database:
        instance = self.instance
        async with instance.changing_databases():
            instance.check_no_backup()
            if self._attached(path) is not None:
                raise JetError(Err.DatabaseInUse if overwrite else Err.DatabaseDuplicate, path)
            self._room_for_database()
            slot = await instance.store.create_database(path, overwrite=overwrite)
            database = instance.databases[slot] = Database(slot, path)
            return database

    async def attach_database(self, name: str, grbit: int = 0, max_pages: int = 0) -> None:
        """Attaches a database to the instance; the warning DatabaseAttached if it was."""
        self.check()
        if grbit & ~_ATTACH_BITS:
            raise JetError(Err.InvalidGrbit)
        path = safe_path(name)
        if self.level:
            raise JetError(Err.InTransaction)
        self.warning = await self.instance.carry_through(self._attach(path, read_only=bool(grbit & AttachDatabaseGrbit.DbReadOnly)))

    async def _attach(self, path: str, *, read_only: bool) -> int:
        """A warning, or 0."""
        instance = self.instance
        async with instance.changing_databases():
            instance.check_no_backup()
            known = self._attached(path)
            if known is not None:
                if known.exclusive not in (None, self):
                    raise JetError(Err.DatabaseSharingViolation, path)
                return Wrn.DatabaseAttached
            self._room_for_database()
            slot = await instance.store.attach_database(path, read_only=read_only)
            instance.databases[slot] = Database(slot, path, read_only=read_only)
            return 0

    async def detach_database(self, name: str | None = None, grbit: int = 0) -> None:
        """Detaches one database, or all when no name is given. Also after StopService."""
        if self.refusal is not None and self.refusal != Err.ClientRequestToStopJetService:
            raise JetError(self.refusal)
        if grbit & ~_DETACH_BITS:
            raise JetError(Err.InvalidGrbit)
        if grbit:
            raise JetError(Err.ForceDetachNotAllowed)
        if self.level:
            raise JetError(Err.InTransaction)
        await self.instance.carry_through(self._detach(name))

    async def _detach(self, name: str | None) -> None:
        async with self.instance.changing_databases():
            self.instance.check_no_backup()
            if name:
                known = self._attached(safe_path(name))
                if known is None:
                    raise JetError(Err.DatabaseNotFound, name)
                victims = [known]
            else:
                victims = list(self.instance.databases.values())
            for database in victims:
                if database.opens:
                    raise JetError(Err.DatabaseInUse, database.path)
            await self._let_go(victims)

    async def _let_go(self, victims: list[Database]) -> None:
        """Nobody opens any of them from here on: a session that did would write to whatever comes into its slot next."""
        instance = self.instance
        staying = {database.slot: database for database in victims}
        for slot in staying:
            del instance.databases[slot]
        try:
            for database in victims:
                if database.defragmenting is not None:
                    await database.defragmenting.stop()
                await instance.store.detach_database(database.slot)
                del staying[database.slot]
        finally:
            instance.databases.update(staying)

    async def open_database(self, name: str, grbit: int = 0) -> int:
        """Opens an attached database; answers its dbid."""
        self.check()
        if grbit & ~_OPEN_BITS:
            raise JetError(Err.InvalidGrbit)
        database = self._attached(safe_path(name))
        if database is None:
            raise JetError(Err.DatabaseNotFound, name)
        self._one_database(database)
        if database.exclusive not in (None, self):
            raise JetError(Err.DatabaseLocked, name)
        if grbit & OpenDatabaseGrbit.DbExclusive:
            if any(other is not self for other in database.opened_by):
                raise JetError(Err.DatabaseInUse, name)
            database.exclusive = self
        read_only = bool(grbit & AttachDatabaseGrbit.DbReadOnly)
        if database.read_only and not read_only:
            self.warning = Wrn.FileOpenReadOnly
        return self._open(database, read_only=read_only or database.read_only)

    async def close_database(self, dbid: int, grbit: int = 0) -> None:
        """Closes a dbid and the cursors opened through it. Also after StopService."""
        if self.refusal is not None and self.refusal != Err.ClientRequestToStopJetService:
            raise JetError(self.refusal)
        if grbit:
            raise JetError(Err.InvalidGrbit)
        self._close(self.database(dbid))

    # -- inside -----------------------------------------------------------------------------------------------
    def _open(self, database: Database, *, read_only: bool) -> int:
        handle = OpenDatabase(self.instance.engine.new_handle(), database, read_only)
        self.opened[handle.dbid] = handle
        database.opens += 1
        database.opened_by[self] = database.opened_by.get(self, 0) + 1
        return handle.dbid

    def _close(self, handle: OpenDatabase) -> None:
        for cursor in [c for c in self.cursors.values() if c.dbid == handle.dbid]:
            cursor.close()
        del self.opened[handle.dbid]
        database = handle.database

        def released(committed: bool) -> None:
            database.opens -= 1
            database.opened_by[self] -= 1
            if not database.opened_by[self]:
                del database.opened_by[self]
                if database.exclusive is self:
                    database.exclusive = None

        if self.level:
            self.at_end.append(released)  # what the transaction wrote there must find the database attached when it commits
        else:
            released(True)

    def _room_for_database(self) -> None:
        if len(self.instance.databases) >= limits.DATABASES_PER_INSTANCE_MAX:
            raise JetError(Err.TooManyAttachedDatabases)
        self.instance.engine.check_files(limits.FILES_OF_A_DATABASE)

    def _outside_transaction(self) -> None:
        if self.level:
            raise JetError(Err.InTransaction)

    def _one_database(self, wanted: Database | None = None) -> None:
        if self.instance.parameters.get(Param.OneDatabasePerSession) and any(o.database is not wanted for o in self.opened.values()):
            raise JetError(Err.OneDatabasePerSession)
