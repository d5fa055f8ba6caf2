"""Whole records: read as JSON straight from their rows (GetRecord, GetRecords), and written many at once (PutRecords).

Rows are handed on without being decoded (see `rows.json_view`); only separated long values are fetched and put in.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from jetwire_protocol.data.flags import Coltyp, MakeKeyGrbit, Prep, RollbackGrbit, SeekGrbit, SetColumnGrbit
from jetwire_protocol.errors import Err, JetError
from jetwire_server import limits
from jetwire_server.engine import longvalue
from jetwire_server.engine.cursor import Cursor
from jetwire_server.engine.place import AFTER, BEFORE, FRESH, ON
from jetwire_server.engine.setting import SetInfo
from jetwire_server.engine.stored_form import bytes_to_text
from jetwire_server.engine.values import PRIMARY
from jetwire_server.rows import LongRef
from jetwire_server.store.interface import Row, Transaction

_NEW_KEY = int(MakeKeyGrbit.NewKey)
_EMPTY = int(MakeKeyGrbit.KeyDataZeroLength)  # by value, empty is not NULL
_EMPTY_VALUES = ("", b"")
_EQ = int(SeekGrbit.SeekEQ)
_ZERO_LENGTH = int(SetColumnGrbit.SetZeroLength)
_ONE_MORE = SetInfo(itag=0)
_TOLD_AT_ONCE = 256  # records between two looks at how much was told; where there may be long values, one


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which columns are asked for (None: all that are not NULL), and how their values are told."""

    columns: tuple[int, ...] | None = None
    int64_strings: bool = False


async def record_by_key(cursor: Cursor, key: Sequence[Any], wanted: Wanted, index: str | None = None) -> tuple[bytes, bytes]:
    """The record with this key in the index (None: the current one), as JSON, and its bookmark. The cursor moves there."""
    cursor.cancel_update()
    return await cursor._read(_record_by_key, cursor, key, wanted, index)


async def _record_by_key(txn: Transaction, cursor: Cursor, key: Sequence[Any], wanted: Wanted, index: str | None) -> tuple[bytes, bytes]:
    if index is not None:
        target = cursor._index_named(index, None)
        if target is not cursor.at:
            cursor._on_index(target)
    if not key:
        raise JetError(Err.KeyNotMade)
    search = cursor.search
    for place, value in enumerate(key):
        search.add(value, (0 if place else _NEW_KEY) | (_EMPTY if value in _EMPTY_VALUES else 0))
    made, complete = cursor.take_key()
    cursor._drop_range()
    await cursor._seek_equal(txn, made, complete, _EQ)
    row = await cursor._record(txn)
    return await _to_json(txn, cursor, row, wanted), cursor.bookmark


async def records_from(cursor: Cursor, limit: int, wanted: Wanted, *, forward: bool = True) -> tuple[list[bytes], bool]:
    """At most `limit` records from the cursor's place on, as JSON objects to be joined by commas, and whether there are more.

    In the current index, range and filter. The cursor ends on the first record that was not returned, or past the end.
    """
    if limit <= 0:
        raise JetError(Err.InvalidParameter, f"limit {limit}")
    cursor.cancel_update()
    return await cursor._read(_records_from, cursor, limit, wanted, forward)


