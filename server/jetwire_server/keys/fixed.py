"""Segments of the types that have one size: numbers, dates and GUIDs, turned into bytes that compare as the values do.

Each encoder gives the whole segment, prefix byte included; descending ones give its complement straight away.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import Any, Final
from uuid import UUID

from jetwire_protocol.data.flags import Coltyp

PREFIX_NULL: Final = b"\x00"
PREFIX_EMPTY: Final = b"\x40"
PREFIX_DATA: Final = b"\x7f"
PREFIX_NULL_HIGH: Final = b"\xc0"
COMPLEMENT: Final = bytes(range(255, -1, -1))  # for bytes.translate

Encode = Callable[[Any], bytes]
Decode = Callable[[bytes], Any]

# struct code, and whether the sign bit is flipped to make negative numbers sort first
_INTEGERS: Final = {
    Coltyp.UnsignedByte: ("B", False),
    Coltyp.Short: ("H", True),
    Coltyp.UnsignedShort: ("H", False),
    Coltyp.Long: ("I", True),
    Coltyp.UnsignedLong: ("I", False),
    Coltyp.Currency: ("Q", True),
    Coltyp.LongLong: ("Q", True),
    Coltyp.UnsignedLongLong: ("Q", False),
}
_FLOATS: Final = {Coltyp.IEEESingle: ("f", "I"), Coltyp.IEEEDouble: ("d", "Q"), Coltyp.DateTime: ("d", "Q")}
BODY_SIZE: Final = {
    Coltyp.Bit: 1,
    **{t: Struct(code).size for t, (code, _) in _INTEGERS.items()},
    **{t: Struct(code).size for t, (code, _) in _FLOATS.items()},
    Coltyp.GUID: 16,
}


def encoder(coltyp: Coltyp, descending: bool, null: bytes, dot_net_guid: bool) -> Encode:
    """The function from a value to its segment. `null` is NULL's own byte, for this direction."""
    if coltyp in _INTEGERS:
        return _integer(*_INTEGERS[coltyp], descending, null)
    if coltyp == Coltyp.Bit:
        return _bit(descending, null)
    if coltyp in _FLOATS:
        return _float(*_FLOATS[coltyp], descending, null)
    if coltyp == Coltyp.GUID:
        return _guid(dot_net_guid, descending, null)
    raise ValueError(f"{coltyp!r} has no fixed size")


def _integer(code: str, signed: bool, descending: bool, null: bytes) -> Encode:
    packer = Struct(f">B{code}")
    pack = packer.pack
    bits = 8 * (packer.size - 1)
    low = -(1 << bits - 1) if signed else 0
    high = low + (1 << bits) - 1

    def ascending_segment(value: Any) -> bytes:
        return null if value is None else pack(0x7F, value - low)

    def descending_segment(value: Any) -> bytes:
        return null if value is None else pack(0x80, high - value)

    return descending_segment if descending else ascending_segment


def _bit(descending: bool, null: bytes) -> Encode:
    true, false = (b"\x80\x00", b"\x80\xff") if descending else (b"\x7f\xff", b"\x7f\x00")

    def segment(value: Any) -> bytes:
        return null if value is None else true if value else false

    return segment


def _float(code: str, integer: str, descending: bool, null: bytes) -> Encode:
    to_bytes, to_bits, pack = Struct(f">{code}").pack, Struct(f">{integer}").unpack, Struct(f">B{integer}").pack
    sign = 1 << 8 * Struct(code).size - 1
    ones = 2 * sign - 1
    prefix = 0x80 if descending else 0x7F
    positive, negative = (ones ^ sign, 0) if descending else (sign, ones)

    def segment(value: Any) -> bytes:
        if value is None:
            return null
        bits = to_bits(to_bytes(value))[0]
        return pack(prefix, bits ^ (negative if bits & sign else positive))

    return segment


def _guid(dot_net: bool, descending: bool, null: bytes) -> Encode:
    def segment(value: Any) -> bytes:
        if value is None:
            return null
        g = value.bytes if isinstance(value, UUID) else UUID(bytes_le=value).bytes
        # the printed order, or: node, clock sequence, then the other fields from last to first and each as stored
        whole = PREFIX_DATA + g if dot_net else b"\x7f%b%b%b" % (g[10:], g[8:10], g[7::-1])
        return whole.translate(COMPLEMENT) if descending else whole

    return segment


def decoder(coltyp: Coltyp, dot_net_guid: bool) -> Decode:
    """The way back, from an ascending body without its prefix. A GUID comes back as a UUID."""
    if coltyp in _INTEGERS:
        code, signed = _INTEGERS[coltyp]
        bias = 1 << 8 * BODY_SIZE[coltyp] - 1 if signed else 0
        unpack = Struct(f">{code}").unpack
        return lambda body: unpack(body)[0] - bias
    if coltyp == Coltyp.Bit:
        return lambda body: body != b"\x00"
    if coltyp in _FLOATS:
        from_bytes = Struct(f">{_FLOATS[coltyp][0]}").unpack

        def number(body: bytes) -> float:
            flipped = bytes([body[0] ^ 0x80]) + body[1:] if body[0] & 0x80 else body.translate(COMPLEMENT)
            return float(from_bytes(flipped)[0])

        return number
    if dot_net_guid:
        return lambda body: UUID(bytes=body)
    return lambda b: UUID(bytes_le=b[12:] + b[10:12] + b[8:10] + b[6:8] + b[:6])
