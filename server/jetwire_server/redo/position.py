"""Places in the log."""

from __future__ import annotations

from dataclasses import dataclass

SECTOR_BYTES = 4096


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """A place in the log, as ESE's LGPOS: generation, sector, byte."""

    generation: int
    sector: int
    byte: int

    @classmethod
    def at(cls, generation: int, offset: int) -> Position:
        """The place `offset` bytes into a generation's file."""
        return cls(generation, *divmod(offset, SECTOR_BYTES))

    @property
    def offset(self) -> int:
        return self.sector * SECTOR_BYTES + self.byte

    def __str__(self) -> str:
        return f"{self.generation:08X}:{self.sector:04X}:{self.byte:04X}"
