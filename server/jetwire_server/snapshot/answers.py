"""What the calls answer: the verdict of a freeze (whether it held, and what it cost), what is frozen, where a session stands."""

from __future__ import annotations

from typing import NamedTuple

from jetwire_server.snapshot.manifest import Manifest
from jetwire_server.snapshot.participant import InstanceInfo


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


class Frozen(NamedTuple):
    """What Freeze answers."""

    instances: list[InstanceInfo]
    manifest: Manifest
    deadline: float  # seconds since the epoch, for people
    remaining_ms: int


class Status(NamedTuple):
    """What SnapshotStatus answers."""

    state: str
    snap_id: int | None
    instances: list[InstanceInfo]
    frozen_ms: int
    remaining_ms: int
    waiting_commits: int
    holders: list[str]
    manifest: Manifest | None
