"""Values into rows and back: every type, every edge, every change of a row."""

from __future__ import annotations

import gc
import json
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jetwire_protocol.data.flags import Coltyp
from jetwire_protocol.errors import Err, JetError
from jetwire_server.rows import ABSENT, EMPTY_ROW, ColumnSpec, LongRef, RowCodec
from jetwire_server.rows.plans import PlanCache
from tests.server.rows.strategies import VALUES, relaxed, rows, same, values_of

ID = ColumnSpec(1, "id", Coltyp.Long)
COUNT = ColumnSpec(2, "count", Coltyp.LongLong)
FLAG = ColumnSpec(3, "flag", Coltyp.Bit)
NAME = ColumnSpec(128, "name", Coltyp.Text)
NOTE = ColumnSpec(129, "note", Coltyp.Text)
TAGS = ColumnSpec(256, "tags", Coltyp.LongText)
BLOB = ColumnSpec(257, "blob", Coltyp.LongBinary)
CODEC = RowCodec([ID, COUNT, FLAG, NAME, NOTE, TAGS, BLOB])


@relaxed
@given(rows())
def test_a_row_gives_back_what_was_stored_and_defaults_for_the_rest(sample: tuple[list[ColumnSpec], dict[int, Any]]) -> None:
    columns, values = sample
    codec = RowCodec(columns)
    row = codec.encode(values)
    assert same(codec.stored(row)) == same(values)
    expected = {c.id: c.default for c in columns if c.default is not None} | values
    expected = {k: v for k, v in expected.items() if v is not None}
    assert same(codec.decode(row)) == same(expected)
    assert same(codec.decode_named(row)) == same({c.name: expected[c.id] for c in columns if c.id in expected})
    for column in columns:
        value = expected.get(column.id)
        many = value if isinstance(value, list) else [] if value is None else [value]
        assert codec.count(row, column.id) == len(many)
        for itag in range(len(many) + 2):
            assert same(codec.get(row, column.id, itag)) == same(many[itag - 1] if 0 < itag <= len(many) else None)


@relaxed
@given(rows(), st.data())
def test_a_patch_is_the_encoding_of_the_merged_values(sample: tuple[list[ColumnSpec], dict[int, Any]], data: st.DataObject) -> None:
    columns, values = sample
    codec = RowCodec(columns)
    changed = data.draw(st.sets(st.sampled_from(columns))) if columns else set()
    changes = {c.id: data.draw(st.just(ABSENT) | values_of(c)) for c in changed}
    merged = {k: v for k, v in (values | changes).items() if v is not ABSENT}
    row = codec.encode(values)
    assert codec.patch(row, changes) == codec.encode(merged)
    assert codec.patch(row, {}) == row


@pytest.mark.parametrize("coltyp", VALUES)
@pytest.mark.parametrize("column_id", [1, 127, 128, 255, 256, 64_999])
def test_every_type_fits_every_kind_of_column(coltyp: Coltyp, column_id: int) -> None:
    column = ColumnSpec(column_id, "c", coltyp)
    codec = RowCodec([column])

    @relaxed
    @given(VALUES[coltyp])
    def check(value: Any) -> None:
        row = codec.encode({column_id: value})
        assert same(codec.decode(row)) == same({column_id: value})
        assert same(codec.get(row, column_id)) == same(value)

    check()


def test_null_zero_length_and_absent_are_three_things() -> None:
    codec = RowCodec([ColumnSpec(128, "name", Coltyp.Text, default="x"), ColumnSpec(256, "blob", Coltyp.LongBinary, default=b"y")])
    absent, null, empty = codec.encode({}), codec.encode({128: None, 256: None}), codec.encode({128: "", 256: b""})
    assert len({absent, null, empty}) == 3
    assert codec.decode(absent) == {128: "x", 256: b"y"}
    assert codec.decode(null) == {}
    assert codec.decode(empty) == {128: "", 256: b""}
    assert codec.get(null, 128) is None
    assert codec.get(absent, 128) == "x"
    assert codec.stored(absent) == {}
    assert codec.stored(null) == {128: None, 256: None}


def test_a_default_reads_as_a_stored_value_would() -> None:
    columns = [ColumnSpec(1, "a", Coltyp.IEEESingle, default=0.1), ColumnSpec(300, "b", Coltyp.DateTime, default=1)]
    codec = RowCodec(columns)
    assert same(codec.decode(EMPTY_ROW)) == same(codec.decode(codec.encode({1: 0.1, 300: 1})))
    assert codec.to_json(EMPTY_ROW) == codec.to_json(codec.encode({1: 0.1, 300: 1}))


def test_the_empty_row_is_one_byte() -> None:
    assert CODEC.encode({}) == EMPTY_ROW == b"\x01"
    assert CODEC.decode(EMPTY_ROW) == {}
    assert RowCodec([]).decode(EMPTY_ROW) == {}


