"""What stands in a page file besides rows, and what one chunk changes.

The meta tree, number 0, holds the head and, per tree, a statistic and notes. New databases and old ones share this
layout, so it changes only at the end of a structure, or with `FORMAT`.
"""

from __future__ import annotations

import struct

import msgspec
from crc32c import crc32c

from jetwire_protocol.errors import Err, JetError
from jetwire_server.store.embedded.layout import CRC_BYTES, NUMBER_BYTES, tree_prefix

FORMAT = 1
META = tree_prefix(0)
HEAD = META + b"head"
STATISTIC, OPEN, CONDEMNED = META + b"s", META + b"o", META + b"f"
"""What the meta tree holds per tree: count and digest; being built and not named yet; dropped and not freed yet."""

CREATING, ATTACHED, DETACHED, UNFINISHED = range(4)
"""Made but perhaps not logged yet; needs its log; whole without a log, so that any instance may attach it; needs its log
too, but is worth nothing until it is detached."""

DIGEST_MASK = (1 << 64) - 1


class Head(msgspec.Struct, array_like=True):
    """What a page file knows about itself. New fields go to the end."""

    format: int
    signature: bytes
    log_signature: bytes
    incarnation: int
    position: tuple[int, int, int]  # the log up to here is in these pages
    number: int  # and so is every commit up to this number
    next_tree: int
    state: int  # CREATING, ATTACHED, DETACHED or UNFINISHED
    created: float = 0.0
    ahead: int = 0  # a round that brings more than `number` has begun: some rows may be of any commit up to this one


class Statistic(msgspec.Struct, array_like=True):
    """How many rows a tree has, and the sum of their checksums: rows that vanished are missed."""

    count: int = 0
    digest: int = 0


class CheckpointFile(msgspec.Struct, array_like=True):
    """What the checkpoint file says beside the position: (slot, path, signature, read-only) of each database, the number of
    the last commit before recovery's first record, and the slots of what is borrowed."""

    attached: list[tuple[int, str, bytes, bool]] = []
    number: int = 0
    borrowed: list[int] = []


class Group:
    """The changes of one tree in one chunk: rows to put, ascending, and whole keys to delete. `digest` sums the rows' checksums.

    Keys and values lie apart, because a pair of each would be an object that the collector looks at.
    """

    __slots__ = ("deletes", "digest", "keys", "number", "prefix", "values")

    def __init__(self, number: int) -> None:
        self.number = number
        self.prefix = tree_prefix(number)
        self.keys: list[bytes] = []
        self.values: list[bytes] = []
        self.deletes: list[bytes] = []
        self.digest = 0

    def add(self, keys: list[bytes], bodies: list[bytes]) -> None:
        """Seals rows: a body is what stands before the checksum, number and value."""
        prefix = self.prefix
        fulls = [prefix + key for key in keys]
        checksums = [*map(crc32c, bodies, map(crc32c, fulls))]
        packed = struct.pack(f"<{len(checksums)}I", *checksums)
        self.keys += fulls
        self.values += [body + end for body, (end,) in zip(bodies, struct.iter_unpack(f"{CRC_BYTES}s", packed), strict=True)]
        self.digest += sum(checksums)


def chunk_group(number: int, commit: int, rows: dict[bytes, bytes | None]) -> Group:
    """A chunk of an unpublished tree, sealed with the number of its log record."""
    group = Group(number)
    number_bytes = commit.to_bytes(NUMBER_BYTES, "little")
    ordered = sorted(rows.items())
    group.add([key for key, value in ordered if value is not None], [number_bytes + value for _, value in ordered if value is not None])
    group.deletes = [group.prefix + key for key, value in ordered if value is None]
    return group


encode = msgspec.msgpack.Encoder().encode
_decode_head = msgspec.msgpack.Decoder(Head).decode
decode_statistic = msgspec.msgpack.Decoder(Statistic).decode


def head_from(path: str, encoded: bytes) -> Head:
    raw = msgspec.msgpack.decode(encoded)
    if raw[0] > FORMAT:
        raise JetError(
            Err.InvalidDatabaseVersion,
            f"{path}: format {raw[0]} is newer than this server's {FORMAT}; use the newer server",
            path=path,
        )
    return _decode_head(encoded)
