"""The verdict of a freeze: whether it held, and what it cost."""

from __future__ import annotations

from typing import NamedTuple


class Verdict(NamedTuple):
    """`held` is true only if every gate was closed from Freeze to Thaw and not one byte was written."""

    held: bool
    held_ms: int
    commits_waited: int
    bytes_written_while_frozen: int

    def to_wire(self) -> dict[str, bool | int]:
        return {
            "held": self.held,
            "heldMs": self.held_ms,
            "commitsWaited": self.commits_waited,
            "bytesWrittenWhileFrozen": self.bytes_written_while_frozen,
        }
