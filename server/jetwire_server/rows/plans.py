"""What is worked out once per shape, so that a row of a known shape costs a few calls into C.

A cache of plans is bounded by what its plans weigh (a shape of 60,000 columns weighs more than one of ten), and it is simply
emptied when full: rows of a table have few shapes, and where they have very many, remembering them does not help.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, Final, Generic, NamedTuple, NoReturn, TypeVar
from uuid import UUID

from jetwire_protocol.errors import Err, JetError
from jetwire_server.limits import ROW_PLANS_WEIGHT_MAX
from jetwire_server.rows.columns import Absent, CompiledColumn
from jetwire_server.rows.shape import SLOT_SIZES, Kind, shape_of, unpack_shape
from jetwire_server.rows.text import encode_json, line_feeds, tuple_decoder

Plan = TypeVar("Plan")

# What reading a damaged row can raise, by Python's rules, before it is told as the engine's error.
DAMAGE: Final = (IndexError, KeyError, TypeError, ValueError, ArithmeticError, struct.error, MemoryError, RecursionError)


def damaged(error: BaseException | str) -> NoReturn:
    raise JetError(Err.RecordFormatConversionFailed, f"a damaged row: {error}") from (error if isinstance(error, BaseException) else None)


class PlanCache(Generic[Plan]):
    """Plans by what they were made for; never heavier than its bound. `plans` is read directly: an exact dict is fastest."""

    __slots__ = ("plans", "weight")

    def __init__(self) -> None:
        self.plans: dict[Any, Plan] = {}
        self.weight = 0

    def keep(self, key: Any, plan: Plan, columns: int) -> Plan:
        self.weight += columns + 8  # an empty shape is not free either
        if self.weight > ROW_PLANS_WEIGHT_MAX:
            self.plans.clear()
            self.weight = columns + 8
        self.plans[key] = plan
        return plan


def picker(keys: Sequence[Any]) -> Callable[[Any], tuple[Any, ...]]:
    """`itemgetter` that gives a tuple whatever the number of keys."""
    if not keys:
        return lambda _: ()
    if len(keys) == 1:
        only = keys[0]
        return lambda values: (values[only],)
    return itemgetter(*keys)


def guid_of(packed: bytes) -> UUID:
    return UUID(bytes_le=packed)


class Stored(NamedTuple):
    """One stored column: its kind, and its place (offset of its slot in the row, or number of its value in the text)."""

    id: int
    kind: int
    place: int
    column: CompiledColumn | None  # None: of a column that is gone


class Layout(NamedTuple):
    """A shape, read."""

    shape: bytes
    stored: tuple[Stored, ...]
    text: int  # where the text begins
    pieces: int  # values in it

    def slots(self) -> list[Stored]:
        return [e for e in self.stored if e.kind >= Kind.SLOT_1]

    def texts(self) -> list[Stored]:
        return [e for e in self.stored if e.kind in (Kind.TEXT, Kind.TEXT_WITH_REFS)]


def read_layout(row: bytes, columns: dict[int, CompiledColumn]) -> Layout:
    """Raises one of DAMAGE if the shape is no shape, or contradicts the schema."""
    shape = shape_of(row)
    stored: list[Stored] = []
    offset, pieces = len(shape), 0
    for column_id, kind in unpack_shape(shape):
        column = columns.get(column_id)
        size = SLOT_SIZES[kind]
        if column is not None and kind != Kind.NULL and size != (column.slot.size if column.slot else 0):
            raise ValueError(f"column {column_id} has a slot of {size} bytes")
        if size:
            place = offset
            offset += size
        elif kind == Kind.NULL:
            place = 0
        else:
            place = pieces
            pieces += 1
        stored.append(Stored(column_id, kind, place, column))
    return Layout(shape, tuple(stored), offset, pieces)


class Typed(NamedTuple):
    """A shape whose values need no look of ours: two calls into C unpack the slots and decode the text, and check both."""

    slots: int  # where they begin
    text: int
    unpack: Callable[[bytes, int], tuple[Any, ...]]
    commas: tuple[bytes, ...]  # what makes the text a JSON array
    decode: Callable[[bytes], tuple[Any, ...]]
    ids: tuple[int, ...]  # of the slots, then of the text's values


def slots_struct(layout: Layout) -> struct.Struct:
    """Unpacks the slots of the living columns, and skips the others."""
    return struct.Struct("<" + "".join(e.column.type.code if e.column else f"{SLOT_SIZES[e.kind]}x" for e in layout.slots()))


@dataclass(frozen=True, slots=True)
class ReadPlan:
    """How rows of one shape are decoded."""

    layout: Layout
    places: dict[int, Stored]  # living columns only
    slots: struct.Struct | None
    slot_ids: tuple[int, ...]
    guids: tuple[int, ...]  # which of the slots' values are GUIDs
    text: int  # where the text begins
    line_feeds: tuple[bytes, ...]  # what makes the text lines to split
    holes: tuple[bytes, ...]  # what makes the text a JSON object with the ids for names; empty if there is no text
    only_texts: bool  # every value of the text is a single text of a living column
    conversions: tuple[tuple[int, CompiledColumn], ...]
    gone: tuple[int, ...]  # the text's values of columns that are gone
    has_gone: bool  # of any kind
    defaults: dict[int, Any]
    has_refs: bool

    @classmethod
    def of(cls, row: bytes, columns: dict[int, CompiledColumn], defaults: dict[int, Any]) -> ReadPlan:
        layout = read_layout(row, columns)
        slots = [e for e in layout.slots() if e.column]
        pieces = layout.texts()
        stored = {e.id for e in layout.stored}
        return cls(
            layout=layout,
            places={e.id: e for e in layout.stored if e.column},
            slots=slots_struct(layout) if slots else None,
            slot_ids=tuple(e.id for e in slots),
            guids=tuple(i for i, e in enumerate(slots) if e.kind == Kind.SLOT_16),
            text=layout.text,
            line_feeds=line_feeds(len(pieces)),
            holes=(*(b'%b"%d":' % (b"," if i else b"{", e.id) for i, e in enumerate(pieces)), b"}") if pieces else (),
            only_texts=all(e.kind == Kind.TEXT and e.column and not e.column.tagged and e.column.is_text for e in pieces),
            conversions=tuple((e.id, e.column) for e in pieces if e.column),
            gone=tuple(e.id for e in pieces if not e.column),
            has_gone=any(not e.column for e in layout.stored),
            defaults={i: v for i, v in defaults.items() if i not in stored},
            has_refs=any(e.kind == Kind.TEXT_WITH_REFS for e in pieces),
        )

    def keeps_shape(self, entries: Mapping[int, tuple[int, bytes] | Absent]) -> bool:
        """Whether a row of this shape has it still with these columns in place of its own."""
        for column_id, entry in entries.items():
            stored = self.places.get(column_id)
            if stored is None or isinstance(entry, Absent) or entry[0] != stored.kind:
                return False
        return True

    def named_holes(self, names: dict[int, str]) -> tuple[bytes, ...]:
        """`holes` with the columns' names."""
        texts = self.layout.texts()
        return (*((b"," if i else b"{") + encode_json(names[e.id]) + b":" for i, e in enumerate(texts)), b"}")

    def typed(self) -> Typed | None:
        """How rows of the usual kind are decoded: slots and single values in untagged columns, all of them of living columns."""
        columns = [e.column for e in self.layout.texts() if e.kind == Kind.TEXT and e.column and not e.column.tagged]
        kinds = tuple(c.type.python for c in columns)
        if (
            not kinds
            or len(kinds) != self.layout.pieces
            or not {str, bytes}.issuperset(kinds)
            or self.guids
            or self.has_gone
            or self.defaults
        ):
            return None
        slots = self.slots or struct.Struct("")
        commas = (b"[", *[b","] * (len(kinds) - 1), b"]")
        ids = (*self.slot_ids, *(c.id for c in columns))
        return Typed(len(self.layout.shape), self.text, slots.unpack_from, commas, tuple_decoder(kinds), ids)

    @property
    def plain(self) -> bool:
        """Nothing but single texts, and a shape that its first byte can find."""
        return self.only_texts and bool(self.holes) and not self.defaults and self.text == len(self.layout.shape) < 255
