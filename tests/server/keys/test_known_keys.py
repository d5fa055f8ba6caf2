"""Keys whose bytes are known: stored by Windows where the comment says nothing, otherwise from the engine's published rules."""

from __future__ import annotations

import struct
from typing import Any
from uuid import UUID

import pytest

from jetwire_protocol.data.flags import Coltyp, CreateIndexGrbit
from jetwire_protocol.errors import Err, JetError
from jetwire_server.keys import KeyMaker, KeySpec, SegmentSpec

C, G = Coltyp, CreateIndexGrbit


def one(coltyp: Coltyp, *, grbit: int = 0, key_most: int = 255, var_seg_mac: int = 0, lcmap: int = 0x30401, **segment: Any) -> KeyMaker:
    return KeyMaker(KeySpec((SegmentSpec(coltyp, **segment),), G(grbit), key_most, var_seg_mac, lcmap_flags=lcmap))


NUMBERS = [
    (C.Bit, False, "7f00"),
    (C.Bit, True, "7fff"),
    (C.UnsignedByte, 0, "7f00"),
    (C.UnsignedByte, 3, "7f03"),
    (C.UnsignedByte, 213, "7fd5"),
    (C.Short, 1, "7f8001"),
    (C.Short, -1337, "7f7ac7"),
    (C.UnsignedShort, 1337, "7f0539"),
    (C.Long, 1, "7f80000001"),
    (C.Long, -13371337, "7f7f33f837"),
    (C.UnsignedLong, 13371337, "7f00cc07c9"),
    (C.Currency, 1337133713371337, "7f8004c01db400b0c9"),
    (C.LongLong, -13371337, "7f7fffffffff33f837"),
    (C.Currency, 130251268980890000, "7f81cebed6cb265990"),
    (C.UnsignedLongLong, 1, "7f0000000000000001"),  # from the source
    (C.IEEESingle, 1.0, "7fbf800000"),
    (C.IEEESingle, -1.0, "7f407fffff"),  # from the source
    (C.IEEEDouble, 1.0, "7fbff0000000000000"),
    (C.IEEEDouble, 15.0, "7fc02e000000000000"),
    (C.IEEEDouble, 13371337.13371337, "7fc16980f924476143"),
    (C.IEEEDouble, -1.0, "7f400fffffffffffff"),  # from the source
    (C.GUID, UUID("3f360af1-6766-46dc-9af2-0dacf295c2a1"), "7f0dacf295c2a19af2dc466667f10a363f"),
    (C.GUID, UUID("4116a14d-3840-4f42-a67f-f2f9ff46eb4c"), "7ff2f9ff46eb4ca67f424f40384da11641"),
]


@pytest.mark.parametrize(("coltyp", "value", "key"), NUMBERS)
def test_fixed_types(coltyp: Coltyp, value: Any, key: str) -> None:
    assert one(coltyp).key([value]).hex() == key
    assert one(coltyp, descending=True).key([value]) == bytes(255 - b for b in bytes.fromhex(key))
    if isinstance(value, UUID):
        assert one(coltyp).key([value.bytes_le]).hex() == key


def test_dates_are_whatever_the_application_stored() -> None:
    ole = float.fromhex("0x1.5bc99bbbbbbbcp+15")  # any double: only its bits matter
    assert one(C.DateTime).key([ole]) == one(C.IEEEDouble).key([ole])
    stored = struct.unpack("<d", bytes.fromhex("bcbbbbbb99bce540"))[0]
    assert one(C.DateTime).key([stored]).hex() == "7fc0e5bc99bbbbbbbc"
    filetime = struct.unpack("<d", bytes.fromhex("20c544ad2399d801"))[0]
    assert one(C.DateTime, descending=True).key([filetime]).hex() == "807e2766dc52bb3adf"


def test_dot_net_guid_is_in_the_order_of_the_printed_string() -> None:  # from the source
    guid = UUID("00112233-4455-6677-8899-aabbccddeeff")
    assert one(C.GUID, grbit=G.IndexDotNetGuid).key([guid]) == b"\x7f" + guid.bytes
    assert one(C.GUID, grbit=G.IndexDotNetGuid).key([guid.bytes_le]) == b"\x7f" + guid.bytes


