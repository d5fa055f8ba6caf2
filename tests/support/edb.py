"""A reader of real ESE databases for tests: the indexes of every table, their entries, and the rows they were made from.

`dissect.database` reads pages and records; what it does not do (values as stored, defaults, code page 1252's gaps) is here.
"""

from __future__ import annotations

import gzip
import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from dissect.database.ese.ese import ESE

from jetwire_protocol.data.flags import Coltyp, CreateIndexGrbit
from jetwire_server.keys import KeySpec, SegmentSpec

SAMPLES = Path(__file__).parents[3] / "shared" / "samples"
_NUMBERS = {
    Coltyp.UnsignedByte: "<B",
    Coltyp.Short: "<h",
    Coltyp.UnsignedShort: "<H",
    Coltyp.Long: "<i",
    Coltyp.UnsignedLong: "<I",
    Coltyp.Currency: "<q",
    Coltyp.LongLong: "<q",
    Coltyp.UnsignedLongLong: "<Q",
    Coltyp.IEEESingle: "<f",
    Coltyp.IEEEDouble: "<d",
    Coltyp.DateTime: "<d",
}
# the bits of an index's catalog flags, as JetCreateIndex knows them
_FLAGS = {
    0x0001: CreateIndexGrbit.IndexUnique,
    0x0010: CreateIndexGrbit.IndexDisallowNull,
    0x0020: CreateIndexGrbit.IndexPrimary,
    0x0800: CreateIndexGrbit.IndexSortNullsHigh,
    0x2000: CreateIndexGrbit.IndexCrossProduct,
    0x4000: CreateIndexGrbit.IndexDisallowTruncation,
    0x8000: CreateIndexGrbit.IndexNestedTable,
}


@dataclass
class EdbIndex:
    database: str
    table: str
    name: str
    spec: KeySpec
    rows: list[tuple[bytes, list[Any]]]  # bookmark, and the values of the index's columns
    entries: list[tuple[bytes, bytes]]  # key, bookmark


def samples() -> list[Path]:
    """The sample databases beside the project, if they are there."""
    return sorted(SAMPLES.glob("*.edb.gz"))


def read_indexes(path: Path) -> Iterator[EdbIndex]:
    with gzip.open(path) as packed:
        database = ESE(io.BytesIO(packed.read()))
    for table in database.tables():
        records = list(table.records())
        for column in table.columns:
            column.ctype = column.ctype._replace(parse=lambda data, **_: bytes(data))
        for index in table.indexes:
            primary = index.is_primary
            entries = [(bytes(n.key), bytes(n.key if primary else n.data)) for n in index.root.iter_leaf_nodes()]
            columns = index.columns
            rows = [(bytes(r._node.key), [_value(r, c) for c in columns]) for r in records]
            yield EdbIndex(path.name, table.name, index.name, _spec(index), rows, entries)


def _spec(index: Any) -> KeySpec:
    flags = int(index.idb_flags)
    grbit = CreateIndexGrbit(0)
    for bit, meaning in _FLAGS.items():
        if flags & bit:
            grbit |= meaning
    if not flags & 0x0010:
        some, first, every = flags & 0x0008, flags & 0x0004, flags & 0x0002
        if not some:
            grbit |= CreateIndexGrbit.IndexIgnoreAnyNull
        elif not first:
            grbit |= CreateIndexGrbit.IndexIgnoreFirstNull
        elif not every:
            grbit |= CreateIndexGrbit.IndexIgnoreNull
    if int(index.idx_flags) & 2:
        grbit |= CreateIndexGrbit.IndexDotNetGuid
    packed = index.record.get("KeyFldIDs")
    descending = [bool(packed[i] & 0x40) for i in range(0, len(packed), 4)]
    var_seg_mac = index.record.get("VarSegMac")
    return KeySpec(
        segments=tuple(_segment(c, d) for c, d in zip(index.columns, descending, strict=True)),
        grbit=grbit,
        key_most=index.record.get("KeyMost") or 255,
        var_seg_mac=int.from_bytes(var_seg_mac, "little") if var_seg_mac else 0,
        lcmap_flags=index.record.get("LCMapFlags") or 0x00030401,
    )


def _segment(column: Any, descending: bool) -> SegmentSpec:
    return SegmentSpec(
        coltyp=Coltyp(column.type.value),
        descending=descending,
        cp=int(column.encoding) if column.is_text and column.encoding else 1252 if column.is_text else 0,
        fixed=column.is_fixed,
        multi_valued=column.is_multivalue and column.is_tagged,
        max=column.size if column.is_fixed else 0,
    )


def _value(record: Any, column: Any) -> Any:
    stored = record._data.get(column)
    if stored is None and _absent(record._data, column):
        stored = column.default
    if isinstance(stored, list):
        return [_natural(column, v) for v in stored]
    return None if stored is None else _natural(column, bytes(stored))


def _absent(data: Any, column: Any) -> bool:
    if column.is_fixed:
        return bool(column.identifier > data._last_fixed_id)
    if column.is_variable:
        return bool(column.identifier > data._last_variable_id)
    return data._get_tagged(column)[0] is None


def _natural(column: Any, stored: bytes) -> Any:
    coltyp = Coltyp(column.type.value)
    if coltyp in _NUMBERS:
        return struct.unpack(_NUMBERS[coltyp], stored)[0]
    if coltyp == Coltyp.Bit:
        return stored != b"\x00"
    if coltyp == Coltyp.GUID:
        return UUID(bytes_le=stored)
    if not column.is_text:
        return stored
    if int(column.encoding or 0) == 1200:
        return stored.decode("utf-16-le", "surrogatepass")
    return "".join(bytes([b]).decode("cp1252", "ignore") or chr(b) for b in stored)
