# Generated from jetwire/_async by client/twins.py; do not edit.
"""A transaction as a context manager: commits at the end, rolls back on an exception."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from jetwire.errors import ConnectionLost, JetwireError

if TYPE_CHECKING:
    from jetwire._sync.session import Session


class Transaction:
    """Nests up to seven deep. Leave the block normally to commit; raise, or call `rollback`, to undo."""

    def __init__(self, session: Session, *, lazy: bool, read_only: bool) -> None:
        self._session = session
        self._lazy = lazy
        self._read_only = read_only
        self._open = False
        self.commit_id: dict[str, Any] | None = None  # of an outermost transaction that changed something

    def __enter__(self) -> Self:
        grbit = ["TransactionReadOnly"] if self._read_only else 0
        self._session.connection.BeginTransaction(self._session.id, grbit=grbit)
        self._open = True
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if not self._open:
            return
        if error is None:
            self.commit()
            return
        try:
            self.rollback()
        except (ConnectionLost, JetwireError) as failed:
            error.add_note(f"and the rollback failed: {failed}")

    def commit(self) -> None:
        """Commits now. If it fails the transaction is rolled back: nothing of it remains."""
        try:
            answer = self._session.connection.CommitTransaction(self._session.id, grbit=["CommitLazyFlush"] if self._lazy else 0)
        except ConnectionLost:
            self._open = False
            raise
        except JetwireError:
            self.rollback()
            raise
        self._open = False
        self.commit_id = answer.get("commitId")  # type: ignore[assignment]

    def rollback(self) -> None:
        self._open = False
        self._session.connection.Rollback(self._session.id)
