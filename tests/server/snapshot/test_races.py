"""What went wrong once between an aborted or cancelled call and whoever came next: each mend has its test."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from jetwire_protocol.errors import Err, JetError
from jetwire_server.clock import ManualClock
from jetwire_server.files.gate import Gate
from jetwire_server.files.memory import MemoryFiles
from jetwire_server.files.whole import read_if_there
from jetwire_server.redo.names import LogNames
from jetwire_server.redo.position import Position
from jetwire_server.snapshot import marker
from jetwire_server.snapshot.instance import InstanceParticipant
from jetwire_server.snapshot.memo import FILE_NAME, FreezeMemo
from jetwire_server.snapshot.participant import Pinned
from tests.server.snapshot.test_service import CONTINUE, Bench, code


@pytest.fixture
def bench() -> Bench:
    return Bench()


class Held:
    """A step of an instance that waits until it is let go."""

    def __init__(self, bench: Bench, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reached, self.go = asyncio.Event(), asyncio.Event()
        self._left = 1  # the first caller alone

        async def wait(*_: object, **__: object) -> None:
            if self._left:
                self._left -= 1
                self.reached.set()
                await self.go.wait()

        monkeypatch.setattr(bench.instances[0], step, wait)


@pytest.mark.parametrize("step", ["mark", "seal"])
async def test_an_aborted_freeze_that_wakes_late_leaves_the_next_one_alone(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """It opened the next session's gates, or closed them once more under its own name, and removed its memo."""
    held = Held(bench, step, monkeypatch)
    late = asyncio.create_task(bench.service.freeze(bench.service.prepare()))
    await held.reached.wait()
    await bench.service.abort(bench.service.status().snap_id or 0)
    snap = bench.service.prepare()
    await bench.service.freeze(snap)
    held.go.set()
    with pytest.raises(JetError) as caught:
        await late
    assert code(caught) == Err.OSSnapshotInvalidSequence
    assert bench.frozen() == [True, True]
    assert bench.files.exists(FILE_NAME)
    assert (await bench.service.thaw(snap)).held


async def test_an_aborted_freeze_that_wakes_late_closes_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    held = Held(bench, "mark", monkeypatch)
    late = asyncio.create_task(bench.service.freeze(bench.service.prepare()))
    await held.reached.wait()
    await bench.service.abort(bench.service.status().snap_id or 0)
    held.go.set()
    with pytest.raises(JetError):
        await late
    assert bench.frozen() == [False, False]
    assert not bench.files.exists(FILE_NAME)


