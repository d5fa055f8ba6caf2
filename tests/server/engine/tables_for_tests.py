"""Small tables for the tests of cursors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest

from jetwire_protocol.data.flags import AddColumnGrbit, Coltyp, CreateIndexGrbit, Move, Prep
from jetwire_protocol.errors import Err, JetError
from jetwire_server.engine.columns import ColumnCreate
from jetwire_server.engine.cursor import Cursor
from jetwire_server.engine.indexes import IndexCreate
from jetwire_server.engine.session import Session
from jetwire_server.engine.tables import TableCreate


@contextmanager
def refuses(code: Err) -> Iterator[None]:
    """What is done inside must answer this error."""
    with pytest.raises(JetError) as caught:
        yield
    assert caught.value.code == code, caught.value


FIRST, LAST = int(Move.First), int(Move.Last)
A = AddColumnGrbit
I = CreateIndexGrbit  # noqa: E741
COLUMNS = (
    ColumnCreate("id", Coltyp.Long, grbit=A.ColumnFixed),
    ColumnCreate("n", Coltyp.Long, grbit=A.ColumnFixed),
    ColumnCreate("name", Coltyp.Text, 255, cp=1200),
    ColumnCreate("code", Coltyp.Text, 255, cp=1252),
    ColumnCreate("tags", Coltyp.LongText, cp=1200, grbit=A.ColumnTagged | A.ColumnMultiValued),
    ColumnCreate("data", Coltyp.LongBinary),
    ColumnCreate("sum", Coltyp.Long, grbit=A.ColumnFixed | A.ColumnEscrowUpdate, default=0),
    ColumnCreate("version", Coltyp.Long, grbit=A.ColumnFixed | A.ColumnVersion),
    ColumnCreate("size", Coltyp.Short, grbit=A.ColumnFixed, default=7),
)
INDEXES = (
    IndexCreate("pk", ("+id",), I.IndexPrimary),
    IndexCreate("byN", ("+n",)),
    IndexCreate("byName", ("+name",), I.IndexUnique | I.IndexIgnoreNull),
    IndexCreate("byTags", ("+tags",), I.IndexIgnoreNull),
    IndexCreate("down", ("-n", "+name")),
)


async def make_table(session: Session, dbid: int, name: str = "t") -> Cursor:
    """A table with columns and indexes of most kinds; the cursor that made it is closed, another is open."""
    made = await session.create_table_column_index(dbid, TableCreate(name, columns=COLUMNS, indexes=INDEXES))
    made.cursor.close()
    return await session.open_table(dbid, name)


def ids(cursor: Cursor) -> dict[str, int]:
    return {c.name: c.id for c in cursor.table.columns if not c.deleted}


async def insert(cursor: Cursor, **values: Any) -> bytes:
    return await _write(cursor, Prep.Insert, values)


async def replace(cursor: Cursor, **values: Any) -> bytes:
    return await _write(cursor, Prep.Replace, values)


async def _write(cursor: Cursor, prep: int, values: Mapping[str, Any]) -> bytes:
    await cursor.prepare_update(prep)
    columns = ids(cursor)
    for name, value in values.items():
        await cursor.set_column(columns[name], value)
    return await cursor.update()


async def get(cursor: Cursor, name: str, grbit: int = 0) -> Any:
    return (await cursor.retrieve_column(ids(cursor)[name], grbit)).value


async def walk(cursor: Cursor, name: str = "id", *, step: int = 1, grbit: int = 0) -> list[Any]:
    """The values of a column along the index, from where the cursor is to the end."""
    out = []
    while True:
        out.append(await get(cursor, name))
        try:
            await cursor.move(step, grbit)
        except JetError:
            return out


async def all_of(cursor: Cursor, name: str = "id") -> list[Any]:
    try:
        await cursor.move(FIRST)
    except JetError:
        return []
    return await walk(cursor, name)


def key(cursor: Cursor, *values: Any, last: int = 0) -> None:
    for place, value in enumerate(values):
        cursor.make_key(value, (0 if place else 1) | (last if place == len(values) - 1 else 0))
