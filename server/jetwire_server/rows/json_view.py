"""Rows as JSON, without being decoded.

The text of a row is a template whose holes take the column names (`text.py`), so a row of texts is one formatting call. Slots
are formatted in front of it. Only what a client must see differently from what is stored is touched piece by piece: columns
that were not asked for, separated long values, and integers beyond 2^53 for a client that wants them as strings.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from jetwire_protocol.data.flags import Coltyp
from jetwire_protocol.errors import Err, JetError
from jetwire_server.rows.columns import CompiledColumn, LongRef, float_text
from jetwire_server.rows.plans import DAMAGE, PlanCache, Stored, damaged, picker, read_layout, slots_struct
from jetwire_server.rows.shape import Kind, shape_of
from jetwire_server.rows.text import decode_json, decode_value, encode_json, line_feeds, split_pieces

INTEGER_EXACT_MAX: Final = 2**53  # beyond this a JSON number read as a double is no longer exact
_GUID_PARTS: Final = struct.Struct("<IHH8s")
RUN: Final = 32  # rows of one shape that are formatted by one call
_INT64: Final = (Coltyp.LongLong, Coltyp.Currency, Coltyp.UnsignedLongLong)

LongValues = Mapping[LongRef, Any]
PieceChange = Callable[[bytes, LongValues], bytes]
_NO_LONG_VALUES: Final[LongValues] = {}


def _bit(value: bool) -> bytes:
    return b"true" if value else b"false"


def _real(value: float) -> bytes:
    return encode_json(float_text(value))


def _guid(value: bytes) -> bytes:
    first, second, third, rest = _GUID_PARTS.unpack(value)
    tail = rest.hex().encode()
    return b'"%08x-%04x-%04x-%b-%b"' % (first, second, third, tail[:4], tail[4:])


def _int64(value: int) -> bytes:
    return b"%d" % value if -INTEGER_EXACT_MAX <= value <= INTEGER_EXACT_MAX else b'"%d"' % value


_SLOT_CHANGES: Final[dict[str, Callable[[Any], bytes]]] = {"?": _bit, "f": _real, "d": _real, "16s": _guid}


@dataclass(frozen=True, slots=True)
class _Plan:
    """How rows of one shape become JSON."""

    text: int
    slots: struct.Struct | None  # None: no slot is asked for
    slots_at: int
    slot_values: Callable[[Any], tuple[Any, ...]] | None  # which of the slots are asked for; None: all
    slot_changes: tuple[tuple[int, Callable[[Any], bytes]], ...]  # which of them are no plain integers
    head: bytes  # the template for the slots; without a text, for the whole object
    no_text: bool
    names: tuple[bytes, ...]  # the names for the holes of the text, and the tail; empty: the text cannot be handed on as it is
    # What is to be done then: split the text, and write these of its values.
    line_feeds: tuple[bytes, ...]
    asked: tuple[tuple[bytes, int, PieceChange | None], ...]
    tail: bytes

    def slots_of(self, row: bytes) -> tuple[Any, ...]:
        """The slots' values, as `head` takes them."""
        if self.slots is None:
            return ()
        values: tuple[Any, ...] = self.slots.unpack_from(row, self.slots_at)
        if self.slot_values is not None:
            values = self.slot_values(values)
        if not self.slot_changes:
            return values
        changed = list(values)
        for i, change in self.slot_changes:
            changed[i] = change(changed[i])
        return tuple(changed)


