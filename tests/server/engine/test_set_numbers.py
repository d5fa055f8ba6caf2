"""SetColumn with plain values: what a column can hold is stored as it is given, and nothing else is."""

from __future__ import annotations

from typing import Any

import pytest

from jetwire_protocol.data.flags import AddColumnGrbit, Coltyp, SetColumnGrbit
from jetwire_protocol.errors import Err
from jetwire_server.engine.columns import ColumnCreate
from jetwire_server.engine.session import Session
from jetwire_server.engine.tables import TableCreate

from .tables_for_tests import get, ids, insert, refuses

C = Coltyp
INTEGERS = {
    C.UnsignedByte: (0, 2**8 - 1),
    C.Short: (-(2**15), 2**15 - 1),
    C.UnsignedShort: (0, 2**16 - 1),
    C.Long: (-(2**31), 2**31 - 1),
    C.UnsignedLong: (0, 2**32 - 1),
    C.Currency: (-(2**63), 2**63 - 1),
    C.LongLong: (-(2**63), 2**63 - 1),
    C.UnsignedLongLong: (0, 2**64 - 1),
}
FITS: list[tuple[Coltyp, Any, Any]] = [
    *((kind, value, value) for kind, bounds in INTEGERS.items() for value in bounds),
    (C.Bit, True, True),
    (C.IEEEDouble, 0.1, 0.1),
    (C.IEEEDouble, 3, 3.0),
    (C.IEEESingle, 0.1, 0.10000000149011612),
    (C.DateTime, 45000.5, 45000.5),
    *((kind, None, None) for kind in INTEGERS),
    *((kind, "", None) for kind in (C.Long, C.Bit, C.IEEEDouble, C.GUID)),
]
DOES_NOT: list[tuple[Coltyp, Any]] = [
    *((kind, least - 1) for kind, (least, _) in INTEGERS.items()),
    *((kind, most + 1) for kind, (_, most) in INTEGERS.items()),
    *((kind, value) for kind in INTEGERS for value in (True, 1.0, "1")),
    *((C.Bit, value) for value in (1, 1.0, "1")),
    *((kind, value) for kind in (C.IEEEDouble, C.IEEESingle) for value in (True, "1")),
    *((C.Text, value) for value in (1, True, 1.0)),
    *((C.Binary, value) for value in (1, True, 1.0, "1")),
]
PLACES = [AddColumnGrbit.ColumnFixed, 0, AddColumnGrbit.ColumnTagged]


async def table_of(session: Session, dbid: int, kind: Coltyp, grbit: int, **more: Any) -> Any:
    size = 10 if kind in (C.Text, C.Binary) else 0
    columns = (ColumnCreate("x", kind, size, cp=1252, grbit=grbit, **more),)
    made = await session.create_table_column_index(dbid, TableCreate("t", columns=columns))
    made.cursor.close()
    return await session.open_table(dbid, "t")


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(("kind", "value", "kept"), FITS)
async def test_a_value_that_fits(session: Session, dbid: int, kind: Coltyp, value: Any, kept: Any, place: int) -> None:
    cursor = await table_of(session, dbid, kind, place)
    await insert(cursor, x=value)
    found = await get(cursor, "x")
    assert (type(found), found) == (type(kept), kept)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(("kind", "value"), DOES_NOT)
async def test_a_value_that_does_not(session: Session, dbid: int, kind: Coltyp, value: Any, place: int) -> None:
    cursor = await table_of(session, dbid, kind, place)
    with refuses(Err.InvalidParameter):
        await insert(cursor, x=value)


async def test_columns_that_take_no_value_of_ours(session: Session, dbid: int) -> None:
    fixed = AddColumnGrbit.ColumnFixed
    cursor = await table_of(session, dbid, C.Long, fixed | AddColumnGrbit.ColumnAutoincrement)
    with refuses(Err.InvalidColumnType):
        await insert(cursor, x=5)


async def test_flags_are_looked_at(session: Session, dbid: int) -> None:
    cursor = await table_of(session, dbid, C.Long, AddColumnGrbit.ColumnFixed)
    await cursor.prepare_update(0)
    with refuses(Err.InvalidGrbit):
        await cursor.set_column(ids(cursor)["x"], 5, SetColumnGrbit.SetAppendLV)
