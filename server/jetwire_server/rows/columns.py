"""What a row's columns are: their ids, their types, and how a value of each type is held in a row.

Values are plain Python: `bool`, `int`, `float`, `str`, `bytes`, `uuid.UUID`. Currency is its integer (ten-thousandths), DateTime
its OLE number of days. A tagged column's value may be a list of them (its multi-values in itagSequence order), and a long text or
binary may be a `LongRef` where the value itself lies in the table's tree of long values.
"""

from __future__ import annotations

import struct
from binascii import a2b_base64, b2a_base64
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


class Absent:
    """The change that takes a column out of a row, so that it reads as its default again."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "ABSENT"


ABSENT: Final = Absent()


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


@dataclass(frozen=True, slots=True)
class ColumnType:
    """How a type's values are held: in a slot of a fixed size (`code`), or as JSON in the row's text."""

    code: str
    python: type
    to_json: Callable[[Any], Any]  # a checked value -> what JSON can say
    decode: Callable[[Any], Any]  # and back; raises ValueError, TypeError or struct.error
    separable: bool = False  # may be a LongRef

    def checked(self, value: Any) -> Any:
        """The value, if the type can hold it, as it will be read again.

        Raises TypeError or struct.error for another kind of value, struct.error or OverflowError for one out of range.
        """
        exact = self.python
        if exact is int or exact is float:
            return struct.unpack("<" + self.code, struct.pack("<" + self.code, value))[0]
        if type(value) is exact:
            return value
        if not isinstance(value, (bytes, bytearray, memoryview) if exact is bytes else exact):
            raise TypeError(f"{type(value).__name__} is no value of this type")
        return value if exact is UUID else exact(value)

    def encode(self, value: Any) -> Any:
        """A value -> what JSON can say. Raises as `checked` does."""
        return self.to_json(self.checked(value))


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
    return a2b_base64(value, strict_mode=True)


def _base64(value: bytes) -> str:
    return b2a_base64(value, newline=False).decode("ascii")


def _guid(value: Any) -> UUID:
    if type(value) is not str:
        raise TypeError("not a GUID")
    return UUID(value)


def _same(value: Any) -> Any:
    return value


def _integer(code: str) -> ColumnType:
    packer = struct.Struct("<" + code)

    def check(value: Any) -> int:
        if type(value) is not int:
            raise TypeError("not int")
        packer.pack(value)  # only to see that it fits
        return value

    return ColumnType(code, int, _same, check)


def _real(code: str) -> ColumnType:
    return ColumnType(code, float, float_text, _float)


TYPES: Final[dict[Coltyp, ColumnType]] = {
    Coltyp.Bit: ColumnType("?", bool, _same, _exactly(bool)),
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
    Coltyp.GUID: ColumnType("16s", UUID, str, _guid),
    Coltyp.Text: ColumnType("", str, _same, _exactly(str)),
    Coltyp.LongText: ColumnType("", str, _same, _exactly(str), separable=True),
    Coltyp.Binary: ColumnType("", bytes, _base64, _bytes),
    Coltyp.LongBinary: ColumnType("", bytes, _base64, _bytes, separable=True),
}


class CompiledColumn:
    """What the codec asks about a column for every value, worked out once."""

    __slots__ = ("default", "id", "is_text", "name", "slot", "spec", "tagged", "type")

    def __init__(self, spec: ColumnSpec) -> None:
        self.spec = spec
        self.id = spec.id
        self.name = spec.name
        self.type = TYPES[spec.coltyp]
        self.tagged = spec.tagged
        self.is_text = self.type.python is str
        self.default = None if spec.default is None else self.type.checked(spec.default)
        # A fixed column of a type of fixed size has a little-endian slot in the row; all others lie in its text.
        self.slot = struct.Struct("<" + self.type.code) if self.type.code and spec.id <= FIXED_LAST else None


def compile_columns(columns: tuple[ColumnSpec, ...]) -> dict[int, CompiledColumn]:
    """The columns by id, ascending; a schema no row could follow is refused."""
    by_id: dict[int, CompiledColumn] = {}
    for spec in sorted(columns, key=lambda c: c.id):
        if not 1 <= spec.id <= TAGGED_LAST:
            raise JetError(Err.BadColumnId, f"{spec.name}: {spec.id}")
        if spec.id in by_id:
            raise JetError(Err.ColumnDuplicate, f"{spec.name}: id {spec.id} is {by_id[spec.id].name}'s")
        if spec.coltyp not in TYPES:
            raise JetError(Err.InvalidColumnType, f"{spec.name}: {spec.coltyp}")
        try:
            by_id[spec.id] = CompiledColumn(spec)
        except (TypeError, ArithmeticError, struct.error) as error:
            raise JetError(Err.InvalidParameter, f"{spec.name}: its default: {error}") from error
    return by_id
