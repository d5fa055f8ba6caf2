"""Where a record went."""

from __future__ import annotations

import msgspec

from jetwire_server.redo.position import Position


class Placed(msgspec.Struct, gc=False):
    """A record's place. Each commit keeps its own until a checkpoint: the collector need not look at those."""

    generation: int
    offset: int
    end_generation: int
    end_offset: int

    @property
    def position(self) -> Position:
        return Position.at(self.generation, self.offset)

    @property
    def end(self) -> Position:
        """Where the next record begins."""
        return Position.at(self.end_generation, self.end_offset)
