"""The catalog: what tables a database has, kept in a tree of that database like everything else.

One row a name (`N` and the folded name, to the table's object id) and one row a table (`T` and the object id, to its
description). A lookup reads both through the session's own transaction, so it is exact for its snapshot and for the
session's uncommitted DDL; a table's last two descriptions are remembered with their bytes, so that only the first reader
decodes them.

A cursor keeps the `Table` it resolved and compares `stamp`: see `Catalog.fresh`.
"""

from __future__ import annotations

from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import msgspec

from jetwire_protocol.data.flags import AddColumnGrbit, Coltyp, CreateIndexGrbit
from jetwire_protocol.errors import Err, JetError
from jetwire_server import limits
from jetwire_server.engine.autoincrement import AUTO_INCREMENT, LONG_VALUE, SEQUENCE
from jetwire_server.engine.schema import Column, Condition, Index, Segment, Table, TupleLimits
from jetwire_server.engine.systables import rows_of, system_table, system_table_of
from jetwire_server.store.interface import FIRST_NEW_TREE, Transaction, Tree, tree_id, tree_number

CATALOG_TREE = 1
_NAME, _TABLE, _STATS = b"N", b"T", b"S"
_COUNTERS, _COUNTERS_END = b"C", b"D"  # see `autoincrement`
_FORMAT = 1
_VERSIONS = 2  # descriptions of a table that are remembered: while one transaction changes it, others see the one before
_TABLE_WEIGHT, _INDEX_WEIGHT = 8, 3  # what is made of them takes as much as so many columns


def name_key(name: str) -> bytes:
    return _NAME + fold(name).encode()


def table_key(objid: int) -> bytes:
    return _TABLE + objid.to_bytes(6, "big")


def fold(name: str) -> str:
    """Names compare without regard to case."""
    return name.lower()


def check_name(name: str | None, what: str = "name", *, error: Err = Err.InvalidName) -> str:
    """A name as the engine takes it: 1 to 64 characters, none of them control characters or ``! . [ ]``, no leading space."""
    if not name or len(name.encode()) > limits.NAME_BYTES_MAX:
        raise JetError(error, f"{what}: 1 to {limits.NAME_BYTES_MAX} bytes are allowed")
    if name[0] == " " or any(c < " " or c in "!.[]" for c in name) or not name.strip():
        raise JetError(error, f"{what} {name!r} has a character that names may not have")
    return name


@dataclass(frozen=True, slots=True)
class Stats:
    """What ComputeStats found last: records, pages, and each index's entries, keys and pages."""

    records: int = 0
    pages: int = 0
    indexes: dict[str, tuple[int, int, int]] = field(default_factory=dict)


