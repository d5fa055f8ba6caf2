"""Temporary tables: rows that one session collects, in the order of their key columns.

Without TTUpdatable or TTForceMaterialization they are sorts: the first Move or Seek ends the inserting, and what was inserted stays
whatever becomes of the transaction. With them a rollback undoes what its level changed, as in any table; cursors on those (and on
all that can be read in more than one direction) can be duplicated. With TTUnique, records of equal keys are one; which of them stays
is not defined. Defaults, auto-increment and multi-values are ignored.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from jetwire_protocol.data.flags import AddColumnGrbit, CreateIndexGrbit, OpenTempTableGrbit, Prep, TblInfo
from jetwire_protocol.data.parameters import Param
from jetwire_protocol.errors import Err, JetError
from jetwire_server import limits
from jetwire_server.engine.bits import all_bits
from jetwire_server.engine.callbacks import Callbacks
from jetwire_server.engine.catalog import Stats
from jetwire_server.engine.columns import ColumnCreate, with_column
from jetwire_server.engine.cursor import Cursor
from jetwire_server.engine.indexing import resolved
from jetwire_server.engine.milestones import MilestoneBook
from jetwire_server.engine.place import BEFORE, FRESH
from jetwire_server.engine.preparing import MOVES, CopyBuffer
from jetwire_server.engine.schema import Index, Segment, Table
from jetwire_server.engine.setting import SetInfo
from jetwire_server.engine.sorts import Scratch
from jetwire_server.engine.values import ColumnPlan
from jetwire_server.store.interface import Transaction, Tree, UnpublishedTree, tree_id

if TYPE_CHECKING:
    from jetwire_server.engine.session import Session

T = OpenTempTableGrbit
_BITS = all_bits(T)
_KEY, _DESCENDING = int(AddColumnGrbit.ColumnTTKey), int(AddColumnGrbit.ColumnTTDescending)
_KEPT = int(AddColumnGrbit.ColumnFixed | AddColumnGrbit.ColumnTagged | AddColumnGrbit.ColumnVariable)
_KNOWN_COLUMN_BITS = all_bits(AddColumnGrbit)
_MATERIALIZED = int(T.TTIndexed | T.TTUpdatable | T.TTScrollable | T.TTForceMaterialization)
_INSERTS_LATER = int(T.TTUpdatable | T.TTForceMaterialization)
_SCRATCH_SLOT = 0xFFFF
_ROWS, _LONG, _INDEX = (tree_id(_SCRATCH_SLOT, n) for n in (1, 2, 3))

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class TempTableCreate:
    """JET_OPENTEMPORARYTABLE."""

    columns: tuple[ColumnCreate, ...]
    grbit: int = 0
    locale: str = "en-US"
    lcmap_flags: int = 0x00030401
    key_most: int = 0
    var_seg_mac: int = 0


class _Numbers:
    """Numbers nobody else takes: see `autoincrement.Counters`."""

    def __init__(self) -> None:
        self._next = 0

    def ready(self, objid: int, kind: bytes) -> int | None:
        self._next += 1
        return self._next


class _Catalog:
    """A catalog of one table that never changes."""

    stamp = newest = 0

    def __init__(self, table: Table) -> None:
        self._table = table

    def fresh(self, snapshot: int) -> int:
        return 0

    async def by_objid(self, txn: Transaction, objid: int) -> Table:
        return self._table

    async def stats(self, txn: Transaction, objid: int) -> Stats:
        return Stats()


class _TemporaryDatabase:
    """What a cursor asks of its database, for one temporary table."""

    slot = _SCRATCH_SLOT
    read_only = False

    def __init__(self, session: Session, table: Table, storage: Scratch) -> None:
        self.catalog = _Catalog(table)
        self.callbacks = Callbacks()
        self.milestones = MilestoneBook()
        self._numbers = _Numbers()
        self._session = session
        self.storage = storage
        self.cursors = 0
        self.read = False  # the inserting is over

    def counters(self, instance: object) -> _Numbers:
        return self._numbers

    def release(self, cursor: Cursor) -> None:
        self.cursors -= 1
        if not self.cursors:
            self._session.instance.unused_scratch.append(self.storage)


@dataclass(frozen=True, slots=True)
class _Handle:
    dbid: int
    database: Any


class _ScratchStore:
    """Gives drafts of long values their space."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def new_unpublished(self, slot: int) -> UnpublishedTree:
        return await self._session.instance.store.new_scratch()


