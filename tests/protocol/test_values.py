"""Values: wire and Python by the column's type, exact at 64 bits, and back again."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jetwire_protocol.data.flags import Coltyp
from jetwire_protocol.errors import Err, JetError
from jetwire_protocol.validate import Mismatch
from jetwire_protocol.values import from_bytes, from_ole, from_wire, to_bytes, to_ole, to_wire

GOOD: list[tuple[Coltyp, Any, Any]] = [
    (Coltyp.Bit, True, True),
    (Coltyp.UnsignedByte, 255, 255),
    (Coltyp.Short, -32768, -32768),
    (Coltyp.Long, "-5", -5),
    (Coltyp.LongLong, "-9223372036854775808", -(2**63)),
    (Coltyp.UnsignedLongLong, 2**64 - 1, 2**64 - 1),
    (Coltyp.UnsignedLongLong, "18446744073709551615", 2**64 - 1),
    (Coltyp.Currency, 2**53 + 1, 2**53 + 1),
    (Coltyp.IEEEDouble, 1, 1.0),
    (Coltyp.IEEEDouble, "-Infinity", -math.inf),
    (Coltyp.IEEESingle, 0.1, 0.10000000149011612),
    (Coltyp.DateTime, 2.5, 2.5),
    (Coltyp.DateTime, "1900-01-01T12:00:00", 2.5),
    (Coltyp.DateTime, "1900-01-01T14:00:00+02:00", 2.5),
    (Coltyp.DateTime, "1900-01-01", 2.0),
    (Coltyp.GUID, "00112233-4455-6677-8899-aabbccddeeff", UUID("00112233-4455-6677-8899-aabbccddeeff")),
    (Coltyp.Text, "", ""),
    (Coltyp.LongText, "h\u00e9", "h\u00e9"),
    (Coltyp.Binary, "AAE=", b"\x00\x01"),
    (Coltyp.LongBinary, "", b""),
    (Coltyp.Long, {"base64": "AQAAAA=="}, 1),
    (Coltyp.Text, {"base64": "aABpAA=="}, "hi"),
    (Coltyp.Long, None, None),
]


@pytest.mark.parametrize(("coltyp", "wire", "value"), GOOD)
def test_what_a_wire_value_means(coltyp: Coltyp, wire: Any, value: Any) -> None:
    got = from_wire(coltyp, wire)
    assert got == value
    assert type(got) is type(value)


@pytest.mark.parametrize(
    ("coltyp", "wire"),
    [
        (Coltyp.Bit, 1),
        (Coltyp.Long, True),
        (Coltyp.Long, 1.0),
        (Coltyp.Long, "1.0"),
        (Coltyp.Long, ""),
        (Coltyp.Long, "--1"),
        (Coltyp.Long, "\u0661"),
        (Coltyp.IEEEDouble, "nan"),
        (Coltyp.IEEEDouble, False),
        (Coltyp.DateTime, "yesterday"),
        (Coltyp.GUID, "x"),
        (Coltyp.GUID, 5),
        (Coltyp.Text, 5),
        (Coltyp.Binary, "%"),
        (Coltyp.Binary, 5),
        (Coltyp.Long, {"base64": 5}),
        (Coltyp.Long, {"x": 5}),
        (Coltyp.Long, [1]),
    ],
)
def test_another_json_type_is_a_mismatch(coltyp: Coltyp, wire: Any) -> None:
    with pytest.raises(Mismatch):
        from_wire(coltyp, wire)


@pytest.mark.parametrize(
    ("coltyp", "wire", "error"),
    [
        (Coltyp.UnsignedByte, 256, Err.InvalidParameter),
        (Coltyp.Short, 2**15, Err.InvalidParameter),
        (Coltyp.UnsignedLong, -1, Err.InvalidParameter),
        (Coltyp.LongLong, "9223372036854775808", Err.InvalidParameter),
        (Coltyp.IEEESingle, 1e300, Err.InvalidParameter),
        (Coltyp.IEEESingle, 10**400, Err.InvalidParameter),
        (Coltyp.IEEEDouble, 10**400, Err.InvalidParameter),
        (Coltyp.DateTime, -(10**400), Err.InvalidParameter),
        (Coltyp.Long, {"base64": "AQ=="}, Err.InvalidBufferSize),
    ],
)
def test_out_of_the_type_s_range_is_the_engine_s_error(coltyp: Coltyp, wire: Any, error: Err) -> None:
    with pytest.raises(JetError) as caught:
        from_wire(coltyp, wire)
    assert caught.value.code == error


@given(st.integers(-(2**63), 2**63 - 1))
def test_integers_are_exact(number: int) -> None:
    sent = json.loads(msgspec.json.encode(to_wire(number, int64_strings=True)))
    assert isinstance(sent, str) == (abs(number) > 2**53)
    assert from_wire(Coltyp.LongLong, sent) == number
    assert from_bytes(Coltyp.LongLong, to_bytes(Coltyp.LongLong, number)) == number


@given(st.floats())
def test_floats_come_back(number: float) -> None:
    back = from_wire(Coltyp.IEEEDouble, json.loads(msgspec.json.encode(to_wire(number))))
    assert back == number or (math.isnan(back) and math.isnan(number))


@given(st.datetimes(datetime(100, 1, 1), datetime(9999, 1, 1)))
def test_moments_come_back_to_the_millisecond(moment: datetime) -> None:
    assert abs(from_ole(to_ole(moment)) - moment) < timedelta(milliseconds=1)


def test_days_before_the_first() -> None:
    """Below zero the part of the day counts forward still: -1.25 is six in the morning of the day before the first."""
    assert to_ole(datetime(1899, 12, 29, 6)) == -1.25
    assert from_ole(-1.25) == datetime(1899, 12, 29, 6)
    assert to_ole(datetime(1900, 1, 1, 1, tzinfo=timezone(timedelta(hours=1)))) == to_ole(datetime(1900, 1, 1, tzinfo=UTC)) == 2.0
