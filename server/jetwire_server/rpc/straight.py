"""Two calls straight from bytes to bytes: GetRecord by primary key, and PutRecords in a transaction of its own.

They are most of what clients with one record a call send. Each is decoded by a struct made for it, which says in C what the
declaration says; runs on the engine's straight road; and is answered without a task or a future. `take` answers None, and has
done nothing, for a message that is not just so: the general road takes it then.

A PutRecords that replaces a record whose new version is already on its way to the log goes on top of that: its own record comes
behind the other's, and nobody has seen anything of it yet, so it is as if it had come a moment later. A call in an open transaction
never does.
"""

from __future__ import annotations

from binascii import b2a_base64
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar

from jetwire_protocol import jsonrpc
from jetwire_protocol.errors import JetError
from jetwire_protocol.validate import Mismatch
from jetwire_protocol.values import from_wire
from jetwire_server.engine.cursor import Cursor
from jetwire_server.engine.stored_form import TEXT
from jetwire_server.engine.straight import Put, read_by_key
from jetwire_server.keys import SegmentSpec
from jetwire_server.rpc.lanes import Turn
from jetwire_server.rpc.record_reader import BACKSLASH, reader_of
from jetwire_server.rpc.straight_calls import decode_get, decode_put
from jetwire_server.store.interface import Commit

if TYPE_CHECKING:
    from jetwire_server.rpc.peer import Peer

T = TypeVar("T")
HEAD: Final = 64  # bytes of a message in which its method's name is looked for
DEPTH: Final = 6  # of the deepest such message, a Batch's
GET, PUT = b'"GetRecord"', b'"PutRecords"'
UNUSUAL: Final = (ValueError, Mismatch, JetError, RecursionError, ArithmeticError)
"""What a message may be that is not just so: the general road finds it too, and says what is wrong."""


def call_in(peer: Peer, data: bytes, decode: Callable[[bytes], T]) -> tuple[T, bool]:
    """The call that a message is, and whether all of it is ASCII. ValueError if it is another one, no UTF-8, or beyond a limit."""
    if len(data) > peer.straight_bytes and jsonrpc.oversize(data, peer.limits) is not None:
        raise ValueError
    call = decode(data)
    ascii_only = data.isascii()
    if not ascii_only:
        data.decode()
    return call, ascii_only


def get_record(peer: Peer, data: bytes) -> bytes | None:
    """The answer to a GetRecord."""
    try:
        call, _ = call_in(peer, data, decode_get)
        params = call.params
        cursor = cursor_for(peer, ("GetRecord",), params.sesid, params.tableid)
        if cursor is None or cursor.at.maker is None:
            return None
        segments = cursor.at.maker.spec.segments
        if len(segments) == 1:  # a third of the time
            (segment,), (value,) = segments, params.key
            key = [key_value(segment, value)]
        else:
            key = [key_value(segment, value) for segment, value in zip(segments, params.key, strict=True)]
        found = read_by_key(cursor, key, peer.int64_strings)
    except UNUSUAL:
        return None
    if found is None:
        return None
    record, bookmark = found
    encoded = b2a_base64(bookmark, newline=False)
    return b"".join((b'{"jsonrpc":"2.0","id":%d,"result":{"record":' % call.id, record, b',"bookmark":"', encoded, b'"}}'))


def key_value(segment: SegmentSpec, value: Any) -> Any:
    """`from_wire`, which answers most texts as they are."""
    return value if type(value) is str and segment.coltyp in TEXT else from_wire(segment.coltyp, value, segment.cp)


def put_records(peer: Peer, data: bytes) -> bool:
    """Begins a PutRecords; its answer goes to `send` later."""
    try:
        call, ascii_only = call_in(peer, data, decode_put)
        params = call.params
        cursor = cursor_for(peer, ("PutRecords",), params.sesid, params.tableid)
        if cursor is None:
            return False
        records = reader_of(cursor.plan).read(params.records, plain=ascii_only and BACKSLASH not in data)
    except UNUSUAL:
        return False
    if records is None:
        return False
    writing = Writing(peer, call.id, cursor, records, params.mode, params.grbit)
    if not writing.begin():
        return False
    peer.began(writing)
    return True


def cursor_for(peer: Peer, methods: tuple[str, ...], sesid: int, tableid: int) -> Cursor | None:
    """The cursor that a call names, if this peer may use it now for these methods."""
    table, role = peer.table, peer.role
    session = peer.sessions.get(sesid)
    if session is None or not table or not peer.lanes.free((sesid,)):
        return None
    for method in methods:
        if role not in table[method].roles:
            return None
    cursor: Cursor | None = session.cursors.get(tableid)
    return cursor


class Writing(Put):
    """A PutRecords on its way to the log."""

    __slots__ = ("_call_id", "_peer", "turn")

    def __init__(self, peer: Peer, call_id: int, cursor: Cursor, records: list[dict[int, Any]], mode: str, grbit: int) -> None:
        super().__init__(cursor, records, mode, grbit)
        self._peer = peer
        self._call_id = call_id
        self.turn = Turn((cursor.session.id,), _nothing, counts=False)

    def told(self, answer: Commit | JetError) -> None:
        peer = self._peer
        if isinstance(answer, Commit):
            peer.ended(self, b'{"jsonrpc":"2.0","id":%d,"result":{"count":%d}}' % (self._call_id, len(self._records)))
        else:
            peer.ended(self, peer.refused(self._call_id, answer))


def _nothing() -> None:
    """A call that has begun already has nothing to do when its turn comes."""