def test_multi_values_keep_their_order() -> None:
    many = [f"value {i}" for i in range(5_000)]
    row = CODEC.encode({256: many})
    assert CODEC.get(row, 256, 1) == "value 0"
    assert CODEC.get(row, 256, 5_000) == "value 4999"
    assert CODEC.get(row, 256, 5_001) is None
    assert CODEC.count(row, 256) == 5_000
    assert CODEC.decode(row) == {256: many}


def test_a_list_of_one_is_the_value_and_of_none_is_null() -> None:
    assert CODEC.encode({256: ["a"]}) == CODEC.encode({256: "a"})
    assert CODEC.encode({256: []}) == CODEC.encode({256: None})


def test_separated_long_values() -> None:
    here, there = LongRef(2**63, 2**31 - 1), LongRef(5, 0)
    values = {128: "n", 256: [here, "inline", there], 257: here}
    row = CODEC.encode(values)
    assert CODEC.stored(row) == values
    assert type(CODEC.get(row, 257)) is LongRef
    assert CODEC.references(row) == [(256, 1, here), (256, 3, there), (257, 1, here)]
    assert CODEC.references(CODEC.encode({256: ["a", "b"]})) == []
    assert CODEC.references(CODEC.patch(row, {256: "a", 257: ABSENT})) == []


def test_every_tagged_column_at_once() -> None:
    columns = [ColumnSpec(i, f"c{i}", Coltyp.LongText if i % 2 else Coltyp.Long) for i in range(256, 65_000)]
    codec = RowCodec(columns)
    values = {c.id: str(c.id) if c.id % 2 else c.id for c in columns}
    row = codec.encode(values)
    assert codec.decode(row) == values
    assert codec.get(row, 64_999) == "64999"
    assert codec.get(row, 256) == 256
    assert codec.stored(codec.patch(row, {64_999: None}))[64_999] is None


@pytest.mark.parametrize("count", range(248, 258))
def test_a_shape_around_the_length_one_byte_can_say(count: int) -> None:
    columns = [ColumnSpec(256 + i, f"c{i}", Coltyp.LongText) for i in range(count)]
    codec = RowCodec(columns)
    values = {c.id: c.name for c in columns}
    row = codec.encode(values)
    assert RowCodec(columns).decode(row) == codec.decode(row) == values
    assert codec.get(row, 256 + count - 1) == f"c{count - 1}"
    assert json.loads(codec.to_json(row)) == json.loads(codec.to_json_many([row])) == codec.decode_named(row)


def test_a_value_of_a_mebibyte() -> None:
    text, blob = "%\ud800é" * 200_000, bytes(range(256)) * 4096
    row = CODEC.encode({256: text, 257: blob})
    assert CODEC.get(row, 256) == text
    assert CODEC.decode(row) == {256: text, 257: blob}


def test_a_fixed_columns_slot_can_be_changed_in_place() -> None:
    row = CODEC.encode({1: 7, 2: -5, 3: True, 128: "%d%b", 256: "x"})
    place = CODEC.fixed_offset(row, 2)
    assert place is not None
    offset, size = place
    assert size == 8
    assert int.from_bytes(row[offset : offset + size], "little", signed=True) == -5
    added = bytearray(row)
    added[offset : offset + size] = (-5 + 1_000_000).to_bytes(size, "little", signed=True)
    assert CODEC.decode(bytes(added)) == {1: 7, 2: 999_995, 3: True, 128: "%d%b", 256: "x"}
    assert CODEC.fixed_offset(CODEC.patch(row, {1: 8, 128: "a longer text", 256: None}), 2) == place


def test_a_slot_moves_only_when_a_fixed_column_before_it_comes_or_goes() -> None:
    row = CODEC.encode({1: 7, 2: -5})
    assert CODEC.fixed_offset(row, 2) != CODEC.fixed_offset(CODEC.patch(row, {1: None}), 2)


@pytest.mark.parametrize("values", [{}, {2: None}, {128: "x"}])
def test_no_slot_for_what_is_not_stored(values: dict[int, Any]) -> None:
    assert CODEC.fixed_offset(CODEC.encode(values), 2) is None
    assert CODEC.fixed_offset(CODEC.encode({2: 1}), 128) is None
    assert CODEC.fixed_offset(CODEC.encode({2: 1}), 99) is None


@pytest.mark.parametrize(
    ("column_id", "value"),
    [
        (1, 2**31),
        (1, -(2**31) - 1),
        (1, 1.5),
        (1, "1"),
        (2, 2**63),
        (3, 1),
        (3, "true"),
        (128, 5),
        (128, b"bytes"),
        (128, ["two", "values"]),
        (128, LongRef(1, 2)),
        (256, ["a", 5]),
        (256, ["a", None]),
        (256, b"bytes"),
        (257, "text"),
        (1, [1, 2]),
        (1, object()),
    ],
)
def test_a_value_that_does_not_fit_is_refused(column_id: int, value: object) -> None:
    others = {k: v for k, v in {1: 1, 128: "n", 129: "m"}.items() if k != column_id}
    for values in ({column_id: value}, {**others, column_id: value}):
        with pytest.raises(JetError) as caught:
            CODEC.encode(values)
        assert caught.value.code == Err.InvalidParameter
        with pytest.raises(JetError):
            CODEC.patch(CODEC.encode(others), {column_id: value})


