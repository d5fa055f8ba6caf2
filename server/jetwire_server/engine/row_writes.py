"""Writing one record whose values are all at hand: its row, its key, its index entries. Plain calls, no waiting.

Every road to the store ends here: Update of a prepared record, PutRecords, and the straight road. Only a record with a long
value beside its row goes on alone (see `update`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jetwire_protocol.errors import Err, JetError
from jetwire_server import limits
from jetwire_server.engine.indexing import add_entries, change_entries, normalized_keys
from jetwire_server.engine.values import IndexPlan, TablePlan
from jetwire_server.store.interface import Writes

_VERSION_MAX = 2**31 - 1


def check_required(plan: TablePlan, values: Mapping[int, Any]) -> None:
    """NullInvalid for a column that must have a value and has none."""
    for columnid in plan.required:
        if values.get(columnid) is None:
            name = plan.columns[columnid].column.name
            raise JetError(Err.NullInvalid, f"column {name}", column=name)


def insert_values(txn: Writes, plan: TablePlan, values: Mapping[int, Any]) -> bytes:
    """Inserts a record into a table with a primary index; `values` is what its row stores. Answers its bookmark."""
    row = plan.codec.encode(values)
    if len(row) > limits.RECORD_BYTES_MAX:
        raise JetError(Err.RecordTooBig, f"{len(row)} bytes")
    full = {**plan.defaults, **values} if plan.defaults else values
    bookmark = plan.rows.key_in(full)
    insert_row(txn, plan.rows, bookmark, row)
    for index in plan.secondary:
        add_entries(txn, index, normalized_keys(index, full), bookmark)
    return bookmark


def insert_row(txn: Writes, rows: IndexPlan, bookmark: bytes, row: bytes) -> None:
    """KeyDuplicate names the index."""
    try:
        txn.insert(rows.tree, bookmark, row)
    except JetError as error:
        if error.code == Err.KeyDuplicate:
            raise JetError(Err.KeyDuplicate, f"index {rows.name}", indexname=rows.name) from None
        raise


def replace_values(txn: Writes, plan: TablePlan, bookmark: bytes, base: bytes, now: bytes, changes: Mapping[int, Any]) -> None:
    """Puts a changed record in its place. `base` is the row that the changes were made to, `now` the row that is there."""
    row = plan.codec.patch(base, changes)
    if len(row) > limits.RECORD_BYTES_MAX:
        raise JetError(Err.RecordTooBig, f"{len(row)} bytes")
    key_changes = not plan.rows.reads.isdisjoint(changes)
    pending = [index for index in plan.secondary if now != base or not index.reads.isdisjoint(changes)]
    entries = []
    if key_changes or pending:
        decode = plan.codec.decode
        after = decode(row)
        if key_changes and plan.rows.maker is not None and plan.rows.key_in(after) != bookmark:
            raise JetError(Err.RecordPrimaryChanged)
        before = decode(now) if pending else {}
        entries = [(index, normalized_keys(index, before), normalized_keys(index, after)) for index in pending]
    txn.put(plan.rows.tree, bookmark, row)
    for index, old, new in entries:
        change_entries(txn, index, old, new, bookmark)


def next_version(version: int) -> int:
    """One more, and from the greatest Long to the smallest: a version column has no other type."""
    return version + 1 if version < _VERSION_MAX else -_VERSION_MAX - 1
