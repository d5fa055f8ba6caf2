"""What a cursor works out once for each description of a table.

Values are plain Python everywhere (see `rows`). Bytes are accepted for a column of any type: they are its stored form.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from jetwire_protocol.data.flags import AddColumnGrbit, Coltyp
from jetwire_protocol.errors import Err, JetError
from jetwire_server import limits
from jetwire_server.engine.columns import default_value
from jetwire_server.engine.schema import Column, Index, Table
from jetwire_server.engine.stored_form import BINARY, CODES, FLOATS, LONG, TEXT, UNICODE_PAGE, from_bytes, size_of, text_to_bytes, to_bytes
from jetwire_server.keys import KeyMaker, KeySpec, SegmentSpec
from jetwire_server.rows import ColumnSpec, RowCodec

G = AddColumnGrbit


class ColumnPlan:
    """One column, as updates ask about it."""

    __slots__ = (
        "ascii_most",
        "column",
        "id",
        "least",
        "long",
        "max",
        "most",
        "multi",
        "read_only",
        "simple",
        "struct",
        "tagged",
        "text",
        "whole",
    )

    def __init__(self, column: Column) -> None:
        self.column = column
        self.id = column.id
        self.tagged = column.tagged
        self.long = column.coltyp in LONG
        self.text = column.coltyp in TEXT
        self.multi = bool(column.grbit & G.ColumnMultiValued)
        self.read_only = bool(column.grbit & (G.ColumnVersion | G.ColumnAutoincrement))
        self.max = column.max or (limits.LONG_VALUE_BYTES_MAX if self.long else 255)
        code = CODES.get(column.coltyp)
        self.struct = struct.Struct(code) if code else None
        # one value, which needs nothing but a look
        self.simple = not self.tagged and not self.read_only
        # ASCII text of up to so many characters needs no look but this one
        self.ascii_most = (
            0 if not self.text or column.fixed or not self.simple else min(self.max, 1_024) // (2 if column.cp == UNICODE_PAGE else 1)
        )

        # integers from `least` to `most`, and anything of the type `whole`, are stored as they are given
        self.least, self.most = 1, 0
        self.whole: type | None = None
        if self.simple and not column.grbit & G.ColumnEscrowUpdate:
            if self.struct is not None and column.coltyp not in FLOATS:
                bits, signed = 8 * self.struct.size, self.struct.format.islower()
                self.least, self.most = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
            elif column.coltyp in (Coltyp.IEEEDouble, Coltyp.DateTime):
                self.whole = float
            elif column.coltyp == Coltyp.Bit:
                self.whole = bool

    def stored_as(self, other: ColumnPlan | None) -> bool:
        """Whether the other is this very column, whatever its name and default are by now."""
        if other is None:
            return False
        mine, theirs = self.column, other.column
        return (mine.coltyp, mine.cp, mine.max, mine.grbit) == (theirs.coltyp, theirs.cp, theirs.max, theirs.grbit)

    def checked(self, value: Any) -> tuple[Any, bool]:
        """A value that is not None as the row takes it, and whether it was cut at the column's size."""
        column = self.column
        kind = column.coltyp
        if isinstance(value, (bytearray, memoryview)):
            value = bytes(value)
        if isinstance(value, bytes) and kind not in BINARY:
            value = from_bytes(column, value)
        if self.struct is not None:
            if kind in FLOATS:
                if isinstance(value, bool) or not isinstance(value, (int, float)):
                    raise JetError(Err.InvalidParameter, f"column {column.name} takes numbers", column=column.name)
                value = float(value)
            elif type(value) is not int:
                raise JetError(Err.InvalidParameter, f"column {column.name} takes integers", column=column.name)
            try:
                return self.struct.unpack(self.struct.pack(value))[0], False
            except (struct.error, OverflowError):
                raise JetError(Err.InvalidParameter, f"column {column.name} cannot hold {value}", column=column.name) from None
        expected = str if self.text else bytes if kind in BINARY else bool if kind == Coltyp.Bit else UUID
        if not isinstance(value, expected):
            raise JetError(Err.InvalidParameter, f"column {column.name} takes {expected.__name__}", column=column.name)
        if expected is bool or expected is UUID:
            return value, False
        return self._sized(value)

    def _sized(self, value: Any) -> tuple[Any, bool]:
        column = self.column
        if self.text and column.cp != UNICODE_PAGE and not value.isascii():
            text_to_bytes(value, column.cp)  # only to see that it can be stored
        size = size_of(column, value)
        if size > self.max:
            if self.long:
                raise JetError(Err.ColumnTooBig, f"column {column.name} takes {self.max} bytes", column=column.name)
            if column.fixed:
                raise JetError(Err.InvalidBufferSize, f"column {column.name} has {self.max} bytes", column=column.name)
            cut = to_bytes(column, value)[: self.max - self.max % 2 if column.cp == UNICODE_PAGE else self.max]
            return from_bytes(column, cut), True
        if column.fixed and size < self.max:
            missing = self.max - size
            value += " " * (missing // 2 if column.cp == UNICODE_PAGE else missing) if self.text else b"\0" * missing
        return value, False


# -- indexes ------------------------------------------------------------------------------------------------------------
_ABOVE_ALL = b"\xff" * limits.TREE_KEY_BYTES_MAX


def successor(key: bytes) -> bytes:
    """A key that is greater than all that begin with this one, and not greater than any other that is."""
    head = key.rstrip(b"\xff")
    return head[:-1] + bytes((head[-1] + 1,)) if head else _ABOVE_ALL


PRIMARY, UNIQUE, MANY = 0, 1, 2


class IndexPlan:
    """One index of a table. Its entries in the store:

    - primary: normalized key -> row (without a primary index: four bytes of a sequence number -> row)
    - unique: normalized key -> bookmark
    - others: normalized key and bookmark -> the key's length in two bytes, so that it can be told where the key ends
    """

    __slots__ = ("columns", "conditions", "index", "key_in", "kind", "maker", "most", "name", "reads", "tree", "whole")

    def __init__(self, table: Table, index: Index | None) -> None:
        self.index = index
        self.tree = table.tree if index is None or index.primary else index.tree
        self.name = index.name if index else ""
        self.kind = PRIMARY if index is None or index.primary else UNIQUE if index.unique else MANY
        self.maker = KeyMaker(key_spec(table, index)) if index else None
        self.columns = tuple(s.column for s in index.segments) if index else ()
        self.conditions = tuple(c.column for c in index.conditions) if index else ()
        self.key_in = _row_keys(self.maker, self.columns)
        self.reads = frozenset(self.columns + self.conditions)  # a change of none of these leaves its entries alone
        self.most = self.maker.key_most if self.maker else 4
        self.whole = len(self.columns) if self.maker and _as_searched(self.maker) else 0

    def key_of(self, key: bytes, value: bytes) -> bytes:
        """The normalized key of an entry."""
        return key[: int.from_bytes(value, "big")] if self.kind == MANY else key

    def bookmark_of(self, key: bytes, value: bytes) -> bytes:
        if self.kind == MANY:
            return key[int.from_bytes(value, "big") :]
        return value if self.kind == UNIQUE else key

    def entry(self, key: bytes, bookmark: bytes) -> tuple[bytes, bytes]:
        """The entry of a normalized key, as the store has it."""
        return (key + bookmark, len(key).to_bytes(2, "big")) if self.kind == MANY else (key, bookmark)


def _row_keys(maker: KeyMaker | None, columns: tuple[int, ...]) -> Callable[[Mapping[int, Any]], bytes]:
    """What makes the one key of a row's values in an index (which a table without one is never asked for)."""
    if maker is not None and maker.key_of_one is not None:
        key_of_one, (column,) = maker.key_of_one, columns
        return lambda values: key_of_one(values.get(column))

    def key_in(values: Mapping[int, Any]) -> bytes:
        assert maker is not None
        return maker.key([values.get(column) for column in columns])

    return key_in


def _as_searched(maker: KeyMaker) -> bool:
    """Whether the key of plain values (no NULL, nothing empty) is also the search key of them: no piece is padded or refused."""
    segments = maker.spec.segments
    return maker.spec.tuples is None and not maker.disallow_truncation and not any(s.fixed and (s.text or s.binary) for s in segments)


def segment_spec(column: Column, descending: bool = False) -> SegmentSpec:
    multi_valued = bool(column.grbit & G.ColumnMultiValued)
    return SegmentSpec(column.coltyp, descending, column.cp, column.fixed, multi_valued, column.max, column.tagged)


def key_spec(table: Table, index: Index) -> KeySpec:
    return KeySpec(
        tuple([segment_spec(table.by_id[segment.column], segment.descending) for segment in index.segments]),
        index.grbit,
        index.key_most,
        index.var_seg_mac,
        index.locale,
        index.lcmap_flags,
        tuple(c.must_be_null for c in index.conditions),
        index.tuples,
    )


@dataclass(frozen=True, slots=True)
class TablePlan:
    """A table, compiled."""

    table: Table
    codec: RowCodec
    columns: dict[int, ColumnPlan]
    rows: IndexPlan  # the primary index, or the sequence of a table without one
    secondary: tuple[IndexPlan, ...]
    by_name: dict[str, IndexPlan]
    defaults: dict[int, Any]
    required: tuple[int, ...]  # columns that must not be NULL
    versions: tuple[int, ...]
    autoincrement: int | None
    escrow: frozenset[int]
    has_long: bool
    single: frozenset[int]  # columns of which a record has one value at most
    straight: bool  # a record is no more than what its writer gives: see `straight`


def plan_of(table: Table) -> TablePlan:
    """The plan of a description, made once."""
    plan: TablePlan | None = table.compiled.get("plan")
    if plan is None:
        plan = table.compiled["plan"] = _compile(table)
    return plan


def _compile(table: Table) -> TablePlan:
    living = list(table.by_id.values())
    defaults = {c.id: v for c in living if (v := default_value(c)) is not None}
    primary = IndexPlan(table, table.primary)
    others = tuple(IndexPlan(table, i) for i in table.indexes if not i.primary)
    names = {p.name.lower(): p for p in others}
    if table.primary is not None:
        names[table.primary.name.lower()] = primary
    auto = next((c.id for c in living if c.grbit & G.ColumnAutoincrement), None)
    return TablePlan(
        table=table,
        codec=RowCodec(ColumnSpec(c.id, c.name, c.coltyp, defaults.get(c.id)) for c in living),
        columns={c.id: ColumnPlan(c) for c in living},
        rows=primary,
        secondary=others,
        by_name=names,
        defaults=defaults,
        required=tuple(c.id for c in living if c.grbit & G.ColumnNotNULL and c.id not in defaults),
        versions=tuple(c.id for c in living if c.grbit & G.ColumnVersion),
        autoincrement=auto,
        escrow=frozenset(c.id for c in living if c.grbit & G.ColumnEscrowUpdate),
        has_long=any(c.coltyp in LONG for c in living),
        single=frozenset(c.id for c in living if not c.grbit & G.ColumnMultiValued),
        straight=table.primary is not None
        and not any(c.grbit & (G.ColumnVersion | G.ColumnAutoincrement | G.ColumnEscrowUpdate) for c in living),
    )
