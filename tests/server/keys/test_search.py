"""Search keys as JetMakeKey builds them: the calls' order, the limits' bytes, and what they find."""

from __future__ import annotations

import struct
from bisect import bisect_left
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jetwire_protocol.data.flags import Coltyp, MakeKeyGrbit
from jetwire_protocol.errors import Err, JetError
from jetwire_server.engine.schema import TupleLimits
from jetwire_server.keys import KeyMaker, KeySpec, SearchKey, SegmentSpec

C, M = Coltyp, MakeKeyGrbit
NEW = M.NewKey
LONG, TEXT, UNICODE, BINARY = (
    SegmentSpec(C.Long),
    SegmentSpec(C.Text, cp=1252),
    SegmentSpec(C.Text, cp=1200),
    SegmentSpec(C.LongBinary),
)


def search(*columns: tuple[Any, int], segments: tuple[SegmentSpec, ...], **spec: Any) -> SearchKey:
    made = SearchKey(KeyMaker(KeySpec(segments, **spec)))
    for n, (value, grbit) in enumerate(columns):
        made.add(value, grbit | (0 if n else NEW))
    return made


def hexed(*columns: tuple[Any, int], segments: tuple[SegmentSpec, ...], **spec: Any) -> str:
    return search(*columns, segments=segments, **spec).data.hex()


def test_columns_one_after_another_make_the_key_of_the_row() -> None:
    segments = (LONG, TEXT, UNICODE, BINARY)
    row = [7, "abc", "def", b"ghi"]
    assert search(*((v, 0) for v in row), segments=segments).data == KeyMaker(KeySpec(segments)).key(row)


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("coltyp", [C.Long, C.Short, C.UnsignedByte, C.Currency, C.IEEEDouble, C.Bit])
@pytest.mark.parametrize("value", [0, 1, 255, 256, 1 << 31, -1, 1 << 63, 1 << 1100])
def test_a_key_that_begins_with_a_number(coltyp: Coltyp, descending: bool, value: int) -> None:
    segment = SegmentSpec(coltyp, descending)
    for segments, more in ((segment,), ()), ((segment, TEXT), (("x", 0),)):
        maker = KeyMaker(KeySpec(segments))
        try:
            row_key = maker.key([value, *(v for v, _ in more)])
        except (struct.error, OverflowError):
            made = SearchKey(maker)
            with pytest.raises(JetError) as caught:
                made.add(value, NEW)
            assert (caught.value.code, made.prepared) == (Err.InvalidBufferSize, False)
        else:
            assert search((value, 0), *more, segments=segments).data == row_key
    assert search((value & 1, M.FullColumnEndLimit), segments=(segment,)).limit


def test_empty_is_null_unless_told_otherwise() -> None:
    assert hexed(("", 0), segments=(TEXT,)) == "00" == hexed((None, 0), segments=(TEXT,))
    assert hexed(("", M.KeyDataZeroLength), segments=(TEXT,)) == "40" == hexed((None, M.KeyDataZeroLength), segments=(BINARY,))


