"""Rows to values and back: one `RowCodec` per schema.

    row  =  shape | slots | text

`shape.py` says what is stored and how, `text.py` how the values without a slot are held. The slots are the values of fixed
numeric columns (ids 1-127), GUIDs and Bits, little-endian, packed in order of their ids.
A column that is not in the shape reads as its default, or as NULL if it has none; a stored NULL reads as NULL whatever the default.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from jetwire_protocol.errors import Err, JetError
from jetwire_server.rows.columns import ABSENT, Absent, ColumnSpec, LongRef, compile_columns
from jetwire_server.rows.json_view import JsonView
from jetwire_server.rows.plans import DAMAGE, PlanCache, ReadPlan, Typed, damaged, guid_of
from jetwire_server.rows.shape import SLOT_SIZES, Kind, pack_shape, shape_of
from jetwire_server.rows.text import (
    decode_json,
    decode_named_texts,
    decode_plain_texts,
    decode_value,
    decode_values,
    join_pieces,
    join_plain,
    piece_at,
    split_pieces,
)
from jetwire_server.rows.write import Entry, WritePlan, make_entry

EMPTY_ROW = pack_shape(())


class RowCodec:
    """Encodes and decodes the rows of one schema. Columns that are gone are simply not given; their bytes are skipped."""

    def __init__(self, columns: Iterable[ColumnSpec]) -> None:
        self.columns = tuple(columns)
        self._columns = compile_columns(self.columns)
        self._names = {c.id: c.name for c in self.columns}
        self._defaults = {i: c.default for i, c in self._columns.items() if c.default is not None}
        self._writers: PlanCache[WritePlan] = PlanCache()  # by the ids to write, in the order given
        self._shapes: PlanCache[bytes] = PlanCache()  # by the ids and kinds to write
        # By shape: all, and those of rows that are nothing but texts, or texts and slots, for which a look-up and a few calls into C do.
        self._readers: PlanCache[ReadPlan] = PlanCache()
        self._plain_holes: PlanCache[tuple[bytes, ...]] = PlanCache()
        self._plain_named_holes: PlanCache[tuple[bytes, ...]] = PlanCache()
        self._typed: PlanCache[Typed] = PlanCache()
        self._views: PlanCache[JsonView] = PlanCache()
        self._everything = JsonView(self._columns, None, False)
        self._plain_names = self._everything.plain_names.plans

    # -- writing ---------------------------------------------------------------------------------------------------------------

    def encode(self, values: Mapping[int, Any]) -> bytes:
        """The row that stores these values. None stores a NULL; a column not given is not stored, and reads as its default.

        Raises ColumnNotFound for an id the schema does not have, InvalidParameter for a value its column cannot hold.
        """
        key = tuple(values)
        plan = self._writers.plans.get(key)
        if plan is None:
            plan = self._writers.keep(key, WritePlan.of(key, self._columns), len(key))
        try:
            row = plan.shape
            if plan.slots is not None:
                slots: Sequence[Any] = plan.slot_values(values)
                if plan.slot_changes:
                    slots = list(slots)
                    for i, change in plan.slot_changes:
                        slots[i] = change(slots[i])
                row += plan.slots.pack(*slots)
            if plan.pieces is None:
                return row
            pieces: Sequence[Any] = plan.pieces(values)
            percent = True
            if plan.changes:
                "".join(plan.texts(values))  # only to see that they are texts: the fastest way
                pieces = list(pieces)
                for i, change in plan.changes:
                    pieces[i] = change(pieces[i])
            else:
                percent = "%" in "".join(pieces)
            return row + join_plain(pieces, percent)
        except (TypeError, ValueError, ArithmeticError, struct.error):  # a NULL, a list, a LongRef, a lone surrogate, or a mistake
            return self._assemble({column_id: self._entry(column_id, values[column_id]) for column_id in sorted(values)})

    def _entry(self, column_id: int, value: Any) -> Entry:
        column = self._columns.get(column_id)
        if column is None:
            raise JetError(Err.ColumnNotFound, f"column {column_id}")
        return make_entry(column, value)

    def _assemble(self, entries: Mapping[int, Entry]) -> bytes:
        """A row of these stored columns, ids ascending."""
        kinds = tuple([kind for kind, _ in entries.values()])
        key = (tuple(entries), kinds)
        shape = self._shapes.plans.get(key)
        if shape is None:
            shape = self._shapes.keep(key, pack_shape(zip(entries, kinds, strict=True)), len(kinds))
        slots = [value for kind, value in entries.values() if kind >= Kind.SLOT_1]
        pieces = [value for kind, value in entries.values() if Kind.NULL < kind < Kind.SLOT_1]
        return b"".join((shape, *slots, join_pieces(pieces)))

    def patch(self, row: bytes, changes: Mapping[int, Any]) -> bytes:
        """The row with some columns changed; the others' bytes are copied, never decoded. ABSENT takes a column out of the row.

        The bytes of columns that are gone are dropped on the way.
        """
        plan = self._reader(row)
        try:
            if len(row) < plan.text:
                raise ValueError("the slots are cut off")
            pieces = split_pieces(row[plan.text :], plan.line_feeds)
        except DAMAGE as error:
            damaged(error)
        entries = {i: ABSENT if value is ABSENT else self._entry(i, value) for i, value in changes.items()}
        if not plan.has_gone and plan.keeps_shape(entries):
            head = row[: plan.text]
            for column_id, (kind, data) in entries.items():
                place = plan.places[column_id].place
                if kind >= Kind.SLOT_1:
                    head = head[:place] + data + head[place + len(data) :]
                elif kind != Kind.NULL:
                    pieces[place] = data
            return head + join_pieces(pieces)
        merged: dict[int, Entry] = {}
        for stored in plan.places.values():
            size = SLOT_SIZES[stored.kind]
            data = row[stored.place : stored.place + size] if size else b"" if stored.kind == Kind.NULL else pieces[stored.place]
            merged[stored.id] = (stored.kind, data)
        for column_id, entry in entries.items():
            if isinstance(entry, Absent):
                merged.pop(column_id, None)
            else:
                merged[column_id] = entry
        return self._assemble(dict(sorted(merged.items())))

    # -- reading ---------------------------------------------------------------------------------------------------------------

    def _reader(self, row: bytes) -> ReadPlan:
        try:
            plan = self._readers.plans.get(row[: row[0]])
            if plan is None:
                plan = self._readers.plans.get(shape_of(row))  # a shape too long to be found by its first byte
            if plan is None:
                plan = ReadPlan.of(row, self._columns, self._defaults)
                weight = len(plan.layout.stored) + len(plan.defaults)
                self._readers.keep(plan.layout.shape, plan, weight)
                if plan.plain:
                    self._plain_holes.keep(plan.layout.shape, plan.holes, weight)
                    self._plain_named_holes.keep(plan.layout.shape, plan.named_holes(self._names), weight)
                elif (typed := plan.typed()) is not None:
                    self._typed.keep(plan.layout.shape, typed, weight)
            return plan
        except DAMAGE as error:
            damaged(error)

    def decode(self, row: bytes) -> dict[int, Any]:
        """The values of all columns that are not NULL, defaults included.

        Raises RecordFormatConversionFailed for a damaged row, as every reading call does.
        """
        try:
            size = row[0]
            shape = row[:size]
            typed = self._typed.plans.get(shape)
            if typed is not None:
                at, text, unpack, commas, decode, ids = typed
                return dict(zip(ids, unpack(row, at) + decode(row[text:] % commas), strict=True))
            holes = self._plain_holes.plans.get(shape)
            if holes is not None:
                values: dict[int, Any] = decode_plain_texts(row[size:] % holes)
                if len(values) == len(holes) - 1:
                    return values
        except DAMAGE:
            pass  # a lone surrogate, or damage: decode it again, with care
        plan = self._reader(row)
        stored = self._stored(row, plan)
        if plan.defaults:
            stored.update(plan.defaults)
        return stored

    def decode_named(self, row: bytes) -> dict[str, Any]:
        """`decode`, by column name."""
        try:
            size = row[0]
            names = self._plain_named_holes.plans.get(row[:size])
            if names is not None:
                values: dict[str, Any] = decode_named_texts(row[size:] % names)
                if len(values) == len(names) - 1:
                    return values
        except DAMAGE:
            pass
        names_by_id = self._names
        return {names_by_id[column_id]: value for column_id, value in self.decode(row).items()}

    def stored(self, row: bytes) -> dict[int, Any]:
        """What `encode` was given: the stored values, None for a stored NULL, no defaults."""
        plan = self._reader(row)
        values = self._stored(row, plan)
        for entry in plan.places.values():
            if entry.kind == Kind.NULL:
                values[entry.id] = None
        return values

    def _stored(self, row: bytes, plan: ReadPlan) -> dict[int, Any]:
        """The stored values that are not NULL."""
        try:
            if plan.holes:
                values = decode_values(row[plan.text :] % plan.holes)
                if len(values) != len(plan.holes) - 1:
                    raise ValueError("more values in the text than its holes say")
                for column_id in plan.gone:
                    del values[column_id]
                for column_id, column in plan.conversions:
                    value = values[column_id]
                    if not column.is_text or type(value) is not str:
                        values[column_id] = decode_value(column, value)
            else:
                if len(row) != plan.text:
                    raise ValueError("bytes beyond the last slot, or too few")
                values = {}
            if plan.slots is not None:
                slots: Sequence[Any] = plan.slots.unpack_from(row, len(plan.layout.shape))
                if plan.guids:
                    slots = list(slots)
                    for i in plan.guids:
                        slots[i] = guid_of(slots[i])
                values.update(zip(plan.slot_ids, slots, strict=True))
            return values
        except DAMAGE as error:
            damaged(error)

    def get(self, row: bytes, column_id: int, itag: int = 1) -> Any:
        """One column's value (or its default), None for NULL; of a multi-valued column, the `itag`-th value, counted from 1."""
        value = self._value(row, column_id)
        if type(value) is list:
            return value[itag - 1] if 1 <= itag <= len(value) else None
        return value if itag == 1 else None

    def count(self, row: bytes, column_id: int) -> int:
        """How many values the column has: 0 for NULL."""
        value = self._value(row, column_id)
        return len(value) if type(value) is list else int(value is not None)

    def _value(self, row: bytes, column_id: int) -> Any:
        plan = self._reader(row)
        stored = plan.places.get(column_id)
        if stored is None:
            if column_id not in self._columns:
                raise JetError(Err.ColumnNotFound, f"column {column_id}")
            return self._defaults.get(column_id)
        kind, column = stored.kind, stored.column
        assert column is not None  # `places` has the living columns only
        if kind == Kind.NULL:
            return None
        try:
            if column.slot is not None:
                value = column.slot.unpack_from(row, stored.place)[0]
                return guid_of(value) if kind == Kind.SLOT_16 else value
            value = decode_json(piece_at(row, plan.text, stored.place, plan.layout.pieces))
            return value if column.is_text and type(value) is str else decode_value(column, value)
        except DAMAGE as error:
            damaged(error)

    def fixed_offset(self, row: bytes, column_id: int) -> tuple[int, int] | None:
        """Offset and size of a fixed column's little-endian slot; None if the row holds none (NULL, not stored, no such column).

        The slot stays where it is as long as no fixed column before it comes or goes, so an escrow add may change it in place.
        """
        plan = self._reader(row)
        stored = plan.places.get(column_id)
        if stored is None or stored.kind < Kind.SLOT_1:
            return None
        if len(row) < plan.text:
            damaged("the slots are cut off")
        return stored.place, SLOT_SIZES[stored.kind]

    def references(self, row: bytes) -> list[tuple[int, int, LongRef]]:
        """The separated long values the row names: (column id, itag, reference)."""
        found: list[tuple[int, int, LongRef]] = []
        plan = self._reader(row)
        if not plan.has_refs:
            return found
        for stored in plan.places.values():
            if stored.kind == Kind.TEXT_WITH_REFS:
                value = self._value(row, stored.id)
                values = value if type(value) is list else [value]
                found += [(stored.id, itag, v) for itag, v in enumerate(values, 1) if type(v) is LongRef]
        return found

    # -- JSON ------------------------------------------------------------------------------------------------------------------

    def view(self, columns: Iterable[int] | None = None, *, int64_strings: bool = False) -> JsonView:
        """How rows are told as JSON: these columns or all, and whether integers beyond 2^53 become strings."""
        if columns is None and not int64_strings:
            return self._everything
        wanted = None if columns is None else tuple(columns)
        key = (wanted, int64_strings)
        view = self._views.plans.get(key)
        if view is None:
            for column_id in wanted or ():
                if column_id not in self._columns:
                    raise JetError(Err.ColumnNotFound, f"column {column_id}")
            view = self._views.keep(key, JsonView(self._columns, wanted, int64_strings), len(self._columns))
        return view

    def to_json(
        self,
        row: bytes,
        columns: Iterable[int] | None = None,
        *,
        int64_strings: bool = False,
        long_values: Mapping[LongRef, Any] | None = None,
    ) -> bytes:
        """The row as a JSON object of its columns that are not NULL, defaults included, built without decoding it.

        `long_values` gives the values of the row's `references`.
        """
        if columns is None and not int64_strings:
            try:
                size = row[0]
                names = self._plain_names.get(row[:size])
                if names is not None:
                    return row[size:] % names
            except DAMAGE as error:
                damaged(error)
        return self.view(columns, int64_strings=int64_strings).to_json(row, long_values)

    def to_json_many(
        self,
        rows: Iterable[bytes],
        columns: Iterable[int] | None = None,
        *,
        int64_strings: bool = False,
        long_values: Mapping[LongRef, Any] | None = None,
    ) -> bytes:
        """The rows' JSON objects with commas between them: what stands between the brackets of an array."""
        return self.view(columns, int64_strings=int64_strings).to_json_many(rows, long_values)
