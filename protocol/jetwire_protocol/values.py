"""Column values: what stands on the wire, and the plain Python value it means, by the column's type.

Python values are `bool`, `int`, `float`, `str`, `bytes`, `uuid.UUID` and None. Currency is its integer (ten-thousandths),
DateTime its OLE number of days. `{"base64": ...}` (or `bytes`, once validated) is the stored bytes of any type.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from math import isfinite, modf
from typing import Any, Final
from uuid import UUID

from jetwire_protocol.data.flags import Coltyp
from jetwire_protocol.errors import Err, JetError
from jetwire_protocol.validate import Mismatch, base64_bytes

__all__ = ["SAFE_INT", "from_bytes", "from_ole", "from_wire", "to_bytes", "to_ole", "to_wire"]

SAFE_INT: Final = 2**53  # beyond it a JavaScript client needs `int64: "string"`
UNICODE: Final = 1200
_OLE_ZERO = datetime(1899, 12, 30)

_CODES: Final = {
    Coltyp.Bit: "<?",
    Coltyp.UnsignedByte: "<B",
    Coltyp.Short: "<h",
    Coltyp.UnsignedShort: "<H",
    Coltyp.Long: "<i",
    Coltyp.UnsignedLong: "<I",
    Coltyp.Currency: "<q",
    Coltyp.LongLong: "<q",
    Coltyp.UnsignedLongLong: "<Q",
    Coltyp.IEEESingle: "<f",
    Coltyp.IEEEDouble: "<d",
    Coltyp.DateTime: "<d",
}
INTEGERS: Final = {
    Coltyp.UnsignedByte: (0, 2**8 - 1),
    Coltyp.Short: (-(2**15), 2**15 - 1),
    Coltyp.UnsignedShort: (0, 2**16 - 1),
    Coltyp.Long: (-(2**31), 2**31 - 1),
    Coltyp.UnsignedLong: (0, 2**32 - 1),
    Coltyp.Currency: (-(2**63), 2**63 - 1),
    Coltyp.LongLong: (-(2**63), 2**63 - 1),
    Coltyp.UnsignedLongLong: (0, 2**64 - 1),
}
"""The least and the greatest value of each column type that holds integers."""
_SPECIAL_FLOATS: Final = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}
_TEXTS: Final = (Coltyp.Text, Coltyp.LongText)
_BINARIES: Final = (Coltyp.Binary, Coltyp.LongBinary)


def to_ole(moment: datetime) -> float:
    """The OLE number of days; a moment with a zone is turned to UTC first."""
    if moment.tzinfo is not None:
        moment = moment.astimezone(UTC).replace(tzinfo=None)
    days = (moment - _OLE_ZERO) / timedelta(days=1)
    whole = int(days // 1)
    part = days - whole
    return whole - part if whole < 0 and part else days  # below zero the part of the day still counts forward


def from_ole(days: float) -> datetime:
    """The moment of an OLE number, without a zone."""
    part, whole = modf(days)
    return _OLE_ZERO + timedelta(days=whole) + timedelta(days=abs(part))


# -- in ---------------------------------------------------------------------------------------------------------------
def _bit(value: Any) -> bool:
    if type(value) is bool:
        return value
    raise Mismatch("expected true or false")


def _integer(low: int, high: int) -> Callable[[Any], int]:
    def read(value: Any) -> int:
        if type(value) is str:
            digits = value.removeprefix("-")
            if not (digits.isascii() and digits.isdigit() and len(digits) <= 20):
                raise Mismatch("expected an integer")
            value = int(value)
        if type(value) is not int:
            raise Mismatch("expected an integer")
        if not low <= value <= high:
            raise JetError(Err.InvalidParameter, f"{value} does not fit the column's type")
        return value

    return read


def _float(value: Any) -> float:
    if type(value) is float or type(value) is int:
        try:
            return float(value)
        except OverflowError:
            raise JetError(Err.InvalidParameter, f"an integer of {int(value).bit_length()} bits does not fit the column's type") from None
    if type(value) is str and value in _SPECIAL_FLOATS:
        return _SPECIAL_FLOATS[value]
    raise Mismatch('expected a number, "NaN", "Infinity" or "-Infinity"')


def _single(value: Any) -> float:
    try:
        return float(struct.unpack("<f", struct.pack("<f", _float(value)))[0])
    except OverflowError:
        raise JetError(Err.InvalidParameter, f"{value} does not fit the column's type") from None


def _date(value: Any) -> float:
    if type(value) is str and value not in _SPECIAL_FLOATS:
        try:
            return to_ole(datetime.fromisoformat(value))
        except (ValueError, OverflowError):
            raise Mismatch("expected a number of days or an ISO 8601 string") from None
    return _float(value)


def _guid(value: Any) -> UUID:
    if type(value) is str:
        try:
            return UUID(value)
        except ValueError:
            pass
    raise Mismatch("expected a GUID")


def _text(value: Any) -> str:
    if type(value) is str:
        return value
    raise Mismatch("expected a string")


_READERS: Final[dict[Coltyp, Callable[[Any], Any]]] = {
    Coltyp.Bit: _bit,
    **{coltyp: _integer(*bounds) for coltyp, bounds in INTEGERS.items()},
    Coltyp.IEEESingle: _single,
    Coltyp.IEEEDouble: _float,
    Coltyp.DateTime: _date,
    Coltyp.GUID: _guid,
    **dict.fromkeys(_TEXTS, _text),
    **dict.fromkeys(_BINARIES, base64_bytes),
}


def from_wire(coltyp: Coltyp, value: Any, cp: int = UNICODE) -> Any:
    """The Python value of a wire value. `Mismatch` for another JSON type, a `JetError` for one out of range."""
    if value is None:
        return None
    if type(value) is dict:
        if len(value) != 1 or "base64" not in value:
            raise Mismatch('expected a value or {"base64": ...}')
        value = base64_bytes(value["base64"])
    if type(value) is bytes:
        return from_bytes(coltyp, value, cp)
    return _READERS[coltyp](value)


def from_bytes(coltyp: Coltyp, data: bytes, cp: int = UNICODE) -> Any:
    """The Python value whose stored bytes these are."""
    try:
        if coltyp in _TEXTS:
            return data.decode("utf-16-le" if cp == UNICODE else "cp1252")
        if coltyp in _BINARIES:
            return data
        if coltyp == Coltyp.GUID:
            return UUID(bytes_le=data)
        return struct.unpack(_CODES[coltyp], data)[0]
    except (struct.error, ValueError):
        raise JetError(Err.InvalidBufferSize, f"{len(data)} bytes are no value of the column's type") from None


# -- out --------------------------------------------------------------------------------------------------------------
def to_bytes(coltyp: Coltyp, value: Any, cp: int = UNICODE) -> bytes:
    """The stored bytes of a Python value."""
    if isinstance(value, str):
        return value.encode("utf-16-le") if cp == UNICODE else value.encode("cp1252", "replace")
    if isinstance(value, bytes):
        return value
    if isinstance(value, UUID):
        return value.bytes_le
    if value is True:
        return b"\xff"  # as ESE stores it
    return struct.pack(_CODES[coltyp], value)


def to_wire(value: Any, *, int64_strings: bool = False) -> Any:
    """What stands on the wire for a Python value; the JSON encoder does the rest (bytes as base64, UUID as its string)."""
    kind = type(value)
    if kind is float:
        if isfinite(value):
            return value
        return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"
    if kind is int and int64_strings and not -SAFE_INT <= value <= SAFE_INT:
        return str(value)
    if kind is list:
        return [to_wire(one, int64_strings=int64_strings) for one in value]
    return value
