"""Where a cursor is, and how one of its calls gets at the store.

A place is a key in the current index's tree and a state:

    FRESH    just opened: on the first entry, found at the first use
    BEFORE   before the first entry, whatever is inserted there
    AFTER    after the last
    ON       on the entry `key`, which may have gone since
    GAP      between two entries: before `key`, after everything below it

What the store gave ahead (`_chunk`) and the current row are good while the transaction is the same and the session wrote nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from jetwire_protocol.data.flags import OpenTableGrbit
from jetwire_protocol.errors import Err, JetError
from jetwire_server import limits
from jetwire_server.engine.values import MANY, PRIMARY, IndexPlan, TablePlan, plan_of
from jetwire_server.keys import SearchKey
from jetwire_server.store.interface import Row, Transaction, Tree

if TYPE_CHECKING:
    from jetwire_server.engine.database import Database, OpenDatabase
    from jetwire_server.engine.schema import Index, Table
    from jetwire_server.engine.session import Session

FRESH, BEFORE, AFTER, ON, GAP = range(5)
_EXCLUSIVE = int(OpenTableGrbit.TableDenyRead)
_READ_ONLY = int(OpenTableGrbit.TableReadOnly)
_CHUNK_FIRST = 8
_CHUNK_GROWTH = 4

P = ParamSpec("P")
R = TypeVar("R")


class Place:
    """The part of a cursor that knows where it is."""

    stored = True  # its table is one of the store's; not so a temporary one

    def __init__(self, session: Session, handle: OpenDatabase, table: Table, tableid: int, grbit: int) -> None:
        self.session = session
        self.store: Any = session.instance.store  # where drafts of long values get their space
        self.database: Database = handle.database
        self.dbid = handle.dbid
        self.table = table
        self.id = tableid
        self.grbit = grbit
        self.level = session.level  # of the transaction it was opened in: a rollback of that level closes it
        self.moved_in = session.level  # the level of the last Move, Seek or GotoPosition: rolled back, it stands before the first entry
        self.index_in = 0  # the level in which its secondary index was chosen: rolled back, it is on the primary index
        self.stamp = -1  # see `Catalog.fresh`
        self.plan: TablePlan = plan_of(table)
        self.at: IndexPlan = self.plan.rows
        self.state = FRESH
        self.key = b""
        self.bookmark = b""
        self.search = SearchKey(self.at.maker)
        self.range_low: bytes | None = None  # set: moving backward ends above it
        self.range_high: bytes | None = None  # set: moving forward ends below it
        self.sequential = False
        self._began = -1  # of the transaction that the row and the chunk belong to
        self._writes = -1
        self._row: bytes | None = None
        self._chunk: list[Row] = []
        self._chunk_i = 0
        self._chunk_forward = True
        self._chunk_size = 0
        self._found = (-1, b"", b"")  # by Seek in an ordinary call: the store's number then, bookmark, row
        self._schema_held = -1  # the transaction that holds the table's schema lock for this cursor

    # -- what others ask ----------------------------------------------------------------------------------------
    @property
    def exclusive(self) -> bool:
        """No other session can have the table open."""
        return bool(self.grbit & _EXCLUSIVE)

    @property
    def index(self) -> Index | None:
        """The secondary index it is on."""
        return None if self.at.kind == PRIMARY else self.at.index

    def close(self) -> None:
        self.session.forget_cursor(self)  # type: ignore[arg-type]  # every place is a cursor's

    # -- one call's way to the store ------------------------------------------------------------------------------
    async def _read(self, work: Callable[Concatenate[Transaction, P], Awaitable[R]], *args: P.args, **kwargs: P.kwargs) -> R:
        session = self.session
        if session.level and session.refusal is None:
            txn = session.txn
            assert txn is not None
            catalog = self.database.catalog
            if self.stamp != catalog.stamp or txn.snapshot < catalog.newest:
                await self._refresh(txn)
            return await work(txn, *args, **kwargs)
        if session.txn is None:
            # What `operation` does for a read, in fewer steps: most reads of clients without a transaction come this way.
            own = await session.enter(False)
            try:
                await self._refresh(own)
                return await work(own, *args, **kwargs)
            finally:
                await session.abandon(own)
        async with session.operation(write=False) as joined:
            await self._refresh(joined)
            return await work(joined, *args, **kwargs)

    async def _write(self, work: Callable[Concatenate[Transaction, P], Awaitable[R]], *args: P.args, **kwargs: P.kwargs) -> R:
        """Runs a call that writes; what a failed one has written is undone."""
        self.check_updatable()
        session = self.session
        session.writes += 1
        if not session.level:
            async with session.operation(write=True) as own:
                await self._refresh(own)
                own.lock_schema(self.table.tree)
                return await work(own, *args, **kwargs)
        session.check()
        if session.read_only:
            raise JetError(Err.TransReadOnly)
        txn = session.txn
        assert txn is not None
        catalog = self.database.catalog
        if self.stamp != catalog.stamp or txn.snapshot < catalog.newest:
            await self._refresh(txn)
        mark = txn.savepoint()
        try:
            if self._schema_held != session.began:
                txn.lock_schema(self.table.tree)
                self._schema_held = session.began
            result = await work(txn, *args, **kwargs)
        except BaseException:
            txn.rollback_to(mark)
            txn.forget(mark)
            session.writes += 1
            self._schema_held = -1
            raise
        txn.forget(mark)  # a save point for each call would weigh on a long transaction
        return result

    @property
    def ordinary(self) -> bool:
        """No transaction is open and the table is as the cursor knows it: a call that reads one row need not begin one."""
        session = self.session
        return session.txn is None and session.refusal is None and self.stamp == self.database.catalog.stamp and self.stored

    @property
    def inside(self) -> Transaction | None:
        """The open transaction, if the table is in it as the cursor knows it: what a call needs no `_read` for."""
        session = self.session
        txn = session.txn
        if txn is None or not session.level or session.refusal is not None or not self.stored:
            return None
        catalog = self.database.catalog
        return txn if self.stamp == catalog.stamp and txn.snapshot >= catalog.newest else None

    @property
    def takes_strokes(self) -> bool:
        """`ordinary`, and a write asks for nothing but the record and its index entries, and tells nobody."""
        session, database = self.session, self.database
        return (
            session.txn is None
            and session.refusal is None
            and self.stamp == database.catalog.stamp
            and self.stored
            and self.plan.straight
            and not session.at_end
            and not self.grbit & _READ_ONLY
            and not database.callbacks.by_table
        )

    def ordinary_row(self, bookmark: bytes) -> bytes | None:
        """The record of that bookmark, if there is one and the call is `ordinary` (spelled out, for most reads come here)."""
        session = self.session
        if session.txn is not None or session.refusal is not None or self.stamp != self.database.catalog.stamp or not self.stored:
            return None
        row, from_pages = session.instance.store.newest(self.plan.rows.tree, bookmark)
        session.count_reads(1, from_pages)
        return row

    def arrive(self, bookmark: bytes, row: bytes) -> None:
        """An ordinary call has found this record by its primary key: the cursor is on it as after a Seek, and the call went well."""
        session = self.session
        session.warning = 0
        self.cancel_update()
        self.search.reset()
        self.range_low = self.range_high = None
        self._chunk = []
        self.state = ON
        self.key = self.bookmark = bookmark
        self._row = row
        self._began = -1
        self._writes = session.writes

    def _newest(self, tree: Tree, key: bytes) -> bytes | None:
        """What an ordinary call finds."""
        session = self.session
        value, from_pages = session.instance.store.newest(tree, key)
        session.count_reads(1, from_pages)
        return value

    def _newest_record(self) -> bytes | None:
        """The record it is on, in an ordinary call."""
        number, bookmark, row = self._found
        if bookmark is self.bookmark and self.store.unchanged(number):
            return row
        return self._newest(self.plan.rows.tree, self.bookmark)

    def check_updatable(self) -> None:
        if self.grbit & _READ_ONLY:
            raise JetError(Err.PermissionDenied, "the cursor is read only")

    async def _refresh(self, txn: Transaction) -> None:
        """Looks at the table's description anew, if it may have changed."""
        catalog = self.database.catalog
        if self.stamp != catalog.stamp or txn.snapshot < catalog.newest:
            await self.session.refresh_table(self, txn)  # type: ignore[arg-type]

    def take_description(self, table: Table, stamp: int) -> None:
        """The table as it is described now. The plan goes with it: who wrote by an older one would miss a new index."""
        self.table, self.stamp = table, stamp
        if self.plan.table is not table:
            self._recompile()

    def _recompile(self) -> None:
        self.plan = plan_of(self.table)
        known = self.plan.by_name.get(self.at.name.lower())
        if known is None:
            known = self.plan.rows
            self._leave_index()
        self.at = known
        if self.search.maker is not known.maker:
            self.search = SearchKey(known.maker)
        self._row = None
        self._chunk = []

    def _leave_index(self) -> None:
        self.state, self.key, self.bookmark = BEFORE, b"", b""
        self.range_low = self.range_high = None

    def reset(self) -> None:
        """DDL moved it before the first record."""
        self._recompile()
        self._leave_index()
        self.search.reset()

    def check_told(self, size: int) -> None:
        """OutOfMemory if one call reads more of long values than an answer can have: a value may be of two gigabytes, all zeros."""
        most = self.session.instance.engine.answer_bytes_max
        if size > most:
            raise JetError(Err.OutOfMemory, f"{size} bytes of long values in one answer, which has {most} at most: read them in pieces")

    # -- places ---------------------------------------------------------------------------------------------------
    def _kept(self) -> bool:
        """Whether what was read before is still what the store would answer."""
        session = self.session
        return self._began == session.began and self._writes == session.writes and session.level > 0

    def _keep(self) -> None:
        session = self.session
        self._began = session.began if session.level else -1
        self._writes = session.writes

    def _put_on(self, key: bytes, value: bytes) -> None:
        """On an entry the store has just given."""
        at = self.at
        self.state = ON
        self.key = key
        if at.kind == PRIMARY:
            self.bookmark = key
            self._row = value
        else:
            self._row = None
            if at.kind == MANY:
                self.bookmark = key[int.from_bytes(value, "big") :]
            else:
                self.bookmark = value
        session = self.session
        self._began = session.began if session.level else -1
        self._writes = session.writes

    def _put_at(self, state: int, key: bytes = b"") -> None:
        self.state, self.key, self._row = state, key, None
        self._chunk = []

    def entry_key(self) -> bytes:
        """The normalized key of the entry it is on."""
        return self.key[: len(self.key) - len(self.bookmark)] if self.at.kind == MANY else self.key

    async def _settle(self, txn: Transaction) -> None:
        """A cursor just opened goes to its first entry, whatever its range; where there is none it looks again next time."""
        rows = await txn.scan(self.at.tree, limit=1)
        if rows:
            self._put_on(*rows[0])

    async def _step(self, txn: Transaction, forward: bool) -> bool:
        """To the next entry of the index, within the range. False, and not moved, if there is none."""
        if self.state == FRESH:
            await self._settle(txn)
            if self.state == FRESH:
                return False
        chunk = self._chunk
        if chunk and self._chunk_forward is forward and self._kept():
            i = self._chunk_i + 1
            if i < len(chunk):
                self._chunk_i = i
                self._put_on(*chunk[i])
                return True
            size = min(self._chunk_size * _CHUNK_GROWTH, limits.READ_AHEAD_ROWS_MAX)
        else:
            size = 1 if not self.session.level else limits.READ_AHEAD_ROWS_MAX if self.sequential else _CHUNK_FIRST
        rows = await self._ahead(txn, forward, size)
        if not rows:
            return False
        self._chunk, self._chunk_i, self._chunk_forward, self._chunk_size = rows, 0, forward, size
        self._put_on(*rows[0])
        return True

    async def _ahead(self, txn: Transaction, forward: bool, limit: int, tree_low: bytes | None = None) -> list[Row]:
        """The entries from here on, within the range; `tree_low` bounds a backward scan further."""
        state = self.state
        if forward:
            if state == AFTER:
                return []
            low = None if state == BEFORE else self.key + b"\0" if state == ON else self.key
            high = self.range_high
            if low is not None and high is not None and low >= high:
                return []
            return await txn.scan(self.at.tree, low, high, limit=limit)
        if state == BEFORE:
            return []
        high = None if state == AFTER else self.key
        low = self.range_low if tree_low is None else tree_low
        if low is not None and high is not None and low >= high:
            return []
        return await txn.scan(self.at.tree, low, high, reverse=True, limit=limit)

    # -- the current record -----------------------------------------------------------------------------------------
    async def _record(self, txn: Transaction) -> bytes:
        """The row the cursor is on: NoCurrentRecord if it is on none, RecordDeleted if that is gone."""
        if self._row is not None and self.state == ON and self._kept():
            return self._row
        if self.state == FRESH:
            await self._settle(txn)
        if self.state != ON:
            raise JetError(Err.NoCurrentRecord)
        row = await txn.get(self.plan.rows.tree, self.bookmark)
        if row is None:
            raise JetError(Err.RecordDeleted)
        if self._kept():
            self._row = row
        else:
            self._chunk = []
            self._row = row
            self._keep()
        return row

    def cancel_update(self) -> None:
        """Navigation cancels what was prepared."""
        raise NotImplementedError

    def level_committed(self, level: int) -> None:
        """What was opened, moved and prepared in the level that ended belongs to the one around it."""
        self.level = min(self.level, level)
        self.moved_in = min(self.moved_in, level)
        self.index_in = min(self.index_in, level)

    def rolled_back(self, level: int) -> None:
        """A level was undone."""
        self.session.writes += 1
        self._schema_held = -1
        self._row = None
        self._chunk = []
        if self.index_in >= level:
            self.index_in = level - 1
            self._leave_chosen_index()
        if self.moved_in >= level:
            self.moved_in = level - 1
            self._put_at(BEFORE)

    def _leave_chosen_index(self) -> None:
        """From a secondary index to before the first record of the primary one."""
        raise NotImplementedError

    def _drop_range(self) -> None:
        if self.range_low is not None or self.range_high is not None:
            self.range_low = self.range_high = None
            self._chunk = []