@pytest.mark.parametrize(
    ("high", "descending", "null", "empty"), [(0, 0, "00", "40"), (0, 1, "ff", "bf"), (1, 0, "c0", "40"), (1, 1, "3f", "bf")]
)
@pytest.mark.parametrize("coltyp", [C.Long, C.Bit, C.IEEEDouble, C.GUID, C.Text, C.LongText, C.LongBinary])
def test_null_and_empty_are_one_byte(coltyp: Coltyp, high: int, descending: int, null: str, empty: str) -> None:
    maker = one(coltyp, grbit=G.IndexSortNullsHigh if high else 0, descending=bool(descending), cp=1200)
    assert maker.key([None]).hex() == null
    if coltyp in (C.Text, C.LongText, C.LongBinary):
        assert maker.key(["" if coltyp != C.LongBinary else b""]).hex() == empty


def test_segments_follow_each_other_and_each_has_its_direction() -> None:
    maker = KeyMaker(KeySpec((SegmentSpec(C.Long), SegmentSpec(C.Long, descending=True))))
    assert maker.key([2, 1]).hex() == "7f80000002807ffffffe"
    maker = KeyMaker(KeySpec((SegmentSpec(C.UnsignedByte), SegmentSpec(C.LongBinary))))
    assert maker.key([0, None]).hex() == "7f0000"


BINARY = [
    ("0a0a0a64", "7f0a0a0a640000000004"),
    (b"test binary data".hex(), "7f746573742062696e09617279206461746108"),
    ("fe80000000000000c14befb26ee0ba13", "7ffe8000000000000009c14befb26ee0ba1308"),
]


@pytest.mark.parametrize(("value", "key"), BINARY)
def test_binary_chunks(value: str, key: str) -> None:
    assert one(C.LongBinary).key([bytes.fromhex(value)]).hex() == key


@pytest.mark.parametrize(("size", "last"), [(224, 8), (217, 1), (220, 4), (222, 6), (223, 7), (225, 9), (300, 9), (5000, 9)])
def test_binary_cut_at_the_limit_behind_a_segment_of_two_bytes(size: int, last: int) -> None:
    maker = KeyMaker(KeySpec((SegmentSpec(C.UnsignedByte), SegmentSpec(C.LongBinary))))
    key, cut = maker.build([3, (bytes(range(1, 201)) * 26)[:size]])
    assert len(key) == 2 + 1 + 28 * 9
    assert key[-1] == last
    assert cut == (size > 224)


def test_binary_alone_fills_its_room_with_bytes_and_no_marker() -> None:
    value = bytes(range(256))
    key, cut = one(C.LongBinary).build([value])
    assert len(key) == 255
    assert key[-2:] == value[28 * 8 : 28 * 8 + 2]
    assert key[-3] == 9
    assert cut


def test_fixed_binary_is_raw() -> None:  # from the source
    assert one(C.Binary, fixed=True, max=4).key([b"abcd"]) == b"\x7fabcd"
    assert one(C.Binary, fixed=True, max=4, var_seg_mac=3).build([b"abcd"]) == (b"\x7fab", False)
    assert one(C.Binary, fixed=True, max=4, key_most=3).build([b"abcd"]) == (b"\x7fab", True)


TEXT_1252 = [
    ("Id", "7f494400"),
    ("index", "7f494e44455800"),
    ("MSysObjids", "7f4d5359534f424a49445300"),
    ("Simple ASCII text", "7f53494d504c45204153434949205445585400"),
    ("{dd6636c4}", b"\x7f{DD6636C4}\0".hex()),
    ("h\0idden", "7f4800"),  # from the source: the text stops at a NUL
    ("é€ÿ", "7fe980ff00"),  # from the source: only ASCII letters change
]


@pytest.mark.parametrize(("value", "key"), TEXT_1252)
def test_code_page_text(value: str, key: str) -> None:
    assert one(C.Text, cp=1252).key([value]).hex() == key


def test_code_page_text_too_long_has_no_terminator() -> None:
    key, cut = one(C.LongText, cp=1252).build(["a" * 1040])
    assert key == b"\x7f" + b"A" * 254
    assert cut
    assert one(C.LongText, cp=1252).build(["a" * 253]) == (b"\x7f" + b"A" * 253 + b"\0", False)


