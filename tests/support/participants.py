"""An instance reduced to what a snapshot asks of it, on a real gate."""

from __future__ import annotations

from jetwire_server.clock import Clock
from jetwire_server.files.gate import Gate
from jetwire_server.snapshot.participant import DatabaseDigest, FileEntry, InstanceInfo, LogRange, Pinned, Stamp, Truncation


class FakePinned:
    def __init__(self) -> None:
        self.closed = False

    async def digests(self) -> list[DatabaseDigest]:
        assert not self.closed
        return [DatabaseDigest("a.edb", 3, 42, "d1")]

    def close(self) -> None:
        self.closed = True


class FakeInstance:
    """Counts what is asked of it; its knobs are plain attributes."""

    def __init__(self, handle: int, clock: Clock) -> None:
        self.handle = handle
        self.gate = Gate(clock)
        self.in_the_way: str | None = None
        self.circular = False
        self.full: Stamp | None = None
        self.waiting = 0
        self.log: list[str] = []
        self.truncation = Truncation(1, 4, 0)
        self.seal_error: BaseException | None = None
        self.pinned: list[FakePinned] = []

    def info(self) -> InstanceInfo:
        return InstanceInfo(self.handle, f"i{self.handle}", ("a.edb",))

    def obstacle(self) -> str | None:
        return self.in_the_way

    def circular_logging(self) -> bool:
        return self.circular

    def last_full(self) -> Stamp | None:
        return self.full

    def commits_waiting(self) -> int:
        return self.waiting

    async def mark(self, snap_id: int, marker_id: str, time: float, *, logs_only: bool) -> None:
        assert not self.gate.look(), "marked after the gate closed"
        self.log.append("mark")

    async def seal(self) -> None:
        assert self.gate.look(), "sealed while writers may write"
        self.log.append("seal")
        if self.seal_error:
            raise self.seal_error

    def files(self, *, logs_only: bool) -> list[FileEntry]:
        return [FileEntry("edb.log", 10)] + ([] if logs_only else [FileEntry("a.edb", 20)])

    def log_range(self) -> LogRange:
        return LogRange(1, 5, "5:1:0")

    async def pin(self) -> Pinned:
        assert self.gate.look(), "pinned after the freeze"
        self.pinned.append(FakePinned())
        return self.pinned[-1]

    def freeze_began(self, snap_id: int) -> None:
        self.log.append("began")

    def freeze_over(self, snap_id: int) -> None:
        self.log.append("over")

    async def let_out(self) -> None:
        assert not self.gate.look(), "the commits that wait cannot get out"
        self.log.append("let out")

    async def stamp(self, stamp: Stamp) -> None:
        self.full = stamp if stamp.kind == "full" else self.full
        self.log.append(f"stamp {stamp.kind}")

    async def truncate_log(self) -> Truncation:
        self.log.append("truncate")
        return self.truncation
