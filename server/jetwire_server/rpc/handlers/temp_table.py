"""Temporary tables: opened here, used and closed like any other."""

from __future__ import annotations

from typing import Any

from jetwire_protocol.validate import Params
from jetwire_server.engine.columns import ColumnCreate
from jetwire_server.engine.locales import check_flags, locale_of
from jetwire_server.engine.session import Session
from jetwire_server.engine.temptable import TempTableCreate, open_temp_table
from jetwire_server.rpc.dispatch import handles
from jetwire_server.rpc.handlers.common import Result, answer, session_of
from jetwire_server.rpc.peer import Peer

_STANDARD = TempTableCreate(())


def _locale(lcid: int | None, unicode: dict[str, Any] | None) -> tuple[str, int]:
    """The locale by its name before its number, and how text is mapped; what is not said is as in any temporary table."""
    locale, flags = _STANDARD.locale, _STANDARD.lcmap_flags
    if unicode is not None:
        named = unicode["localeName"]
        locale, flags = locale_of(unicode["lcid"]) if named is None else named, unicode["mapFlags"] or flags
    elif lcid:
        locale = locale_of(lcid)
    return check_flags(locale, flags)


async def _open(session: Session, given: dict[str, Any], locale: tuple[str, int], key_most: int = 0, var_seg_mac: int = 0) -> Result:
    columns = tuple(ColumnCreate("", row["coltyp"], row["max"], row["grbit"], None, row["cp"]) for row in given["columns"])
    cursor, columnids = await open_temp_table(session, TempTableCreate(columns, given["grbit"], *locale, key_most, var_seg_mac))
    return answer(session, {"tableid": cursor.id, "columnids": columnids})


@handles("OpenTempTable")
async def open_temp(peer: Peer, params: Params) -> Result:
    return await _open(session_of(peer, params), params, _locale(params["lcid"], params["unicodeIndex"]))


@handles("OpenTemporaryTable")
async def open_temporary(peer: Peer, params: Params) -> Result:
    given = params["temporarytable"]
    session = session_of(peer, params)
    return await _open(session, given, _locale(None, given["unicodeIndex"]), given["keyMost"], given["varSegMac"])
