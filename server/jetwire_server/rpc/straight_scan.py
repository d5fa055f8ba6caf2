"""A Batch straight from bytes to bytes: MakeKey for each column of the primary index, Seek(SeekGE), GetRecords.

That is how a client asks for "so many records from this key on" in one round trip. As on the rest of the straight road the answer
is None, and nothing has been done, for a message that is not just so: the general road takes it then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

import msgspec
from msgspec import Struct

from jetwire_protocol import jsonrpc
from jetwire_protocol.data.flags import MakeKeyGrbit, SeekGrbit
from jetwire_protocol.errors import JetError, Wrn
from jetwire_protocol.validate import Mismatch
from jetwire_protocol.values import from_wire
from jetwire_server.engine.straight_scan import scan_from
from jetwire_server.rpc.straight import cursor_for

if TYPE_CHECKING:
    from jetwire_server.rpc.peer import Peer

BATCH: Final = b'"Batch"'
_METHODS: Final = ("Batch", "MakeKey", "Seek", "GetRecords")
_GRBIT = int | list[str]
_FIRST_PART: Final[tuple[_GRBIT, ...]] = (["NewKey"], int(MakeKeyGrbit.NewKey))
_NEXT_PART: Final[tuple[_GRBIT, ...]] = ([], 0)
_NOT_BELOW: Final[tuple[_GRBIT, ...]] = (["SeekGE"], int(SeekGrbit.SeekGE))


class _MakeKeyParams(Struct, forbid_unknown_fields=True):
    sesid: int
    tableid: int
    data: str | int | float | bool
    grbit: _GRBIT = 0


class _MakeKey(Struct, tag_field="method", tag="MakeKey", forbid_unknown_fields=True):
    params: _MakeKeyParams


class _SeekParams(Struct, forbid_unknown_fields=True):
    sesid: int
    tableid: int
    grbit: _GRBIT


class _Seek(Struct, tag_field="method", tag="Seek", forbid_unknown_fields=True):
    params: _SeekParams


class _GetRecordsParams(Struct, forbid_unknown_fields=True):
    sesid: int
    tableid: int
    limit: int
    direction: Literal["forward"] = "forward"


class _GetRecords(Struct, tag_field="method", tag="GetRecords", forbid_unknown_fields=True):
    params: _GetRecordsParams


class _BatchParams(Struct, forbid_unknown_fields=True):
    calls: list[_MakeKey | _Seek | _GetRecords]
    transaction: bool = False


class _Batch(Struct, tag_field="method", tag="Batch", forbid_unknown_fields=True):
    jsonrpc: Literal["2.0"]
    id: int
    params: _BatchParams


_decode = msgspec.json.Decoder(_Batch).decode


def scan(peer: Peer, data: bytes) -> bytes | None:
    """The answer to such a Batch."""
    try:
        if len(data) > peer.straight_bytes and jsonrpc.oversize(data, peer.limits) is not None:
            return None
        batch = _decode(data)
        if not data.isascii():
            data.decode()
        calls = batch.params.calls
        if batch.params.transaction or not 3 <= len(calls) <= peer.limits.batch:
            return None
        *parts, seek, get = calls
        if type(get) is not _GetRecords or type(seek) is not _Seek or seek.params.grbit not in _NOT_BELOW:
            return None
        sesid, tableid = get.params.sesid, get.params.tableid
        if seek.params.sesid != sesid or seek.params.tableid != tableid:
            return None
        cursor = cursor_for(peer, _METHODS, sesid, tableid)
        if cursor is None or cursor.at.maker is None:
            return None
        key = []
        wanted = _FIRST_PART
        for part, segment in zip(parts, cursor.at.maker.spec.segments, strict=True):
            if type(part) is not _MakeKey:
                return None
            params = part.params
            if params.grbit not in wanted or params.sesid != sesid or params.tableid != tableid:
                return None
            key.append(from_wire(segment.coltyp, params.data, segment.cp))
            wanted = _NEXT_PART
        found = scan_from(cursor, key, get.params.limit, peer.int64_strings)
    except (ValueError, Mismatch, JetError, RecursionError):
        return None
    if found is None:
        return None
    head = b'{"jsonrpc":"2.0","id":%d,"result":{"results":[%b%b,{"records":[' % (batch.id, b"{}," * len(parts), _SOUGHT[found.exact])
    return b"".join((head, b",".join(found.records), _ENDS[found.more]))


_SOUGHT: Final = {True: b"{}", False: b'{"wrn":%d}' % Wrn.SeekNotEqual}
_ENDS: Final = {True: b'],"more":true}]}}', False: b'],"more":false}]}}'}
