"""Records: written column by column, or many at once; read whole."""

from __future__ import annotations

from typing import Any

import msgspec

from jetwire_protocol.data.flags import SetColumnGrbit
from jetwire_protocol.errors import Err, JetError
from jetwire_protocol.validate import Mismatch, Params
from jetwire_protocol.values import from_wire
from jetwire_server.engine.cursor import Cursor
from jetwire_server.engine.schema import Column
from jetwire_server.engine.setting import SetColumn, SetInfo
from jetwire_server.engine.whole_records import Wanted, put_records, record_by_key, records_from
from jetwire_server.rpc.dispatch import handles
from jetwire_server.rpc.handlers.columns import column_of, cursor_of, on_cursor, read_value
from jetwire_server.rpc.handlers.common import Result, answer, refuse
from jetwire_server.rpc.peer import Peer

_SIZE = int(SetColumnGrbit.SetSizeLV)
_PUT_MODES = frozenset({"insert", "replace", "upsert", "delete"})
_RAW = msgspec.Raw
_ALL, _ALL_EXACT = Wanted(), Wanted(int64_strings=True)


# -- updates ----------------------------------------------------------------------------------------------------------
@on_cursor("PrepareUpdate")
async def prepare_update(cursor: Cursor, params: Params) -> None:
    await cursor.prepare_update(params["prep"])


@on_cursor("Update")
async def update(cursor: Cursor, params: Params) -> Result:
    return {"bookmark": await cursor.update(params["grbit"])}


@on_cursor("Delete")
async def delete(cursor: Cursor, params: Params) -> None:
    await cursor.delete()


def _value_to_set(column: Column, value: Any, grbit: int, member: str) -> Any:
    """SetSizeLV takes a size, whatever the column's type."""
    return value if grbit & _SIZE and type(value) is int else read_value(column, value, member)


@on_cursor("SetColumn")
async def set_column(cursor: Cursor, params: Params) -> None:
    grbit, info = params["grbit"], params["setinfo"]
    column = await column_of(cursor, params["columnid"])
    value = _value_to_set(column, params["data"], grbit, "data")
    await cursor.set_column(column.id, value, grbit, info and SetInfo(info["offset"], info["itagSequence"]))


@on_cursor("SetColumns")
async def set_columns(cursor: Cursor, params: Params) -> Result:
    entries = []
    for place, row in enumerate(params["setcolumns"]):
        column = await column_of(cursor, row["columnid"])
        value = _value_to_set(column, row["data"], row["grbit"], f"setcolumns.{place}.data")
        entries.append(SetColumn(column.id, value, row["grbit"], row["offset"], row["itagSequence"]))
    await cursor.set_columns(entries)
    return {"setcolumns": [{"err": entry.err} for entry in entries]}


@on_cursor("GetLock")
async def get_lock(cursor: Cursor, params: Params) -> None:
    await cursor.get_lock(params["grbit"])


@on_cursor("GetCursorInfo")
async def get_cursor_info(cursor: Cursor, params: Params) -> None:
    await cursor.get_cursor_info()


# -- whole records ----------------------------------------------------------------------------------------------------
def _all(peer: Peer) -> Wanted:
    return _ALL_EXACT if peer.int64_strings else _ALL


async def _wanted(peer: Peer, cursor: Cursor, columns: list[int | str]) -> Wanted:
    ids = tuple([(await column_of(cursor, given)).id for given in columns])
    return Wanted(ids, peer.int64_strings)


@handles("GetRecord")
async def get_record(peer: Peer, params: Params) -> Result:
    session, cursor = cursor_of(peer, params)
    columns, index = params["columns"], params["indexname"]
    wanted = _all(peer) if columns is None else await _wanted(peer, cursor, columns)
    plan = cursor.at if index is None else cursor.plan.by_name.get(index.lower())
    key = params["key"]
    if plan is not None and plan.maker is not None:
        segments = plan.maker.spec.segments
        try:
            key = [
                value if value is None or type(value) is bytes else from_wire(segment.coltyp, value, segment.cp)
                for value, segment in zip(key, segments, strict=False)
            ] + key[len(segments) :]
        except Mismatch as mismatch:
            raise mismatch.inside("key") from None
    record, bookmark = await record_by_key(cursor, key, wanted, index)
    return answer(session, {"record": _RAW(record), "bookmark": bookmark})


@handles("GetRecords")
async def get_records(peer: Peer, params: Params) -> Result:
    session, cursor = cursor_of(peer, params)
    if params["direction"] not in ("forward", "backward"):
        refuse("direction", 'expected "forward" or "backward"')
    columns = params["columns"]
    wanted = _all(peer) if columns is None else await _wanted(peer, cursor, columns)
    records, more = await records_from(cursor, params["limit"], wanted, forward=params["direction"] == "forward")
    return answer(session, {"records": _RAW(b"[%b]" % b",".join(records)), "more": more})


@on_cursor("PutRecords")
async def put_many(cursor: Cursor, params: Params) -> Result:
    if params["mode"] not in _PUT_MODES:
        refuse("mode", f"expected one of {', '.join(sorted(_PUT_MODES))}")
    columns: dict[str, Column] = {}
    records = [await _read_record(cursor, columns, record, place) for place, record in enumerate(params["records"])]
    return {"count": await put_records(cursor, records, params["mode"], params["grbit"])}


async def _read_record(cursor: Cursor, columns: dict[str, Column], record: dict[str, Any], place: int) -> dict[int, Any]:
    """A record by column names as one by column ids, its values as the engine takes them."""
    out: dict[int, Any] = {}
    for name, value in record.items():
        column = columns.get(name)
        if column is None:
            try:
                column = columns[name] = await column_of(cursor, name)
            except JetError as error:
                raise JetError(Err.ColumnNotFound, error.detail, record=place) from None
        if value is None:
            out[column.id] = None
            continue
        try:
            if type(value) is list:
                out[column.id] = [from_wire(column.coltyp, one, column.cp) for one in value]
            else:
                out[column.id] = from_wire(column.coltyp, value, column.cp)
        except Mismatch as mismatch:
            raise mismatch.inside(name).inside(str(place)).inside("records") from None
    return out