async def test_a_lease_that_ends_before_the_freeze_is_complete_is_a_time_out(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """It answered as if it were frozen; the thaw alone told."""

    async def slow() -> None:
        bench.clock.advance(1)

    monkeypatch.setattr(bench.instances[1], "seal", slow)
    snap = bench.service.prepare()
    with pytest.raises(JetError) as caught:
        await bench.service.freeze(snap, lease_ms=500)
    assert code(caught) == Err.OSSnapshotTimeOut
    assert bench.frozen() == [False, False]


async def test_a_caller_who_hangs_up_in_the_middle_of_a_thaw_leaves_no_session(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The session stayed thawed for ever, and blocked every other."""
    held = Held(bench, "let_out", monkeypatch)
    bench.instances[0].waiting = 1
    snap = bench.service.prepare()
    await bench.service.freeze(snap)
    thaw = asyncio.create_task(bench.service.thaw(snap))
    await held.reached.wait()
    thaw.cancel()
    held.go.set()
    with pytest.raises(asyncio.CancelledError):
        await thaw
    for _ in range(200):
        if bench.service.status().state == "none":
            break
        await asyncio.sleep(0.001)
    assert bench.service.status().state == "none"
    assert not bench.files.exists(FILE_NAME)
    bench.service.prepare()


async def test_the_end_of_a_session_that_timed_out_long_ago_takes_nothing_from_the_one_in_force(bench: Bench) -> None:
    """It stopped the watch of the session in force, whose time-out nobody noticed then."""
    old = bench.service.prepare()
    await bench.service.freeze(old, lease_ms=100)
    bench.clock.advance(1)
    snap = bench.service.prepare(CONTINUE)
    await bench.service.freeze(snap)
    watch = bench.service.sessions._watch
    with pytest.raises(JetError) as caught:
        await bench.service.thaw(old)
    assert code(caught) == Err.OSSnapshotTimeOut
    assert bench.frozen() == [True, True]
    assert bench.service.sessions._watch is watch
    await asyncio.sleep(0)
    assert watch is not None
    assert not watch.cancelled()
    assert not watch.done()
    assert (await bench.service.thaw(snap)).held


class FailingRemove(MemoryFiles):
    def remove(self, path: str) -> None:
        raise OSError(5, "no")


@pytest.mark.parametrize("call", ["abort", "thaw", "failed freeze"])
async def test_a_memo_that_cannot_be_removed_leaves_no_session_half_way(call: str) -> None:
    """Whoever called got the error, and the session stayed where it was, frozen in name."""
    bench = Bench(files=FailingRemove())
    snap = bench.service.prepare()
    if call == "failed freeze":
        bench.instances[1].seal_error = JetError(Err.DiskIO, "by chance")
        with pytest.raises(OSError, match="no"):
            await bench.service.freeze(snap)
        assert bench.service.status().state == "prepared"  # it was left freezing
        with pytest.raises(JetError):
            await bench.service.thaw(snap)
        with pytest.raises(OSError, match="no"):
            await bench.service.abort(snap)
    else:
        await bench.service.freeze(snap)
        with pytest.raises(OSError, match="no"):
            await getattr(bench.service, call)(snap)
    assert bench.frozen() == [False, False]
    if call != "thaw":
        assert bench.service.status().state == "none"


# -- the memo -----------------------------------------------------------------------------------------------------------
async def test_a_late_clear_does_not_take_the_next_session_s_memo() -> None:
    files = MemoryFiles()
    memo = FreezeMemo(files)
    await memo.remember(1, 0, 500)
    await memo.remember(2, 0, 500)
    await memo.clear(1)
    assert files.exists(FILE_NAME)
    await memo.clear(2)
    assert not files.exists(FILE_NAME)


class SlowReplace(MemoryFiles):
    def __init__(self) -> None:
        super().__init__()
        self.reached, self.go, self.replaced = threading.Event(), threading.Event(), threading.Event()

    def replace(self, path: str, data: bytes) -> None:
        self.reached.set()
        assert self.go.wait(10)
        super().replace(path, data)
        self.replaced.set()


async def test_a_freeze_that_is_cancelled_while_its_memo_is_written_leaves_none() -> None:
    """The clear came before the thread had written: after a restart a freeze was said to be lost that never was."""
    files = SlowReplace()
    memo = FreezeMemo(files)
    remembering = asyncio.create_task(memo.remember(1, 0, 500))
    await asyncio.to_thread(files.reached.wait, 10)
    remembering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await remembering
    clearing = asyncio.create_task(memo.clear(1))
    await asyncio.sleep(0.05)
    files.go.set()
    await clearing
    assert await asyncio.to_thread(files.replaced.wait, 10)
    assert not files.exists(FILE_NAME)


# -- the marker ---------------------------------------------------------------------------------------------------------
class CountingFiles(MemoryFiles):
    def __init__(self) -> None:
        super().__init__()
        self.replaced = 0

    def replace(self, path: str, data: bytes) -> None:
        self.replaced += 1
        super().replace(path, data)


def participant(files: MemoryFiles) -> InstanceParticipant:
    log: Any = SimpleNamespace(end=Position(1, 2, 3), incarnation=7, names=LogNames())
    store: Any = SimpleNamespace(gate=Gate(ManualClock()), files={})
    return InstanceParticipant(SimpleNamespace(handle=1, name="i"), store, log, files)  # type: ignore[arg-type]


async def test_an_aborted_freeze_s_marker_does_not_come_after_the_next_one_s() -> None:
    """Its thread goes on when its caller is gone, and wrote the old marker over the new one, or half of each."""
    files = CountingFiles()
    one = participant(files)
    with one._marking:  # the first thread is on its way
        first = asyncio.create_task(one.mark(1, "old", 1.0, logs_only=False))
        await asyncio.sleep(0.01)
        first.cancel()
        second = asyncio.create_task(one.mark(2, "new", 2.0, logs_only=False))
        await asyncio.sleep(0.01)
    await asyncio.gather(first, second, return_exceptions=True)
    sealed = marker.read(read_if_there(files, marker.FILE_NAME), "i").sealed
    assert sealed is not None
    assert sealed.marker_id == "new"
    assert files.replaced == 1


async def test_a_freeze_that_fails_at_its_last_step_keeps_no_state_pinned(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first instance's snapshot stayed open for ever, and with it every version that anybody wrote since."""

    async def fail() -> None:
        raise JetError(Err.OutOfMemory)

    monkeypatch.setattr(bench.instances[1], "pin", fail)
    with pytest.raises(JetError):
        await bench.service.freeze(bench.service.prepare())
    assert [one.closed for one in bench.instances[0].pinned] == [True]
    assert bench.frozen() == [False, False]


async def test_an_aborted_freeze_that_wakes_late_keeps_no_state_pinned(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    pin = bench.instances[1].pin
    reached, go = asyncio.Event(), asyncio.Event()

    async def slowly() -> Pinned:
        pinned = await pin()
        reached.set()
        await go.wait()
        return pinned

    monkeypatch.setattr(bench.instances[1], "pin", slowly)
    snap = bench.service.prepare()
    late = asyncio.create_task(bench.service.freeze(snap))
    await reached.wait()
    await bench.service.abort(snap)
    go.set()
    with pytest.raises(JetError) as caught:
        await late
    assert code(caught) == Err.OSSnapshotInvalidSequence
    assert [one.closed for instance in bench.instances for one in instance.pinned] == [True, True]


async def test_a_freeze_that_held_lets_go_of_its_state_when_the_digests_are_there(bench: Bench) -> None:
    snap = bench.service.prepare(CONTINUE)
    await bench.service.freeze(snap)
    for _ in range(5):
        await asyncio.sleep(0)
    manifest = bench.service.status().manifest
    assert manifest is not None
    assert [database.digest for row in manifest.instances for database in row.databases] == ["d1", "d1"]
    assert [one.closed for instance in bench.instances for one in instance.pinned] == [True, True]
    await bench.service.thaw(snap)
