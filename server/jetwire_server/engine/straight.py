"""The straight road: what most calls ask for, in plain calls from values to the store, without a coroutine or a copy buffer.

It takes ordinary cases only: outside a transaction, a description that needs no second look, nobody to be told. It does all of a
call or nothing; then the caller takes the general road (`whole_records`), whose answer it is, errors too. Both roads read with
the same codec, make keys with the same makers, and write through `row_writes`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jetwire_protocol.data.flags import CommitTransactionGrbit
from jetwire_protocol.errors import JetError
from jetwire_server.engine.cursor import Cursor
from jetwire_server.engine.row_writes import check_required, insert_values, replace_values
from jetwire_server.engine.values import PRIMARY, IndexPlan, TablePlan
from jetwire_server.store.interface import Commit, Stroke

Record = Mapping[int, Any]
_LAZY = int(CommitTransactionGrbit.CommitLazyFlush)


# -- reading ----------------------------------------------------------------------------------------------------------
def read_by_key(cursor: Cursor, key: Sequence[Any], int64_strings: bool) -> tuple[bytes, bytes] | None:
    """`record_by_key` on the primary index, all columns: the record as JSON and its bookmark. The cursor moves there."""
    at, plan = cursor.at, cursor.plan
    if at.kind != PRIMARY or not _is_whole(at, key):
        return None
    assert at.maker is not None
    bookmark = at.maker.key(key)
    row = cursor.ordinary_row(bookmark)
    if row is None or (plan.has_long and plan.codec.references(row)):
        return None
    cursor.arrive(bookmark, row)
    return plan.codec.to_json(row, int64_strings=int64_strings), bookmark


def _is_whole(at: IndexPlan, key: Sequence[Any]) -> bool:
    """Whether these values make a whole key just as a search key is made of them: each has a value, and none is padded or cut short."""
    missing = [value for value in key if not value and (value is None or isinstance(value, (str, bytes)))]
    return at.whole == len(key) and not missing


# -- writing ----------------------------------------------------------------------------------------------------------
class Put:
    """Records to be written in one stroke, which is handed to the log without being waited for.

    `told` hears the commit, or the error that became of it; never before `begin` has returned.
    """

    __slots__ = ("_cursor", "_lazy", "_records", "_replaces", "_stopped")

    def __init__(self, cursor: Cursor, records: Sequence[Record], mode: str, grbit: int) -> None:
        self._cursor = cursor
        self._records = records
        self._replaces = mode == "replace"
        self._lazy = bool(cursor.session._commit_bits(grbit) & _LAZY)
        self._stopped = False

    def told(self, answer: Commit | JetError) -> None:
        """What became of it."""
        raise NotImplementedError

    def begin(self) -> bool:
        """Writes, and hands the commit in. False: nothing was done."""
        cursor = self._cursor
        session, plan = cursor.session, cursor.plan
        if not cursor.takes_strokes:
            return False
        try:
            stroke = session.instance.store.stroke()
            if stroke is None or not self._write(stroke, plan):
                return False
            if not stroke.commit(plan.rows.tree, self._committed, lazy=self._lazy):
                return False
        except JetError:
            return False  # the general road will find it too, and tell
        session.warning = 0
        session.stroke_begins(stroke, self)
        return True

    def _write(self, stroke: Stroke, plan: TablePlan) -> bool:
        if self._replaces:
            return len(self._records) == 1 and self._replace(stroke, plan, self._records[0])
        for values in self._records:
            check_required(plan, values)
            insert_values(stroke, plan, values)
        return bool(self._records)

    def _replace(self, stroke: Stroke, plan: TablePlan, values: Record) -> bool:
        rows = plan.rows
        key = [values.get(column) for column in rows.columns]
        if not _is_whole(rows, key):
            return False
        assert rows.maker is not None
        bookmark = rows.maker.key(key)
        now = stroke.value(rows.tree, bookmark)
        changes = {columnid: value for columnid, value in values.items() if columnid not in rows.columns}
        if now is None or (plan.has_long and plan.codec.references(now)) or not plan.single.issuperset(changes):
            return False
        replace_values(stroke, plan, bookmark, now, now, changes)
        return True

    def cancel(self) -> None:
        """StopService: the call is answered now; what is on its way to the log still commits."""
        refusal = self._cursor.session.refusal
        if refusal is not None and not self._stopped:
            self._stopped = True
            self.told(JetError(refusal))

    def _committed(self, answer: Commit | JetError) -> None:
        session = self._cursor.session
        session.waiter = None
        if isinstance(answer, Commit):
            session.committed(answer)
        if not self._stopped:
            self.told(answer)
