"""Rows handed on as JSON must say exactly what decoding them says."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any
from uuid import UUID

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from jetwire_protocol.data.flags import Coltyp
from jetwire_protocol.errors import Err, JetError
from jetwire_server.rows import ColumnSpec, LongRef, RowCodec
from tests.server.rows.strategies import relaxed, rows


def as_json(value: Any, coltyp: Coltyp, int64_strings: bool) -> Any:
    """What a client must see, said by other means than the codec's."""
    if isinstance(value, list):
        return [as_json(v, coltyp, int64_strings) for v in value]
    if isinstance(value, LongRef):
        return "long" if coltyp == Coltyp.LongText else b64encode(b"long").decode()
    if isinstance(value, bytes):
        return b64encode(value).decode()
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, float):
        return {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}.get(repr(value), value)
    if int64_strings and type(value) is int and abs(value) > 2**53:
        return str(value)
    return value


def strict(data: bytes) -> Any:
    """As a strict parser reads it; an object's members must be named once."""

    def members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        assert len({k for k, _ in pairs}) == len(pairs)
        return dict(pairs)

    def refuse(name: str) -> None:
        raise ValueError(name)

    return json.loads(data.decode(), object_pairs_hook=members, parse_constant=refuse)


@relaxed
@given(rows(), st.booleans(), st.data())
def test_json_says_what_decoding_says(sample: tuple[list[ColumnSpec], dict[int, Any]], int64_strings: bool, data: st.DataObject) -> None:
    columns, values = sample
    codec = RowCodec(columns)
    row = codec.encode(values)
    coltyps = {c.id: c.coltyp for c in columns}
    found = {(ref, coltyps[column_id]) for column_id, _, ref in codec.references(row)}
    assume(len({ref for ref, _ in found}) == len(found))  # one long value has one type
    long_values = {ref: "long" if coltyp == Coltyp.LongText else b"long" for ref, coltyp in found}
    asked = data.draw(st.none() | st.lists(st.sampled_from(columns), unique=True)) if columns else None
    decoded = codec.decode(row)
    expected = {
        c.name: as_json(decoded[c.id], c.coltyp, int64_strings)
        for c in columns
        if c.id in decoded and (asked is None or c in asked)
    }  # fmt: skip
    wanted = None if asked is None else [c.id for c in asked]
    for _ in range(2):  # the second time by the remembered plan
        got = strict(codec.to_json(row, wanted, int64_strings=int64_strings, long_values=long_values))
        assert {k: repr(v) for k, v in got.items()} == {k: repr(v) for k, v in expected.items()}
    many = codec.to_json_many([row] * 3, wanted, int64_strings=int64_strings, long_values=long_values)
    assert repr(strict(b"[" + many + b"]")) == repr([got] * 3)


def test_many_rows_of_mixed_shapes() -> None:
    codec = RowCodec([ColumnSpec(1, "id", Coltyp.Long), ColumnSpec(128, "a", Coltyp.Text), ColumnSpec(129, "b", Coltyp.Text)])
    samples: list[dict[int, Any]] = []
    for i in range(500):
        if i % 97 < 60:
            samples.append({128: f"x{i}", 129: "%b"})
        elif i % 3:
            samples.append({1: i, 128: "y" * i})
        else:
            samples.append({1: i} if i % 2 else {})
    rows = [codec.encode(v) for v in samples]
    for count in (0, 1, 2, 31, 32, 33, 64, 65, 500):
        expected = [codec.decode_named(row) for row in rows[:count]]
        assert strict(b"[" + codec.to_json_many(rows[:count]) + b"]") == expected
        assert strict(b"[" + codec.to_json_many(iter(rows[:count])) + b"]") == expected
        assert strict(b"[" + b",".join(codec.view().to_json_runs(rows[:count])) + b"]") == expected


@pytest.mark.parametrize(
    "text", ["", '"', "\\", "\\u0025", "%", "%%", "%b", "%s%d%(x)b%*d", "\n", "\0", "\x1f\x7f", "\ud800", "\udc00x", "😀", "\u2028"]
)
def test_any_text_makes_valid_json(text: str) -> None:
    codec = RowCodec([ColumnSpec(128, "na%me", Coltyp.Text, default=text), ColumnSpec(256, '"', Coltyp.LongText)])
    for values in ({128: text, 256: text}, {256: [text, text]}, {128: text}):
        row = codec.encode(values)
        assert strict(codec.to_json(row)) == codec.decode_named(row)
        assert codec.stored(row) == values


def test_a_run_of_rows_with_like_but_different_shapes() -> None:
    codec = RowCodec([ColumnSpec(128, "a", Coltyp.Text), ColumnSpec(129, "b", Coltyp.Text)])
    rows = [codec.encode({128: "x"}), codec.encode({129: "y"})] * 40
    for _ in range(2):
        assert strict(b"[" + codec.to_json_many(rows) + b"]") == [{"a": "x"}, {"b": "y"}] * 40


def test_names_may_hold_anything() -> None:
    columns = [ColumnSpec(i, f'%d "{i}" \\ %b é', t, default=1) for i, t in [(1, Coltyp.Long), (2, Coltyp.IEEESingle), (300, Coltyp.Long)]]
    codec = RowCodec([*columns, ColumnSpec(128, "%", Coltyp.Text)])
    for values in ({1: 5}, {1: 5, 2: 0.5}, {300: 7}, {1: 5, 128: "x"}, {128: "x"}, {}):
        row = codec.encode(values)
        assert strict(codec.to_json(row)) == codec.decode_named(row)


def test_integers_are_exact_and_strings_where_asked() -> None:
    codec = RowCodec(
        [
            ColumnSpec(1, "q", Coltyp.LongLong),
            ColumnSpec(2, "u", Coltyp.UnsignedLongLong),
            ColumnSpec(300, "t", Coltyp.Currency, default=-(2**63)),
        ]
    )
    row = codec.encode({1: 2**53, 2: 2**53 + 1})
    assert codec.to_json(row) == b'{"q":9007199254740992,"u":9007199254740993,"t":-9223372036854775808}'
    assert codec.to_json(row, int64_strings=True) == b'{"q":9007199254740992,"u":"9007199254740993","t":"-9223372036854775808"}'
    row = codec.encode({300: [1, -(2**53) - 1]})
    assert codec.to_json(row, int64_strings=True) == b'{"t":[1,"-9007199254740993"]}'


def test_a_long_value_must_be_given() -> None:
    codec = RowCodec([ColumnSpec(256, "t", Coltyp.LongText), ColumnSpec(257, "u", Coltyp.LongText)])
    row = codec.encode({256: ["a", LongRef(1, 4)], 257: "u"})
    assert codec.to_json(row, long_values={LongRef(1, 4): "l%ng"}) == b'{"t":["a","l%ng"],"u":"u"}'
    assert codec.to_json(row, [257]) == b'{"u":"u"}'
    with pytest.raises(JetError) as caught:
        codec.to_json(row)
    assert caught.value.code == Err.LVCorrupted