class Catalog:
    """One database's tables, for every session."""

    def __init__(self, slot: int) -> None:
        self.slot = slot
        self.tree: Tree = tree_id(slot, CATALOG_TREE)
        self.stamp = 0  # moves with every change of any description, committed or not
        self.newest = 0  # the number of the newest commit with DDL in it
        self._committing = 0
        self._decoded: OrderedDict[int, list[tuple[bytes, Table]]] = OrderedDict()  # by object id, the newest first
        self._weight = 0

    # -- is a remembered description still right? ---------------------------------------------------------------
    def fresh(self, snapshot: int) -> int:
        """The stamp that a description resolved at this snapshot may be kept under; -1: for this call alone.

        A later call may use it while `catalog.stamp` is the same and its snapshot is not below `catalog.newest`.
        """
        return self.stamp if snapshot >= self.newest and not self._committing else -1

    def touch(self) -> None:
        self.stamp += 1

    def commit_begins(self) -> None:
        self._committing += 1
        self.stamp += 1

    def commit_ended(self, number: int) -> None:
        self._committing -= 1
        self.stamp += 1
        self.newest = max(self.newest, number)

    # -- reading ------------------------------------------------------------------------------------------------
    async def table(self, txn: Transaction, name: str) -> Table:
        """The table of that name as the transaction sees it."""
        found = await self.find(txn, name)
        if found is None:
            raise JetError(Err.ObjectNotFound, f"table {name}")
        return found

    async def find(self, txn: Transaction, name: str) -> Table | None:
        folded = fold(name)
        if folded.startswith("msys"):
            system = system_table(self.slot, folded)
            if system is not None:
                return system
        objid = await txn.get(self.tree, name_key(name))
        return None if objid is None else await self.by_objid(txn, int.from_bytes(objid, "big"))

    async def by_objid(self, txn: Transaction, objid: int) -> Table | None:
        if objid < FIRST_NEW_TREE:
            return system_table_of(self.slot, objid)
        row = await txn.get(self.tree, table_key(objid))
        return None if row is None else self._decode(objid, row)

    async def tables(self, txn: Transaction) -> list[Table]:
        """All tables, by object id."""
        out: list[Table] = []
        low = _TABLE
        while rows := await txn.scan(self.tree, low, _TABLE + b"\xff" * 7):
            out += [self._decode(int.from_bytes(key[len(_TABLE) :], "big"), value) for key, value in rows]
            low = rows[-1][0] + b"\0"
        return out

    async def stats(self, txn: Transaction, objid: int) -> Stats:
        row = await txn.get(self.tree, _STATS + objid.to_bytes(6, "big"))
        return Stats() if row is None else msgspec.msgpack.decode(row, type=Stats)

    def put_stats(self, txn: Transaction, objid: int, stats: Stats) -> None:
        txn.put(self.tree, _STATS + objid.to_bytes(6, "big"), msgspec.msgpack.encode(stats))

    # -- writing: the caller holds the table's schema lock ---------------------------------------------------------
    def add(self, txn: Transaction, table: Table) -> None:
        try:
            txn.insert(self.tree, name_key(table.name), table.objid.to_bytes(6, "big"))
        except JetError as error:
            if error.code == Err.KeyDuplicate:
                raise JetError(Err.TableDuplicate, f"table {table.name}") from None
            raise
        txn.insert(self.tree, table_key(table.objid), encode(table))
        self._mirror(txn, None, table)

    def replace(self, txn: Transaction, old: Table, new: Table) -> None:
        txn.put(self.tree, table_key(new.objid), encode(new))
        self._mirror(txn, old, new)

    def _mirror(self, txn: Transaction, old: Table | None, new: Table | None) -> None:
        """Writes what changed in a description to the system tables."""
        before, after = rows_of(old), rows_of(new)
        for place in before.keys() - after.keys():
            txn.delete(*place)
        for place, row in after.items():
            if before.get(place) != row:
                txn.put(*place, row)

    def rename(self, txn: Transaction, old: Table, new: Table) -> None:
        if fold(old.name) != fold(new.name):
            if system_table(self.slot, fold(new.name)) is not None:
                raise JetError(Err.TableDuplicate, f"table {new.name}")
            txn.delete(self.tree, name_key(old.name))
            try:
                txn.insert(self.tree, name_key(new.name), new.objid.to_bytes(6, "big"))
            except JetError as error:
                if error.code == Err.KeyDuplicate:
                    raise JetError(Err.TableDuplicate, f"table {new.name}") from None
                raise
        self.replace(txn, old, new)

    def remove(self, txn: Transaction, table: Table) -> None:
        txn.delete(self.tree, name_key(table.name))
        txn.delete(self.tree, table_key(table.objid))
        self._mirror(txn, table, None)
        objid = table.objid.to_bytes(6, "big")
        txn.delete(self.tree, _STATS + objid)
        for kind in (SEQUENCE, AUTO_INCREMENT, LONG_VALUE):
            with suppress(JetError):  # numbers that were reserved since the transaction began: nobody will ask for them
                txn.delete(self.tree, _COUNTERS + objid + kind)

    async def copy_counters(self, reader: Transaction, target: Catalog, writer: Transaction, objids: dict[int, int]) -> None:
        """The numbers that must never be given twice go along when tables are copied, under their new object ids."""
        low = _COUNTERS
        while rows := await reader.scan(self.tree, low, _COUNTERS_END):
            for key, value in rows:
                copied = objids.get(int.from_bytes(key[1:7], "big"))
                if copied is not None:
                    writer.put(target.tree, _COUNTERS + copied.to_bytes(6, "big") + key[7:], value)
            low = rows[-1][0] + b"\0"

    # -- inside -------------------------------------------------------------------------------------------------
    def _decode(self, objid: int, row: bytes) -> Table:
        known = self._decoded.get(objid, [])
        for text, table in known:
            if text == row:
                return table
        self.forget(objid)
        table = decode(row, self.slot)
        self._decoded[objid] = kept = [(row, table), *known[: _VERSIONS - 1]]
        self._weight += _weight(kept)
        while self._weight > limits.CATALOG_COLUMNS_MAX and len(self._decoded) > 1:
            self.forget(next(iter(self._decoded)))
        return table

    def forget(self, objid: int) -> None:
        """What was remembered of a table."""
        self._weight -= _weight(self._decoded.pop(objid, []))