class TempCursor(Cursor):
    """A cursor of a temporary table: the first, or one that was duplicated from another."""

    stored = False

    def __init__(self, session: Session, table: Table, tableid: int, tt: int, of: _TemporaryDatabase | None = None) -> None:
        database = of or _TemporaryDatabase(session, table, Scratch(session.instance.store))
        database.cursors += 1
        self.temporary = database
        self.storage = database.storage
        self.tt = tt
        super().__init__(session, _Handle(0, database), table, tableid, 0)  # type: ignore[arg-type]
        self.stamp = 0
        if self.plan.secondary:
            self._on_index(self.plan.secondary[0])
        self.state = BEFORE if of is None else FRESH
        self.store = _ScratchStore(session)

    # -- a call's way to the rows -----------------------------------------------------------------------------------
    async def _read(self, work: Callable[Concatenate[Transaction, P], Awaitable[R]], *args: P.args, **kwargs: P.kwargs) -> R:
        self.session.check()
        storage: Any = self.storage
        return await work(storage, *args, **kwargs)

    async def _write(self, work: Callable[Concatenate[Transaction, P], Awaitable[R]], *args: P.args, **kwargs: P.kwargs) -> R:
        self.session.check()
        self.session.writes += 1
        storage: Any = self.storage
        if self.session.level and self.tt & _INSERTS_LATER:
            storage.in_level(self.session.level)
        mark = storage.savepoint()
        try:
            result = await work(storage, *args, **kwargs)
        except BaseException:
            storage.rollback_to(mark)
            self.session.writes += 1
            raise
        await self.storage.spill()
        return result

    def check_updatable(self) -> None:
        return None

    def level_committed(self, level: int) -> None:
        super().level_committed(level)
        self.storage.level_committed(level)

    def rolled_back(self, level: int) -> None:
        if not self.tt & _MATERIALIZED:
            self.moved_in = 0  # a sort keeps its place as it keeps its rows
        super().rolled_back(level)
        self.storage.level_rolled_back(level)

    @property
    def last_on_table(self) -> bool:
        return self.temporary.cursors == 1

    # -- what sorts do not do ---------------------------------------------------------------------------------------
    def _start_reading(self, *, forward: bool) -> None:
        if not forward and (self.tt & T.TTForwardOnly or not self.tt & _MATERIALIZED):
            raise JetError(Err.IllegalOperation, "a sort is read forward only")
        if not self.temporary.read:
            self.temporary.read = True
            if self.state == FRESH:
                self.state = BEFORE

    async def move(self, rows: int, grbit: int = 0) -> None:
        self.session.check()
        self._start_reading(forward=(rows >= 0 and rows != (1 << 31) - 1) or rows == -(1 << 31))
        await super().move(rows, grbit)

    async def seek(self, grbit: int) -> None:
        self.session.check()
        if not self.tt & T.TTIndexed:
            raise JetError(Err.IllegalOperation, "Seek needs TTIndexed")
        self._start_reading(forward=True)
        await super().seek(grbit)

    async def prepare_update(self, prep: int) -> None:
        if prep == Prep.Insert:
            if self.temporary.read and not self.tt & _INSERTS_LATER:
                raise JetError(Err.IllegalOperation, "the first Move or Seek ended the inserting")
        elif prep != Prep.Cancel and not self.tt & T.TTUpdatable:
            raise JetError(Err.IllegalOperation, "changing records needs TTUpdatable")
        await super().prepare_update(prep)

    async def delete(self) -> None:
        if not self.tt & T.TTUpdatable:
            raise JetError(Err.IllegalOperation, "deleting records needs TTUpdatable")
        await super().delete()

    def _check_set_grbit(self, plan: ColumnPlan, grbit: int, info: SetInfo) -> None:
        super()._check_set_grbit(plan, grbit, info)
        if info.itag > 1:
            raise JetError(Err.BadItagSequence, "a temporary table's columns have one value", column=plan.column.name)

    async def set_current_index(self, name: str | None = None, grbit: int = 0, itag: int = 1, indexid: bytes | None = None) -> None:
        raise JetError(Err.IllegalOperation, "a temporary table has one index")

    async def dup_cursor(self, grbit: int = 0) -> Cursor:
        if grbit:
            raise JetError(Err.InvalidGrbit)
        self.session.check()
        if not self.tt & _MATERIALIZED:
            raise JetError(Err.IllegalOperation, "a sort has one cursor")
        _room_for_cursor(self.session)
        return _entered(TempCursor(self.session, self.table, self.session.instance.engine.new_handle(), self.tt, self.temporary))

    def get_current_index(self) -> str:
        self.session.check()
        return ""

    def check_table_info(self, level: int) -> None:
        """No catalog knows a temporary table; a sort has no more to tell than that it is one."""
        if level != TblInfo.Default:
            raise JetError(Err.InvalidOperation, f"level {level} of a temporary table")
        if self.tt & _MATERIALIZED:
            raise JetError(Err.ObjectNotFound, "a temporary table")

    async def _insert(self, txn: Transaction, buffer: CopyBuffer) -> bytes:
        rows = self.plan.rows
        if rows.maker is not None:
            values: Mapping[int, Any] = {c: buffer.get(c, {}) for c in rows.columns}
            if self.plan.has_long:
                values = await resolved(txn, self.table, rows, values)
            key = rows.key_in(values)
            original = buffer.prep in MOVES and key == buffer.bookmark  # which makes room for its copy
            if not original and await txn.get(rows.tree, key) is not None:  # what was spilled, too
                if self.tt & T.TTErrorOnDuplicateInsertion:
                    raise JetError(Err.KeyDuplicate)
                self._let_drafts_go(buffer)
                return key
        return await super()._insert(txn, buffer)


