"""Random schemas, and values their columns can hold."""

from __future__ import annotations

import math
import struct
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from jetwire_protocol.data.flags import Coltyp
from jetwire_server.rows import ColumnSpec, LongRef

relaxed = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # the machine may be busy

# Any UTF-16 is a text, lone surrogates too; but Python's two characters of a pair are read back as the one they mean.
texts = st.text(st.characters() | st.characters(categories=["Cs"]) | st.sampled_from('"\\%b\n\r\t\0/\x7f\u2028é'), max_size=12).map(
    lambda text: text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
)
singles = st.floats(width=32)
doubles = st.floats()

VALUES: dict[Coltyp, st.SearchStrategy[Any]] = {
    Coltyp.Bit: st.booleans(),
    Coltyp.UnsignedByte: st.integers(0, 2**8 - 1),
    Coltyp.Short: st.integers(-(2**15), 2**15 - 1),
    Coltyp.UnsignedShort: st.integers(0, 2**16 - 1),
    Coltyp.Long: st.integers(-(2**31), 2**31 - 1),
    Coltyp.UnsignedLong: st.integers(0, 2**32 - 1),
    Coltyp.LongLong: st.integers(-(2**63), 2**63 - 1),
    Coltyp.Currency: st.integers(-(2**63), 2**63 - 1),
    Coltyp.UnsignedLongLong: st.integers(0, 2**64 - 1),
    Coltyp.IEEESingle: singles,
    Coltyp.IEEEDouble: doubles,
    Coltyp.DateTime: doubles,
    Coltyp.GUID: st.uuids(),
    Coltyp.Text: texts,
    Coltyp.LongText: texts,
    Coltyp.Binary: st.binary(max_size=12),
    Coltyp.LongBinary: st.binary(max_size=12),
}
SEPARABLE = (Coltyp.LongText, Coltyp.LongBinary)
column_ids = st.integers(1, 127) | st.integers(128, 255) | st.integers(256, 64_999) | st.sampled_from([1, 127, 128, 255, 256, 64_999])


@st.composite
def schemas(draw: st.DrawFn) -> list[ColumnSpec]:
    columns = []
    for column_id in sorted(draw(st.sets(column_ids, max_size=8))):
        coltyp = draw(st.sampled_from(sorted(VALUES)))
        default = draw(st.none() | VALUES[coltyp]) if draw(st.booleans()) else None
        columns.append(ColumnSpec(column_id, draw(st.text(max_size=3)) + f"-{column_id}", coltyp, default))
    return columns


def values_of(column: ColumnSpec) -> st.SearchStrategy[Any]:
    """A value, a list of two or more in a tagged column, or None."""
    one: st.SearchStrategy[Any] = VALUES[column.coltyp]
    if column.coltyp in SEPARABLE:
        one = one | st.builds(LongRef, st.integers(0, 2**63), st.integers(0, 2**31 - 1))
    if column.id > 255:
        return st.none() | one | st.lists(one, min_size=2, max_size=4)
    return st.none() | one


@st.composite
def rows(draw: st.DrawFn) -> tuple[list[ColumnSpec], dict[int, Any]]:
    columns = draw(schemas())
    stored = draw(st.sets(st.sampled_from(columns))) if columns else set()
    return columns, {c.id: draw(values_of(c)) for c in draw(st.permutations(sorted(stored, key=lambda c: c.id)))}


def same(value: Any) -> Any:
    """A value to compare by: NaN equals itself, 0.0 is not -0.0, True is not 1."""
    if isinstance(value, dict):
        return {k: same(v) for k, v in value.items()}
    if isinstance(value, list):
        return [same(v) for v in value]
    if isinstance(value, float):
        return "NaN" if math.isnan(value) else struct.pack("d", value)
    return (type(value).__name__, value)
