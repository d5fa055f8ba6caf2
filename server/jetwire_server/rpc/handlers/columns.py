"""Columns and their values between the wire and a cursor: names to ids, JSON to plain Python, and back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jetwire_protocol.data.flags import MakeKeyGrbit
from jetwire_protocol.errors import Err, JetError
from jetwire_protocol.validate import Mismatch, Params, base64_bytes
from jetwire_protocol.values import from_wire
from jetwire_server.engine.cursor import Cursor
from jetwire_server.engine.schema import TAGGED_LAST, Column
from jetwire_server.engine.session import Session
from jetwire_server.rpc.dispatch import Handler
from jetwire_server.rpc.handlers.common import registered, session_of
from jetwire_server.rpc.peer import Peer

_NEW_KEY = int(MakeKeyGrbit.NewKey)
_NORMALIZED = int(MakeKeyGrbit.NormalizedKey)


def cursor_of(peer: Peer, params: Params) -> tuple[Session, Cursor]:
    """The session and the cursor that a call names."""
    session = session_of(peer, params)
    cursor = session.cursors.get(params["tableid"])
    if cursor is None:
        session.check()
        raise JetError(Err.InvalidTableId, f"tableid {params['tableid']}")
    return session, cursor


def on_cursor(*names: str) -> Callable[[Callable[..., Any]], Handler]:
    """Registers `(cursor, params) -> result or None`, plain or async: the cursor is found before it, the warning told after it."""
    return registered(names, cursor_of)


async def column_of(cursor: Cursor, given: int | str) -> Column:
    """A column by id or name. One that is not known is looked for again in the newest description the cursor may see."""
    for fresh in (False, True):
        if fresh:
            async with cursor.session.operation(write=False) as txn:
                await cursor.session.refresh_table(cursor, txn)
        table = cursor.table
        column = table.by_name.get(given.lower()) if type(given) is str else table.by_id.get(given)  # type: ignore[arg-type]
        if column is not None:
            return column
    possible = type(given) is str or 0 < given <= TAGGED_LAST  # type: ignore[operator]
    raise JetError(Err.ColumnNotFound if possible else Err.BadColumnId, f"column {given}")


def read_value(column: Column, value: Any, member: str) -> Any:
    """A wire value as the engine takes it. Bytes stay: to the engine they are the stored form, whatever the type."""
    if value is None or type(value) is bytes:
        return value
    if type(value) is dict and len(value) == 1 and "base64" in value:
        return in_member(member, base64_bytes, value["base64"])
    return in_member(member, from_wire, column.coltyp, value, column.cp)


def in_member(member: str, read: Any, *arguments: Any) -> Any:
    """What is wrong with a value is told with the name of the member it stands in."""
    try:
        return read(*arguments)
    except Mismatch as mismatch:
        raise mismatch.inside(member) from None


def read_key_part(cursor: Cursor, value: Any, grbit: int, member: str = "data") -> Any:
    """A value for the search key's next column, which says how it is to be read."""
    if value is None or type(value) is bytes:
        return value
    if grbit & _NORMALIZED:
        return in_member(member, base64_bytes, value)
    search = cursor.search
    place = 0 if grbit & _NEW_KEY else search.columns
    if search.maker is None or place >= len(search.maker.spec.segments):
        return value  # the engine says what is wrong
    segment = search.maker.spec.segments[place]
    return in_member(member, from_wire, segment.coltyp, value, segment.cp)
