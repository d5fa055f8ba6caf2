"""Rows to values and back: one `RowCodec` per schema.

    row  =  shape | slots | text

`shape.py` says what is stored and how, `text.py` how the values without a slot are held. The slots are the values of fixed
numeric columns (ids 1-127), GUIDs and Bits, little-endian, packed in order of their ids.
A column that is not in the shape reads as its default, or as NULL if it has none; a stored NULL reads as NULL whatever the default.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from jetwire_protocol.errors import Err, JetError

from jetwire_server.rows.columns import ABSENT, TYPES, ColumnSpec, LongRef, check_columns
from jetwire_server.rows.json_view import JsonView
from jetwire_server.rows.plans import DAMAGE, PlanCache, ReadPlan, damaged, guid_of, picker
from jetwire_server.rows.shape import SLOT_KINDS, SLOT_SIZES, Kind, pack_shape, shape_of
from jetwire_server.rows.text import (
    decode_json,
    decode_texts,
    decode_value,
    encode_piece,
    join_pieces,
    join_texts,
    piece_at,
    split_pieces,
)

EMPTY_ROW = pack_shape(())


@dataclass(frozen=True, slots=True)
class _WritePlan:
    """How rows with values for just these columns, none NULL and all texts plain, are encoded."""

    shape: bytes
    slots: struct.Struct | None
    slot_values: Callable[[Any], tuple[Any, ...]]
    texts: Callable[[Any], tuple[Any, ...]] | None


class RowCodec:
    """Encodes and decodes the rows of one schema. Columns that are gone are simply not given; their bytes are skipped."""

    def __init__(self, columns: Iterable[ColumnSpec]) -> None:
        self.columns = tuple(columns)
        self.by_id = check_columns(self.columns)
        self._names = {c.id: c.name for c in self.by_id.values()}
        self._writers: PlanCache[_WritePlan | None] = PlanCache()
        self._readers: PlanCache[ReadPlan] = PlanCache()
        self._views: PlanCache[JsonView] = PlanCache()
        self._everything = self.view()
        self._plain_names = self._everything.plain_names

    # -- writing ---------------------------------------------------------------------------------------------------------------

    def encode(self, values: Mapping[int, Any]) -> bytes:
        """The row that stores these values. None stores a NULL; a column not given is not stored, and reads as its default.

        Raises ColumnNotFound for an id the schema does not have, InvalidParameter for a value its column cannot hold.
        """
        key = tuple(values)
        plan = self._writers.get(key)
        if plan is None:
            if key in self._writers:  # rows of these columns are never plain
                return self._encode(values)
            plan = self._writers.keep(key, self._write_plan(key), len(key))
            if plan is None:
                return self._encode(values)
        try:
            row = plan.shape
            if plan.slots is not None:
                row += plan.slots.pack(*plan.slot_values(values))
            return row if plan.texts is None else row + join_texts(plan.texts(values))
        except (TypeError, ValueError, ArithmeticError, struct.error):  # a NULL, a list, a LongRef, a lone surrogate, or a mistake
            return self._encode(values)

    def _write_plan(self, ids: tuple[int, ...]) -> _WritePlan | None:
        """A plan for rows of just these columns, if calls into C alone can check and pack such values."""
        slots: list[ColumnSpec] = []
        texts: list[int] = []
        shape: list[tuple[int, Kind]] = []
        for column_id in sorted(ids):
            column = self.by_id.get(column_id)
            if column is None:
                return None
            if column.slot and column.slot not in "?16s":
                slots.append(column)
                shape.append((column_id, _slot_kind(column)))
            elif str in TYPES[column.coltyp].python:
                texts.append(column_id)
                shape.append((column_id, Kind.TEXT))
            else:
                return None
        return _WritePlan(
            shape=pack_shape(shape),
            slots=struct.Struct("<" + "".join(c.slot for c in slots)) if slots else None,
            slot_values=picker([c.id for c in slots]),
            texts=picker(texts) if texts else None,
        )

    def _encode(self, values: Mapping[int, Any]) -> bytes:
        entries = {column_id: self._entry(column_id, values[column_id]) for column_id in sorted(values)}
        return _assemble(entries)

    def _entry(self, column_id: int, value: Any) -> tuple[Kind, bytes]:
        """How a value is stored, and its bytes: a slot's, or a piece of the text."""
        column = self.by_id.get(column_id)
        if column is None:
            raise JetError(Err.ColumnNotFound, f"column {column_id}")
        if isinstance(value, list) and len(value) < 2:
            value = value[0] if value else None
        if value is None:
            return Kind.NULL, b""
        kind = TYPES[column.coltyp]
        try:
            if column.slot:
                checked = kind.checked(value)
                return _slot_kind(column), struct.pack("<" + column.slot, checked.bytes_le if isinstance(checked, UUID) else checked)
            if isinstance(value, list) and not column.tagged:
                raise TypeError("only a tagged column has multi-values")
            return _text_kind(value), encode_piece(kind, value)
        except (TypeError, ValueError, ArithmeticError, struct.error) as error:
            raise JetError(Err.InvalidParameter, f"column {column.name}: {error}", column=column.name) from error

    def patch(self, row: bytes, changes: Mapping[int, Any]) -> bytes:
        """The row with some columns changed; the others' bytes are copied, never decoded. ABSENT takes a column out of the row.

        The bytes of columns that are gone are dropped on the way.
        """
        entries = self._entries(row)
        for column_id, value in changes.items():
            if value is ABSENT:
                entries.pop(column_id, None)
            else:
                entries[column_id] = self._entry(column_id, value)
        return _assemble(dict(sorted(entries.items())))

    def _entries(self, row: bytes) -> dict[int, tuple[Kind, bytes]]:
        plan = self._reader(row)
        try:
            pieces = split_pieces(row[plan.text :], plan.layout.pieces)
        except DAMAGE as error:
            damaged(error)
        entries: dict[int, tuple[Kind, bytes]] = {}
        for stored in plan.layout.stored:
            if stored.column is None:
                continue
            size = SLOT_SIZES.get(stored.kind)
            if size is not None:
                value = row[stored.place : stored.place + size]
            else:
                value = b"" if stored.kind is Kind.NULL else pieces[stored.place]
            entries[stored.id] = (stored.kind, value)
        return entries

    # -- reading ---------------------------------------------------------------------------------------------------------------

    def _reader(self, row: bytes) -> ReadPlan:
        try:
            plan = self._readers.get(row[: row[0]])
            if plan is None:
                plan = self._readers.get(shape_of(row))  # a shape too long to be found by its first byte
            if plan is None:
                plan = ReadPlan.of(row, self.by_id)
                self._readers.keep(plan.layout.shape, plan, len(plan.layout.stored) + len(plan.defaults))
            return plan
        except DAMAGE as error:
            damaged(error)

    def decode(self, row: bytes) -> dict[int, Any]:
        """The values of all columns that are not NULL, defaults included.

        Raises RecordFormatConversionFailed for a damaged row, as every reading call does.
        """
        plan = self._reader(row)
        try:
            values: dict[int, Any] = self._stored(row, plan)
        except DAMAGE as error:
            damaged(error)
        if plan.defaults:
            values.update(plan.defaults)
        return values

    def stored(self, row: bytes) -> dict[int, Any]:
        """What `encode` was given: the stored values, None for a stored NULL, no defaults."""
        plan = self._reader(row)
        try:
            values = self._stored(row, plan)
        except DAMAGE as error:
            damaged(error)
        for entry in plan.layout.stored:
            if entry.kind is Kind.NULL and entry.column is not None:
                values[entry.id] = None
        return values

    def _stored(self, row: bytes, plan: ReadPlan) -> dict[int, Any]:
        if plan.holes:
            data = row[plan.text :] % plan.holes
            texts = decode_texts(data) if plan.only_texts else decode_json(data)
            if len(texts) != len(plan.text_ids):
                raise ValueError("more values in the text than its holes say")
            values = dict(zip(plan.text_ids, texts, strict=True))
            if not plan.only_texts:
                for column_id in plan.gone:
                    del values[column_id]
                for column_id, kind in plan.conversions:
                    values[column_id] = decode_value(kind, values[column_id])
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

    def decode_named(self, row: bytes) -> dict[str, Any]:
        """`decode`, by column name."""
        names = self._names
        return {names[column_id]: value for column_id, value in self.decode(row).items()}

    def get(self, row: bytes, column_id: int, itag: int = 1) -> Any:
        """One column's value (or its default), None for NULL; of a multi-valued column, the `itag`-th value, counted from 1."""
        values = self._value(row, column_id)
        if isinstance(values, list):
            return values[itag - 1] if 1 <= itag <= len(values) else None
        return values if itag == 1 else None

    def count(self, row: bytes, column_id: int) -> int:
        """How many values the column has: 0 for NULL."""
        value = self._value(row, column_id)
        return len(value) if isinstance(value, list) else int(value is not None)

    def _value(self, row: bytes, column_id: int) -> Any:
        plan = self._reader(row)
        stored = plan.places.get(column_id)
        if stored is None or stored.column is None:
            column = self.by_id.get(column_id)
            if column is None:
                raise JetError(Err.ColumnNotFound, f"column {column_id}")
            return column.default
        if stored.kind is Kind.NULL:
            return None
        try:
            if stored.kind in SLOT_SIZES:
                value = struct.unpack_from("<" + stored.column.slot, row, stored.place)[0]
                return guid_of(value) if stored.kind is Kind.SLOT_16 else value
            piece = piece_at(row[plan.text :], stored.place, plan.layout.pieces)
            return decode_value(TYPES[stored.column.coltyp], decode_json(piece))
        except DAMAGE as error:
            damaged(error)

    def fixed_offset(self, row: bytes, column_id: int) -> tuple[int, int] | None:
        """Offset and size of a fixed column's little-endian slot; None if the row holds none (NULL, not stored, no such column).

        The slot stays where it is as long as the row is not encoded or patched anew, so an escrow add may change it in place.
        """
        plan = self._reader(row)
        stored = plan.places.get(column_id)
        if stored is None or stored.column is None or stored.kind not in SLOT_SIZES:
            return None
        if len(row) < plan.text:
            damaged(ValueError("the slots are cut off"))
        return stored.place, SLOT_SIZES[stored.kind]

    def references(self, row: bytes) -> list[tuple[int, int, LongRef]]:
        """The separated long values the row names: (column id, itag, reference)."""
        found: list[tuple[int, int, LongRef]] = []
        plan = self._reader(row)
        if not plan.has_refs:
            return found
        for stored in plan.layout.stored:
            if stored.kind is Kind.TEXT_WITH_REFS and stored.column is not None:
                value = self._value(row, stored.id)
                values = value if isinstance(value, list) else [value]
                found += [(stored.id, itag, v) for itag, v in enumerate(values, 1) if isinstance(v, LongRef)]
        return found

    # -- JSON ------------------------------------------------------------------------------------------------------------------

    def view(self, columns: Iterable[int] | None = None, *, int64_strings: bool = False) -> JsonView:
        """How rows are told as JSON: these columns or all, and whether integers beyond 2^53 become strings."""
        wanted = None if columns is None else tuple(columns)
        key = (wanted, int64_strings)
        view = self._views.get(key)
        if view is None:
            if wanted is not None and not all(column_id in self.by_id for column_id in wanted):
                raise JetError(Err.ColumnNotFound, f"columns {wanted}")
            view = self._views.keep(key, JsonView(self.by_id, wanted, int64_strings), len(self.by_id))
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
                return row[row[0] :] % self._plain_names[row[: row[0]]]
            except DAMAGE:  # a shape that is new or needs more than names; or damage, which the view will find again and tell
                return self._everything.to_json(row, long_values)
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


def _slot_kind(column: ColumnSpec) -> Kind:
    return SLOT_KINDS[struct.calcsize("<" + column.slot)]


def _text_kind(value: Any) -> Kind:
    refs = any(isinstance(v, LongRef) for v in value) if isinstance(value, list) else isinstance(value, LongRef)
    return Kind.TEXT_WITH_REFS if refs else Kind.TEXT


def _assemble(entries: Mapping[int, tuple[Kind, bytes]]) -> bytes:
    """A row of these stored columns, ids ascending."""
    shape = pack_shape((column_id, kind) for column_id, (kind, _) in entries.items())
    slots = [value for kind, value in entries.values() if kind in SLOT_SIZES]
    pieces = [value for kind, value in entries.values() if kind in (Kind.TEXT, Kind.TEXT_WITH_REFS)]
    return b"".join((shape, *slots, join_pieces(pieces)))
