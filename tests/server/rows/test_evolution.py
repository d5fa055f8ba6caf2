"""A schema gains and loses columns while the rows stay as they are."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from jetwire_protocol.data.flags import Coltyp
from jetwire_server.rows import ColumnSpec, LongRef, RowCodec
from tests.server.rows.strategies import VALUES, relaxed, rows, same, schemas


@relaxed
@given(rows(), schemas(), st.data())
def test_old_rows_are_read_by_every_later_schema(
    sample: tuple[list[ColumnSpec], dict[int, Any]], later: list[ColumnSpec], data: st.DataObject
) -> None:
    columns, values = sample
    row = RowCodec(columns).encode(values)
    used = {c.id for c in columns}  # an id is never used again
    kept = data.draw(st.sets(st.sampled_from(columns))) if columns else set()
    schema = [*kept, *(c for c in later if c.id not in used)]
    codec = RowCodec(schema)
    stored = {c.id: values[c.id] for c in kept if c.id in values}
    expected = {c.id: c.default for c in schema if c.default is not None} | stored
    expected = {k: v for k, v in expected.items() if v is not None}
    assert same(codec.stored(row)) == same(stored)
    assert same(codec.decode(row)) == same(expected)
    for column in schema:
        value = expected.get(column.id)
        assert same(codec.get(row, column.id)) == same(value[0] if isinstance(value, list) else value)
    specs = {c.id: c for c in schema}
    refs: dict[LongRef, Any] = {ref: "x" if specs[i].coltyp == Coltyp.LongText else b"x" for i, _, ref in codec.references(row)}
    if len(refs) == len(codec.references(row)):
        assert json.loads(codec.to_json(row, long_values=refs)).keys() == {specs[i].name for i in expected}
    # The next patch drops what is gone.
    assert codec.patch(row, {}) == codec.encode(stored)


def test_a_gained_column_reads_its_default_until_it_is_set() -> None:
    old = RowCodec([ColumnSpec(1, "a", Coltyp.Long)])
    row = old.encode({1: 5})
    new = RowCodec(
        [ColumnSpec(1, "renamed", Coltyp.Long), ColumnSpec(2, "b", Coltyp.Short, default=-3), ColumnSpec(256, "c", Coltyp.LongText)]
    )
    assert new.decode_named(row) == {"renamed": 5, "b": -3}
    assert new.to_json(row) == b'{"renamed":5,"b":-3}'
    assert new.fixed_offset(row, 2) is None
    null = new.patch(row, {2: None})
    assert new.decode_named(null) == {"renamed": 5}
    assert new.to_json(null) == b'{"renamed":5}'
    assert new.patch(row, {2: -3}) != row  # a value equal to the default is a value: it outlives the default
    assert old.decode(null) == {1: 5}


def test_lost_columns_of_every_kind_are_skipped() -> None:
    columns = [
        ColumnSpec(place + n, f"c{place + n}", coltyp) for place in (1, 40, 128, 300) for n, coltyp in enumerate(sorted(VALUES))
    ]  # fmt: skip
    last = [ColumnSpec(127, "slot", Coltyp.LongLong), ColumnSpec(60_000, "text", Coltyp.LongText)]
    samples: dict[Coltyp, Any] = {}
    for coltyp in VALUES:
        if "Text" in coltyp.name:
            samples[coltyp] = "%b\n"
        elif "Binary" in coltyp.name:
            samples[coltyp] = b"%b\n"
        elif coltyp == Coltyp.GUID:
            samples[coltyp] = UUID(int=0x25622562256225622562256225622562)  # looks like holes
        else:
            samples[coltyp] = True if coltyp == Coltyp.Bit else 0x25
    row = RowCodec(columns + last).encode({c.id: samples[c.coltyp] for c in columns} | {127: 9, 60_000: "end"})
    codec = RowCodec(last)
    assert codec.decode(row) == {127: 9, 60_000: "end"}
    assert codec.to_json(row) == b'{"slot":9,"text":"end"}'
    assert codec.get(row, 60_000) == "end"
    place = codec.fixed_offset(row, 127)
    assert place is not None
    assert row[place[0] : sum(place)] == (9).to_bytes(8, "little")
    assert RowCodec([]).decode(row) == {}
    assert RowCodec([]).to_json(row) == b"{}"
