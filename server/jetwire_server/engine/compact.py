"""Compact: a database copied tree by tree, in key order, as one snapshot saw it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from jetwire_protocol.data.flags import CompactGrbit
from jetwire_protocol.errors import Err, JetError
from jetwire_server import limits
from jetwire_server.engine.catalog import Catalog, fold
from jetwire_server.engine.longtrees import values_with_trees
from jetwire_server.engine.schema import Table
from jetwire_server.engine.zeroed import copy_marks
from jetwire_server.failpoints import hit
from jetwire_server.store.interface import Transaction, Tree, tree_number

if TYPE_CHECKING:
    from jetwire_server.engine.instance import Instance

_COPY_ROWS = 1000

Progress = Callable[[int, int], None]  # tables done, and all of them


async def copy_database(instance: Instance, source: str, destination: str, grbit: int, progress: Progress) -> None:
    """Copies `source` (attached or not) to the new file `destination`, which is left detached.

    After a crash in the middle the next start removes what there is of it: `Instance.init`.
    """
    if grbit & CompactGrbit.CompactRepair:
        raise JetError(Err.FeatureNotAvailable, "salvage is the offline `jetwired dump`'s work")
    if grbit & ~int(CompactGrbit.CompactStats):
        raise JetError(Err.InvalidGrbit)
    if fold(source) == fold(destination):
        raise JetError(Err.InvalidParameter, "a database cannot be compacted onto itself")
    attached = next((d for d in instance.databases.values() if fold(d.path) == fold(source)), None)
    if len(instance.databases) + (1 if attached else 2) > limits.DATABASES_PER_INSTANCE_MAX:
        raise JetError(Err.TooManyAttachedDatabases)
    store = instance.store
    from_slot = attached.slot if attached else await store.attach_database(source, read_only=True, borrowed=True)
    try:
        hit("compact.attached")
        to_slot = await store.create_database(destination, unfinished=True)
        try:
            hit("compact.begun")
            await _copy(instance, from_slot, to_slot, progress)
            hit("compact.copied")
        except BaseException:
            with suppress(JetError):  # an instance that is unavailable: what failed is told, not what follows from it
                await store.detach_database(to_slot, remove=True)
            raise
        await store.detach_database(to_slot)
        hit("compact.whole")
    finally:
        if attached is None:
            await store.detach_database(from_slot)


async def _copy(instance: Instance, from_slot: int, to_slot: int, progress: Progress) -> None:
    store = instance.store
    reader = await store.begin(read_only=True)
    writer = await store.begin()
    try:
        source, target = Catalog(from_slot), Catalog(to_slot)
        objids: dict[int, int] = {}
        tables = await source.tables(reader)
        for done, table in enumerate(tables):
            progress(done, len(tables))
            copied = await _copy_table(instance, reader, writer, table, to_slot)
            objids[table.objid] = copied.objid
            target.add(writer, copied)
            target.put_stats(writer, copied.objid, await source.stats(reader, table.objid))
            hit("compact.table_copied")
        await source.copy_counters(reader, target, writer, objids)
        await copy_marks(reader, from_slot, writer, to_slot, objids)
        await writer.commit()
    finally:
        await writer.rollback()
        await reader.rollback()


async def _copy_table(instance: Instance, reader: Transaction, writer: Transaction, table: Table, slot: int) -> Table:
    trees: dict[Tree, Tree] = {}
    for tree in dict.fromkeys((table.tree, table.long_values, *(i.tree for i in table.indexes))):
        trees[tree] = await _copy_tree(instance, reader, writer, tree, slot)
    indexes = tuple(replace(index, tree=trees[index.tree]) for index in table.indexes)
    new = trees[table.tree]
    copied = replace(table, objid=tree_number(new), tree=new, long_values=trees[table.long_values], indexes=indexes)
    for key, value in (await values_with_trees(reader, table)).items():
        value.move({tree: await _copy_tree(instance, reader, writer, tree, slot) for tree in value.own_trees})
        writer.put(copied.long_values, key, value.root())
    return copied


async def _copy_tree(instance: Instance, reader: Transaction, writer: Transaction, tree: Tree, slot: int) -> Tree:
    rows = await reader.scan(tree, limit=_COPY_ROWS)
    if not rows:
        return writer.new_tree(slot)
    copy = await instance.store.new_unpublished(slot)
    try:
        while rows:
            instance.check_serving()  # it may go on for long: not beyond a Term
            await copy.put_many(rows)
            rows = await reader.scan(tree, rows[-1][0] + b"\0", limit=_COPY_ROWS)
        return writer.adopt(copy)
    except BaseException:
        await copy.free()
        raise
