"""Cursors: moving, seeking, keys, ranges, bookmarks, positions, hints."""

from __future__ import annotations

from typing import Any

from jetwire_protocol.validate import Params
from jetwire_server.engine.bookmarks import RecordPosition
from jetwire_server.engine.cursor import Cursor
from jetwire_server.engine.navigation import Filter
from jetwire_server.engine.ranges import intersect_indexes
from jetwire_server.engine.session import Session
from jetwire_server.rpc.handlers.columns import column_of, on_cursor, read_key_part, read_value
from jetwire_server.rpc.handlers.common import Result, on_session


# -- moving -----------------------------------------------------------------------------------------------------------
@on_cursor("Move")
async def move(cursor: Cursor, params: Params) -> None:
    await cursor.move(params["numRows"], params["grbit"])


@on_cursor("Seek")
async def seek(cursor: Cursor, params: Params) -> None:
    await cursor.seek(params["grbit"])


@on_cursor("MakeKey")
def make_key(cursor: Cursor, params: Params) -> None:
    grbit = params["grbit"]
    cursor.make_key(read_key_part(cursor, params["data"], grbit), grbit)


@on_cursor("RetrieveKey")
async def retrieve_key(cursor: Cursor, params: Params) -> Result:
    return {"data": await cursor.retrieve_key(params["grbit"])}


@on_cursor("SetIndexRange")
async def set_index_range(cursor: Cursor, params: Params) -> None:
    await cursor.set_index_range(params["grbit"])


@on_cursor("SetCursorFilter")
async def set_cursor_filter(cursor: Cursor, params: Params) -> None:
    filters = []
    for place, row in enumerate(params["filters"]):
        column = await column_of(cursor, row["columnid"])
        filters.append(Filter(column.id, row["relop"], read_value(column, row["data"], f"filters.{place}.data"), row["grbit"]))
    cursor.set_cursor_filter(filters, params["grbit"])


# -- indexes ----------------------------------------------------------------------------------------------------------
@on_cursor("SetCurrentIndex")
async def set_current_index(cursor: Cursor, params: Params) -> None:
    await cursor.set_current_index(params["indexname"], params["grbit"], params["itagSequence"], params["indexid"])


@on_cursor("GetCurrentIndex")
def get_current_index(cursor: Cursor, params: Params) -> Result:
    return {"indexname": cursor.get_current_index()}


@on_cursor("IndexRecordCount")
async def index_record_count(cursor: Cursor, params: Params) -> Result:
    return {"numRecords": await cursor.index_record_count(params["maxRecordsToCount"])}


@on_session("IntersectIndexes")
async def intersect(session: Session, params: Params) -> Result:
    cursors = [(session.cursor(row["tableid"]), row["grbit"]) for row in params["ranges"]]
    return {"bookmarks": await intersect_indexes(cursors, params["grbit"])}


# -- bookmarks and positions ------------------------------------------------------------------------------------------
@on_cursor("GetBookmark")
async def get_bookmark(cursor: Cursor, params: Params) -> Result:
    return {"bookmark": await cursor.get_bookmark()}


@on_cursor("GotoBookmark")
async def goto_bookmark(cursor: Cursor, params: Params) -> None:
    await cursor.goto_bookmark(params["bookmark"])


@on_cursor("GetSecondaryIndexBookmark")
async def get_secondary_index_bookmark(cursor: Cursor, params: Params) -> Result:
    secondary, primary = await cursor.get_secondary_index_bookmark()
    return {"secondaryKey": secondary, "primaryKey": primary}


@on_cursor("GotoSecondaryIndexBookmark")
async def goto_secondary_index_bookmark(cursor: Cursor, params: Params) -> None:
    await cursor.goto_secondary_index_bookmark(params["secondaryKey"], params["primaryKey"], params["grbit"])


@on_cursor("GetRecordPosition")
async def get_record_position(cursor: Cursor, params: Params) -> Result:
    found = await cursor.get_record_position()
    recpos = {"entriesLT": found.entries_lt, "entriesInRange": found.entries_in_range, "entriesTotal": found.entries_total}
    return {"recpos": recpos}


@on_cursor("GotoPosition")
async def goto_position(cursor: Cursor, params: Params) -> None:
    given = params["recpos"]
    await cursor.goto_position(RecordPosition(given["entriesLT"], given["entriesInRange"], given["entriesTotal"]))


# -- hints ------------------------------------------------------------------------------------------------------------
@on_cursor("SetTableSequential")
def set_table_sequential(cursor: Cursor, params: Params) -> None:
    cursor.set_table_sequential(params["grbit"])


@on_cursor("ResetTableSequential")
def reset_table_sequential(cursor: Cursor, params: Params) -> None:
    cursor.reset_table_sequential(params["grbit"])


@on_cursor("PrereadKeys")
def preread_keys(cursor: Cursor, params: Params) -> Result:
    return {"keysPreread": cursor.preread_keys(params["keys"], params["grbit"])}


@on_cursor("PrereadIndexRanges")
async def preread_index_ranges(cursor: Cursor, params: Params) -> Result:
    columns: list[Any] = [(await column_of(cursor, given)).id for given in params["columnsPreread"]]
    return {"rangesPreread": cursor.preread_index_ranges(params["indexRanges"], columns, params["grbit"])}
