"""Rows as JSON, without being decoded.

The text of a row is a template whose holes take the column names (`text.py`), so a row of texts is one formatting call. Slots
are formatted in front of it. Only what a client must see differently from what is stored is touched piece by piece: columns
that were not asked for, separated long values, and integers beyond 2^53 for a client that wants them as strings.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from jetwire_protocol.data.flags import Coltyp
from jetwire_protocol.errors import Err, JetError

from jetwire_server.rows.columns import TYPES, ColumnSpec, LongRef, float_text
from jetwire_server.rows.plans import DAMAGE, PlanCache, damaged, picker, read_layout, slots_struct
from jetwire_server.rows.shape import SLOT_SIZES, Kind, shape_of
from jetwire_server.rows.text import decode_json, decode_value, encode_json, split_pieces, value_json

INTEGER_EXACT_MAX: Final = 2**53  # beyond this a JSON number read as a double is no longer exact
_INT64: Final = (Coltyp.LongLong, Coltyp.Currency, Coltyp.UnsignedLongLong)


def _bit(value: bool) -> bytes:
    return b"true" if value else b"false"


def _real(value: float) -> bytes:
    return encode_json(float_text(value))


def _guid(value: bytes) -> bytes:
    return b'"%b"' % str(UUID(bytes_le=value)).encode()


def _int64(value: int) -> bytes:
    return b"%d" % value if -INTEGER_EXACT_MAX <= value <= INTEGER_EXACT_MAX else b'"%d"' % value


_SLOT_FORMATS: Final[dict[str, Callable[[Any], bytes]]] = {"?": _bit, "f": _real, "d": _real, "16s": _guid}


@dataclass(frozen=True, slots=True)
class _Plan:
    """How rows of one shape become JSON."""

    text: int
    slots: struct.Struct | None
    slots_at: int
    slot_changes: tuple[tuple[int, Callable[[Any], bytes]], ...]  # which of the slots' values are no plain integers
    slot_values: Callable[[Any], tuple[Any, ...]] | None  # None: all of them
    head: bytes  # a template for the slots' values
    names: tuple[bytes, ...]  # for the holes of the row's text, where it is used as it is
    # Where it is not:
    pieces: int
    wanted: tuple[tuple[bytes, int, Callable[[bytes, Mapping[LongRef, Any]], bytes] | None], ...]
    tail: bytes


class JsonView:
    """Rows of one schema as JSON objects: all columns that are not NULL, or those asked for."""

    def __init__(self, columns: dict[int, ColumnSpec], wanted: tuple[int, ...] | None, int64_strings: bool) -> None:
        self._columns = columns
        self._wanted = None if wanted is None else frozenset(wanted)
        self._int64_strings = int64_strings
        self._plans: PlanCache[_Plan] = PlanCache()
        # By shape: the names for rows that are nothing but texts, all of them asked for.
        self.plain_names: PlanCache[tuple[bytes, ...]] = PlanCache()

    def to_json(self, row: bytes, long_values: Mapping[LongRef, Any] | None = None) -> bytes:
        """One row's JSON object."""
        try:
            plan = self._plans.get(row[: row[0]])
            if plan is None:
                plan = self._plan(row)
            if plan.slots is None:
                if plan.names:
                    return row[plan.text :] % plan.names
                head, values = plan.head, ()
            else:
                head, values = plan.head, self._slot_values(plan, row)
                if plan.names:
                    return (head + row[plan.text :]) % (values + plan.names)
            if not plan.pieces and len(row) != plan.text:
                raise ValueError("bytes beyond the last slot, or too few")
            out = [head % values]
            if plan.wanted:
                pieces = split_pieces(row[plan.text :], plan.pieces)
                for name, place, change in plan.wanted:
                    out.append(name)
                    out.append(pieces[place] if change is None else change(pieces[place], long_values or {}))
            out.append(plan.tail)
            return b"".join(out)
        except DAMAGE as error:
            damaged(error)

    def to_json_many(self, rows: Iterable[bytes], long_values: Mapping[LongRef, Any] | None = None) -> bytes:
        """The rows' JSON objects with commas between them."""
        to_json = self.to_json
        return b",".join([to_json(row, long_values) for row in rows])

    @staticmethod
    def _slot_values(plan: _Plan, row: bytes) -> tuple[Any, ...]:
        assert plan.slots is not None
        values = plan.slots.unpack_from(row, plan.slots_at)
        if plan.slot_values is not None:
            values = plan.slot_values(values)
        if plan.slot_changes:
            changed = list(values)
            for i, change in plan.slot_changes:
                changed[i] = change(changed[i])
            return tuple(changed)
        return values

    def _plan(self, row: bytes) -> _Plan:
        known = self._plans.get(shape_of(row))
        if known is not None:  # a shape too long to be found by its first byte
            return known
        layout = read_layout(row, self._columns)
        slots = [e for e in layout.stored if e.kind in SLOT_SIZES and e.column]
        asked = [e for e in slots if self._asked(e.id)]
        head = [b"{"]
        changes: list[tuple[int, Callable[[Any], bytes]]] = []
        for i, entry in enumerate(asked):
            assert entry.column is not None
            change = _SLOT_FORMATS.get(entry.column.slot)
            if change is None and self._int64_strings and entry.column.coltyp in _INT64:
                change = _int64
            if change is not None:
                changes.append((i, change))
            value_format = b"%d" if change is None else b"%b"
            head.append(_name(entry.column, i == 0).replace(b"%", b"%%") + value_format)

        pieces = [e for e in layout.stored if e.kind in (Kind.TEXT, Kind.TEXT_WITH_REFS)]
        first = not asked
        wanted: list[tuple[bytes, int, Callable[[bytes, Mapping[LongRef, Any]], bytes] | None]] = []
        for entry in pieces:
            if entry.column is not None and self._asked(entry.id):
                wanted.append((_name(entry.column, first), entry.place, self._piece_change(entry.column, entry.kind)))
                first = False
        tail = self._defaults({e.id for e in layout.stored}, first) + b"}"
        as_it_is = len(wanted) == len(pieces) > 0 and all(change is None for _, _, change in wanted)
        names = (*(name for name, _, _ in wanted), tail) if as_it_is else ()
        if as_it_is and not asked:
            names = (b"{" + names[0], *names[1:])
            if layout.text == len(layout.shape) < 255:
                self.plain_names.keep(layout.shape, names, len(names))
        plan = _Plan(
            text=layout.text,
            slots=slots_struct(layout) if asked else None,
            slots_at=len(layout.shape),
            slot_changes=tuple(changes),
            slot_values=None if len(asked) == len(slots) else picker([slots.index(e) for e in asked]),
            head=b"".join(head),
            names=names,
            pieces=len(pieces),
            wanted=tuple(wanted),
            tail=tail,
        )
        return self._plans.keep(layout.shape, plan, len(layout.stored) + len(self._columns) // 8)

    def _asked(self, column_id: int) -> bool:
        return self._wanted is None or column_id in self._wanted

    def _defaults(self, stored: set[int], first: bool) -> bytes:
        """The defaults of columns the row does not store."""
        out = []
        for column in self._columns.values():
            if column.default is not None and column.id not in stored and self._asked(column.id):
                value = column.default
                text = value_json(TYPES[column.coltyp], value)
                if self._int64_strings and column.coltyp in _INT64 and isinstance(value, int):
                    text = _int64(value)
                out.append(_name(column, first) + text)
                first = False
        return b"".join(out)

    def _piece_change(self, column: ColumnSpec, kind: Kind) -> Callable[[bytes, Mapping[LongRef, Any]], bytes] | None:
        """What must be done to a stored value before a client sees it."""
        column_type = TYPES[column.coltyp]
        if self._int64_strings and column.coltyp in _INT64:

            def strings(piece: bytes, _: Mapping[LongRef, Any]) -> bytes:
                value = decode_value(column_type, decode_json(piece))
                return b"[" + b",".join(map(_int64, value)) + b"]" if isinstance(value, list) else _int64(value)

            return strings
        if kind is Kind.TEXT:
            return None

        def fetched(piece: bytes, long_values: Mapping[LongRef, Any]) -> bytes:
            def whole(value: Any) -> bytes:
                if isinstance(value, LongRef):
                    if value not in long_values:
                        raise JetError(Err.LVCorrupted, f"column {column.name}: the long value {value.id} was not given")
                    value = long_values[value]
                return value_json(column_type, value)

            value = decode_value(column_type, decode_json(piece))
            return b"[" + b",".join(map(whole, value)) + b"]" if isinstance(value, list) else whole(value)

        return fetched


def _name(column: ColumnSpec, first: bool) -> bytes:
    return (b"" if first else b",") + encode_json(column.name) + b":"
