"""One published log record, as it waits for a checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from jetwire_server.redo.position import Position
from jetwire_server.store.interface import Tree
from jetwire_server.store.writeset import Entry


class Placed(Protocol):
    """Where a record is in the log: as it was reported, or as it was read."""

    @property
    def position(self) -> Position: ...


class Published(msgspec.Struct, eq=False, gc=False):
    """What a checkpoint must know of one published log record. Thousands wait for it: the collector need not look at them."""

    number: int
    place: Placed
    writes: dict[Tree, dict[bytes, Entry]]
    adopted: Sequence[Tree] = ()
    dropped: Sequence[Tree] = ()
    weight: int = 0
