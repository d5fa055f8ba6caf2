"""What can be asked about databases' tables, columns, indexes and objects: levels in, answers as the engine names them."""

from __future__ import annotations

from typing import Any

from jetwire_protocol.data.flags import ColInfo
from jetwire_protocol.validate import Params
from jetwire_protocol.values import to_wire
from jetwire_server.engine.session import Session
from jetwire_server.rpc.dispatch import handles
from jetwire_server.rpc.handlers.common import Result, answer, on_session, session_of
from jetwire_server.rpc.peer import Peer

_LISTS = (ColInfo.List, ColInfo.ListCompact, ColInfo.ListSortColumnid)
_BASES = (ColInfo.Base, ColInfo.BaseByColid)


@on_session("GetTableInfo")
async def get_table_info(session: Session, params: Params) -> Result:
    return {"result": await session.get_table_info(session.cursor(params["tableid"]), params["infoLevel"])}


@on_session("ComputeStats")
async def compute_stats(session: Session, params: Params) -> None:
    await session.compute_stats(session.cursor(params["tableid"]))


@on_session("GetObjectInfo")
async def get_object_info(session: Session, params: Params) -> Result:
    found = await session.get_object_info(params["dbid"], params["objtyp"], params["objectName"], params["infoLevel"])
    is_list = isinstance(found, list)
    return {"objectinfo": None if is_list else found, "rows": found if is_list else None}


# -- columns ----------------------------------------------------------------------------------------------------------
def _column_info(peer: Peer, level: int, found: Any) -> Result:
    """The engine's answer in the member that belongs to its level."""
    result: Result = {"columndef": None, "columnbase": None, "rows": None}
    if level in _LISTS:
        for row in found:
            if "defaultValue" in row:
                row["defaultValue"] = to_wire(row["defaultValue"], int64_strings=peer.int64_strings)
        result["rows"] = found
    else:
        result["columnbase" if level in _BASES else "columndef"] = found
    return result


def _which(params: Params) -> str | int | None:
    column: str | int | None = params["columnname"] if params["columnname"] is not None else params["columnid"]
    return column


@handles("GetColumnInfo")
async def get_column_info(peer: Peer, params: Params) -> Result:
    session = session_of(peer, params)
    level = params["infoLevel"]
    found = await session.get_column_info(params["dbid"], params["tablename"], _which(params), level, params["grbit"])
    return answer(session, _column_info(peer, level, found))


@handles("GetTableColumnInfo")
async def get_table_column_info(peer: Peer, params: Params) -> Result:
    session = session_of(peer, params)
    level = params["infoLevel"]
    found = await session.get_table_column_info(session.cursor(params["tableid"]), _which(params), level, params["grbit"])
    return answer(session, _column_info(peer, level, found))


# -- indexes ----------------------------------------------------------------------------------------------------------
@on_session("GetIndexInfo")
async def get_index_info(session: Session, params: Params) -> Result:
    found = await session.get_index_info(params["dbid"], params["tablename"], params["indexname"], params["infoLevel"])
    return {"result": found}


@on_session("GetTableIndexInfo")
async def get_table_index_info(session: Session, params: Params) -> Result:
    found = await session.get_table_index_info(session.cursor(params["tableid"]), params["indexname"], params["infoLevel"])
    return {"result": found}
