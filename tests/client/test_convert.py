"""Column values from Python to the wire, through the protocol's own reading of them, and back: nothing is lost."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta, timezone
from enum import IntEnum
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jetwire.convert import RecordReader, to_wire
from jetwire.wire import encode_call
from jetwire_protocol import values
from jetwire_protocol.data.flags import Coltyp

zones = st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=30)), timezone(timedelta(hours=-11))])
moments = st.datetimes(min_value=datetime(100, 1, 2), max_value=datetime(9999, 12, 30), timezones=zones)
floats = st.floats(allow_nan=False)

CASES: dict[Coltyp, st.SearchStrategy[Any]] = {
    Coltyp.Bit: st.booleans(),
    Coltyp.UnsignedByte: st.integers(0, 255),
    Coltyp.Long: st.integers(-(2**31), 2**31 - 1),
    Coltyp.LongLong: st.integers(-(2**63), 2**63 - 1),
    Coltyp.UnsignedLongLong: st.integers(0, 2**64 - 1),
    Coltyp.Currency: st.integers(-(2**63), 2**63 - 1),
    Coltyp.IEEEDouble: floats,
    Coltyp.IEEESingle: st.floats(allow_nan=False, width=32),
    Coltyp.GUID: st.uuids(),
    Coltyp.Binary: st.binary(max_size=100),
    Coltyp.LongBinary: st.binary(max_size=100),
    Coltyp.LongText: st.text(st.characters(exclude_categories=["Cs"]), max_size=50),
}


def through(coltyp: Coltyp, value: Any, *, int64_strings: bool = False) -> Any:
    """What a client reads that has written this: encoded, read as the server reads it, shown as the server shows it, read."""
    sent = json.loads(encode_call(1, "SetColumn", {"data": to_wire(value)}))["params"]["data"]

    def stored(one: Any) -> Any:
        return values.to_wire(values.from_wire(coltyp, one), int64_strings=int64_strings)

    shown = [stored(one) for one in sent] if isinstance(sent, list) else stored(sent)
    record = msgspec.json.decode(msgspec.json.encode({"x": shown}))
    return RecordReader({"x": coltyp})(record)["x"]


@pytest.mark.parametrize("coltyp", CASES, ids=lambda c: c.name)
def test_round_trip(coltyp: Coltyp) -> None:
    @given(st.data())
    def check(data: st.DataObject) -> None:
        value = data.draw(CASES[coltyp])
        several = data.draw(st.lists(CASES[coltyp], min_size=2, max_size=4))
        assert through(coltyp, value) == value
        assert type(through(coltyp, value)) is type(value)
        assert through(coltyp, several) == several
        assert through(coltyp, value, int64_strings=True) == value

    check()


@given(moments)
def test_moments_come_back_to_the_microsecond_that_a_double_can_hold(moment: datetime) -> None:
    back = through(Coltyp.DateTime, moment)
    assert isinstance(back, datetime)
    assert back.tzinfo is UTC
    days = abs(values.to_ole(moment))
    assert abs(back - moment) <= timedelta(days=math.ulp(days)) + timedelta(microseconds=1)


@given(st.datetimes(min_value=datetime(1900, 1, 1), max_value=datetime(2079, 1, 1), timezones=st.just(UTC)))
def test_moments_of_our_time_are_exact(moment: datetime) -> None:
    assert through(Coltyp.DateTime, moment) == moment


@pytest.mark.parametrize(
    ("moment", "days"),
    [
        (datetime(1899, 12, 30, tzinfo=UTC), 0.0),
        (datetime(1899, 12, 29, 6, tzinfo=UTC), -1.25),  # before the zero the part of the day still counts forward
        (datetime(1899, 12, 31, 18, tzinfo=UTC), 1.75),
        (datetime(1, 1, 1, tzinfo=UTC), -693593.0),
    ],
)
def test_known_moments(moment: datetime, days: float) -> None:
    assert RecordReader({"x": Coltyp.DateTime})({"x": days})["x"] == moment
    assert values.from_wire(Coltyp.DateTime, to_wire(moment)) == days


def test_a_moment_without_a_zone_is_taken_as_utc() -> None:
    assert to_wire(datetime(2024, 5, 6, 7)) == to_wire(datetime(2024, 5, 6, 7, tzinfo=UTC))


@pytest.mark.parametrize("number", [1e300, -1e12, "NaN", "Infinity"])
def test_dates_that_are_none_stay_numbers(number: Any) -> None:
    read = RecordReader({"x": Coltyp.DateTime})({"x": number})["x"]
    assert type(read) is float
    assert read == float(number) or math.isnan(read)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("wrap", [lambda v: v, lambda v: [v, v], lambda v: (v,)], ids=["one", "list", "tuple"])
def test_floats_that_json_has_no_word_for(value: float, wrap: Any) -> None:
    """Left to a JSON encoder they would become null, which is another value."""
    back = through(Coltyp.IEEEDouble, wrap(value))
    for one in back if isinstance(back, list) else [back]:
        assert one == value or (math.isnan(one) and math.isnan(value))
    assert to_wire([{"x": {"y": math.nan}}]) == [{"x": {"y": "NaN"}}]


def test_what_a_column_cannot_hold_comes_as_its_bytes() -> None:
    reader = RecordReader({"when": Coltyp.DateTime, "id": Coltyp.GUID})
    assert reader({"when": {"base64": "AAE="}, "id": [{"base64": "/w=="}, str(UUID(int=5))]}) == {
        "when": b"\x00\x01",
        "id": [b"\xff", UUID(int=5)],
    }


def test_nulls_and_unknown_columns_are_left_alone() -> None:
    reader = RecordReader({"b": Coltyp.Binary, "t": Coltyp.Text})
    assert reader({"b": None, "other": "x", "t": ""}) == {"b": None, "other": "x", "t": ""}
    assert reader({"b": ""}) == {"b": b""}


def test_enumerations_sets_and_bytes_like_things_are_encoded() -> None:
    class Colour(IntEnum):
        RED = 3

    sent = json.loads(encode_call(1, "M", {"a": Colour.RED, "b": bytearray(b"x"), "c": {1}, "d": memoryview(b"y")}))
    assert sent["params"] == {"a": 3, "b": "eA==", "c": [1], "d": "eQ=="}
    with pytest.raises(TypeError, match="object"):
        encode_call(1, "M", {"a": object()})
