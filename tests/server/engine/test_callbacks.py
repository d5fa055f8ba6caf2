"""Who is told of what: JET_CBTYP beyond the changes of records (those are in tests/server/rpc), and local storage."""

from __future__ import annotations

from typing import Any

import pytest

from jetwire_protocol.data.flags import Cbtyp, DefragmentGrbit, SetLSGrbit
from jetwire_protocol.errors import Err
from jetwire_server.engine.cursor import Cursor
from jetwire_server.engine.session import Session
from tests.server.engine.tables_for_tests import make_table, refuses

L, D = SetLSGrbit, DefragmentGrbit
Told = list[tuple[int, Any]]


@pytest.fixture
async def cursor(session: Session, dbid: int) -> Cursor:
    return await make_table(session, dbid)


def listen(cursor: Cursor, mask: int) -> Told:
    told: Told = []
    cursor.database.callbacks.register(cursor, mask, lambda number, at, what, arg: told.append((what, arg)))
    return told


async def test_the_end_of_local_storage_is_told(session: Session, dbid: int, cursor: Cursor) -> None:
    told = listen(cursor, Cbtyp.FreeCursorLS | Cbtyp.FreeTableLS)
    second = await session.open_table(dbid, "t")
    second.set_ls(5)
    second.set_ls(7, L.LSTable)
    assert (cursor.get_ls(L.LSTable), second.get_ls(L.LSCursor)) == (7, 5)
    second.close()
    assert told == [(Cbtyp.FreeCursorLS, 5)]  # the table is still open
    cursor.close()
    assert told[1:] == [(Cbtyp.FreeTableLS, 7)]
    again = await session.open_table(dbid, "t")
    with refuses(Err.LSNotSet):
        again.get_ls(L.LSTable)


async def test_a_rollback_frees_the_storage_of_the_cursors_it_closes(session: Session, dbid: int, cursor: Cursor) -> None:
    told = listen(cursor, Cbtyp.FreeCursorLS)
    await session.begin_transaction()
    inside = await session.open_table(dbid, "t")
    inside.set_ls("x")
    cursor.set_ls("y")
    await session.rollback()
    assert told == [(Cbtyp.FreeCursorLS, "x")]


async def test_what_is_taken_away_is_not_told(cursor: Cursor) -> None:
    told = listen(cursor, Cbtyp.FreeCursorLS | Cbtyp.FreeTableLS)
    for bit in (L.LSCursor, L.LSTable):
        cursor.set_ls(1, bit)
        with refuses(Err.LSAlreadySet):
            cursor.set_ls(2, bit)
        assert cursor.get_ls(bit | L.LSReset) == 1
        cursor.set_ls(3, bit)
        cursor.set_ls(None, bit | L.LSReset)
        with refuses(Err.LSNotSet):
            cursor.get_ls(bit)
    cursor.close()
    assert told == []
    with refuses(Err.InvalidGrbit):
        cursor.set_ls(1, L.LSCursor | L.LSTable)
    with refuses(Err.InvalidGrbit):
        cursor.get_ls(8)


async def test_the_end_of_a_defragmentation_is_told(session: Session, dbid: int, cursor: Cursor) -> None:
    told = listen(cursor, Cbtyp.OnlineDefragCompleted)
    await session.defragment(dbid, None, 1, None, D.DefragmentBatchStart)
    assert told == [(Cbtyp.OnlineDefragCompleted, None)]
    await session.defragment(dbid, None, None, None, D.DefragmentBatchStart)
    assert len(told) == 1  # it goes on until it is stopped
    await session.defragment(dbid, None, None, None, D.DefragmentBatchStop)
    assert len(told) == 2


@pytest.mark.parametrize("mask", [0, int(Cbtyp.UserDefinedDefaultValue), 4096, int(Cbtyp.AfterInsert) | 1 << 20])
async def test_what_nobody_can_be_told_of(cursor: Cursor, mask: int) -> None:
    with refuses(Err.InvalidParameter):
        listen(cursor, mask)