LIMITS = [
    # value, flags, index, key of at most 12 bytes
    (7, M.StrLimit, LONG, "7f80000007" + "ff" * 8),
    (7, M.SubStrLimit, LONG, "7f80000007"),  # it is for text only
    (7, M.FullColumnStartLimit, LONG, "7f80000007"),
    (7, M.FullColumnEndLimit, LONG, "7f80000007" + "ff" * 8),
    ("ab", M.StrLimit, TEXT, "7f414200" + "ff" * 9),
    ("ab", M.SubStrLimit, TEXT, "7f4142" + "ff" * 10),
    ("ab", M.SubStrLimit | M.StrLimit, TEXT, "7f4142" + "ff" * 10),
    ("ab", M.PartialColumnStartLimit, TEXT, "7f4142"),
    ("ab", M.PartialColumnEndLimit, TEXT, "7f4142" + "ff" * 10),
    ("ab", M.FullColumnEndLimit, TEXT, "7f414200" + "ff" * 9),
    (None, M.SubStrLimit, TEXT, "00" + "ff" * 12),
    (None, M.PartialColumnStartLimit, TEXT, "00"),
    ("ab", M.SubStrLimit, UNICODE, "7f0e020e09" + "ff" * 8),
    ("ab", M.PartialColumnStartLimit, UNICODE, "7f0e020e09"),
    ("ab", M.StrLimit, UNICODE, "7f0e020e090101010100" + "ff" * 3),
    ("abcdefghij", M.SubStrLimit, UNICODE, "7f0e020e090e0a0e1a0e210e" + "ff"),
    (b"abc", M.StrLimit, BINARY, "7f616263" + "ff" * 7),
    (b"abc", M.PartialColumnStartLimit, BINARY, "7f616263"),
    (b"abc", M.PartialColumnEndLimit, BINARY, "7f616263" + "ff" * 7),
    (b"abc", M.FullColumnEndLimit, BINARY, "7f616263000000000003" + "ff" * 3),
    (b"abcdefgh", M.PartialColumnEndLimit, BINARY, "7f6162636465666768" + "ff" * 2),
    (b"abcdefghi", M.PartialColumnStartLimit, BINARY, "7f61626364656667680969"),  # the end of the data is there
    (b"abcdefghijkl", M.PartialColumnStartLimit, BINARY, "7f616263646566676809696a"),  # it is not: the whole segment
]


@pytest.mark.parametrize(("value", "flags", "segment", "key"), LIMITS)
def test_limits(value: Any, flags: int, segment: SegmentSpec, key: str) -> None:
    made = search((value, flags), segments=(segment, LONG), key_most=12)
    assert made.data.hex() == key
    assert made.limit == (value != 7 or flags != M.SubStrLimit)
    if made.limit:
        with pytest.raises(JetError) as refused:
            made.add(1)
        assert refused.value.code == Err.KeyIsMade


def test_descending_limits_work_on_the_complement() -> None:
    down = SegmentSpec(C.Text, True, 1252)
    assert hexed(("ab", M.PartialColumnStartLimit), segments=(down,), key_most=6) == "80bebd"
    assert hexed(("ab", M.PartialColumnEndLimit), segments=(down,), key_most=6) == "80bebd" + "ff" * 4
    down = SegmentSpec(C.Text, True, 1200)
    assert hexed(("ab", M.PartialColumnStartLimit), segments=(down,)) == "80f1fdf1f6"


def test_a_normalized_key_is_taken_as_it_is() -> None:
    made = search((b"\x01\x02", M.NormalizedKey), segments=(LONG,))
    assert (made.data, made.limit) == (b"\x01\x02", False)
    made.add(b"x" * 256, M.NormalizedKey)
    assert (made.data, made.limit) == (b"x" * 256, True)
    without_index = SearchKey(None)
    without_index.add(b"\0\0\0\1", M.NormalizedKey)
    assert without_index.data == b"\0\0\0\1"


def test_a_cut_column_ends_the_key() -> None:
    made = search(("a" * 20, 0), (7, 0), segments=(TEXT, LONG), key_most=6)
    assert made.data == b"\x7fAAAAA"
    assert made.columns == 2


def test_fixed_columns() -> None:
    assert hexed(("ab", 0), segments=(SegmentSpec(C.Text, cp=1252, fixed=True, max=4),)) == b"\x7fAB  \0".hex()
    assert hexed((b"abcd", 0), segments=(SegmentSpec(C.Binary, fixed=True, max=4),)) == b"\x7fabcd".hex()


FIXED_BINARY = SegmentSpec(C.Binary, fixed=True, max=4)
REFUSED: list[tuple[tuple[SegmentSpec, ...], Any, int, Err]] = [
    ((LONG,), 7, 0, Err.KeyNotMade),
    ((LONG,), 7, NEW | M.FullColumnStartLimit | M.FullColumnEndLimit, Err.InvalidGrbit),
    ((LONG,), 7, NEW | M.PartialColumnEndLimit, Err.InvalidGrbit),
    ((FIXED_BINARY,), b"abcd", NEW | M.PartialColumnEndLimit, Err.InvalidGrbit),
    ((FIXED_BINARY,), b"abc", NEW, Err.InvalidBufferSize),
    ((LONG,), None, NEW | M.KeyDataZeroLength, Err.InvalidBufferSize),
    ((LONG,), 1 << 40, NEW, Err.InvalidBufferSize),
    ((LONG,), "7", NEW, Err.InvalidBufferSize),
    ((TEXT,), 7, NEW, Err.InvalidBufferSize),
    ((LONG,), b"x" * 257, M.NormalizedKey, Err.InvalidParameter),
    ((LONG,), 7, M.NormalizedKey, Err.InvalidParameter),
]


