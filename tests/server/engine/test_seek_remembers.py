"""What Seek found is remembered for the call that comes next, and for nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from jetwire_protocol.errors import Err
from jetwire_server.engine.cursor import Cursor
from jetwire_server.engine.session import Session
from jetwire_server.store.embedded.store import EmbeddedStore

from .on_files import engine_on, started
from .tables_for_tests import ids, insert, key, make_table, refuses, replace

EQ = 1


@pytest.fixture
async def cursor(session: Session, dbid: int) -> Cursor:
    """Records 10 and 20."""
    made = await make_table(session, dbid)
    for i in (1, 2):
        await insert(made, id=10 * i, name=f"name{i}")
    return await session.open_table(dbid, "t")


async def test_what_seek_found_is_forgotten_when_anything_was_committed(
    session: Session, other: Session, other_dbid: int, cursor: Cursor
) -> None:
    """Seek remembers the record that is asked for next; each way to make it old has its turn."""
    name, theirs = ids(cursor)["name"], await other.open_table(other_dbid, "t")
    for row in (10, 20):
        key(cursor, row)
        await cursor.seek(EQ)
        assert (await cursor.retrieve_all())[name] == f"name{row // 10}"
        key(theirs, row)
        await theirs.seek(EQ)
        await replace(theirs, name=f"new{row}")
        assert (await cursor.retrieve_all())[name] == f"new{row}"
        key(cursor, row)
        await cursor.seek(EQ)
        await replace(cursor, name=f"mine{row}")
        assert (await cursor.retrieve_all())[name] == f"mine{row}"
        key(cursor, row)
        await cursor.seek(EQ)
        await session.begin_transaction()
        await theirs.delete()
        assert (await cursor.retrieve_all())[name] == f"mine{row}"
        await session.commit_transaction()
        with refuses(Err.RecordDeleted):
            await cursor.retrieve_all()


async def test_what_seek_found_is_not_told_once_the_instance_is_unavailable(tmp_path: Path) -> None:
    instance = await started(engine_on(tmp_path))
    session = await instance.begin_session()
    cursor = await make_table(session, await session.create_database("test.edb"))
    await insert(cursor, id=1, name="one")
    key(cursor, 1)
    await cursor.seek(EQ)
    assert (await cursor.retrieve_all())[ids(cursor)["name"]] == "one"
    assert isinstance(instance.store, EmbeddedStore)
    instance.store.gate.latch("a write failed")
    with refuses(Err.InstanceUnavailable):
        await cursor.retrieve_all()
    await instance.shut_down()
