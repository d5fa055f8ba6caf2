"""Which keys a row has in an index: NULLs, conditions, multi-values and tuples. The rules are those of the engine's source."""

from __future__ import annotations

from typing import Any

import pytest

from jetwire_protocol.data.flags import Coltyp, CreateIndexGrbit
from jetwire_protocol.errors import Err, JetError
from jetwire_server.engine.schema import TupleLimits
from jetwire_server.keys import KeyMaker, KeySpec, SegmentSpec

C, G = Coltyp, CreateIndexGrbit
BYTE = SegmentSpec(C.UnsignedByte)
MANY = SegmentSpec(C.UnsignedByte, multi_valued=True)
TEXT = SegmentSpec(C.LongText, cp=1200)

ALL, FIRST, SOME = [None, None], [None, 1], [1, None]
NULLS = [
    (0, True, True, True),
    (G.IndexIgnoreNull, False, True, True),
    (G.IndexIgnoreFirstNull, False, False, True),
    (G.IndexIgnoreAnyNull, False, False, False),
    (G.IndexIgnoreNull | G.IndexIgnoreAnyNull, False, False, False),
]


@pytest.mark.parametrize(("grbit", "every", "first", "some"), NULLS)
@pytest.mark.parametrize("segment", [BYTE, MANY])
def test_null_flags(segment: SegmentSpec, grbit: int, every: bool, first: bool, some: bool) -> None:
    maker = KeyMaker(KeySpec((segment, segment), G(grbit)))
    assert [bool(maker.keys(row)) for row in (ALL, FIRST, SOME, [1, 1])] == [every, first, some, True]


def test_nulls_disallowed() -> None:
    maker = KeyMaker(KeySpec((BYTE, BYTE), G.IndexDisallowNull))
    assert maker.keys([1, 2]) == [maker.key([1, 2])]
    for make in (maker.key, maker.keys):
        with pytest.raises(JetError) as refused:
            make([1, None])
        assert refused.value.code == Err.NullKeyDisallowed


def test_conditions() -> None:
    maker = KeyMaker(KeySpec((BYTE,), conditions_null=(True, False)))
    outcomes = {(a, b): bool(maker.keys([1], [a, b])) for a in (None, 5) for b in (None, 5)}
    assert outcomes == {(None, 5): True, (None, None): False, (5, 5): False, (5, None): False}


def hexes(grbit: int, values: list[Any], *segments: SegmentSpec) -> list[str]:
    return [k.hex() for k in KeyMaker(KeySpec(segments, G(grbit))).keys(values)]


def test_only_the_first_multi_valued_column_varies() -> None:
    assert hexes(0, [[1, 2], [3, 4]], MANY, MANY) == ["7f017f03", "7f027f03"]
    assert hexes(0, [9, [1, 2], [3, 4]], BYTE, MANY, MANY) == ["7f097f017f03", "7f097f027f03"]
    assert hexes(0, [[], [3, 4]], MANY, MANY) == ["007f03"]


def test_the_cross_product_runs_the_last_column_fastest() -> None:
    assert hexes(G.IndexCrossProduct, [[1, 2], [3, 4]], MANY, MANY) == ["7f017f03", "7f017f04", "7f027f03", "7f027f04"]
    assert hexes(G.IndexCrossProduct, [[1, 2], []], MANY, MANY) == ["7f0100", "7f0200"]


def test_a_nested_table_advances_all_columns_together() -> None:
    assert hexes(G.IndexNestedTable, [[1, 2, 5], [3, 4]], MANY, MANY) == ["7f017f03", "7f027f04", "7f0500"]
    ignoring = G.IndexNestedTable | G.IndexIgnoreAnyNull
    assert hexes(ignoring, [[1, 2, 5], [3, 4]], MANY, MANY) == ["7f017f03", "7f027f04"]


def test_equal_values_make_one_key() -> None:
    assert hexes(0, [[7, 7, 8, 7]], MANY) == ["7f07", "7f08"]


def test_a_single_value_of_a_multi_valued_column_needs_no_list() -> None:
    assert hexes(0, [7], MANY) == ["7f07"] == hexes(0, [[7]], MANY)
    assert KeyMaker(KeySpec((MANY,))).key([[7, 8]]) == b"\x7f\x07"


def tuples(value: Any, segment: SegmentSpec = TEXT, **limits: int) -> list[Any]:
    maker = KeyMaker(KeySpec((segment,), tuples=TupleLimits(**limits)))
    whole = KeyMaker(KeySpec((segment,)))
    keys = maker.keys([value])
    pieces = [value[i : i + j] for i in range(20) for j in range(11)]
    by_key = {whole.key([p]): p for p in pieces}
    return [by_key[k] for k in keys]


def test_tuples() -> None:
    assert tuples("abcdefg", min=3, max=4) == ["abcd", "bcde", "cdef", "defg", "efg"]
    assert tuples("abcdefg", min=3, max=4, step=2) == ["abcd", "cdef", "efg"]
    assert tuples("abcdefg", min=3, max=4, start=3) == ["defg", "efg"]
    assert tuples("abcdefg", min=3, max=4, total=2) == ["abcd", "bcde"]
    assert tuples("ab", min=3, max=4) == []
    assert tuples(b"abcdefg", SegmentSpec(C.LongBinary), min=3, max=4) == [b"abcd", b"bcde", b"cdef", b"defg", b"efg"]


def test_tuples_count_utf16_units() -> None:
    maker = KeyMaker(KeySpec((TEXT,), tuples=TupleLimits(min=2, max=2)))
    whole = KeyMaker(KeySpec((TEXT,)))
    assert maker.keys(["a\U0001f98a"]) == [whole.key([p]) for p in ("a\ud83e", "\ud83e\udd8a")]


def test_tuples_of_every_value_and_of_none() -> None:
    many = SegmentSpec(C.LongText, cp=1252, multi_valued=True)
    maker = KeyMaker(KeySpec((many, BYTE), tuples=TupleLimits(min=2, max=2)))
    assert maker.keys([["abc", "x", "yz"], 1]) == [b"\x7f%b\0\x7f\x01" % t for t in (b"AB", b"BC", b"YZ")]
    assert maker.keys([None, 1]) == []
    assert maker.keys(["ab", None]) == [b"\x7fAB\0\0"]


def test_a_short_column_is_read_only_as_far_as_the_key_is_long() -> None:
    short, long = SegmentSpec(C.Text, cp=1252), SegmentSpec(C.LongText, cp=1252)
    limits = TupleLimits(min=3, max=3)
    text = "abcdefghijklmnop"
    assert len(KeyMaker(KeySpec((short,), key_most=8, tuples=limits)).keys([text])) == 6
    assert len(KeyMaker(KeySpec((long,), key_most=8, tuples=limits)).keys([text])) == 14


def test_how_much_of_a_long_value_a_key_reads() -> None:
    ansi = SegmentSpec(C.LongText, cp=1252)
    spec = KeySpec((ansi, TEXT, SegmentSpec(C.LongBinary)))
    assert [KeyMaker(spec).data_most(i) for i in range(3)] == [255, 255, 255]
    assert KeyMaker(KeySpec((TEXT,), key_most=1000)).data_most(0) is None
    assert KeyMaker(KeySpec((TEXT,), tuples=TupleLimits(min=3, max=10, total=5, step=2, start=1))).data_most(0) == 19
    for segment, value in ((ansi, "x" * 300), (TEXT, "x\0" * 300), (SegmentSpec(C.LongBinary), b"x" * 300)):
        maker = KeyMaker(KeySpec((segment,)))
        assert maker.key([value[: maker.data_most(0)]]) == maker.key([value])
