"""Column values between the wire and what a Python programmer likes: `datetime`, `UUID`, `bytes`, exact floats."""

from __future__ import annotations

from binascii import a2b_base64
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from jetwire_protocol.data.flags import Coltyp

Convert = Callable[[Any], Any]
_OLE_ZERO = datetime(1899, 12, 30, tzinfo=UTC)


def _float(value: Any) -> float:
    return float(value)  # "NaN" and "Infinity" are spelled as Python reads them


def _datetime(days: Any) -> datetime | float:
    """The moment in UTC; what is no moment (applications store all sorts of numbers here) stays a number."""
    try:
        whole = int(float(days))
        return _OLE_ZERO + timedelta(days=whole) + timedelta(days=abs(float(days) - whole))
    except (OverflowError, ValueError):
        return float(days)


_READ: dict[int, Convert] = {
    Coltyp.IEEESingle: _float,
    Coltyp.IEEEDouble: _float,
    Coltyp.DateTime: _datetime,
    Coltyp.GUID: UUID,
    Coltyp.Binary: a2b_base64,
    Coltyp.LongBinary: a2b_base64,
    Coltyp.Currency: int,
    Coltyp.LongLong: int,
    Coltyp.UnsignedLongLong: int,
}


class RecordReader:
    """Turns wire records of one table into Python records. Columns that need nothing cost nothing."""

    def __init__(self, coltyps: Mapping[str, int]) -> None:
        self._converts = [(name, _READ[coltyp]) for name, coltyp in coltyps.items() if coltyp in _READ]

    def __call__(self, record: dict[str, Any]) -> dict[str, Any]:
        for name, convert in self._converts:
            value = record.get(name)
            if value is not None:
                record[name] = _read_all(convert, value) if type(value) in (list, dict) else convert(value)
        return record


def _read_all(convert: Convert, value: Any) -> Any:
    """Several values of a column, or stored bytes that are no value of the column's type: these stay bytes."""
    if isinstance(value, dict):
        return a2b_base64(value["base64"])
    return [None if one is None else _read_all(convert, one) if isinstance(one, dict) else convert(one) for one in value]


_BYTES = frozenset({Coltyp.Binary, Coltyp.LongBinary})
_NO_BYTES = (str, float)  # which, as text, might read as base64 of something


def binary_columns(coltyps: Mapping[str, int]) -> list[str]:
    return [name for name, coltyp in coltyps.items() if coltyp in _BYTES]


def refuse_texts(records: Iterable[Mapping[str, Any]], names: Sequence[str]) -> None:
    """Text in a column of bytes would be taken for base64: stored as other bytes than anybody meant."""
    for record in records:
        if not isinstance(record, Mapping):
            continue  # as the server will say
        for name in names:
            value = record.get(name)
            for one in value if isinstance(value, list | tuple) else (value,):
                if isinstance(one, _NO_BYTES):
                    raise TypeError(f"column {name} holds bytes, not {type(one).__name__}")


_AS_THEY_ARE = frozenset({str, int, bool, type(None)})


def to_wire(value: Any) -> Any:
    """A Python value as the protocol takes it; what JSON can say already is left alone."""
    kind = type(value)
    if kind in _AS_THEY_ARE:
        return value
    if kind is dict:
        return {name: one if type(one) in _AS_THEY_ARE else to_wire(one) for name, one in value.items()}
    if kind is float:
        if value != value:
            return "NaN"
        return value if abs(value) != float("inf") else "Infinity" if value > 0 else "-Infinity"
    if kind is list or isinstance(value, list | tuple):
        return [one if type(one) in _AS_THEY_ARE else to_wire(one) for one in value]
    if isinstance(value, datetime):
        # A moment without a zone is taken as UTC, as it is given back.
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).isoformat()
    if isinstance(value, float):  # of a class of its own, as numpy's
        return to_wire(float(value))
    if isinstance(value, Mapping):
        return {name: to_wire(one) for name, one in value.items()}
    return value  # bytes, UUID, dates without a time: the JSON encoder knows them
