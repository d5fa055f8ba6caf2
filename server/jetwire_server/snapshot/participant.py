"""What a snapshot asks of an instance, and nothing more; and what it is told."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from jetwire_server.files.gate import Gate


@dataclass(frozen=True, slots=True)
class FileEntry:
    """A file of the instance as it stands while frozen: its path in the instance, and its size in bytes."""

    path: str
    size: int


@dataclass(frozen=True, slots=True)
class LogRange:
    """The log that a restore needs: the generations, and the position up to which all is in the files."""

    low: int
    high: int
    position: str


@dataclass(frozen=True, slots=True)
class DatabaseDigest:
    """What a restored database must be found to hold: filled in the background from a snapshot pinned at the freeze."""

    name: str
    tables: int
    records: int
    digest: str


@dataclass(frozen=True, slots=True)
class InstanceInfo:
    """JET_INSTANCE_INFO, as Freeze and GetFreezeInfo return it."""

    handle: int
    name: str
    databases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Truncation:
    """What a log truncation did: the generations removed (none: low is 0), and how many were gone already."""

    low: int = 0
    high: int = 0
    missing: int = 0


@dataclass(frozen=True, slots=True)
class Stamp:
    """What a finished snapshot leaves in the instance, so that an incremental one knows what it continues."""

    snap_id: int
    kind: str
    time: float
    position: str
    databases: tuple[str, ...] = field(default_factory=tuple)
    incarnation: int = 0  # of the log: a restore begins a new one, and its files continue no copy made before


class Pinned(Protocol):
    """The state of an instance at the freeze, held until it is closed."""

    async def digests(self) -> list[DatabaseDigest]:
        """Counts and digests of every database, at any later time."""
        ...

    def close(self) -> None: ...


class Participant(Protocol):
    """An instance in a snapshot session."""

    @property
    def gate(self) -> Gate: ...
    def info(self) -> InstanceInfo: ...
    def obstacle(self) -> str | None:
        """Why no snapshot may be taken now (a streaming backup, recovery, termination), or None."""
        ...

    def commits_waiting(self) -> int:
        """How many commits wait for the thaw."""
        ...

    def circular_logging(self) -> bool: ...
    def last_full(self) -> Stamp | None:
        """The last full snapshot that ended well and still covers every attached database."""
        ...

    async def mark(self, snap_id: int, marker_id: str, time: float, *, logs_only: bool) -> None:
        """Writes the marker to every root of the instance, durably, before the gate closes (`marker.py`)."""
        ...

    async def seal(self) -> None:
        """With the gate closed: makes what is written so far durable. Writes nothing."""
        ...

    def files(self, *, logs_only: bool) -> list[FileEntry]: ...
    def log_range(self) -> LogRange: ...
    async def pin(self) -> Pinned: ...

    def freeze_began(self, snap_id: int) -> None:
        """From here to `freeze_over` the instance answers BackupInProgress to attach, detach and Term(Complete)."""
        ...

    def freeze_over(self, snap_id: int) -> None: ...
    async def let_out(self) -> None:
        """After the thaw: returns once the commits that waited for it are durable."""
        ...

    async def stamp(self, stamp: Stamp) -> None: ...
    async def truncate_log(self) -> Truncation: ...
