"""A transaction as a context manager: commits at the end, rolls back on an exception."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Self

from jetwire._async.transport import leaving
from jetwire.errors import JetwireError

if TYPE_CHECKING:
    from jetwire._async.session import Session
    from jetwire.data.results import CommitId


class Transaction:
    """Nests up to seven deep. Leave the block normally to commit; raise, or call `rollback`, to undo."""

    def __init__(self, session: Session, *, lazy: bool, read_only: bool) -> None:
        self._session = session
        self._lazy = lazy
        self._read_only = read_only
        self._open = False
        self.commit_id: CommitId | None = None  # of an outermost transaction that changed something

    async def __aenter__(self) -> Self:
        if self._open:
            raise JetwireError("this transaction runs already; make another for a nested one")
        grbit = ["TransactionReadOnly"] if self._read_only else 0
        try:
            await self._session.connection.BeginTransaction(self._session.use(), grbit=grbit)
        except Exception:
            raise
        except BaseException:
            self._session.doubt("the beginning of a transaction was cancelled")
            raise
        self._open = True
        self._session.depth += 1
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if not self._open:
            return
        if error is None:
            await self.commit()
            return
        try:
            async with leaving(error):
                await self.rollback()
        except (JetwireError, TimeoutError) as failed:
            error.add_note(f"and the rollback failed: {failed}")

    async def commit(self) -> None:
        """Commits now. If it fails the transaction is rolled back: nothing of it remains."""
        self._close()
        try:
            answer = await self._session.connection.CommitTransaction(self._session.use(), grbit=["CommitLazyFlush"] if self._lazy else 0)
        except JetwireError as error:
            if self._session.alive:
                try:
                    await self._session.connection.Rollback(self._session.id)
                except JetwireError as failed:
                    error.add_note(f"and the rollback failed: {failed}")
            raise
        except BaseException:
            self._session.doubt("a commit was cancelled; whether it happened is unknown")
            raise
        self.commit_id = answer.get("commitId")

    async def rollback(self) -> None:
        """Undoes it now."""
        self._close()
        await self._session.connection.Rollback(self._session.use())

    def _close(self) -> None:
        if not self._open:
            raise JetwireError("the transaction is over")
        self._open = False
        self._session.depth -= 1
