"""What a log record looks like.

    tag 4 | crc 4 | length 4 | previous 4 | unsynced 4 | kind 1 | payload

`tag` is the CRC of the header of the generation the record begins in, so bytes of another life of the same file are
never taken for records. `previous` is the crc of the record before: the records form a chain, and `crc` is taken over
everything after itself, seeded with `previous`. `unsynced` says how many bytes before this record were not yet known
to be durable when it was written: a good record beyond a bad one proves the bad one had been durable, unless its own
`unsynced` reaches back to it. That is how the reader tells a torn tail from a broken middle.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Final, NamedTuple

from crc32c import crc32c

from jetwire_server.redo.position import Position

HEADER = struct.Struct("<IIIIIB")
HEADER_BYTES = HEADER.size
TAG = struct.Struct("<I")
CRC_FROM = 8  # the crc covers everything from here on
UNSYNCED_MAX = 0xFFFF_FFFF
PIECE_RECORDS: Final = 1_000
_OUTER = struct.Struct("<II")
_INNER = struct.Struct("<IIIB")


class Kind(IntEnum):
    """What a record is about. Only `SEAL` means anything to this room; the payloads belong to the store."""

    SEAL = 1  # empty, written after a sync: everything before it was durable
    COMMIT = 2
    CREATE_DATABASE = 3
    ATTACH_DATABASE = 4
    DETACH_DATABASE = 5
    TREE_CHUNK = 6  # rows of a tree that no commit names yet
    TREE_FREE = 7
    CHECKPOINT = 8
    CLEAN_SHUTDOWN = 9
    MARKER = 10  # of a snapshot or a backup


class Record(NamedTuple):
    """A record as it was read; it may end in a later generation than it begins in."""

    generation: int
    offset: int
    kind: int
    payload: bytes
    end_generation: int
    end_offset: int

    @property
    def position(self) -> Position:
        return Position.at(self.generation, self.offset)

    @property
    def end(self) -> Position:
        """Where the next record begins: recovery may go on from here once this one is in the pages."""
        return Position.at(self.end_generation, self.end_offset)


class CommitHeader(NamedTuple):
    """What every commit record begins with; the changes follow."""

    number: int
    commit_id: int
    time: float
    incarnation: int


_COMMIT = struct.Struct("<QQdQ")
COMMIT_HEADER_BYTES = _COMMIT.size


def encode_commit(number: int, commit_id: int, time: float, incarnation: int, changes: bytes) -> bytes:
    return _COMMIT.pack(number, commit_id, time, incarnation) + changes


def decode_commit(payload: bytes) -> CommitHeader:
    """The head of a commit record; the changes are `payload[COMMIT_HEADER_BYTES:]`."""
    return CommitHeader(*_COMMIT.unpack_from(payload))


def commit_number(payload: bytes) -> int:
    """The first thing in the head of a commit record."""
    return int.from_bytes(payload[:8], "little")


def frame(tag: int, previous: int, unsynced: int, kind: int, payload: bytes) -> tuple[bytes, bytes, int]:
    """A record in two pieces, and its crc."""
    covered = _INNER.pack(len(payload), previous, unsynced, kind) + payload  # a copy costs less than a second call for the crc
    crc = crc32c(covered, previous)
    return _OUTER.pack(tag, crc), covered, crc


def parse(data: bytes, offset: int, end: int, generation: int, tag: int, previous: int) -> tuple[list[Record], int, int]:
    """The good records of one generation's bytes from `offset`, `PIECE_RECORDS` at most, where the next begins, and the chain.

    Fewer, and where the next one begins is none that is good. In pieces, because compiled this does not hand the interpreter over,
    and a backup reads on a thread while the server goes on: a whole file took 50 ms.
    """
    records: list[Record] = []
    found, make, unpack, view = records.append, tuple.__new__, HEADER.unpack_from, memoryview(data)
    last = end - HEADER_BYTES
    for _ in range(PIECE_RECORDS):
        if offset > last:
            break
        its_tag, crc, length, before, _, kind = unpack(data, offset)
        body = offset + HEADER_BYTES
        stop = body + length
        if its_tag != tag or before != previous or stop > end or crc32c(view[offset + CRC_FROM : stop], before) != crc:
            break
        found(make(Record, (generation, offset, kind, data[body:stop], generation, stop)))
        previous = crc
        offset = stop
    return records, offset, previous


def was_durable(data: bytes, bad: int, tag: int) -> int | None:
    """Looks beyond a bad place for a good record that proves it had been durable; answers where, or None."""
    needle = TAG.pack(tag)
    at = data.find(needle, bad + 1)
    while at >= 0:
        if at + HEADER_BYTES <= len(data):
            _, crc, length, before, unsynced, _ = HEADER.unpack_from(data, at)
            stop = at + HEADER_BYTES + length
            proves = unsynced != UNSYNCED_MAX and at - unsynced > bad
            if proves and stop <= len(data) and crc32c(memoryview(data)[at + CRC_FROM : stop], before) == crc:
                return at
        at = data.find(needle, at + 1)
    return None
