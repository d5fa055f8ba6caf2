"""Seven levels of transaction on one store transaction: the outermost begins it, the inner ones are save points.

Whatever a session does outside a transaction runs in an implicit one of its own, committed when the call ends.
Hot calls do it by hand, to spare a context manager:

    txn = session.txn
    if txn is None or session.refusal is not None:
        txn = await session.enter(write=False)
    ...
    if session.level == 0:
        await session.leave(txn)

All others use `async with session.operation(write=True) as txn`, which also undoes a failed call's writes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from types import TracebackType
from typing import TYPE_CHECKING, Protocol

from jetwire_protocol.data.flags import BeginTransactionGrbit, CommitTransactionGrbit, RollbackGrbit
from jetwire_protocol.errors import Err, JetError
from jetwire_server import limits
from jetwire_server.engine.lasting import LastingUpdates
from jetwire_server.store.interface import Commit, Savepoint, Stroke, Transaction, Tree, UnpublishedTree

if TYPE_CHECKING:
    from jetwire_server.engine.cursor import Cursor
    from jetwire_server.engine.instance import Instance

_LAZY = int(CommitTransactionGrbit.CommitLazyFlush)
_WAITS = int(CommitTransactionGrbit.WaitLastLevel0Commit | CommitTransactionGrbit.WaitAllLevel0Commit)
_COMMIT_BITS = int(CommitTransactionGrbit.CommitLazyFlush | CommitTransactionGrbit.ForceNewLog) | _WAITS
_BEGIN_BITS = int(BeginTransactionGrbit.TransactionReadOnly | BeginTransactionGrbit.DistributedTransaction)


@dataclass(frozen=True, slots=True)
class CommitId:
    """JET_COMMIT_ID: comparable only under the same log signature."""

    sign_log: bytes
    commit_id: int


@dataclass(slots=True)
class ThreadStats:
    """JET_THREADSTATS of one session: what its calls asked of the storage. Rows of trees stand for ESE's pages."""

    rows_referenced: int = 0
    rows_read: int = 0  # for these the pages were asked, not the memory above them
    rows_written: int = 0  # and committed
    log_records: int = 0
    log_bytes: int = 0

    def add(self, other: ThreadStats) -> None:
        self.rows_referenced += other.rows_referenced
        self.rows_read += other.rows_read
        self.rows_written += other.rows_written
        self.log_records += other.log_records
        self.log_bytes += other.log_bytes


class Waiter(Protocol):
    """The future of a commit, or a call on the straight road. Not a task: a call may have begun without one of its own."""

    def cancel(self) -> object: ...


class Operation:
    """One call's piece of work: joins the open transaction, or makes one of its own and commits it."""

    __slots__ = ("_mark", "_own", "_session", "_txn", "_write")

    def __init__(self, session: TransactionLevels, write: bool) -> None:
        self._session = session
        self._write = write

    async def __aenter__(self) -> Transaction:
        session = self._session
        self._own = session.txn is None
        self._txn = txn = await session.enter(self._write)
        self._mark: Savepoint | None = txn.savepoint() if self._write and not self._own else None
        return txn

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        session = self._session
        if not self._own:
            if self._mark is None or session.txn is not self._txn:  # a read, or the session was ended meanwhile
                return
            if error is not None:
                self._txn.rollback_to(self._mark)
                session.writes += 1
                session.schema_undone()
            self._txn.forget(self._mark)
        elif error is None:
            await session.leave(self._txn)
        else:
            await session.abandon(self._txn)


