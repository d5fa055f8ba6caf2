"""The first bytes of a row, its shape: which columns are stored and how, but none of their values or lengths.

Rows of one table have few shapes, so everything that depends on the shape alone is worked out once and looked up by these very
bytes. The shape needs no schema to be read: that is why columns can come and go without a row being rewritten.

    length      1 byte: of the whole shape, this byte included; 255: four bytes follow with the true length, little-endian
    columns     for each stored column, ids ascending, one varint (7 bits a byte, low first): (id - previous id) * 8 + kind
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from jetwire_server.rows.columns import FIXED_LAST, TAGGED_LAST


class Kind:
    """How a column is stored. Plain integers: they are compared for every value."""

    NULL: Final = 0  # set to NULL, which a default does not fill
    TEXT: Final = 1  # as a JSON value in the row's text
    TEXT_WITH_REFS: Final = 2  # the same, and the value is or contains a LongRef
    SLOT_1: Final = 3
    SLOT_2: Final = 4
    SLOT_4: Final = 5
    SLOT_8: Final = 6
    SLOT_16: Final = 7


SLOT_SIZES: Final = (0, 0, 0, 1, 2, 4, 8, 16)  # by kind
SLOT_KINDS: Final = {size: kind for kind, size in enumerate(SLOT_SIZES) if size}
_LONG = 255  # the length byte of a shape too long for one byte
_LONG_HEAD = 5


def pack_shape(columns: Iterable[tuple[int, int]]) -> bytes:
    """The shape of a row that stores these columns; ids must ascend."""
    out = bytearray()
    previous = 0
    for column_id, kind in columns:
        number = (column_id - previous) * 8 + kind
        previous = column_id
        while number > 127:
            out.append(number & 127 | 128)
            number >>= 7
        out.append(number)
    if len(out) + 1 < _LONG:
        return bytes((len(out) + 1,)) + out
    return bytes((_LONG,)) + (len(out) + _LONG_HEAD).to_bytes(4, "little") + out


def shape_of(row: bytes) -> bytes:
    """The row's shape, as bytes. Raises ValueError or IndexError if there is none."""
    length = row[0]
    if length == _LONG:
        length = int.from_bytes(row[1:_LONG_HEAD], "little")
        if length < _LONG:
            raise ValueError("a long shape that is short")
    if not 0 < length <= len(row):
        raise ValueError("the shape is longer than the row")
    return row[:length]


def unpack_shape(shape: bytes) -> list[tuple[int, int]]:
    """The (id, kind) of each stored column. Raises ValueError for bytes that `pack_shape` never made."""
    columns: list[tuple[int, int]] = []
    column_id = number = shift = 0
    for byte in shape[_LONG_HEAD if shape[0] == _LONG else 1 :]:
        number |= (byte & 127) << shift
        if byte & 128:
            shift += 7
            if shift > 14:
                raise ValueError("a column id that no column can have")
            continue
        kind = number & 7
        column_id += number >> 3
        if number < 8 or column_id > TAGGED_LAST or (kind >= Kind.SLOT_1 and column_id > FIXED_LAST):
            raise ValueError("the column ids do not ascend, or a slot has an id beyond the fixed ones")
        columns.append((column_id, kind))
        number = shift = 0
    if shift:
        raise ValueError("the last column id is cut off")
    return columns
