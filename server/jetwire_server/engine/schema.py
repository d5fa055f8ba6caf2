"""What a table is: plain immutable descriptions, shared by the catalog (which stores them) and the cursors (which use
them). Changing a schema makes a new `Table`; nothing is ever altered in place, so a cursor may hold one across awaits.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from jetwire_protocol.data.flags import AddColumnGrbit, Coltyp, CreateIndexGrbit
from jetwire_server.store.interface import Tree

# Column ids say how a column is stored, with ESE's ranges.
FIXED_FIRST, FIXED_LAST = 1, 127
VARIABLE_FIRST, VARIABLE_LAST = 128, 255
TAGGED_FIRST, TAGGED_LAST = 256, 64_999


@dataclass(frozen=True, slots=True)
class Column:
    id: int
    name: str
    coltyp: Coltyp
    cp: int = 0  # 1252 or 1200 for text, 0 for the rest
    max: int = 0  # bytes; 0: the type's own limit
    grbit: AddColumnGrbit = AddColumnGrbit(0)
    default: bytes | None = None  # as ESE stores the value
    derived: bool = False  # comes from the template table
    deleted: bool = False  # the id is never used again

    @property
    def fixed(self) -> bool:
        return self.id <= FIXED_LAST

    @property
    def tagged(self) -> bool:
        return self.id >= TAGGED_FIRST


@dataclass(frozen=True, slots=True)
class Segment:
    """One part of an index key: a column, and its direction."""

    column: int
    descending: bool = False


@dataclass(frozen=True, slots=True)
class Condition:
    """A row is in the index only if the column is NULL (or is not)."""

    column: int
    must_be_null: bool


@dataclass(frozen=True, slots=True)
class TupleLimits:
    min: int = 3
    max: int = 10
    total: int = 32_767
    step: int = 1
    start: int = 0


@dataclass(frozen=True, slots=True)
class Index:
    name: str
    segments: tuple[Segment, ...]
    grbit: CreateIndexGrbit = CreateIndexGrbit(0)
    tree: Tree = Tree(0)  # a primary index's tree is the table's own
    key_most: int = 255
    var_seg_mac: int = 0  # 0: as key_most
    locale: str = "en-US"
    lcmap_flags: int = 0x00030401
    conditions: tuple[Condition, ...] = ()
    tuples: TupleLimits | None = None
    density: int = 80
    derived: bool = False

    @property
    def primary(self) -> bool:
        return bool(self.grbit & CreateIndexGrbit.IndexPrimary)

    @property
    def unique(self) -> bool:
        return bool(self.grbit & (CreateIndexGrbit.IndexUnique | CreateIndexGrbit.IndexPrimary))


@dataclass(frozen=True)
class Table:
    """A table's description as one snapshot sees it. Names compare without regard to case, as ESE's do."""

    name: str
    objid: int
    tree: Tree  # the rows, by primary key (or by a 4-byte sequence number)
    long_values: Tree
    columns: tuple[Column, ...] = ()
    indexes: tuple[Index, ...] = ()
    grbit: int = 0
    template: str | None = None
    options: dict[str, Any] = field(default_factory=dict)  # density, pages, space hints: kept for GetTableInfo
    compiled: dict[str, Any] = field(default_factory=dict, init=False, compare=False, repr=False)  # what cursors work out once

    @cached_property
    def by_name(self) -> dict[str, Column]:
        return {c.name.lower(): c for c in self.columns if not c.deleted}

    @cached_property
    def by_id(self) -> dict[int, Column]:
        return {c.id: c for c in self.columns if not c.deleted}

    @cached_property
    def index_by_name(self) -> dict[str, Index]:
        return {i.name.lower(): i for i in self.indexes}

    @cached_property
    def primary(self) -> Index | None:
        return next((i for i in self.indexes if i.primary), None)