class TransactionLevels:
    """The part of a session that knows its state and its transaction."""

    def __init__(self, instance: Instance, sesid: int) -> None:
        self.instance = instance
        self.id = sesid
        self.refusal: Err | None = None  # why this session answers nothing any more; one look on each call
        self.level = 0
        self.txn: Transaction | None = None  # of level 1 and up, or of the running call at level 0
        self.read_only = False  # the transaction was begun so
        self.commit_default: int | None = None  # JET_sesparamCommitDefault; None: the instance's parameter
        self.cursors: dict[int, Cursor] = {}
        self.last_commit: Commit | None = None
        self.began = 0  # the instance's count of level 0 transactions when this one began
        self.writes = 0  # moves with everything this session's cursors write or undo: what they read ahead is then stale
        self._marks: list[Savepoint] = []  # of levels 2 and up
        self._ddl: set[int] = set()  # slots whose catalog this transaction changed
        self._stats = ThreadStats()  # of the transactions that have ended
        self.waiter: Waiter | None = None  # whoever waits for a commit
        self.adopted: list[UnpublishedTree] = []  # long values of this transaction: freed if it, or their level, is rolled back
        self.unused: list[UnpublishedTree] = []  # and those that no record will ever have
        self.lasting = LastingUpdates(instance.store)
        self.added_to: set[tuple[Tree, bytes]] = set()  # records to whose sums, that act at zero, the transaction has added
        self.at_end: list[Callable[[bool], None]] = []  # called with True after a level 0 commit, False after a rollback

    # -- state ------------------------------------------------------------------------------------------------
    def check(self) -> None:
        """Refuses when the session or its instance serve no calls."""
        if self.refusal is not None:
            raise JetError(self.refusal)

    @property
    def stats(self) -> ThreadStats:
        """What all its calls have cost so far."""
        now = replace(self._stats)
        if self.txn is not None:
            now.rows_referenced += self.txn.looked_at
            now.rows_read += self.txn.from_pages
        return now

    # -- a call's transaction ---------------------------------------------------------------------------------
    async def enter(self, write: bool) -> Transaction:
        """The transaction to work in: the open one, or an implicit one that `leave` must end."""
        if self.refusal is not None:
            raise JetError(self.refusal)
        txn = self.txn
        if txn is None:
            self.txn = txn = await self.instance.store.begin(read_only=not write)
        elif write and self.read_only:
            raise JetError(Err.TransReadOnly)
        return txn

    async def leave(self, txn: Transaction) -> None:
        """Ends a call's work well: an implicit transaction commits, an open one goes on."""
        if self.level:
            return
        if not txn.changed:
            await self.abandon(txn)
            return
        try:
            await self._commit_store(txn, self._commit_bits(0))
        finally:
            self._ended(self.last_commit is not None)

    async def abandon(self, txn: Transaction) -> None:
        """Ends a failed call's work: an implicit transaction is rolled back."""
        if not self.level:
            self.txn = None
            self._count_reads(txn)
            await txn.rollback()
            self._ended(False)

    def operation(self, *, write: bool) -> Operation:
        return Operation(self, write)

    # -- levels -----------------------------------------------------------------------------------------------
    async def begin_transaction(self, grbit: int = 0, user_transaction_id: int = 0) -> None:
        """Begins a transaction, or a level in the open one. Read-only counts at the outermost level alone."""
        self.check()
        if grbit & ~_BEGIN_BITS:
            raise JetError(Err.InvalidGrbit)
        if self.level >= limits.TRANSACTION_LEVELS_MAX:
            raise JetError(Err.TransTooDeep)
        if self.level == 0:
            read_only = bool(grbit & BeginTransactionGrbit.TransactionReadOnly)
            self.txn = await self.instance.store.begin(read_only=read_only)
            self.read_only = read_only
            self.instance.transactions += 1
            self.began = self.instance.transactions
        else:
            assert self.txn is not None
            self._marks.append(self.txn.savepoint())
        self.level += 1

    async def commit_transaction(self, grbit: int = 0, durable_commit: int = 0) -> CommitId | None:
        """Commits one level. Only the outermost makes anything durable; the wait bits work without a transaction."""
        self.check()
        if grbit & ~_COMMIT_BITS or (grbit & _WAITS and grbit & ~_WAITS) or grbit & _WAITS == _WAITS:
            raise JetError(Err.InvalidGrbit)
        if grbit & _WAITS:
            if self.level:
                raise JetError(Err.InvalidGrbit, "a wait for commits takes no transaction")
            await self.instance.store.flush()
            return None
        if self.level == 0:
            raise JetError(Err.NotInTransaction)
        if self.level > 1:
            assert self.txn is not None
            self.txn.forget(self._marks.pop())
            self.level -= 1
            self.lasting.level_committed(self.level)
            for cursor in self.cursors.values():
                cursor.level_committed(self.level)
            return None
        assert self.txn is not None
        bits = self._commit_bits(grbit | (_LAZY if durable_commit else 0))
        done = False
        try:
            commit = await self._commit_store(self.txn, bits)
            done = True
        finally:
            self.level = 0
            self.lasting.level_committed(0)
            if done:
                for cursor in self.cursors.values():
                    cursor.level_committed(0)
            else:
                self._undo_cursors(1)
            self._ended(done)
            if self.unused:
                await self.free_unused()
        return CommitId(self.instance.log_signature, commit.number) if commit.number else None

    async def rollback(self, grbit: int = 0) -> None:
        """Undoes one level, or all of them, and closes the cursors that were opened there."""
        if self.refusal is not None and self.refusal != Err.ClientRequestToStopJetService:
            raise JetError(self.refusal)
        if grbit & ~int(RollbackGrbit.RollbackAll):
            raise JetError(Err.InvalidGrbit)
        if self.level == 0:
            raise JetError(Err.NotInTransaction)
        while self.level:
            await self._rollback_level()
            if not grbit & RollbackGrbit.RollbackAll:
                return

    async def _rollback_level(self) -> None:
        assert self.txn is not None
        self._undo_cursors(self.level)
        self.level -= 1
        if self.level:
            mark = self._marks.pop()
            self.txn.rollback_to(mark)
            self.txn.forget(mark)
            self.writes += 1
            self.schema_undone()
            await self.lasting.level_rolled_back(self.level, self.txn)
        else:
            txn, self.txn = self.txn, None
            self._count_reads(txn)
            await txn.rollback()
            self._ended(False)
            await self.lasting.make_again()
        if self.unused:
            await self.free_unused()

    async def free_unused(self) -> None:
        """Gives back the space of long values that nobody has. Where that cannot be logged now, the next start does it."""
        while self.unused:
            with suppress(JetError):
                await self.unused.pop().free()

    # -- inside -----------------------------------------------------------------------------------------------
    def _undo_cursors(self, level: int) -> None:
        """Cursors that were opened in this level are closed, and the others are told that it was undone."""
        for cursor in list(self.cursors.values()):
            if cursor.level >= level:
                cursor.close()
            else:
                cursor.rolled_back(level)

    def _commit_bits(self, grbit: int) -> int:
        if grbit:
            return grbit
        return self.instance.commit_default if self.commit_default is None else self.commit_default

    def stop_waiting(self) -> None:
        """StopService: a commit that waits (for a thaw, say) is answered now. It has been queued, and still commits."""
        if self.waiter is not None:
            self.waiter.cancel()

    async def _commit_store(self, txn: Transaction, bits: int) -> Commit:
        self.last_commit = None
        self._count_reads(txn)
        self.waiter = answer = asyncio.get_running_loop().create_future()
        try:
            commit = await (self._commit_with_ddl(txn, bits, answer) if self._ddl else _commit(txn, bits, answer))
        except asyncio.CancelledError:
            if _cancelled():
                raise
            # Nobody but `stop_waiting` cancels the answer alone. A Term in the same turn may have found another refusal since.
            raise JetError(self.refusal or Err.ClientRequestToStopJetService) from None
        finally:
            self.waiter = None
        self.committed(commit)
        return commit

    def committed(self, commit: Commit) -> None:
        """The log has taken this session's changes."""
        self.last_commit = commit
        if commit.number:
            stats = self._stats
            stats.log_records += 1
            stats.log_bytes += commit.bytes
            stats.rows_written += commit.rows

    def stroke_begins(self, stroke: Stroke, waiter: Waiter) -> None:
        """A call's writes are on their way to the log; `waiter` is to be told if the service is stopped meanwhile."""
        self.writes += 1
        instance = self.instance
        instance.transactions += 1
        self.began = instance.transactions
        self.waiter = waiter
        stats = self._stats
        stats.rows_referenced += stroke.looked_at
        stats.rows_read += stroke.from_pages

    def count_reads(self, rows: int, from_pages: int) -> None:
        self._stats.rows_referenced += rows
        self._stats.rows_read += from_pages

    def _count_reads(self, txn: Transaction) -> None:
        self.count_reads(txn.looked_at, txn.from_pages)

    async def _commit_with_ddl(self, txn: Transaction, bits: int, answer: asyncio.Future[Commit]) -> Commit:
        """The catalogs hear of its true end, though the caller may leave before: what others were told meanwhile is wrong from then on."""
        catalogs = [self.instance.databases[slot].catalog for slot in self._ddl if slot in self.instance.databases]
        for catalog in catalogs:
            catalog.commit_begins()

        async def commit() -> Commit:
            number = 0
            try:
                done = await txn.commit(lazy=bool(bits & _LAZY))
                number = done.number
            finally:
                for catalog in catalogs:
                    catalog.commit_ended(number)
            return done

        def ended(work: asyncio.Task[Commit]) -> None:
            error = None if work.cancelled() else work.exception()
            if answer.done():
                return
            if work.cancelled():
                answer.cancel()
            elif error is not None:
                answer.set_exception(error)
            else:
                answer.set_result(work.result())

        self.instance.carry(commit()).add_done_callback(ended)
        return await answer

    def schema_changed(self, slot: int) -> None:
        """The running call changed a catalog: every cursor there looks at its table's description anew."""
        self._ddl.add(slot)
        self.instance.databases[slot].catalog.touch()

    def schema_undone(self) -> None:
        for slot in self._ddl:
            database = self.instance.databases.get(slot)
            if database is not None:
                database.catalog.touch()

    def _ended(self, committed: bool) -> None:
        self.txn = None
        self.level = 0
        self.read_only = False
        self._marks.clear()
        if self.added_to:
            self.added_to.clear()
        if self.adopted:  # those that were committed are no longer free to be freed
            self.unused += self.adopted
            self.adopted.clear()
        if self._ddl:
            self.schema_undone()
            self._ddl.clear()
        if self.at_end:
            waiting, self.at_end = self.at_end, []
            for call in waiting:
                call(committed)


async def _commit(txn: Transaction, bits: int, answer: asyncio.Future[Commit]) -> Commit:
    """Commits; whoever cancels `answer` ends the waiting for it, and takes back nothing."""

    def told(result: Commit | JetError) -> None:
        if answer.done():
            return
        if isinstance(result, JetError):
            answer.set_exception(result)
        else:
            answer.set_result(result)

    lazy = bool(bits & _LAZY)
    if txn.changed and txn.commit_now(told, lazy=lazy):
        return await answer
    return await txn.commit(lazy=lazy)


def _cancelled() -> bool:
    """Whether it is the caller who goes away."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
