"""What a row's columns are: their ids, their types, and how a value of each type is held in a row.

Values are plain Python: `bool`, `int`, `float`, `str`, `bytes`, `uuid.UUID`. Currency is its integer (ten-thousandths), DateTime
its OLE number of days. A tagged column's value may be a list of them (its multi-values in itagSequence order), and a long text or
binary may be a `LongRef` where the value itself lies in the table's tree of long values.
"""

from __future__ import annotations

import struct
from base64 import b64decode, b64encode
from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite
from typing import Any, Final, NamedTuple
from uuid import UUID

from jetwire_protocol.data.flags import Coltyp
from jetwire_protocol.errors import Err, JetError

FIXED_LAST: Final = 127
VARIABLE_LAST: Final = 255
TAGGED_LAST: Final = 64_999


class LongRef(NamedTuple):
    """A separated long value: where it is, and how long it is."""

    id: int
    size: int


Scalar = bool | int | float | str | bytes | UUID
Value = Scalar | LongRef | list[Any]  # the list's members are Scalar or LongRef


class _Absent:
    """The change that takes a column out of a row, so that it reads as its default again."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "ABSENT"


ABSENT: Final = _Absent()


@dataclass(frozen=True, slots=True)
class ColumnSpec:
    """One column, as the row codec must know it."""

    id: int
    name: str
    coltyp: Coltyp
    default: Scalar | None = None

    @property
    def tagged(self) -> bool:
        return self.id > VARIABLE_LAST

    @property
    def slot(self) -> str:
        """The `struct` code of the column's little-endian slot, or "" if it lies in the row's text."""
        return TYPES[self.coltyp].code if self.id <= FIXED_LAST else ""


@dataclass(frozen=True, slots=True)
class ColumnType:
    """How a type's values are held: in a slot of a fixed size (`code`), or as JSON in the row's text."""

    code: str
    python: tuple[type, ...]
    to_json: Callable[[Any], Any]  # a value -> what JSON can say
    from_json: Callable[[Any], Any]  # and back; raises ValueError or TypeError
    separable: bool = False  # may be a LongRef

    def checked(self, value: Any) -> Any:
        """The value, if the type can hold it, in the exact Python type it will be read as.

        Raises TypeError for another kind of value, struct.error or OverflowError for one out of range.
        """
        if not isinstance(value, self.python) or (isinstance(value, bool) and bool not in self.python):
            raise TypeError(f"{type(value).__name__} is no value of this type")
        if self.code and self.code != "16s":
            return struct.unpack(self.packed, struct.pack(self.packed, value))[0]
        return str(value) if isinstance(value, str) else bytes(value) if isinstance(value, bytes | bytearray | memoryview) else value

    @property
    def packed(self) -> str:
        return "<" + self.code


def float_text(value: float) -> float | str:
    """JSON has no number for these three."""
    if isfinite(value):
        return value
    return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"


def _float(value: Any) -> float:
    if isinstance(value, str):
        if value not in ("NaN", "Infinity", "-Infinity"):
            raise ValueError("not a float")
    elif isinstance(value, bool):
        raise TypeError("not a float")
    return float(value)


def _exactly(kind: type) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        if type(value) is not kind:
            raise TypeError(f"not {kind.__name__}")
        return value

    return check


def _bytes(value: Any) -> bytes:
    return b64decode(value, validate=True)


def _base64(value: bytes) -> str:
    return b64encode(value).decode("ascii")


def _guid(value: Any) -> UUID:
    if type(value) is not str:
        raise TypeError("not a GUID")
    return UUID(value)


def _same(value: Any) -> Any:
    return value


_TEXT = ColumnType("", (str,), _same, _exactly(str))
_LONG_TEXT = ColumnType("", (str,), _same, _exactly(str), separable=True)
_BYTES = (bytes, bytearray, memoryview)


def _integer(code: str) -> ColumnType:
    return ColumnType(code, (int,), _same, _exactly(int))


def _real(code: str) -> ColumnType:
    return ColumnType(code, (int, float), float_text, _float)


TYPES: Final[dict[Coltyp, ColumnType]] = {
    Coltyp.Bit: ColumnType("?", (bool,), _same, _exactly(bool)),
    Coltyp.UnsignedByte: _integer("B"),
    Coltyp.Short: _integer("h"),
    Coltyp.UnsignedShort: _integer("H"),
    Coltyp.Long: _integer("i"),
    Coltyp.UnsignedLong: _integer("I"),
    Coltyp.LongLong: _integer("q"),
    Coltyp.Currency: _integer("q"),
    Coltyp.UnsignedLongLong: _integer("Q"),
    Coltyp.IEEESingle: _real("f"),
    Coltyp.IEEEDouble: _real("d"),
    Coltyp.DateTime: _real("d"),
    Coltyp.GUID: ColumnType("16s", (UUID,), str, _guid),
    Coltyp.Text: _TEXT,
    Coltyp.LongText: _LONG_TEXT,
    Coltyp.Binary: ColumnType("", _BYTES, _base64, _bytes),
    Coltyp.LongBinary: ColumnType("", _BYTES, _base64, _bytes, separable=True),
}


def check_columns(columns: tuple[ColumnSpec, ...]) -> dict[int, ColumnSpec]:
    """The columns by id, ascending; a schema no row could follow is refused."""
    by_id: dict[int, ColumnSpec] = {}
    for column in sorted(columns, key=lambda c: c.id):
        if not 1 <= column.id <= TAGGED_LAST:
            raise JetError(Err.BadColumnId, f"{column.name}: {column.id}")
        if column.id in by_id:
            raise JetError(Err.ColumnDuplicate, f"{column.name}: id {column.id} is {by_id[column.id].name}'s")
        if column.coltyp not in TYPES:
            raise JetError(Err.InvalidColumnType, f"{column.name}: {column.coltyp}")
        by_id[column.id] = column
    return by_id
