"""Reading the current record column by column, its size, and escrow updates."""

from __future__ import annotations

from typing import Any

from jetwire_protocol.data.flags import Coltyp
from jetwire_protocol.validate import Params
from jetwire_protocol.values import to_wire
from jetwire_server.engine.cursor import Cursor
from jetwire_server.engine.record_size import RecordSize
from jetwire_server.engine.retrieve import RetInfo, RetrieveColumn
from jetwire_server.rpc.dispatch import handles
from jetwire_server.rpc.handlers.columns import column_of, cursor_of, on_cursor
from jetwire_server.rpc.handlers.common import Result, answer
from jetwire_server.rpc.peer import Peer

_BINARY = frozenset({Coltyp.Binary, Coltyp.LongBinary})

# The members of RECSIZE, in the order of the engine's `RecordSize`.
_SIZES = {
    "data": "data",
    "longValueData": "long_value_data",
    "overhead": "overhead",
    "longValueOverhead": "long_value_overhead",
    "nonTaggedColumns": "non_tagged_columns",
    "taggedColumns": "tagged_columns",
    "longValues": "long_values",
    "multiValues": "multi_values",
    "compressedColumns": "compressed_columns",
    "dataCompressed": "data_compressed",
    "longValueDataCompressed": "long_value_data_compressed",
}


async def _id_of(cursor: Cursor, given: int | str) -> int:
    """A column's id by its name. An id is left to the engine to check: 0 means something to some calls."""
    return given if type(given) is int else (await column_of(cursor, given)).id


def tell(peer: Peer, cursor: Cursor, columnid: int, value: Any) -> Any:
    """A value as it stands on the wire. Bytes of a column that is not binary are a part of its stored form."""
    if type(value) is bytes:
        column = cursor.table.by_id.get(columnid)
        return value if column is None or column.coltyp in _BINARY else {"base64": value}
    return to_wire(value, int64_strings=peer.int64_strings)


@handles("RetrieveColumn")
async def retrieve_column(peer: Peer, params: Params) -> Result:
    session, cursor = cursor_of(peer, params)
    info = params["retinfo"]
    columnid = await _id_of(cursor, params["columnid"])
    got = await cursor.retrieve_column(
        columnid, params["grbit"], info and RetInfo(info["offset"], info["itagSequence"]), params["maxDataSize"]
    )
    result: Result = {"data": tell(peer, cursor, got.columnid, got.value), "actualDataSize": got.size}
    if info is not None:
        result["retinfo"] = {"offset": info["offset"], "itagSequence": got.itag, "columnidNextTagged": got.columnid}
    return answer(session, result)


@handles("RetrieveColumns")
async def retrieve_columns(peer: Peer, params: Params) -> Result:
    session, cursor = cursor_of(peer, params)
    entries = []
    for row in params["retrievecolumns"]:
        columnid = await _id_of(cursor, row["columnid"])
        entries.append(RetrieveColumn(columnid, row["grbit"], row["offset"], row["itagSequence"], row["maxDataSize"]))
    await cursor.retrieve_columns(entries)
    rows = [
        {
            "columnid": entry.columnid,
            "data": tell(peer, cursor, entry.next_tagged or entry.columnid, entry.value),
            "actualDataSize": entry.size,
            "itagSequence": entry.itag,
            "columnidNextTagged": entry.next_tagged,
            "err": entry.err,
        }
        for entry in entries
    ]
    return answer(session, {"retrievecolumns": rows})


@handles("EnumerateColumns")
async def enumerate_columns(peer: Peer, params: Params) -> Result:
    session, cursor = cursor_of(peer, params)
    asked = None
    if params["columnids"] is not None:
        asked = []
        for row in params["columnids"]:
            columnid = await _id_of(cursor, row["columnid"])
            asked.append((columnid, row["tagSequences"]))
    found = await cursor.enumerate_columns(asked, params["maxDataSize"], params["grbit"])
    columns = [
        {
            "columnid": column.columnid,
            "err": column.err,
            "values": [
                {"itagSequence": one.itag, "err": one.err, "data": tell(peer, cursor, column.columnid, one.value)} for one in column.values
            ],
            "data": tell(peer, cursor, column.columnid, column.value),
        }
        for column in found
    ]
    return answer(session, {"columnValues": columns})


@on_cursor("GetRecordSize")
async def get_record_size(cursor: Cursor, params: Params) -> Result:
    given = params["recsize"]
    running = given and RecordSize(**{name: given[member] for member, name in _SIZES.items()})
    size = await cursor.get_record_size(running, params["grbit"])
    return {"recsize": {member: getattr(size, name) for member, name in _SIZES.items()}}


@on_cursor("EscrowUpdate")
async def escrow_update(cursor: Cursor, params: Params) -> Result:
    columnid = await _id_of(cursor, params["columnid"])
    before = await cursor.escrow_update(columnid, params["delta"], params["grbit"])
    return {"previousValue": before}


# -- cursors and what they carry --------------------------------------------------------------------------------------
@on_cursor("DupCursor")
async def dup_cursor(cursor: Cursor, params: Params) -> Result:
    return {"newTableid": (await cursor.dup_cursor(params["grbit"])).id}


@on_cursor("SetLS")
def set_ls(cursor: Cursor, params: Params) -> None:
    cursor.set_ls(params["ls"], params["grbit"])


@on_cursor("GetLS")
def get_ls(cursor: Cursor, params: Params) -> Result:
    return {"ls": cursor.get_ls(params["grbit"])}