class JsonView:
    """Rows of one schema as JSON objects: all columns that are not NULL, or those asked for."""

    def __init__(self, columns: dict[int, CompiledColumn], asked: tuple[int, ...] | None, int64_strings: bool) -> None:
        self._columns = columns if asked is None else {i: c for i, c in columns.items() if i in asked}
        self._schema = columns
        self._int64_strings = int64_strings
        self._defaults = [(i, _name(c) + self._default(c)) for i, c in self._columns.items() if c.default is not None]
        self._plans: PlanCache[_Plan] = PlanCache()
        # By shape: the names for rows without slots, all of whose text is handed on as it is.
        self.plain_names: PlanCache[tuple[bytes, ...]] = PlanCache()
        # The same for a run of rows: the shape again, and the names of them all.
        self._run_names: PlanCache[tuple[bytes, ...]] = PlanCache()

    def to_json(self, row: bytes, long_values: LongValues | None = None) -> bytes:
        """One row's JSON object."""
        try:
            size = row[0]
            shape = row[:size]
            names = self.plain_names.plans.get(shape)
            if names is not None:
                return row[size:] % names
            plan = self._plans.plans.get(shape) or self._plan(row)
            values = plan.slots_of(row)
            if plan.names:
                return (plan.head + row[plan.text :]) % (values + plan.names)
            if plan.no_text and len(row) == plan.text:
                return plan.head % values
            pieces = split_pieces(row[plan.text :], plan.line_feeds)
            if len(row) < plan.text:
                raise ValueError("the slots are cut off")
            out = [plan.head % values]
            for name, place, change in plan.asked:
                out.append(name)
                out.append(pieces[place] if change is None else change(pieces[place], long_values or _NO_LONG_VALUES))
            out.append(plan.tail)
            return b"".join(out)
        except DAMAGE as error:
            damaged(error)

    def to_json_many(self, rows: Iterable[bytes], long_values: LongValues | None = None) -> bytes:
        """The rows' JSON objects with commas between them."""
        return b",".join(self.to_json_runs(rows, long_values))

    def to_json_runs(self, rows: Iterable[bytes], long_values: LongValues | None = None) -> list[bytes]:
        """What `to_json_many` joins, for a caller that joins more than this: neighbours of one plain shape are formatted together."""
        out: list[bytes] = []
        rest = iter(rows)
        while run := list(islice(rest, RUN)):
            try:
                size = run[0][0]
                shape = run[0][:size]
                names = self._run_names.plans[shape]
                texts = [row[size:] for row in run if row[:size] == shape]
                if len(texts) == len(run):
                    out.append(b"".join(texts) % (names if len(run) == RUN else names[: len(names) // RUN * len(run)]))
                    continue
            except DAMAGE:
                pass  # a shape that is new, or needs more than names; or damage, to be found again row by row
            out += [self.to_json(row, long_values) for row in run]
        return out

    def _plan(self, row: bytes) -> _Plan:
        known = self._plans.plans.get(shape_of(row))
        if known is not None:  # a shape too long to be found by its first byte
            return known
        layout = read_layout(row, self._schema)
        slots = [e for e in layout.slots() if e.column]
        slots_asked = [e for e in slots if e.id in self._columns]
        texts = layout.texts()
        texts_asked = [e for e in texts if e.id in self._columns]
        head = [b"{"]
        slot_changes: list[tuple[int, Callable[[Any], bytes]]] = []
        for i, entry in enumerate(slots_asked):
            column = self._columns[entry.id]
            change = _int64 if self._says_string(column) else _SLOT_CHANGES.get(column.type.code)
            if change is not None:
                slot_changes.append((i, change))
            head += [b"," if i else b"", _name(column).replace(b"%", b"%%"), b"%b" if change else b"%d"]
        asked = tuple(
            ((b"," if i or slots_asked else b"") + _name(self._columns[e.id]), e.place, self._piece_change(e))
            for i, e in enumerate(texts_asked)
        )
        stored = {e.id for e in layout.stored}
        defaults = b",".join([said for column_id, said in self._defaults if column_id not in stored])
        tail = (b"," if defaults and (asked or slots_asked) else b"") + defaults + b"}"
        names: tuple[bytes, ...] = ()
        if texts and len(asked) == len(texts) and all(change is None for _, _, change in asked):
            names = (*(name for name, _, _ in asked), tail)
            if layout.text == len(layout.shape) < 255:
                first, *middle = names[:-1]
                alone = (b"{" + first, *middle, tail)
                self.plain_names.keep(layout.shape, alone, len(names))
                self._run_names.keep(layout.shape, (*alone, *((b",{" + first, *middle, tail) * (RUN - 1))), len(names) * RUN)
        plan = _Plan(
            text=layout.text,
            slots=slots_struct(layout) if slots_asked else None,
            slots_at=len(layout.shape),
            slot_values=None if len(slots_asked) == len(slots) else picker([slots.index(e) for e in slots_asked]),
            slot_changes=tuple(slot_changes),
            head=b"".join(head) + (b"" if texts else tail.replace(b"%", b"%%")),
            no_text=not texts,
            names=names,
            line_feeds=line_feeds(len(texts)),
            asked=asked,
            tail=tail,
        )
        return self._plans.keep(layout.shape, plan, len(layout.stored) + len(defaults) // 64)

    def _says_string(self, column: CompiledColumn) -> bool:
        return self._int64_strings and column.spec.coltyp in _INT64

    def _default(self, column: CompiledColumn) -> bytes:
        if self._says_string(column):
            assert column.default is not None
            return _int64(column.default)
        return encode_json(column.type.encode(column.default))

    def _piece_change(self, entry: Stored) -> PieceChange | None:
        """What must be done to a stored value before a client sees it."""
        column = self._columns[entry.id]
        says_string = self._says_string(column)
        if not says_string and entry.kind != Kind.TEXT_WITH_REFS:
            return None

        def say(value: Any, long_values: LongValues) -> bytes:
            if says_string:
                return _int64(value)
            if type(value) is LongRef:
                if value not in long_values:
                    raise JetError(Err.LVCorrupted, f"column {column.name}: the long value {value.id} was not given")
                value = long_values[value]
            return encode_json(column.type.encode(value))

        def change(piece: bytes, long_values: LongValues) -> bytes:
            value = decode_value(column, decode_json(piece))
            if type(value) is list:
                return b"[" + b",".join([say(v, long_values) for v in value]) + b"]"
            return say(value, long_values)

        return change


def _name(column: CompiledColumn) -> bytes:
    return encode_json(column.name) + b":"
