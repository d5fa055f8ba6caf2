"""Cursors: moving, seeking, keys, ranges, bookmarks, positions, hints."""

from __future__ import annotations

from typing import Any

from jetwire_protocol.validate import Params
from jetwire_server.engine.bookmarks import RecordPosition
from jetwire_server.engine.navigation import Filter
from jetwire_server.engine.ranges import intersect_indexes
from jetwire_server.rpc.dispatch import handles
from jetwire_server.rpc.handlers.columns import column_of, cursor_of, read_key_part, read_value
from jetwire_server.rpc.handlers.common import Result, answer, session_of
from jetwire_server.rpc.peer import Peer


# -- moving -----------------------------------------------------------------------------------------------------------
@handles("Move")
async def move(peer: Peer, params: Params) -> Result:
    session, cursor = cursor_of(peer, params)
    await cursor.move(params["numRows"], params["grbit"])
    return answer(session)


@handles("Seek")
async def seek(peer: Peer, params: Params) -> Result:
    session, cursor = cursor_of(peer, params)
    await cursor.seek(params["grbit"])
    return answer(session)


@handles("MakeKey")
def make_key(peer: Peer, params: Params) -> Result:
    session, cursor = cursor_of(peer, params)
    grbit = params["grbit"]
    cursor.make_key(read_key_part(cursor, params["data"], grbit), grbit)
    return answer(session)


@handles("RetrieveKey")
async def retrieve_key(peer: Peer, params: Params) -> Result:
    session, cursor = cursor_of(peer, params)
    return answer(session, {"data": await cursor.retrieve_key(params["grbit"])})


@handles("SetIndexRange")
async def set_index_range(peer: Peer, params: Params) -> Result:
    session, cursor = cursor_of(peer, params)
    await cursor.set_index_range(params["grbit"])
    return answer(session)


@handles("SetCursorFilter")
async def set_cursor_filter(peer: Peer, params: Params) -> Result:
    session, cursor = cursor_of(peer, params)
    filters = []
    for place, row in enumerate(params["filters"]):
        column = await column_of(cursor, row["columnid"])
        filters.append(Filter(column.id, row["relop"], read_value(column, row["data"], f"filters.{place}.data"), row["grbit"]))
    cursor.set_cursor_filter(filters, params["grbit"])
    return answer(session)


# -- indexes ----------------------------------------------------------------------------------------------------------
@handles("SetCurrentIndex")
async def set_current_index(peer: Peer, params: Params) -> Result:
    session, cursor = cursor_of(peer, params)
    await cursor.set_current_index(params["indexname"], params["grbit"], params["itagSequence"], params["indexid"])
    return answer(session)


@handles("GetCurrentIndex")
def get_current_index(peer: Peer, params: Params) -> Result:
    session, cursor = cursor_of(peer, params)
    return answer(session, {"indexname": cursor.get_current_index()})


@handles("IndexRecordCount")
async def index_record_count(peer: Peer, params: Params) -> Result:
    session, cursor = cursor_of(peer, params)
    return answer(session, {"numRecords": await cursor.index_record_count(params["maxRecordsToCount"])})


@handles("IntersectIndexes")
async def intersect(peer: Peer, params: Params) -> Result:
    session = session_of(peer, params)
    cursors = [(session.cursor(row["tableid"]), row["grbit"]) for row in params["ranges"]]
    return answer(session, {"bookmarks": await intersect_indexes(cursors, params["grbit"])})


# -- bookmarks and positions ------------------------------------------------------------------------------------------
@handles("GetBookmark")
async def get_bookmark(peer: Peer, params: Params) -> Result:
    session, cursor = cursor_of(peer, params)
    return answer(session, {"bookmark": await cursor.get_bookmark()})


@handles("GotoBookmark")
async def goto_bookmark(peer: Peer, params: Params) -> Result:
    session, cursor = cursor_of(peer, params)
    await cursor.goto_bookmark(params["bookmark"])
    return answer(session)


@handles("GetSecondaryIndexBookmark")
async def get_secondary_index_bookmark(peer: Peer, params: Params) -> Result:
    session, cursor = cursor_of(peer, params)
    secondary, primary = await cursor.get_secondary_index_bookmark()
    return answer(session, {"secondaryKey": secondary, "primaryKey": primary})


@handles("GotoSecondaryIndexBookmark")
async def goto_secondary_index_bookmark(peer: Peer, params: Params) -> Result:
    session, cursor = cursor_of(peer, params)
    await cursor.goto_secondary_index_bookmark(params["secondaryKey"], params["primaryKey"], params["grbit"])
    return answer(session)


@handles("GetRecordPosition")
async def get_record_position(peer: Peer, params: Params) -> Result:
    session, cursor = cursor_of(peer, params)
    found = await cursor.get_record_position()
    recpos = {"entriesLT": found.entries_lt, "entriesInRange": found.entries_in_range, "entriesTotal": found.entries_total}
    return answer(session, {"recpos": recpos})


@handles("GotoPosition")
async def goto_position(peer: Peer, params: Params) -> Result:
    session, cursor = cursor_of(peer, params)
    given = params["recpos"]
    await cursor.goto_position(RecordPosition(given["entriesLT"], given["entriesInRange"], given["entriesTotal"]))
    return answer(session)


# -- hints ------------------------------------------------------------------------------------------------------------
@handles("SetTableSequential")
def set_table_sequential(peer: Peer, params: Params) -> Result:
    session, cursor = cursor_of(peer, params)
    cursor.set_table_sequential(params["grbit"])
    return answer(session)


@handles("ResetTableSequential")
def reset_table_sequential(peer: Peer, params: Params) -> Result:
    session, cursor = cursor_of(peer, params)
    cursor.reset_table_sequential(params["grbit"])
    return answer(session)


@handles("PrereadKeys")
def preread_keys(peer: Peer, params: Params) -> Result:
    session, cursor = cursor_of(peer, params)
    return answer(session, {"keysPreread": cursor.preread_keys(params["keys"], params["grbit"])})


@handles("PrereadIndexRanges")
async def preread_index_ranges(peer: Peer, params: Params) -> Result:
    session, cursor = cursor_of(peer, params)
    columns: list[Any] = [(await column_of(cursor, given)).id for given in params["columnsPreread"]]
    return answer(session, {"rangesPreread": cursor.preread_index_ranges(params["indexRanges"], columns, params["grbit"])})