def test_the_last_byte_of_a_cut_text_loses_0x20_whatever_it_is() -> None:  # from the source
    assert one(C.LongText, cp=1252).key(["a" * 253 + "5" + "zz"])[-2:] == b"A\x15"
    assert one(C.LongText, cp=1252).key(["a" * 253 + "\x05" + "zz"])[-1] == 0xE5


UNICODE = [
    ("1-04 Creep.m4a", "7f0d1a0d030d2007020e0a0e8a0e210e210e7e07330e510d200e0201010101fffe821200"),
    ("\0", "7f0101010100"),
    ("aAbB", "7f0e020e020e090e090101010100"),
    ("\\_*?$:.", "7f07410744072d073c0721073707330101010100"),
    ("0123456789"[:4] + "9", "7f0d030d1a0d1c0d1e0d2a0101010100"),
    ("a \U0001f98a", "7f0e020702b040b6860102023f3f01010100"),
]


@pytest.mark.parametrize(("value", "key"), UNICODE)
def test_unicode_text(value: str, key: str) -> None:
    assert one(C.Text, cp=1200).key([value]).hex() == key


def test_word_sort_tells_where_hyphens_stood() -> None:
    key = one(C.Text, cp=1200).key(["*2112ab0a-c86a-4ffe-a368-0de96e47012e"])
    assert key.endswith(bytes.fromhex("01010101fff68212fff28212ffee8212ffea821200"))


def test_unicode_text_too_long_is_cut_without_a_terminator() -> None:
    key, cut = one(C.LongText, cp=1200).build(["ab" * 1000])
    assert len(key) == 255
    assert cut
    assert key == b"\x7f" + b"\x0e\x02\x0e\x09" * 63 + b"\x0e\x02"


def test_a_key_of_255_bytes_reads_255_bytes_of_text_and_others_read_on() -> None:  # from the source
    ignored = "\x00" * 127 + "z"
    assert one(C.LongText, cp=1200).key([ignored]).hex() == "7f0101010100"
    assert one(C.LongText, cp=1200, key_most=256).key(["\x00" * 5000 + "z"]).hex() == "7f0ea90101010100"


def test_upper_case_flag_makes_upper_case_utf16() -> None:  # from the source
    assert one(C.Text, cp=1200, lcmap=0x200).key(["aé\U0001f98a"]) == b"\x7f" + "AÉ\U0001f98a".encode("utf-16-be") + b"\0\0"


def test_flags_that_no_index_may_have_are_refused() -> None:
    with pytest.raises(JetError) as refused:
        one(C.Text, cp=1200, lcmap=0x600)
    assert refused.value.code == Err.InvalidLCMapStringFlags


def test_var_seg_mac_cuts_on_purpose() -> None:  # from the source
    assert one(C.LongText, cp=1252, var_seg_mac=4).build(["abcdef"]) == (b"\x7fAB\x43", False)
    assert one(C.LongText, cp=1200, var_seg_mac=4).build(["abc"]) == (b"\x7f\x0e\x02\x0e", False)
    assert one(C.LongBinary, var_seg_mac=12).build([bytes(9)]) == (b"\x7f" + bytes(8) + b"\x09" + bytes(2), False)


def test_nothing_follows_a_cut_segment() -> None:
    maker = KeyMaker(KeySpec((SegmentSpec(C.LongText, cp=1252), SegmentSpec(C.Long)), key_most=10))
    assert maker.build(["abcdefghijk", 7]) == (b"\x7fABCDEFGH" + b"I", True)
    assert maker.build(["abc", 7]) == (b"\x7fABC\x00" + bytes.fromhex("7f80000007"), False)
    assert maker.build(["abcd", 7]) == (b"\x7fABCD\x00" + bytes.fromhex("7f800000"), True)


def test_an_index_may_disallow_cutting() -> None:
    maker = one(C.LongText, cp=1252, grbit=G.IndexDisallowTruncation, key_most=5)
    assert maker.key(["abc"]) == b"\x7fABC\0"
    for make in (maker.key, maker.keys, maker.build):
        with pytest.raises(JetError) as cut:
            make(["abcd"])
        assert cut.value.code == Err.KeyTruncated
