"""What must hold for every value: keys sort as values do, come back where they can, and cutting never reorders."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from uuid import UUID

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from jetwire_protocol.data.flags import Coltyp
from jetwire_server.keys import NOT_DECODABLE, KeyMaker, KeySpec, SegmentSpec

C = Coltyp
Order = Callable[[Any], Any]


def _integers(bits: int, signed: bool) -> st.SearchStrategy[int]:
    low = -(1 << bits - 1) if signed else 0
    return st.integers(low, low + (1 << bits) - 1)


def _single(value: float) -> float:
    return float(struct.unpack("<f", struct.pack("<f", value))[0])


def _float_order(value: float) -> tuple[float, float]:
    return value, math.copysign(1, value)  # ESE sorts -0.0 before 0.0


def _guid_order(guid: UUID) -> bytes:
    stored = guid.bytes_le
    return stored[10:] + stored[8:10] + stored[6:8] + stored[4:6] + stored[:4]


DOUBLES = st.floats(allow_nan=False)
TYPES: dict[Coltyp, tuple[st.SearchStrategy[Any], Order]] = {
    C.Bit: (st.booleans(), bool),
    C.UnsignedByte: (_integers(8, False), int),
    C.Short: (_integers(16, True), int),
    C.UnsignedShort: (_integers(16, False), int),
    C.Long: (_integers(32, True), int),
    C.UnsignedLong: (_integers(32, False), int),
    C.Currency: (_integers(64, True), int),
    C.LongLong: (_integers(64, True), int),
    C.UnsignedLongLong: (_integers(64, False), int),
    C.IEEESingle: (st.floats(allow_nan=False, width=32).map(_single), _float_order),
    C.IEEEDouble: (DOUBLES, _float_order),
    C.DateTime: (DOUBLES, _float_order),
    C.GUID: (st.uuids(), _guid_order),
    C.LongBinary: (st.binary(max_size=40), bytes),
}


@pytest.mark.parametrize("descending", [False, True], ids=["ascending", "descending"])
@pytest.mark.parametrize("coltyp", TYPES, ids=lambda t: t.name)
def test_keys_sort_as_values_do_and_come_back(coltyp: Coltyp, descending: bool) -> None:
    values, order = TYPES[coltyp]
    maker = KeyMaker(KeySpec((SegmentSpec(coltyp, descending),)))
    pair = KeyMaker(KeySpec((SegmentSpec(coltyp, descending), SegmentSpec(C.UnsignedByte))))

    @given(values, values)
    def holds(a: Any, b: Any) -> None:
        key_a, key_b = maker.key([a]), maker.key([b])
        if descending:
            key_a, key_b = key_b, key_a
        assert (key_a < key_b) == (order(a) < order(b))
        assert maker.decode(maker.key([a])) == [a]
        assert pair.decode(pair.key([a, 7])) == [a, 7]
        assert (pair.key([a, 0]) < pair.key([b, 255])) == ((order(a) <= order(b)) if not descending else (order(a) >= order(b)))
        null = maker.key([None])
        assert null > maker.key([a]) if descending else null < maker.key([a])
        assert maker.decode(null) == [None]

    holds()


def test_the_order_check_can_fail() -> None:
    """The control: little-endian keys, which do not sort."""
    wrong = [struct.pack("<i", v) for v in (1, 256, -1)]
    assert sorted(wrong) != [struct.pack("<i", v) for v in (-1, 1, 256)]


def test_nan_and_negative_zero_keep_their_bits() -> None:
    maker = KeyMaker(KeySpec((SegmentSpec(C.IEEEDouble),)))
    assert math.isnan(maker.decode(maker.key([math.nan]))[0])
    assert math.copysign(1, maker.decode(maker.key([-0.0]))[0]) == -1


BINARIES = st.binary(max_size=60)


@given(BINARIES, BINARIES, st.integers(1, 40), st.booleans())
def test_cutting_binary_never_reorders(a: bytes, b: bytes, key_most: int, fixed: bool) -> None:
    maker = KeyMaker(KeySpec((SegmentSpec(C.LongBinary, fixed=fixed),), key_most=key_most))
    low, high = sorted((a, b))
    assert maker.key([low]) <= maker.key([high])
    assert len(maker.key([a])) <= key_most


LATIN = st.text(st.characters(max_codepoint=0x7E, min_codepoint=1), max_size=30)


@given(LATIN, LATIN, st.integers(3, 20))
@example("ab5", "ab5z", 4)
def test_cutting_code_page_text_never_reorders_but_for_the_last_byte(a: str, b: str, key_most: int) -> None:
    """The last byte is ESE's own: 0x20 less than the text's, letter or not."""
    maker = KeyMaker(KeySpec((SegmentSpec(C.LongText, cp=1252),), key_most=key_most))
    low, high = sorted((a, b), key=lambda t: t.encode().upper())
    assert maker.key([low])[: key_most - 1] <= maker.key([high])[: key_most - 1]


@given(st.text(max_size=40), st.text(max_size=40), st.integers(260, 300))
def test_unicode_keys_cut_are_prefixes_of_the_whole(a: str, b: str, key_most: int) -> None:
    whole = KeyMaker(KeySpec((SegmentSpec(C.LongText, cp=1200),), key_most=2000))
    cut = KeyMaker(KeySpec((SegmentSpec(C.LongText, cp=1200),), key_most=key_most))
    assert cut.key([a]) == whole.key([a])[:key_most]
    if whole.key([a]) <= whole.key([b]):
        assert cut.key([a]) <= cut.key([b])


UNITS = st.lists(st.integers(0, 0xFFFF), max_size=30).map(lambda units: "".join(map(chr, units)))


@given(st.one_of(st.text(), UNITS), st.sampled_from([1200, 1252]), st.booleans(), st.integers(1, 300), st.integers(0, 20))
def test_no_text_raises(text: str, cp: int, descending: bool, key_most: int, var_seg_mac: int) -> None:
    segment = SegmentSpec(C.LongText, descending, cp)
    maker = KeyMaker(KeySpec((segment, segment), key_most=key_most, var_seg_mac=min(var_seg_mac, key_most)))
    key, cut = maker.build([text, text])
    assert len(key) <= key_most
    assert cut is False or len(key) == key_most


FLAGS = [0x1, 0x2, 0x4, 0x8, 0x10, 0x20, 0x800, 0x1000, 0x10000, 0x20000, 0x8000000]


@given(st.one_of(st.text(max_size=20), UNITS), st.lists(st.sampled_from(FLAGS)).map(lambda bits: sum(set(bits))))
def test_no_text_raises_under_any_flags(text: str, flags: int) -> None:
    maker = KeyMaker(KeySpec((SegmentSpec(C.LongText, cp=1200),), key_most=1000, lcmap_flags=flags))
    assert maker.key([text])


@given(st.text(st.characters(max_codepoint=127), max_size=40))
def test_the_fast_road_for_ascii_is_the_same_road(text: str) -> None:
    from jetwire_server.keys.sortkey import sort_keys

    for flags in (0x30401, 0x400, 0x1400, 0x30405, 0x30409, 0x430):
        keys = sort_keys(flags)
        assert keys.ascii(text.encode()) == keys.units(tuple(map(ord, text)))


PLAIN = st.text("abcdefghijklmnopqrstuvwxyzABC 0123456789-'é", max_size=20)


@given(PLAIN, PLAIN, st.integers(0, 255), st.booleans())
def test_text_is_skipped_when_decoding(a: str, b: str, number: int, descending: bool) -> None:
    for cp, lcmap in ((1252, 0x30401), (1200, 0x30401), (1200, 0x200)):
        text = SegmentSpec(C.LongText, descending, cp)
        maker = KeyMaker(KeySpec((text, SegmentSpec(C.UnsignedByte), text), lcmap_flags=lcmap))
        got = maker.decode(maker.key([a, number, b]))
        assert got == [NOT_DECODABLE if a else "", number, NOT_DECODABLE if b else ""]


@given(st.binary(max_size=12))
def test_decoding_garbage_gives_values_or_value_error(garbage: bytes) -> None:
    maker = KeyMaker(KeySpec((SegmentSpec(C.Short), SegmentSpec(C.LongBinary, descending=True), SegmentSpec(C.LongText, cp=1200))))
    with suppress(ValueError):
        assert len(maker.decode(garbage)) == 3


VALUES = st.tuples(st.none() | st.integers(0, 255), st.none() | PLAIN, st.none() | st.binary(max_size=20))


@given(VALUES, st.integers(1, 60), st.permutations([0, 1, 2]), st.sampled_from([1200, 1252]), st.integers(0, 8))
def test_the_fast_road_for_whole_keys_is_the_same_road(
    values: tuple[Any, ...], key_most: int, order: list[int], cp: int, var_seg_mac: int
) -> None:
    segments = (SegmentSpec(C.UnsignedByte), SegmentSpec(C.LongText, True, cp), SegmentSpec(C.LongBinary))
    for count in (1, 2, 3):
        chosen = order[:count]
        spec = KeySpec(tuple(segments[i] for i in chosen), key_most=key_most, var_seg_mac=min(var_seg_mac, key_most))
        row = [values[i] for i in chosen]
        maker = KeyMaker(spec)
        assert maker.key(row) == maker.build(row)[0]
        assert maker.keys(row) == [maker.key(row)]