@pytest.mark.parametrize("value", [1e39, "NaN", 10**400])
def test_a_single_that_is_none_is_refused(value: object) -> None:
    for column_id in (5, 300):
        with pytest.raises(JetError) as caught:
            RowCodec([ColumnSpec(column_id, "single", Coltyp.IEEESingle)]).encode({column_id: value})
        assert caught.value.code == Err.InvalidParameter


def test_an_unknown_column_is_refused() -> None:
    for call in (
        lambda: CODEC.encode({9: 1}),
        lambda: CODEC.patch(EMPTY_ROW, {9: 1}),
        lambda: CODEC.get(EMPTY_ROW, 9),
        lambda: CODEC.to_json(EMPTY_ROW, [9]),
    ):
        with pytest.raises(JetError) as caught:
            call()
        assert caught.value.code == Err.ColumnNotFound


@pytest.mark.parametrize(
    ("columns", "code"),
    [
        ([ColumnSpec(0, "a", Coltyp.Long)], Err.BadColumnId),
        ([ColumnSpec(65_000, "a", Coltyp.Long)], Err.BadColumnId),
        ([ID, ColumnSpec(1, "b", Coltyp.Bit)], Err.ColumnDuplicate),
        ([ColumnSpec(1, "a", Coltyp.SLV)], Err.InvalidColumnType),
        ([ColumnSpec(1, "a", Coltyp.Nil)], Err.InvalidColumnType),
        ([ColumnSpec(1, "a", Coltyp.Short, default=2**15)], Err.InvalidParameter),
        ([ColumnSpec(300, "a", Coltyp.Text, default=5)], Err.InvalidParameter),
    ],
)
def test_a_schema_no_row_could_follow_is_refused(columns: list[ColumnSpec], code: Err) -> None:
    with pytest.raises(JetError) as caught:
        RowCodec(columns)
    assert caught.value.code == code


def test_the_layout_is_the_documented_one() -> None:
    codec = RowCodec([ID, FLAG, ColumnSpec(4, "g", Coltyp.GUID), NAME, TAGS, BLOB])
    guid = UUID("00112233-4455-6677-8899-aabbccddeeff")
    row = codec.encode({1: 258, 3: None, 4: guid, 128: '50 % "\n', 256: ["a", LongRef(1, 2)], 257: b"abc"})
    shape = bytes([9, 8 + 5, 2 * 8 + 0, 8 + 7, 0b0_1100001 | 128, 0b111, 0b0_0000010 | 128, 0b1000, 8 + 1])
    assert row[: row[0]] == shape
    assert row[row[0] :] == (
        b"\x02\x01\x00\x00" + guid.bytes_le + b'%b"50 \\u0025 \\"\\n"%b["a",{"long":1,"size":2}]%b"YWJj"%b'
    )  # fmt: skip


def test_the_example_of_the_page_about_the_format() -> None:
    codec = RowCodec([ID, ColumnSpec(2, "total", Coltyp.LongLong), NAME, TAGS])
    row = codec.encode({1: 7, 2: 500, 128: "50 % off", 256: ["a", "b"]})
    assert row == bytes.fromhex("07 0d 0e f1 07 81 08  07 00 00 00  f4 01 00 00 00 00 00 00") + b'%b"50 \\u0025 off"%b["a","b"]%b'
    assert codec.to_json(row) == b'{"id":7,"total":500,"name":"50 \\u0025 off","tags":["a","b"]}'


def test_the_remembered_shapes_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jetwire_server.rows.plans.ROW_PLANS_WEIGHT_MAX", 1_000)
    columns = [ColumnSpec(256 + i, f"c{i}", Coltyp.LongText) for i in range(12)]
    codec = RowCodec(columns)
    view = codec._everything
    caches: list[PlanCache[Any]] = [codec._readers, codec._writers, codec._shapes, codec._plain_holes]
    caches += [view._plans, view.plain_names, view._run_names]
    most = 0
    for bits in range(2**12):
        values = {c.id: c.name for i, c in enumerate(columns) if bits >> i & 1}
        row = codec.encode(values)
        assert codec.decode(row) == values
        codec.to_json(row)
        most = max(most, *(len(cache.plans) for cache in caches))
    assert 10 < most <= 1_000 // 8


def test_a_row_leaves_nothing_behind() -> None:
    """The library that encodes its texts keeps the iterator of what is not a list: 64 bytes a row, for ever."""
    texts = {NAME.id: "a", NOTE.id: "b"}

    def left_by(rows: int) -> int:
        gc.collect()
        before = len(gc.get_objects())
        for _ in range(rows):
            CODEC.encode(texts)
        gc.collect()
        return len(gc.get_objects()) - before

    left_by(10)  # what is remembered of such rows
    assert left_by(1_000) < 100
