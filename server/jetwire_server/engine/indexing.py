"""Keeping the secondary indexes true: the entries of a row, what a change of it does to them, and building one from all rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from jetwire_protocol.data.flags import Coltyp
from jetwire_protocol.errors import Err, JetError
from jetwire_server import limits
from jetwire_server.engine import longvalue
from jetwire_server.engine.schema import Index, Table
from jetwire_server.engine.stored_form import bytes_to_text, from_bytes
from jetwire_server.engine.values import UNIQUE, IndexPlan, plan_of
from jetwire_server.keys import KeyMaker
from jetwire_server.rows import LongRef
from jetwire_server.store.interface import Row, Transaction, Tree, Writes, tree_slot

if TYPE_CHECKING:
    from jetwire_server.store.interface import Store


def normalized_keys(index: IndexPlan, values: Mapping[int, Any]) -> list[bytes]:
    """The keys of a row in an index; `values` has its columns' values, defaults included, and no references to long values."""
    get = values.get
    assert index.maker is not None
    return index.maker.keys([get(c) for c in index.columns], [get(c) for c in index.conditions])


async def resolved(txn: Transaction, table: Table, index: IndexPlan, values: Mapping[int, Any]) -> Mapping[int, Any]:
    """`values` with as much of each indexed long value as its key needs."""
    out: dict[int, Any] | None = None
    assert index.maker is not None
    for number, columnid in enumerate(index.columns):
        value = values.get(columnid)
        if type(value) in _PLAIN:
            continue
        if type(value) is list:
            changed: Any = [await as_keyed(txn, table, index.maker, number, columnid, v) for v in value]
        else:
            changed = await as_keyed(txn, table, index.maker, number, columnid, value)
        if changed is not value:
            out = dict(values) if out is None else out
            out[columnid] = changed
    return values if out is None else out


_PLAIN = frozenset({str, int, bytes, bool, float, type(None)})


async def as_keyed(txn: Transaction, table: Table, maker: KeyMaker, segment: int, columnid: int, value: Any) -> Any:
    """A value, or of a long one as much as its key needs."""
    if not isinstance(value, (LongRef, longvalue.Draft)):
        return value
    column = table.by_id[columnid]
    most = maker.data_most(segment)
    size = maker.key_most if most is None else 2 * most + 2
    while True:
        if isinstance(value, LongRef):
            data = await longvalue.read(txn, table, value, 0, size)
        else:
            data = await value.read(txn, 0, size)
        if column.coltyp != Coltyp.LongText:
            return from_bytes(column, data)
        text = bytes_to_text(data[: len(data) & ~1] if column.cp == 1200 else data, column.cp)
        if most is not None or len(data) < size or not maker.has_room_for_more(segment, text):
            return text
        size *= 2


async def keys_in(txn: Transaction, table: Table, index: IndexPlan, values: Mapping[int, Any], has_long: bool) -> list[bytes]:
    return normalized_keys(index, await resolved(txn, table, index, values) if has_long else values)


async def sources_in(
    txn: Transaction, table: Table, index: IndexPlan, values: Mapping[int, Any], has_long: bool
) -> list[tuple[bytes, Sequence[int | None]]]:
    """See `KeyMaker.sources`."""
    whole = await resolved(txn, table, index, values) if has_long else values
    assert index.maker is not None
    return index.maker.sources([whole.get(c) for c in index.columns])


def add_entries(txn: Writes, index: IndexPlan, keys: list[bytes], bookmark: bytes) -> None:
    """KeyDuplicate if the index is unique and has one of the keys."""
    if index.kind == UNIQUE:
        for key in keys:
            try:
                txn.insert(index.tree, key, bookmark)
            except JetError as error:
                if error.code == Err.KeyDuplicate:
                    raise JetError(Err.KeyDuplicate, f"index {index.name}", indexname=index.name) from None
                raise
        return
    for key in keys:
        txn.put(index.tree, key + bookmark, len(key).to_bytes(2, "big"))


def remove_entries(txn: Writes, index: IndexPlan, keys: list[bytes], bookmark: bytes) -> None:
    for key in keys:
        txn.delete(index.tree, key if index.kind == UNIQUE else key + bookmark)


def change_entries(txn: Writes, index: IndexPlan, before: list[bytes], after: list[bytes], bookmark: bytes) -> None:
    if before == after:
        return
    remove_entries(txn, index, [key for key in before if key not in after], bookmark)
    add_entries(txn, index, [key for key in after if key not in before], bookmark)


async def build(store: Store, txn: Transaction, table: Table, index: Index) -> Tree:
    """A tree with the entries of all rows, round memory; the caller holds the table's schema lock exclusively."""
    plan = plan_of(table)
    entries_of = plan.by_name[index.name.lower()]
    tree = await store.new_unpublished(tree_slot(table.tree))
    try:
        low: bytes | None = None
        while rows := await txn.scan(table.tree, low, limit=limits.READ_AHEAD_ROWS_MAX):
            entries: list[Row] = []
            for bookmark, row in rows:
                keys = await keys_in(txn, table, entries_of, plan.codec.decode(row), plan.has_long)
                entries += [entries_of.entry(key, bookmark) for key in keys]
            entries.sort()
            if entries_of.kind == UNIQUE:
                await _check_unique(tree.get, entries, index.name)
            await tree.put_many(entries)
            low = rows[-1][0] + b"\0"
        return txn.adopt(tree)
    except BaseException:
        await tree.free()
        raise


async def _check_unique(get: Any, entries: list[Row], name: str) -> None:
    before = None
    for key, _ in entries:
        if key == before or await get(key) is not None:
            raise JetError(Err.KeyDuplicate, f"index {name}", indexname=name)
        before = key
