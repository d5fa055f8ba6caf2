"""What becomes of a record whose DeleteOnZero or Finalize sum was committed at zero: `Idle` deletes it, or tells those who registered.

Where a sum may have reached zero, the transaction that added leaves a mark in a tree of the database, so a crash forgets nothing: the
mark is committed with the add or not at all. A mark only says where to look; what counts is the sum that is committed when `Idle`
looks. Marks have keys of their own, so that sessions that add to one sum do not conflict over them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from jetwire_protocol.data.flags import AddColumnGrbit, Cbtyp
from jetwire_protocol.errors import Err, JetError
from jetwire_server.store.interface import Transaction, tree_id

if TYPE_CHECKING:
    from jetwire_server.engine.database import OpenDatabase
    from jetwire_server.engine.place import Place
    from jetwire_server.engine.session import Session

ZEROED_TREE = 4
AT_ZERO = AddColumnGrbit.ColumnDeleteOnZero | AddColumnGrbit.ColumnFinalize
_BATCH = 500
_OBJID, _COLUMN = slice(0, 6), slice(6, 10)


def marking(cursor: Place, columnid: int) -> Callable[[Transaction], None]:
    """What tells that a sum of the cursor's record may be zero once a transaction has committed: called with that transaction."""
    engine, bookmark = cursor.session.instance.engine, cursor.bookmark
    tree = tree_id(cursor.database.slot, ZEROED_TREE)
    column = cursor.table.objid.to_bytes(6, "big") + columnid.to_bytes(4, "big")

    def mark(txn: Transaction) -> None:
        txn.put(tree, column + txn.snapshot.to_bytes(8, "big") + engine.new_handle().to_bytes(8, "big"), bookmark)

    return mark


async def copy_marks(reader: Transaction, from_slot: int, writer: Transaction, to_slot: int, objids: dict[int, int]) -> None:
    """Marks go along when tables are copied, under their new object ids."""
    low = b""
    while rows := await reader.scan(tree_id(from_slot, ZEROED_TREE), low, limit=_BATCH):
        for key, bookmark in rows:
            copied = objids.get(int.from_bytes(key[_OBJID], "big"))
            if copied is not None:
                writer.put(tree_id(to_slot, ZEROED_TREE), copied.to_bytes(6, "big") + key[6:], bookmark)
        low = rows[-1][0] + b"\0"


async def finish_zeroed(session: Session) -> int:
    """Deletes or tells of the records whose marked sums are committed at zero; how many. Of databases the session can write."""
    if session.level:
        return 0
    done = 0
    for handle in {h.database: h for h in session.opened.values() if not h.read_only}.values():
        low = b""
        while rows := await _marks(session, handle, low):
            for key, bookmark in rows:
                done += await _look(session, handle, key, bookmark)
            low = rows[-1][0] + b"\0"
    return done


async def _marks(session: Session, handle: OpenDatabase, low: bytes) -> list[tuple[bytes, bytes]]:
    async with session.operation(write=False) as txn:
        return await txn.scan(tree_id(handle.database.slot, ZEROED_TREE), low, limit=_BATCH)


async def _look(session: Session, handle: OpenDatabase, key: bytes, bookmark: bytes) -> bool:
    """One mark: True if its record was deleted or told of. The mark goes with it, in the same transaction."""
    await session.begin_transaction()
    try:
        assert session.txn is not None
        finished = await _finish(session, handle, session.txn, key, bookmark)
        session.txn.delete(tree_id(handle.database.slot, ZEROED_TREE), key)
        await session.commit_transaction(1)
        return finished
    except JetError as error:
        if error.code != Err.WriteConflict:  # somebody is at it: next time
            raise
        return False
    finally:
        if session.level:
            await session.rollback()


async def _finish(session: Session, handle: OpenDatabase, txn: Transaction, key: bytes, bookmark: bytes) -> bool:
    table = await handle.database.catalog.by_objid(txn, int.from_bytes(key[_OBJID], "big"))
    columnid = int.from_bytes(key[_COLUMN], "big")
    column = table.by_id.get(columnid) if table else None
    if table is None or column is None or column.deleted:
        return False
    cursor = session._open_cursor(handle, table, 0)
    try:
        await cursor.goto_bookmark(bookmark)
        if (await cursor.retrieve_column(columnid)).value != 0:
            return False
        if column.grbit & AddColumnGrbit.ColumnDeleteOnZero:
            await cursor.delete()
        else:
            handle.database.callbacks.tell(cursor, Cbtyp.Finalize)
        return True
    except JetError as error:
        if error.code not in (Err.RecordDeleted, Err.NoCurrentRecord):
            raise
        return False
    finally:
        cursor.close()
