"""Damaged rows (which the store's checksums catch first) end in the documented error, never in one of Python's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from jetwire_protocol.data.flags import Coltyp
from jetwire_protocol.errors import Err, JetError
from jetwire_server.rows import ColumnSpec, RowCodec
from tests.server.rows.strategies import relaxed

CODEC = RowCodec(
    [
        ColumnSpec(1, "id", Coltyp.Long),
        ColumnSpec(2, "guid", Coltyp.GUID),
        ColumnSpec(3, "real", Coltyp.IEEEDouble),
        ColumnSpec(128, "name", Coltyp.Text),
        ColumnSpec(129, "binary", Coltyp.Binary),
        ColumnSpec(256, "tags", Coltyp.LongText),
        ColumnSpec(257, "number", Coltyp.LongLong),
        ColumnSpec(258, "when", Coltyp.DateTime),
        ColumnSpec(259, "ref", Coltyp.GUID),
    ]
)
GUID = "00112233-4455-6677-8899-aabbccddeeff"
WHOLE = bytes([2 + 3, 8 + 5, 0b0_1111001 | 128, 0b111, 8 + 1]) + b"\x01\0\0\0" + b'%b"name"%b"AAAA"%b'
CALLS: list[Callable[[bytes], Any]] = [
    CODEC.decode,
    CODEC.stored,
    CODEC.decode_named,
    CODEC.to_json,
    CODEC.references,
    lambda row: CODEC.to_json(row, int64_strings=True),
    lambda row: CODEC.to_json(row, [128]),
    lambda row: CODEC.to_json_many([row, row]),
    lambda row: CODEC.patch(row, {1: 5, 256: "x"}),
    lambda row: [CODEC.get(row, i.id, 2) for i in CODEC.columns],
    lambda row: [CODEC.count(row, i.id) for i in CODEC.columns],
    lambda row: [CODEC.fixed_offset(row, i.id) for i in CODEC.columns],
]


def damage_of(row: bytes) -> int:
    """How many calls refuse the row; any error but the documented one is a failure."""
    refused = 0
    for call in CALLS:
        try:
            call(row)
        except JetError as error:
            assert error.code in (Err.RecordFormatConversionFailed, Err.LVCorrupted)  # noqa: PT017 - some calls need not fail
            refused += 1
    return refused


def no_width(row: bytes) -> bool:
    """A hole damaged into a width of gigabytes is honest work for the formatter; we have better things to wait for."""
    return not any(47 < row[i + 1] < 58 or row[i + 1] in b".-+ #*" for i in range(len(row) - 1) if row[i] == 37)


def test_the_control_is_no_damage() -> None:
    assert CODEC.decode(WHOLE) == {1: 1, 128: "name", 129: b"\0\0\0"}
    assert damage_of(WHOLE) == 0


def test_slots_and_text_that_say_other_things_than_the_shape() -> None:
    """Rows of the usual kind are decoded in two steps, after each of which there could be too little or too much."""
    CODEC.decode(WHOLE)  # from here on its shape is known
    text = WHOLE.index(b"%")
    wrong = [
        WHOLE[:text],
        WHOLE[: text - 1],
        WHOLE[:-2],
        WHOLE + b'"x"%b',
        WHOLE[:text] + b'%b5%b"AAAA"%b',
        WHOLE[:text] + b'%b"name"%b"AAA"%b',
    ]
    for row in wrong:
        with pytest.raises(JetError) as caught:
            CODEC.decode(row)
        assert caught.value.code == Err.RecordFormatConversionFailed
    assert CODEC.decode(WHOLE[:text] + b'%b"\\ud800"%b"AAAA"%b') == {1: 1, 128: "\ud800", 129: b"\0\0\0"}


@relaxed
@given(st.binary(max_size=40).filter(no_width))
@example(b"")
@example(b"\x00")
@example(b"\xff")
@example(b"\xff\x06\0\0\0\0")
def test_noise(row: bytes) -> None:
    damage_of(row)


@relaxed
@given(st.data())
def test_a_bit_flip_or_a_cut(data: st.DataObject) -> None:
    values: dict[int, Any] = {1: 1, 128: "na%me", 129: b"xyz", 256: ["a", "\ud800"], 257: [1, 2], 258: 1.5}
    row = CODEC.encode(values)
    if data.draw(st.booleans()):
        row = row[: data.draw(st.integers(0, len(row) - 1))]
        assert damage_of(row) >= 5
    else:
        bit = data.draw(st.integers(0, len(row) * 8 - 1))
        flipped = bytearray(row)
        flipped[bit // 8] ^= 1 << bit % 8
        if no_width(bytes(flipped)):
            damage_of(bytes(flipped))


@pytest.mark.parametrize(
    "row",
    [
        b"",
        b"\x00",
        b"\x02",
        b"\x01x",  # bytes beyond the end
        b"\xff\x05\0\0\0",  # a long shape that is not long
        b"\x02\x05",  # the first id would be 0
        b"\x02\x80",  # a cut varint
        b"\x05\xff\xff\xff\x7f",  # an id no column has
        b"\x03\x84\x08\x00\x00",  # a slot beyond the fixed columns
        b"\x02\x0d\x01\0\0",  # a slot cut off
        b"\x02\x0c\x01\0",  # column 1 has 4 bytes, not 2
        b"\x02\x09%b1%b",  # column 1 has a slot
        bytes([3, 0x81, 8]) + b"",  # text missing
        bytes([3, 0x81, 8]) + b'%b"a"',  # the last hole missing
        bytes([3, 0x81, 8]) + b'%b"a"%b"b"%b',  # a value too many
        bytes([3, 0x81, 8]) + b'%d"a"%b',  # a hole of another kind
        bytes([3, 0x81, 8]) + b'%(x)b"a"%b',
        bytes([3, 0x81, 8]) + b'%b"a"%',
    ],
)
def test_a_structure_that_is_wrong(row: bytes) -> None:
    for call in (CODEC.decode, CODEC.to_json, lambda r: CODEC.to_json_many([r] * 40)):
        for _ in range(2):
            with pytest.raises(JetError) as caught:
                call(row)
            assert caught.value.code == Err.RecordFormatConversionFailed


@pytest.mark.parametrize(
    ("column_id", "piece"),
    [
        (128, b"5"),
        (128, b"null"),
        (128, b'"\n"'),
        (128, b'"a'),
        (128, b'"\xff"'),
        (128, b'"\xed\xa0\x80"'),
        (128, b'"a","b"'),
        (128, b'"a","129":"b"'),
        (128, b"NaN"),
        (128, b"{}"),
        (128, b"[" * 5_000),
        (129, b'"%"'),
        (129, b'"!"'),
        (129, b"1"),
        (256, b"[]"),
        (256, b'["a",1]'),
        (256, b'{"long":1}'),
        (256, b'{"long":1,"size":"2"}'),
        (256, b'{"long":true,"size":2}'),
        (257, b"1.0"),
        (257, b"9223372036854775808"),
        (257, b'{"long":1,"size":2}'),
        (257, b"true"),
        (258, b'"Inf"'),
        (258, b"false"),
        (259, b'"no guid"'),
        (259, b"5"),
    ],
)
def test_a_value_that_is_wrong(column_id: int, piece: bytes) -> None:
    number = column_id * 8 + 1
    row = bytes([3, number & 127 | 128, number >> 7]) + b"%b" + piece + b"%b"
    for call in (CODEC.decode, CODEC.stored, lambda r: CODEC.get(r, column_id)):
        with pytest.raises(JetError) as caught:
            call(row)
        assert caught.value.code == Err.RecordFormatConversionFailed


def test_a_line_feed_in_the_text_is_seen_where_it_would_split_a_value() -> None:
    row = bytes([3, 0x81, 8]) + b'%b"a\nb"%b'
    two = bytes([4, 0x81, 8, 9]) + b'%b"a\nb"%b"AAAA"%b'
    for call in (lambda: CODEC.patch(row, {1: 5}), lambda: CODEC.to_json(two, [128]), lambda: CODEC.decode(row)):
        with pytest.raises(JetError) as caught:
            call()
        assert caught.value.code == Err.RecordFormatConversionFailed
