"""Group commit: who is told what, when, in what order, and what happens when the disk fails."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from itertools import pairwise

import pytest

from jetwire_protocol.errors import Err, JetError
from jetwire_server import failpoints
from jetwire_server.clock import SystemClock
from jetwire_server.files.gate import Gate
from jetwire_server.files.memory import MemoryFile, MemoryFiles
from jetwire_server.limits import LOG_HERE_BYTES_MAX, LOG_LAZY_SYNC_SECONDS_MAX
from jetwire_server.redo.placed import Placed
from jetwire_server.redo.records import Kind
from tests.server.redo.logs import NAMES, payloads, started


class Counted(MemoryFiles):
    """Counts what is done to the current log file."""

    def __init__(self) -> None:
        self.done: Counter[str] = Counter()
        super().__init__(step=self._note)

    def _note(self, what: str, path: str) -> None:
        self.done[what] += 1


async def test_many_that_wait_share_one_sync() -> None:
    files = Counted()
    gate = Gate(SystemClock())
    log = started(files, gate=gate)
    with gate.permit("test"):  # not exclusive: only to show that permits are shared
        await log.write(Kind.COMMIT, b"warm")
    await gate.freeze(gate._clock.boot() + 10, drain_until=gate._clock.boot() + 1)
    files.done.clear()
    waiting = [asyncio.ensure_future(log.write(Kind.COMMIT, bytes([n]))) for n in range(100)]
    await asyncio.sleep(0.05)
    assert not files.done, "the gate is closed: not a byte, not a sync"
    assert not any(one.done() for one in waiting)
    gate.thaw()
    await asyncio.gather(*waiting)
    assert files.done["sync"] <= 2
    assert files.done["write"] <= 2
    await log.close()
    assert payloads(files) == [b"warm", *(bytes([n]) for n in range(100))]


async def test_reports_come_in_log_order_durable_and_lazy_mixed() -> None:
    log = started(MemoryFiles())
    told: list[int] = []
    places: list[Placed] = []

    def reporter(number: int) -> Callable[[Placed | JetError], None]:
        def report(placed: Placed | JetError) -> None:
            assert isinstance(placed, Placed)
            told.append(number)
            places.append(placed)

        return report

    for number in range(500):
        log.append(Kind.COMMIT, b"x" * number, number % 7 == 0, reporter(number))
        if number % 50 == 0:
            await asyncio.sleep(0.001)
    end = await log.flush()
    assert told == list(range(500))
    assert all(a.end == b.position for a, b in pairwise(places))
    assert end == places[-1].end == log.end
    await log.close()


async def test_a_lazy_commit_is_told_before_its_sync_and_synced_soon() -> None:
    files = Counted()
    log = started(files)
    await log.flush()
    files.done.clear()
    await log.write(Kind.COMMIT, b"lazy", durable=False)
    assert not files.done["sync"]
    await asyncio.sleep(LOG_LAZY_SYNC_SECONDS_MAX * 3)
    assert files.done["sync"] == 1
    await log.close()


async def test_flush_makes_lazy_commits_durable() -> None:
    files = MemoryFiles()
    log = started(files)
    for number in range(10):
        await log.write(Kind.COMMIT, bytes([number]), durable=False)
    await log.flush()
    instant = files.instant()
    durable = MemoryFiles({path: instant.durable[number] for path, number in instant.names.items()})
    assert payloads(durable) == [bytes([n]) for n in range(10)]
    await log.close()


async def test_settle_makes_durable_and_writes_nothing() -> None:
    files = Counted()
    gate = Gate(SystemClock())
    log = started(files, gate=gate)
    await log.write(Kind.COMMIT, b"lazy", durable=False)
    await gate.freeze(gate._clock.boot() + 10, drain_until=gate._clock.boot() + 1)
    files.done.clear()
    await log.settle()
    assert files.done == {"sync": 1}
    instant = files.instant()
    assert payloads(MemoryFiles({path: instant.durable[n] for path, n in instant.names.items()})) == [b"lazy"]
    gate.thaw()
    await log.close()


@pytest.mark.parametrize("where", ["redo.before_write", "redo.after_write", "redo.before_sync", "redo.after_sync", "files.before_sync"])
@pytest.mark.parametrize("what", [OSError(5, "Input/output error"), MemoryError()], ids=["disk", "memory"])
@pytest.mark.parametrize("size", [1, LOG_HERE_BYTES_MAX + 1], ids=["by the loop", "by the writer"])
async def test_after_a_failure_nothing_is_acknowledged_ever(where: str, what: Exception, size: int) -> None:
    gate = Gate(SystemClock())
    log = started(MemoryFiles(), gate=gate)
    await log.write(Kind.COMMIT, b"good")

    def fail() -> None:
        raise what

    failpoints.arm(where, fail)
    try:
        answers = await asyncio.wait_for(
            asyncio.gather(*(log.write(Kind.COMMIT, bytes(size)) for _ in range(20)), return_exceptions=True), 30
        )
    finally:
        failpoints.disarm()
    codes = [a.code for a in answers if isinstance(a, JetError)]
    assert len(codes) == 20, "one of them was told that it is durable"
    assert codes[0] == Err.LogWriteFail
    assert set(codes) <= {Err.LogWriteFail, Err.InstanceUnavailable}
    assert gate.latched
    for again in (log.write(Kind.COMMIT, b"y"), log.flush(), log.roll(), log.settle()):
        with pytest.raises(JetError) as caught:
            await again
        assert caught.value.code == Err.InstanceUnavailable
    with pytest.raises(JetError):
        await log.close()


async def test_a_full_disk_is_met_at_the_roll_and_named() -> None:
    class Full(MemoryFiles):
        full = False

        def open(self, path: str, *, create: bool = False, read_only: bool = False) -> MemoryFile:
            if self.full and create:
                raise JetError(Err.DiskFull, path)
            return super().open(path, create=create, read_only=read_only)

    files = Full()
    log = started(files)
    files.full = True
    await log.write(Kind.COMMIT, b"x" * 40_000)
    with pytest.raises(JetError) as caught:
        await log.write(Kind.COMMIT, b"y" * 40_000)
    assert caught.value.code == Err.LogDiskFull
    with pytest.raises(JetError):
        await log.close()
    files.full = False
    assert payloads(files)[0] == b"x" * 40_000


async def test_an_end_while_frozen_writes_nothing() -> None:
    files = Counted()
    gate = Gate(SystemClock())
    log = started(files, gate=gate)
    await log.write(Kind.COMMIT, b"one")
    await gate.freeze(gate._clock.boot() + 10, drain_until=gate._clock.boot() + 1)
    waiting = asyncio.ensure_future(log.write(Kind.COMMIT, b"two"))
    await asyncio.sleep(0.02)
    files.done.clear()
    gate.latch("ended while frozen")
    with pytest.raises(JetError) as caught:
        await waiting
    assert caught.value.code == Err.InstanceUnavailable
    with pytest.raises(JetError):
        await log.close()
    assert not files.done


async def test_an_idle_log_is_sealed_so_that_its_last_record_is_known_to_be_durable() -> None:
    files = MemoryFiles()
    log = started(files)
    placed = await log.write(Kind.COMMIT, b"last")
    await log.close()
    file = files.open(NAMES.current)
    at = placed.offset + 25
    file.write(at - 1, b"?")
    with pytest.raises(JetError) as caught:
        payloads(files)
    assert caught.value.code == Err.LogFileCorrupt


async def test_a_cancelled_wait_harms_nobody() -> None:
    log = started(MemoryFiles())
    waiting = [asyncio.ensure_future(log.write(Kind.COMMIT, bytes([n]))) for n in range(20)]
    await asyncio.sleep(0)
    for one in waiting[::2]:
        one.cancel()
    answers = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(isinstance(a, Placed) for a in answers[1::2])
    await log.close()
