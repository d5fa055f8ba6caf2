"""Tables, columns and indexes: what changes a schema, and opening and closing cursors."""

from __future__ import annotations

from typing import Any

from jetwire_protocol.data.flags import Coltyp
from jetwire_protocol.validate import Mismatch, Params
from jetwire_protocol.values import from_wire
from jetwire_server.engine.columns import ColumnCreate
from jetwire_server.engine.indexes import IndexCreate, UnicodeIndex
from jetwire_server.engine.schema import TupleLimits
from jetwire_server.engine.session import Session
from jetwire_server.engine.tables import TableCreate
from jetwire_server.rpc.dispatch import handles
from jetwire_server.rpc.handlers.common import Result, answer, leaving_session_of, on_session, refuse
from jetwire_server.rpc.peer import Peer

_CODE_PAGE_DEFAULT = 1252  # what cp 0 means


# -- wire objects as the engine's -------------------------------------------------------------------------------------
def default_value(coltyp: int, cp: int, value: Any, member: str) -> Any:
    """A default as the column's type reads it; of an unknown type the engine says so itself."""
    if value is None or not Coltyp.Nil < coltyp < Coltyp.Max or coltyp == Coltyp.SLV or isinstance(value, dict):
        return value
    try:
        return from_wire(Coltyp(coltyp), value, cp or _CODE_PAGE_DEFAULT)
    except Mismatch as mismatch:
        raise mismatch.inside(member) from None


def column_create(name: str, given: dict[str, Any], default: Any, member: str) -> ColumnCreate:
    value = default_value(given["coltyp"], given["cp"], default, member)
    return ColumnCreate(name, given["coltyp"], given["max"], given["grbit"], value, given["cp"])


def index_create(given: dict[str, Any]) -> IndexCreate:
    unicode, tuples = given["unicodeIndex"], given["tupleLimits"]
    return IndexCreate(
        name=given["name"],
        key=tuple(given["key"]),
        grbit=given["grbit"],
        density=given["density"],
        lcid=given["lcid"],
        unicode=unicode and UnicodeIndex(unicode["lcid"], unicode["localeName"], unicode["mapFlags"]),
        var_seg_mac=given["varSegMac"],
        tuples=tuples and TupleLimits(tuples["lengthMin"], tuples["lengthMax"], tuples["toIndexMax"], tuples["increment"], tuples["start"]),
        conditions=tuple((row["name"], row["grbit"]) for row in given["conditionalColumns"]),
        key_most=given["keyMost"],
        hints=given["spaceHints"],
    )


# -- tables -----------------------------------------------------------------------------------------------------------
@on_session("CreateTable")
async def create_table(session: Session, params: Params) -> Result:
    cursor = await session.create_table(params["dbid"], params["tablename"], params["pages"], params["density"])
    return {"tableid": cursor.id}


@on_session("CreateTableColumnIndex")
async def create_table_column_index(session: Session, params: Params) -> Result:
    given = params["tablecreate"]
    columns = tuple(
        column_create(row["name"], row, row["defaultValue"], f"tablecreate.columns.{place}.defaultValue")
        for place, row in enumerate(given["columns"])
    )
    hints = {name: given[name] for name in ("seqSpacehints", "lvSpacehints", "separateLV") if given[name]}
    made = await session.create_table_column_index(
        params["dbid"],
        TableCreate(
            given["name"],
            given["templateTableName"],
            given["pages"],
            given["density"],
            columns,
            tuple(map(index_create, given["indexes"])),
            given["callback"],
            given["cbtyp"],
            given["grbit"],
            hints,
        ),
    )
    return {
        "tableid": made.cursor.id,
        "created": made.created,
        "columns": [{"columnid": columnid, "err": 0} for columnid in made.columnids],
        "indexes": [{"err": 0} for _ in given["indexes"]],
    }


@on_session("OpenTable")
async def open_table(session: Session, params: Params) -> Result:
    cursor = await session.open_table(params["dbid"], params["tablename"], params["grbit"])
    return {"tableid": cursor.id}


@handles("CloseTable")
async def close_table(peer: Peer, params: Params) -> Result:
    session = leaving_session_of(peer, params)
    await session.close_table(params["tableid"])
    return answer(session)


@on_session("DeleteTable")
async def delete_table(session: Session, params: Params) -> None:
    await session.delete_table(params["dbid"], params["tablename"])


@on_session("RenameTable")
async def rename_table(session: Session, params: Params) -> None:
    await session.rename_table(params["dbid"], params["tablename"], params["newTablename"])


# -- columns ----------------------------------------------------------------------------------------------------------
@on_session("AddColumn")
async def add_column(session: Session, params: Params) -> Result:
    spec = column_create(params["columnname"], params["columndef"], params["defaultValue"], "defaultValue")
    columnid = await session.add_column(session.cursor(params["tableid"]), params["columnname"], spec)
    return {"columnid": columnid}


@on_session("DeleteColumn")
async def delete_column(session: Session, params: Params) -> None:
    await session.delete_column(session.cursor(params["tableid"]), params["columnname"], params["grbit"])


@on_session("RenameColumn")
async def rename_column(session: Session, params: Params) -> None:
    await session.rename_column(session.cursor(params["tableid"]), params["name"], params["newName"], params["grbit"])


@on_session("SetColumnDefaultValue")
async def set_column_default_value(session: Session, params: Params) -> None:
    handle = session.database(params["dbid"])
    value = params["data"]
    async with session.operation(write=False) as txn:
        table = await handle.database.catalog.find(txn, params["tablename"])
    column = table.by_name.get(params["columnname"].lower()) if table is not None else None
    if column is not None:
        value = default_value(column.coltyp, column.cp, value, "data")
    await session.set_column_default_value(params["dbid"], params["tablename"], params["columnname"], value, params["grbit"])


# -- indexes ----------------------------------------------------------------------------------------------------------
@on_session("CreateIndex")
async def create_index(session: Session, params: Params) -> Result:
    cursor = session.cursor(params["tableid"])
    flat = {"indexname": params["indexname"], "keyDescription": params["keyDescription"]}
    if params["indexcreates"] is not None:
        for member, value in flat.items():
            if value is not None:
                refuse(member, "either indexcreates, or the flat members")
        await session.create_index(cursor, tuple(map(index_create, params["indexcreates"])))
        return {"indexcreates": [{"err": 0} for _ in params["indexcreates"]]}
    for member, value in flat.items():
        if value is None:
            refuse(member, "missing member")
    create = IndexCreate(params["indexname"], tuple(params["keyDescription"]), params["grbit"], params["density"])
    await session.create_index(cursor, (create,))
    return {"indexcreates": None}


@on_session("DeleteIndex")
async def delete_index(session: Session, params: Params) -> None:
    await session.delete_index(session.cursor(params["tableid"]), params["indexname"])