def _weight(descriptions: list[tuple[bytes, Table]]) -> int:
    return sum(_TABLE_WEIGHT + len(table.columns) + _INDEX_WEIGHT * len(table.indexes) for _, table in descriptions)


# -- the stored form: plain lists, tree numbers without their slot (a database may be attached in another one) ------------
def encode(table: Table) -> bytes:
    columns = [[c.id, c.name, int(c.coltyp), c.cp, c.max, int(c.grbit), c.default, c.derived, c.deleted] for c in table.columns]
    return msgspec.msgpack.encode(
        [
            _FORMAT,
            table.name,
            table.objid,
            tree_number(table.tree),
            tree_number(table.long_values),
            columns,
            [_index_out(i) for i in table.indexes],
            table.grbit,
            table.template,
            table.options,
        ]
    )


def decode(row: bytes, slot: int) -> Table:
    version, name, objid, tree, long_values, columns, indexes, grbit, template, options = msgspec.msgpack.decode(row)
    assert version == _FORMAT, f"a table description of format {version}"
    return Table(
        name=name,
        objid=objid,
        tree=tree_id(slot, tree),
        long_values=tree_id(slot, long_values),
        columns=tuple(
            Column(cid, cname, Coltyp(coltyp), cp, cmax, AddColumnGrbit(bits), default, derived, deleted)
            for cid, cname, coltyp, cp, cmax, bits, default, derived, deleted in columns
        ),
        indexes=tuple(_index_in(i, slot) for i in indexes),
        grbit=grbit,
        template=template,
        options=options,
    )


def _index_out(index: Index) -> list[Any]:
    limits_of = index.tuples
    return [
        index.name,
        [[s.column, s.descending] for s in index.segments],
        int(index.grbit),
        tree_number(index.tree),
        index.key_most,
        index.var_seg_mac,
        index.locale,
        index.lcmap_flags,
        [[c.column, c.must_be_null] for c in index.conditions],
        [limits_of.min, limits_of.max, limits_of.total, limits_of.step, limits_of.start] if limits_of else None,
        index.density,
        index.derived,
    ]


def _index_in(row: list[Any], slot: int) -> Index:
    name, segments, grbit, tree, key_most, var_seg_mac, locale, flags, conditions, tuples, density, derived = row
    return Index(
        name=name,
        segments=tuple(Segment(column, descending) for column, descending in segments),
        grbit=CreateIndexGrbit(grbit),
        tree=tree_id(slot, tree),
        key_most=key_most,
        var_seg_mac=var_seg_mac,
        locale=locale,
        lcmap_flags=flags,
        conditions=tuple(Condition(column, must_be_null) for column, must_be_null in conditions),
        tuples=TupleLimits(*tuples) if tuples else None,
        density=density,
        derived=derived,
    )
