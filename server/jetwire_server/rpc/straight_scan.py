"""A Batch straight from bytes to bytes: so many records from a key on, or the first page of a range.

    [SetCurrentIndex {}]  MakeKey ...  Seek(SeekGE)  [MakeKey ...  SetIndexRange(RangeInclusive | RangeUpperLimit)]  GetRecords

That is how clients ask for them in one round trip; see `Table.range`. As on the rest of the straight road the answer is None for a
message that is not just so, and nothing has been done but that a search key is used up: the general road begins with a new one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, Literal

import msgspec
from msgspec import Struct

from jetwire_protocol.data.flags import MakeKeyGrbit, SeekGrbit, SetIndexRangeGrbit
from jetwire_protocol.errors import Wrn
from jetwire_protocol.values import from_wire
from jetwire_server.engine.cursor import Cursor
from jetwire_server.engine.straight_scan import KeyPart, scan_from
from jetwire_server.rpc.straight import UNUSUAL, call_in, cursor_for

if TYPE_CHECKING:
    from jetwire_server.rpc.peer import Peer

BATCH: Final = b'"Batch"'
_METHODS: Final = ("Batch", "SetCurrentIndex", "MakeKey", "Seek", "SetIndexRange", "GetRecords")
_NEW: Final = int(MakeKeyGrbit.NewKey)
_NORMALIZED: Final = int(MakeKeyGrbit.NormalizedKey)
_GE: Final = int(SeekGrbit.SeekGE)
_TO_THE_KEY: Final = int(SetIndexRangeGrbit.RangeInclusive | SetIndexRangeGrbit.RangeUpperLimit)
_SOUGHT: Final = {True: b"{},", False: b'{"wrn":%d},' % Wrn.SeekNotEqual}
_ENDS: Final = {True: b'],"more":true}]}}', False: b'],"more":false}]}}'}


class _Cursor(Struct, forbid_unknown_fields=True):
    sesid: int
    tableid: int


class _KeyParams(_Cursor, forbid_unknown_fields=True):
    data: str | int | float | bool
    grbit: int | list[Literal["NewKey", "FullColumnStartLimit", "FullColumnEndLimit"]] = 0


class _SeekParams(_Cursor, forbid_unknown_fields=True):
    grbit: int | list[Literal["SeekGE"]]


class _RangeParams(_Cursor, forbid_unknown_fields=True):
    grbit: int | list[Literal["RangeInclusive", "RangeUpperLimit"]]


class _GetParams(_Cursor, forbid_unknown_fields=True):
    limit: int
    direction: Literal["forward"] = "forward"


class _SetCurrentIndex(Struct, tag_field="method", tag="SetCurrentIndex", forbid_unknown_fields=True):
    params: _Cursor


class _MakeKey(Struct, tag_field="method", tag="MakeKey", forbid_unknown_fields=True):
    params: _KeyParams


class _Seek(Struct, tag_field="method", tag="Seek", forbid_unknown_fields=True):
    params: _SeekParams


class _SetIndexRange(Struct, tag_field="method", tag="SetIndexRange", forbid_unknown_fields=True):
    params: _RangeParams


class _GetRecords(Struct, tag_field="method", tag="GetRecords", forbid_unknown_fields=True):
    params: _GetParams


_Call = _SetCurrentIndex | _MakeKey | _Seek | _SetIndexRange | _GetRecords


class _BatchParams(Struct, forbid_unknown_fields=True):
    calls: list[_Call]
    transaction: bool = False


class _Batch(Struct, tag_field="method", tag="Batch", forbid_unknown_fields=True):
    jsonrpc: Literal["2.0"]
    id: int
    params: _BatchParams


_decode = msgspec.json.Decoder(_Batch).decode


def scan(peer: Peer, data: bytes) -> bytes | None:
    """The answer to such a Batch."""
    try:
        batch, _ = call_in(peer, data, _decode)
        calls = batch.params.calls
        if batch.params.transaction or not 3 <= len(calls) <= peer.limits.batch:
            return None
        get = calls[-1].params
        cursor = cursor_for(peer, _METHODS, get.sesid, get.tableid)
        if cursor is None or type(get) is not _GetParams:
            return None
        for call in calls:
            if call.params.sesid != get.sesid or call.params.tableid != get.tableid:
                return None
        place = 0
        if type(calls[0]) is _SetCurrentIndex:
            if cursor.at is not cursor.plan.rows:
                return None
            place = 1
        start, sought = _key_parts(cursor, calls, place)
        stop, ranged = start[:0], sought
        if not start or not _has_bits(calls[sought], _Seek, _GE):
            return None
        if sought + 2 < len(calls):
            stop, ranged = _key_parts(cursor, calls, sought + 1)
            if not stop or not _has_bits(calls[ranged], _SetIndexRange, _TO_THE_KEY):
                return None
        if ranged + 2 != len(calls):
            return None
        found = scan_from(cursor, start, stop, get.limit, peer.int64_strings)
    except UNUSUAL:
        return None
    if found is None:
        return None
    before, after = b"{}," * sought, b"{}," * (ranged - sought)
    head = b'{"jsonrpc":"2.0","id":%d,"result":{"results":[%b%b%b{"records":[' % (batch.id, before, _SOUGHT[found.exact], after)
    return b"".join((head, b",".join(found.records), _ENDS[found.more]))


def _key_parts(cursor: Cursor, calls: list[_Call], place: int) -> tuple[list[KeyPart], int]:
    """A whole new search key's parts, and the place of the call behind them. No parts: the general road knows what is wrong."""
    parts: list[KeyPart] = []
    maker = cursor.at.maker
    if maker is None:
        return parts, place
    for call, segment in zip(calls[place:], maker.spec.segments, strict=False):
        if type(call) is not _MakeKey:
            break
        params = call.params
        grbit = _bits(params.grbit)
        if bool(grbit & _NEW) is bool(parts) or grbit & _NORMALIZED:
            return [], place
        parts.append((from_wire(segment.coltyp, params.data, segment.cp), grbit))
    return parts, place + len(parts)


_BITS: Final = {flag.name: int(flag) for flags in (MakeKeyGrbit, SeekGrbit, SetIndexRangeGrbit) for flag in flags}


def _bits(given: int | Sequence[str]) -> int:
    if isinstance(given, int):
        return given
    bits = 0
    for name in given:
        bits |= _BITS[name]
    return bits


def _has_bits(call: _Call, kind: type[_Seek] | type[_SetIndexRange], bits: int) -> bool:
    return isinstance(call, kind) and _bits(call.params.grbit) == bits
