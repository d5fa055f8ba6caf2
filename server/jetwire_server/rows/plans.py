"""What is worked out once per shape, so that a row of a known shape costs a few calls into C.

A cache of plans is bounded by what its plans weigh (a shape of 60,000 columns weighs more than one of ten), and it is simply
emptied when full: rows of a table have few shapes, and where they have very many, remembering them does not help.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, Final, Generic, NoReturn, TypeVar
from uuid import UUID

from jetwire_protocol.errors import Err, JetError

from jetwire_server.limits import ROW_PLANS_WEIGHT_MAX
from jetwire_server.rows.columns import TYPES, ColumnSpec, ColumnType
from jetwire_server.rows.shape import SLOT_SIZES, Kind, shape_of, unpack_shape

Plan = TypeVar("Plan")

# What reading a damaged row can raise, by Python's rules, before it is told as the engine's error.
DAMAGE: Final = (IndexError, KeyError, TypeError, ValueError, ArithmeticError, struct.error, MemoryError, RecursionError)


def damaged(error: BaseException) -> NoReturn:
    raise JetError(Err.RecordFormatConversionFailed, f"a damaged row: {error}") from error


class PlanCache(dict[Any, Plan], Generic[Plan]):
    """Plans by what they were made for; never heavier than its bound."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = 0

    def keep(self, key: Any, plan: Plan, columns: int) -> Plan:
        self.weight += columns + 8  # an empty shape is not free either
        if self.weight > ROW_PLANS_WEIGHT_MAX:
            self.clear()
            self.weight = columns + 8
        self[key] = plan
        return plan


def picker(keys: list[Any]) -> Callable[[Any], tuple[Any, ...]]:
    """`itemgetter` that gives a tuple whatever the number of keys."""
    if not keys:
        return lambda _: ()
    if len(keys) == 1:
        only = keys[0]
        return lambda values: (values[only],)
    return itemgetter(*keys)


def guid_of(packed: bytes) -> UUID:
    return UUID(bytes_le=packed)


@dataclass(frozen=True, slots=True)
class Stored:
    """One stored column: its kind, and its place (offset of its slot in the row, or number of its value in the text)."""

    id: int
    kind: Kind
    place: int
    column: ColumnSpec | None  # None: of a column that is gone


@dataclass(frozen=True, slots=True)
class Layout:
    """A shape, read."""

    shape: bytes
    stored: tuple[Stored, ...]
    text: int  # where the text begins
    pieces: int  # values in it


def read_layout(row: bytes, columns: dict[int, ColumnSpec]) -> Layout:
    """Raises one of DAMAGE if the shape is no shape, or contradicts the schema."""
    shape = shape_of(row)
    stored: list[Stored] = []
    offset, pieces = len(shape), 0
    for column_id, kind in unpack_shape(shape):
        column = columns.get(column_id)
        if kind is Kind.NULL:
            place = 0
        elif kind <= Kind.TEXT_WITH_REFS:
            place = pieces
            pieces += 1
            if column is not None and column.slot:
                raise ValueError(f"column {column_id} has no slot")
        else:
            place = offset
            size = SLOT_SIZES[kind]
            offset += size
            if column is not None and (not column.slot or struct.calcsize("<" + column.slot) != size):
                raise ValueError(f"column {column_id} has a slot of {size} bytes")
        stored.append(Stored(column_id, kind, place, column))
    return Layout(shape, tuple(stored), offset, pieces)


def slots_struct(layout: Layout) -> struct.Struct:
    """Unpacks the slots of the living columns, and skips the others."""
    codes = ["<"]
    for entry in layout.stored:
        if entry.kind in SLOT_SIZES:
            codes.append(entry.column.slot if entry.column else f"{SLOT_SIZES[entry.kind]}x")
    return struct.Struct("".join(codes))


@dataclass(frozen=True, slots=True)
class ReadPlan:
    """How rows of one shape are decoded."""

    layout: Layout
    slots: struct.Struct | None
    slot_ids: tuple[int, ...]
    guids: tuple[int, ...]  # which of the slots' values are GUIDs
    text: int
    holes: tuple[bytes, ...]  # what makes the text a JSON array; empty if there is no text
    text_ids: tuple[int, ...]
    only_texts: bool  # every value of the text is a living column's text
    conversions: tuple[tuple[int, ColumnType], ...]
    gone: tuple[int, ...]
    defaults: dict[int, Any]
    places: dict[int, Stored]
    has_refs: bool

    @classmethod
    def of(cls, row: bytes, columns: dict[int, ColumnSpec]) -> ReadPlan:
        layout = read_layout(row, columns)
        slots = [e for e in layout.stored if e.kind in SLOT_SIZES and e.column]
        pieces = [e for e in layout.stored if e.kind in (Kind.TEXT, Kind.TEXT_WITH_REFS)]
        places = {e.id: e for e in layout.stored}
        return cls(
            layout=layout,
            slots=slots_struct(layout) if slots else None,
            slot_ids=tuple(e.id for e in slots),
            guids=tuple(i for i, e in enumerate(slots) if e.kind is Kind.SLOT_16),
            text=layout.text,
            holes=(b"[", *[b","] * (len(pieces) - 1), b"]") if pieces else (),
            text_ids=tuple(e.id for e in pieces),
            only_texts=all(
                e.kind is Kind.TEXT and e.column and not e.column.tagged and str in TYPES[e.column.coltyp].python for e in pieces
            ),
            conversions=tuple((e.id, TYPES[e.column.coltyp]) for e in pieces if e.column),
            gone=tuple(e.id for e in pieces if not e.column),
            defaults={c.id: c.default for c in columns.values() if c.default is not None and c.id not in places},
            places=places,
            has_refs=any(e.kind is Kind.TEXT_WITH_REFS for e in pieces),
        )