async def open_temp_table(session: Session, create: TempTableCreate) -> tuple[TempCursor, list[int]]:
    """A temporary table, and the ids of its columns in order."""
    session.check()
    tt = create.grbit
    if tt & ~_BITS:
        raise JetError(Err.InvalidGrbit)
    if tt & T.TTForwardOnly and tt & _MATERIALIZED:
        raise JetError(Err.CannotMaterializeForwardOnlySort)
    await _free_unused(session)
    parameters = session.instance.parameters
    if len({c.storage for c in session.instance.cursors.values() if isinstance(c, TempCursor)}) >= parameters.number(
        Param.MaxTemporaryTables
    ):
        raise JetError(Err.TooManySorts)
    _room_for_cursor(session)
    table, columnids = _table(create)
    return _entered(TempCursor(session, table, session.instance.engine.new_handle(), tt)), columnids


def _room_for_cursor(session: Session) -> None:
    if len(session.instance.cursors) >= session.instance.parameters.number(Param.MaxCursors):
        raise JetError(Err.OutOfCursors)


def _entered(cursor: TempCursor) -> TempCursor:
    cursor.session.cursors[cursor.id] = cursor
    cursor.session.instance.cursors[cursor.id] = cursor
    return cursor


def _table(create: TempTableCreate) -> tuple[Table, list[int]]:
    if create.key_most and not limits.KEY_BYTES_DEFAULT <= create.key_most <= limits.KEY_BYTES_MAX:
        raise JetError(Err.InvalidParameter, f"keyMost {create.key_most}")
    if not 0 <= create.var_seg_mac <= (create.key_most or limits.KEY_BYTES_DEFAULT):
        raise JetError(Err.InvalidParameter, f"varSegMac {create.var_seg_mac}")
    table = Table("", 0, _ROWS, _LONG)
    columnids: list[int] = []
    segments: list[Segment] = []
    for number, given in enumerate(create.columns):
        if given.grbit & ~_KNOWN_COLUMN_BITS:
            raise JetError(Err.InvalidGrbit)
        plain = ColumnCreate(f"c{number}", given.coltyp, given.max, given.grbit & _KEPT, None, given.cp)
        table, column, _ = with_column(table, plain, exclusive=True)
        columnids.append(column.id)
        if given.grbit & _KEY:
            segments.append(Segment(column.id, bool(given.grbit & _DESCENDING)))
    if len(segments) > limits.INDEX_SEGMENTS_MAX:
        raise JetError(Err.IndexInvalidDef, f"{len(segments)} key columns")
    if not segments:
        return table, columnids
    unique = bool(create.grbit & T.TTUnique)
    bits = CreateIndexGrbit.IndexPrimary if unique else CreateIndexGrbit(0)
    if create.grbit & T.TTSortNullsHigh:
        bits |= CreateIndexGrbit.IndexSortNullsHigh
    if create.grbit & T.TTDotNetGuid:
        bits |= CreateIndexGrbit.IndexDotNetGuid
    key_most = create.key_most or limits.KEY_BYTES_DEFAULT
    tree: Tree = _ROWS if unique else _INDEX
    index = Index("key", tuple(segments), bits, tree, key_most, create.var_seg_mac, create.locale, create.lcmap_flags)
    return replace(table, indexes=(index,)), columnids


async def _free_unused(session: Session) -> None:
    """Gives back the space of temporary tables that were closed: closing itself never waits."""
    unused: list[Scratch] = session.instance.unused_scratch
    while unused:
        await unused.pop().free()
