"""`jetwired dump`: a table of an instance that nobody runs, without changing a byte of it.

What is in the log only must be recovered before it can be read, and recovery writes. So a copy is recovered: the page
files and the log from the checkpoint on, in the system's temporary directory (`TMPDIR` names another), gone afterwards.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple, cast

import msgspec

from jetwire_protocol.data.flags import AttachDatabaseGrbit, ColInfo, ObjectinfoFlags, ObjInfo, OpenTableGrbit
from jetwire_protocol.errors import Err, JetError
from jetwire_server.clock import Clock
from jetwire_server.engine.engine import Engine
from jetwire_server.engine.instance import Instance
from jetwire_server.engine.session import Session
from jetwire_server.engine.whole_records import Wanted, records_from
from jetwire_server.events import EventLog
from jetwire_server.offline.copying import scratch_copy
from jetwire_server.offline.places import Place, page_files
from jetwire_server.offline.recovering import log_file_kb
from jetwire_server.store.embedded.assemble import assemble
from jetwire_server.store.interface import Store

_PAGE_ROWS = 500


class Source(NamedTuple):
    """A table that is being dumped: its columns in their order, those whose NULL must be written, and its records."""

    columns: list[str]
    nulls: dict[str, None]
    records: AsyncIterator[dict[str, Any]]


@asynccontextmanager
async def opened(place: Place, clock: Clock) -> AsyncIterator[Session]:
    """A session on a recovered copy of the instance."""
    with scratch_copy(place) as copy:

        def storage(instance: Instance) -> Store:
            return assemble(str(copy.root), clock, names=place.names, file_kb=log_file_kb(place.files, place)).store

        engine = Engine(clock, EventLog(), storage, str(copy.root.parent))
        instance = await engine.create_instance(place.name)
        await instance.init()
        try:
            yield await instance.begin_session()
        finally:
            await instance.shut_down()


def databases(place: Place, session: Session) -> Iterator[str]:
    """The attached ones first, then what else lies there."""
    attached = [database.path for database in session.instance.databases.values()]
    yield from attached
    copy = Place(Path(session.instance.engine.root, place.name), place.names)  # recovery may have removed what was not finished
    yield from (path for path in page_files(copy) if path not in attached)


async def open_database(session: Session, name: str) -> int:
    """Also one that was detached."""
    if name not in [database.path for database in session.instance.databases.values()]:
        await session.attach_database(name, int(AttachDatabaseGrbit.DbReadOnly))
    return await session.open_database(name)


async def tables(session: Session, dbid: int) -> list[str]:
    found = cast(list[dict[str, Any]], await session.get_object_info(dbid, level=int(ObjInfo.List)))
    return [row["objectname"] for row in found if not row["flags"] & ObjectinfoFlags.ObjectSystem]


async def open_table(session: Session, dbid: int, name: str, index: str | None, wanted: list[str] | None) -> Source:
    """A table, to be read in the order of an index (None: the primary one). `wanted`: these columns only."""
    cursor = await session.open_table(dbid, name, int(OpenTableGrbit.TableReadOnly))
    rows = cast(list[dict[str, Any]], await session.get_table_column_info(cursor, None, int(ColInfo.List)))
    by_name = {row["columnname"]: row for row in sorted(rows, key=lambda row: row.get("presentationOrder") or row["columnid"])}
    for column in wanted or ():
        if column not in by_name:
            raise JetError(Err.ColumnNotFound, f"the table has no column {column}; it has {', '.join(by_name)}")
    names = wanted or list(by_name)
    nulls: dict[str, None] = dict.fromkeys(one for one in names if by_name[one].get("defaultValue") is not None)
    ids = tuple(by_name[one]["columnid"] for one in names) if wanted else None
    if index is not None:
        await cursor.set_current_index(index)

    async def records() -> AsyncIterator[dict[str, Any]]:
        more = True
        while more:
            page, more = await records_from(cursor, _PAGE_ROWS, Wanted(ids))
            for record in page:
                yield msgspec.json.decode(record)

    return Source(names, nulls, records())