@pytest.mark.parametrize(("segments", "value", "grbit", "error"), REFUSED)
def test_refused(segments: tuple[SegmentSpec, ...], value: Any, grbit: int, error: Err) -> None:
    made = SearchKey(KeyMaker(KeySpec(segments)))
    with pytest.raises(JetError) as refused:
        made.add(value, grbit)
    assert refused.value.code == error
    assert not made.prepared


def test_too_many_columns_and_no_index() -> None:
    made = search((7, 0), segments=(LONG,))
    with pytest.raises(JetError) as refused:
        made.add(8)
    assert refused.value.code == Err.KeyIsMade
    with pytest.raises(JetError) as refused:
        SearchKey(None).add(8, NEW)
    assert refused.value.code == Err.NoCurrentIndex


def test_tuple_indexes_take_pieces() -> None:
    tuples = TupleLimits(min=3, max=5)
    assert hexed(("abcdefgh", 0), segments=(TEXT,), tuples=tuples) == b"\x7fABCDE\0".hex()
    for value in ("ab", "", None):
        with pytest.raises(JetError) as refused:
            search((value, 0), segments=(TEXT,), tuples=tuples)
        assert refused.value.code == Err.IndexTuplesKeyTooSmall


WORDS = st.text("abcAé-' 12", max_size=6)


@given(st.lists(WORDS, min_size=1), st.text("abc1", min_size=1, max_size=4), st.sampled_from([1252, 1200]))
def test_a_partial_range_holds_what_begins_with_the_text(words: list[str], start: str, cp: int) -> None:
    segment = SegmentSpec(C.Text, cp=cp)
    maker = KeyMaker(KeySpec((segment,)))
    entries = sorted((maker.key([w]), w) for w in words)
    low = search((start, M.PartialColumnStartLimit), segments=(segment,)).data
    high = search((start, M.PartialColumnEndLimit), segments=(segment,)).data
    found = [w for _, w in entries[bisect_left(entries, (low, "")) : bisect_left(entries, (high, ""))]]
    letters = str.lower if cp == 1252 else lambda w: w.lower().replace("-", "").replace("'", "").replace("é", "e")
    for word in words:
        assert (word in found) == letters(word).startswith(start), (word, found)


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("start", ["a", "AB", "abc"])
def test_a_partial_range_of_upper_cased_unicode(start: str, descending: bool) -> None:
    """Which has no weights, and so no 01 behind the letters."""
    segments = (SegmentSpec(C.Text, descending, cp=1200), LONG)
    low, high = (
        search((start, limit), segments=segments, lcmap_flags=0x200).data for limit in (M.PartialColumnStartLimit, M.PartialColumnEndLimit)
    )
    for word in ("a", "aB", "Abc", "abCd", "b", "aa"):
        key = KeyMaker(KeySpec(segments, lcmap_flags=0x200)).key([word, 1])
        assert (low <= key < high) == word.upper().startswith(start.upper()), word


@given(st.lists(st.binary(max_size=20)), st.lists(st.integers(1, 255), min_size=1, max_size=20).map(bytes))
def test_a_partial_range_holds_what_begins_with_the_bytes(values: list[bytes], start: bytes) -> None:
    maker = KeyMaker(KeySpec((BINARY,)))
    values += [start, start + b"\0", start + b"\xff" * 9, start[:-1]]
    low = search((start, M.PartialColumnStartLimit), segments=(BINARY,)).data
    high = search((start, M.PartialColumnEndLimit), segments=(BINARY,)).data
    for value in values:
        assert (low <= maker.key([value]) < high) == value.startswith(start)
