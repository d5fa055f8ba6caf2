"""Column values as plain Python (see `rows`), and as the bytes in which ESE stores them: from one to the other."""

from __future__ import annotations

import struct
from typing import Any
from uuid import UUID

from jetwire_protocol.data.flags import Coltyp
from jetwire_protocol.errors import Err, JetError
from jetwire_server.engine.schema import Column

LONG = frozenset({Coltyp.LongBinary, Coltyp.LongText})
TEXT = frozenset({Coltyp.Text, Coltyp.LongText})
BINARY = frozenset({Coltyp.Binary, Coltyp.LongBinary})
UNICODE_PAGE = 1200
CODES = {
    Coltyp.UnsignedByte: "<B",
    Coltyp.Short: "<h",
    Coltyp.Long: "<i",
    Coltyp.Currency: "<q",
    Coltyp.IEEESingle: "<f",
    Coltyp.IEEEDouble: "<d",
    Coltyp.DateTime: "<d",
    Coltyp.UnsignedLong: "<I",
    Coltyp.LongLong: "<q",
    Coltyp.UnsignedShort: "<H",
    Coltyp.UnsignedLongLong: "<Q",
}
FLOATS = frozenset({Coltyp.IEEESingle, Coltyp.IEEEDouble, Coltyp.DateTime})
FIXED_SIZES = {kind: struct.calcsize(code) for kind, code in CODES.items()} | {Coltyp.Bit: 1, Coltyp.GUID: 16}


def text_to_bytes(text: str, cp: int) -> bytes:
    """A text as ESE stores it; a character that the code page lacks is InvalidParameter."""
    if cp == UNICODE_PAGE:
        return text.encode("utf-16-le", "surrogatepass")
    try:
        return text.encode("ascii" if text.isascii() else "cp1252")
    except UnicodeEncodeError:
        try:
            return b"".join(c.encode("latin-1") if "\x80" <= c <= "\x9f" else c.encode("cp1252") for c in text)
        except UnicodeEncodeError:
            raise JetError(Err.InvalidParameter, "a character that code page 1252 does not have") from None


def bytes_to_text(data: bytes, cp: int) -> str | None:
    """A stored text; None if these bytes are none (an odd number of them in Unicode)."""
    if cp == UNICODE_PAGE:
        return None if len(data) & 1 else data.decode("utf-16-le", "surrogatepass")
    try:
        return data.decode("cp1252")
    except UnicodeDecodeError:
        return "".join(bytes((b,)).decode("latin-1" if b in b"\x81\x8d\x8f\x90\x9d" else "cp1252") for b in data)


def to_bytes(column: Column, value: Any) -> bytes:
    """A value's stored form."""
    kind = column.coltyp
    if isinstance(value, bytes):
        return value
    if kind in TEXT:
        return text_to_bytes(value, column.cp)
    if kind == Coltyp.Bit:
        return b"\xff" if value else b"\0"
    if kind == Coltyp.GUID:
        stored: bytes = value.bytes_le
        return stored
    return struct.pack(CODES[kind], value)


def from_bytes(column: Column, data: bytes) -> Any:
    """The value of a stored form; bytes of a wrong number are InvalidBufferSize."""
    kind = column.coltyp
    if kind in BINARY:
        return data
    if kind in TEXT:
        text = bytes_to_text(data, column.cp)
        if text is None:
            raise JetError(Err.InvalidBufferSize, f"column {column.name}: an odd number of bytes of Unicode")
        return text
    if len(data) != FIXED_SIZES[kind]:
        raise JetError(Err.InvalidBufferSize, f"column {column.name}: {FIXED_SIZES[kind]} bytes")
    if kind == Coltyp.Bit:
        return data != b"\0"
    if kind == Coltyp.GUID:
        return UUID(bytes_le=data)
    return struct.unpack(CODES[kind], data)[0]


def size_of(column: Column, value: Any) -> int:
    """How many bytes a value's stored form has."""
    fixed = FIXED_SIZES.get(column.coltyp)
    if fixed is not None:
        return fixed
    if isinstance(value, bytes):
        return len(value)
    if column.cp != UNICODE_PAGE:
        return len(value)
    return 2 * len(value) if value.isascii() else len(text_to_bytes(value, column.cp))
