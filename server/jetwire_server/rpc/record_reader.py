"""Records off the wire at once: one decoder a table, built from its columns.

Names are matched, and types and bounds checked, in C: by a struct with a field a column. It takes ordinary records, with ordinary
values, exactly as SetColumn would take them one by one; for anything else (an error, an empty text, several values of a column) it
answers None, and the caller takes the general road, which knows all cases and says what is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Final

import msgspec
from msgspec import UNSET, Meta, UnsetType

from jetwire_protocol.data.flags import AddColumnGrbit, Coltyp
from jetwire_protocol.errors import JetError
from jetwire_protocol.validate import Mismatch
from jetwire_protocol.values import INTEGERS, from_wire
from jetwire_server import limits
from jetwire_server.engine.stored_form import UNICODE_PAGE, size_of
from jetwire_server.engine.values import ColumnPlan, TablePlan

_INTEGERS: Final = {coltyp: bounds for coltyp, bounds in INTEGERS.items() if bounds[1] < 2**63}  # what the decoder can bound
BACKSLASH: Final = ord("\\")
_SCALAR = str | int | float | bool
Convert = Callable[[Any], Any]


class NotOrdinary(Exception):
    """A value that only the general road can take."""


class RecordReader:
    """One table's."""

    def __init__(self, plan: TablePlan) -> None:
        settable = [column for column in plan.columns.values() if not column.read_only and column.id not in plan.escrow]
        self._ids = tuple(column.id for column in settable)
        self._converts = [(column.id, _converter(column)) for column in settable if not _checked_in_c(column)]
        self._texts = [(column.id, _converter(column)) for column in settable if column.text and _checked_in_c(column)]
        fields = [
            (f"c{column.id}", _type(column), msgspec.field(default=UNSET, name=column.column.name))  # a name need not be Python's
            for column in settable
        ]
        struct = msgspec.defstruct("Record", fields, forbid_unknown_fields=True, gc=False)
        self._decode = msgspec.json.Decoder(list[struct]).decode  # type: ignore[valid-type]

    def read(self, records: bytes | msgspec.Raw, *, plain: bool) -> list[dict[int, Any]] | None:
        """A JSON array of records as values by column id, ready for their rows; None if one of them is not ordinary.

        `plain`: all texts are ASCII, so that their characters are their bytes: no other is there, not even as an escape.
        """
        ids = self._ids
        astuple = msgspec.structs.astuple
        try:
            out = []
            for record in self._decode(records):
                values = astuple(record)
                if UNSET in values:
                    out.append({columnid: value for columnid, value in zip(ids, values, strict=True) if value is not UNSET})
                else:
                    out.append(dict(zip(ids, values)))  # noqa: B905 - a struct has its fields, and the look is a quarter of the time
            if not plain:
                self._convert(out, self._texts)
            if self._converts:
                self._convert(out, self._converts)
            return out
        except (msgspec.DecodeError, NotOrdinary, Mismatch, JetError, UnicodeDecodeError, RecursionError, ArithmeticError):
            return None

    def _convert(self, records: Sequence[dict[int, Any]], converts: Sequence[tuple[int, Convert]]) -> None:
        for values in records:
            for columnid, convert in converts:
                value = values.get(columnid)
                if value is not None:
                    values[columnid] = convert(value)


def _checked_in_c(column: ColumnPlan) -> bool:
    """Whether the struct's type says all there is to say; of a text, as long as it is ASCII."""
    coltyp = column.column.coltyp
    if column.text:
        return not column.column.fixed
    return coltyp in _INTEGERS or coltyp in (Coltyp.Bit, Coltyp.IEEEDouble)


def _type(column: ColumnPlan) -> Any:
    coltyp = column.column.coltyp
    kind: Any
    if not _checked_in_c(column):
        kind = _SCALAR
    elif column.text:
        kind = Annotated[str, Meta(min_length=1, max_length=_bytes_most(column) // (2 if column.column.cp == UNICODE_PAGE else 1))]
    elif coltyp in _INTEGERS:
        low, high = _INTEGERS[coltyp]
        kind = Annotated[int, Meta(ge=low, le=high)]
    else:
        kind = bool if coltyp == Coltyp.Bit else float
    optional = kind | UnsetType
    return optional if column.column.grbit & AddColumnGrbit.ColumnNotNULL else optional | None


def _bytes_most(column: ColumnPlan) -> int:
    """A long value that is longer may have to lie beside the row."""
    return min(column.max, limits.LONG_VALUE_INTRINSIC_BYTES_MAX) if column.long else column.max


def _converter(column: ColumnPlan) -> Convert:
    described = column.column
    most = _bytes_most(column)

    def convert(value: Any) -> Any:
        made = from_wire(described.coltyp, value, described.cp)
        if made == "" or made == b"":
            raise NotOrdinary
        made, cut = column.checked(made)
        if cut or size_of(described, made) > most:
            raise NotOrdinary
        return made

    return convert


def reader_of(plan: TablePlan) -> RecordReader:
    """The reader of a table's description, made once."""
    reader: RecordReader | None = plan.table.compiled.get("reader")
    if reader is None:
        reader = plan.table.compiled["reader"] = RecordReader(plan)
    return reader