async def _records_from(txn: Transaction, cursor: Cursor, limit: int, wanted: Wanted, forward: bool) -> tuple[list[bytes], bool]:
    out: list[bytes] = []
    count = weight = 0
    cursor.moved_in = cursor.session.level
    cursor._chunk = []  # what a Move read ahead is behind it now
    if cursor.state == FRESH:
        await cursor._settle(txn)
    low, high = _bounds(cursor, forward)
    as_they_are = wanted.columns is None and not cursor.plan.has_long
    told_at_once = 1 if cursor.plan.has_long else _TOLD_AT_ONCE
    while True:
        size = min(limit - count + 1, limits.BULK_READ_ROWS)
        entries: list[Row] = []
        if low is None or high is None or low < high:
            entries = await txn.scan(cursor.at.tree, low, high, reverse=not forward, limit=size)
        if not entries:
            cursor._run_out(forward)
            return out, False
        pairs = await _rows_of(txn, cursor, entries)
        if cursor.filters:
            pairs = [pair for pair in pairs if cursor._passes(pair[1])]
        for start in range(0, len(pairs), told_at_once):
            if count == limit or weight > limits.RECORDS_BYTES:
                cursor._put_on(*pairs[start][0])
                return out, True
            part = pairs[start : start + min(told_at_once, limit - count)]
            rows = [row for _, row in part]
            if as_they_are:
                told = cursor.plan.codec.view(int64_strings=wanted.int64_strings).to_json_runs(rows)
            else:
                told = [await _to_json(txn, cursor, row, wanted) for row in rows]
            out += told
            count += len(part)
            weight += sum(map(len, told))
            if count == limit and start + len(part) < len(pairs):
                cursor._put_on(*pairs[start + len(part)][0])
                return out, True
        if forward:
            low = entries[-1][0] + b"\0"
        else:
            high = entries[-1][0]
        await asyncio.sleep(0)  # the pages are usually in memory, and nothing else would wait


def _bounds(cursor: Cursor, forward: bool) -> tuple[bytes | None, bytes | None]:
    """The part of the index's tree from the cursor's place to the end of the range, its current entry included."""
    state = cursor.state
    if forward:
        low = None if state == BEFORE else cursor.key
        return (b"", b"") if state == AFTER else (low, cursor.range_high)
    high = None if state == AFTER else cursor.key + b"\0" if state == ON else cursor.key
    return (b"", b"") if state == BEFORE else (cursor.range_low, high)


async def _rows_of(txn: Transaction, cursor: Cursor, entries: list[Row]) -> list[tuple[Row, bytes]]:
    """Each entry with its record's row."""
    at = cursor.at
    if at.kind == PRIMARY:
        return [(entry, entry[1]) for entry in entries]
    tree = cursor.plan.rows.tree
    out = []
    for entry in entries:
        row = await txn.get(tree, at.bookmark_of(*entry))
        if row is None:
            raise JetError(Err.SecondaryIndexCorrupted, f"index {at.name} names a record that is not there")
        out.append((entry, row))
    return out


async def _to_json(txn: Transaction, cursor: Cursor, row: bytes, wanted: Wanted) -> bytes:
    codec = cursor.plan.codec
    long_values = await _long_values(txn, cursor, row, wanted) if cursor.plan.has_long else None
    told = codec.to_json(row, wanted.columns, int64_strings=wanted.int64_strings, long_values=long_values)
    if wanted.columns is None:
        return told
    # Who asks for a column gets it, NULL too.
    names = [cursor.table.by_id[column].name for column in wanted.columns]
    found = msgspec.json.decode(told, type=dict[str, msgspec.Raw])
    if len(found) == len(names):
        return told
    return msgspec.json.encode({name: found.get(name) for name in names})


async def _long_values(txn: Transaction, cursor: Cursor, row: bytes, wanted: Wanted) -> dict[LongRef, Any]:
    out: dict[LongRef, Any] = {}
    told = 0
    for columnid, _, ref in cursor.plan.codec.references(row):
        if wanted.columns is not None and columnid not in wanted.columns:
            continue
        told += ref.size
        cursor.check_told(told)
        data = await longvalue.read(txn, cursor.table, ref)
        column = cursor.table.by_id[columnid]
        out[ref] = bytes_to_text(data, column.cp) if column.coltyp == Coltyp.LongText else data
    return out


# -- many at once -----------------------------------------------------------------------------------------------------
Values = Mapping[int, Any]  # by column id; a list has a column's multi-values


