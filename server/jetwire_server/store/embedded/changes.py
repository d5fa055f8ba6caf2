"""What a log record of the store says: one commit, a chunk of an unnamed tree, or a database coming or going.

The number, time and incarnation are in the head that the log puts before it.
MessagePack by a compiled codec: a write set goes to the log as it is, without a loop in Python.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from jetwire_server.redo.records import Kind
from jetwire_server.store.writeset import Deltas, Entry

if TYPE_CHECKING:
    from jetwire_server.store.interface import Tree
else:
    Tree = int  # what it is, for msgspec

ABOUT_DATABASES = (Kind.ATTACH_DATABASE, Kind.DETACH_DATABASE)
"""The kinds of records that say which databases are attached."""

Added = tuple[tuple[int, int, int], ...]
Rows = Mapping[bytes, bytes | Added | None]


class CommitRecord(msgspec.Struct, tag=1, array_like=True):
    """All changes of one commit, of all databases."""

    writes: dict[Tree, dict[bytes, bytes | Added | None]]
    created: list[Tree] = []
    adopted: list[Tree] = []
    dropped: list[Tree] = []


class ChunkRecord(msgspec.Struct, tag=2, array_like=True):
    """Rows of a tree that no committed row names yet; None deletes."""

    tree: Tree
    rows: dict[bytes, bytes | None]


class AttachRecord(msgspec.Struct, tag=3, array_like=True):
    """A database was created or attached. `base`: the newest commit its pages held then. `borrowed`: for one call; a start lets go."""

    slot: int
    path: str
    signature: bytes
    base: int = 0
    read_only: bool = False
    borrowed: bool = False


class DetachRecord(msgspec.Struct, tag=4, array_like=True):
    """A database was checkpointed whole and let go, or is to be removed."""

    slot: int
    remove: bool = False


Record = CommitRecord | ChunkRecord | AttachRecord | DetachRecord

encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder(Record).decode


def entries(rows: Rows) -> dict[bytes, Entry]:
    """Decoded rows as a write set has them."""
    return {key: Deltas(value) if isinstance(value, tuple) else value for key, value in rows.items()}