async def put_records(cursor: Cursor, records: Sequence[Values], mode: str, grbit: int = 0) -> int:
    """Inserts, replaces, upserts or deletes all records, or none: in the open transaction, or in one of their own.

    `cursor` says which table, and stays where it is.
    """
    session = cursor.session
    session.check()
    cursor.check_updatable()
    if session.level:
        txn = session.txn
        assert txn is not None
        mark = txn.savepoint()
        try:
            await _put_all(cursor, records, mode)
        except BaseException:
            txn.rollback_to(mark)
            session.writes += 1
            raise
        finally:
            txn.forget(mark)
        return len(records)
    await session.begin_transaction()
    try:
        await _put_all(cursor, records, mode)
        await session.commit_transaction(grbit)
    except BaseException:
        if session.level:
            await session.rollback(int(RollbackGrbit.RollbackAll))
        raise
    return len(records)


async def _put_all(cursor: Cursor, records: Sequence[Values], mode: str) -> None:
    session = cursor.session
    own = session._open_cursor(session.database(cursor.dbid), cursor.table, cursor.grbit)
    put = _MODES[mode]
    try:
        for place, values in enumerate(records):
            try:
                await put(own, values)
            except JetError as error:
                error.data.setdefault("record", place)
                raise
    finally:
        own.close()


async def _insert(cursor: Cursor, values: Values) -> None:
    await cursor.prepare_update(Prep.Insert)
    for columnid, value in values.items():
        await _set(cursor, columnid, value)
    await cursor.update()


async def _replace(cursor: Cursor, values: Values) -> None:
    await _go_to(cursor, values)
    await _replace_current(cursor, values)


async def _upsert(cursor: Cursor, values: Values) -> None:
    try:
        await _go_to(cursor, values)
    except JetError as error:
        if error.code != Err.RecordNotFound:
            raise
        await _insert(cursor, values)
        return
    await _replace_current(cursor, values)


async def _delete(cursor: Cursor, values: Values) -> None:
    await _go_to(cursor, values)
    await cursor.delete()


_MODES = {"insert": _insert, "replace": _replace, "upsert": _upsert, "delete": _delete}


async def _replace_current(cursor: Cursor, values: Values) -> None:
    await cursor.prepare_update(Prep.Replace)
    key = cursor.plan.rows.columns
    for columnid, value in values.items():
        if columnid in key:
            continue
        plan = cursor.plan.columns.get(columnid)
        if plan is not None and plan.tagged:
            for _ in range(_count(cursor, columnid)):
                await cursor.set_column(columnid, None)  # each removal moves the rest up
        await _set(cursor, columnid, value)
    await cursor.update()


def _count(cursor: Cursor, columnid: int) -> int:
    """How many values a column has in the record being prepared."""
    assert cursor.buffer is not None
    value = cursor.buffer.stored.get(columnid)
    return len(value) if type(value) is list else int(value is not None)


async def _set(cursor: Cursor, columnid: int, value: Any) -> None:
    if value == []:  # no values at all
        await cursor.set_column(columnid, None)
    elif type(value) is list:
        for one in value:
            await cursor.set_column(columnid, one, _ZERO_LENGTH if one in ("", b"") else 0, _ONE_MORE)
    elif value == "" or value == b"":
        await cursor.set_column(columnid, value, _ZERO_LENGTH)
    else:
        await cursor.set_column(columnid, value)


async def _go_to(cursor: Cursor, values: Values) -> None:
    """To the record with this primary key."""
    rows = cursor.plan.rows
    if rows.maker is None:
        raise JetError(Err.NoCurrentIndex, "the table has no primary index to find records by")
    for column in rows.columns:
        if column not in values:
            raise JetError(Err.InvalidParameter, f"the key column {cursor.table.by_id[column].name} is missing")
    checked = [None if (value := values[c]) is None else cursor.plan.columns[c].checked(value)[0] for c in rows.columns]
    try:
        await cursor.goto_bookmark(rows.maker.key(checked))
    except JetError as error:
        if error.code == Err.RecordDeleted:
            raise JetError(Err.RecordNotFound) from None
        raise
