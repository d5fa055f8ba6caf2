"""The gate in a clock the test moves: who may write, who waits, what a freeze answers, and that it ends by arithmetic."""

import asyncio
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from jetwire_protocol.errors import Err, JetError
from jetwire_server.clock import ManualClock
from jetwire_server.files.gate import Gate, Verdict
from jetwire_server.files.local import LocalFiles


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def gate(clock: ManualClock) -> Gate:
    return Gate(clock)


async def freeze(gate: Gate, clock: ManualClock, seconds: float = 10.0, drain: float = 1.0) -> None:
    await gate.freeze(clock.boot() + seconds, drain_until=clock.boot() + drain)


async def until(condition: Callable[[], object], seconds: float = 5.0) -> None:
    for _ in range(int(seconds / 0.005)):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it did not happen")


def more_than(rounds: list[int], before: int) -> bool:
    return sum(rounds) > before


def in_thread(gate: Gate, done: list[str]) -> threading.Thread:
    def work() -> None:
        with gate.permit("thread"):
            done.append("thread")

    thread = threading.Thread(target=work)
    thread.start()
    return thread


async def on_loop(gate: Gate, done: list[str]) -> None:
    async with gate.permit("loop"):
        done.append("loop")


async def test_an_open_gate_lets_writers_in_and_names_them(gate: Gate) -> None:
    with gate.permit("log"):
        async with gate.permit("backup"):
            assert gate.holders() == ["backup", "log"]
    assert gate.holders() == []


async def test_while_frozen_threads_and_loop_wait_and_the_thaw_lets_them_in(gate: Gate, clock: ManualClock) -> None:
    await freeze(gate, clock)
    done: list[str] = []
    thread, task = in_thread(gate, done), asyncio.create_task(on_loop(gate, done))
    await asyncio.sleep(0.15)  # longer than the waiters' own look at the clock
    assert done == []
    with gate.try_permit("checkpoint") as allowed:
        assert not allowed
    clock.advance(2.5)
    verdict = gate.thaw()
    await task
    await asyncio.to_thread(thread.join)
    assert sorted(done) == ["loop", "thread"]
    assert verdict == Verdict(held=True, held_ms=2500, permits_waited=2)


async def test_a_passed_deadline_opens_the_gate_though_nobody_thaws(gate: Gate, clock: ManualClock) -> None:
    await freeze(gate, clock, seconds=3)
    done: list[str] = []
    thread, task = in_thread(gate, done), asyncio.create_task(on_loop(gate, done))
    clock.advance(2.9)
    await asyncio.sleep(0.15)
    assert done == []
    clock.advance(0.2)
    await asyncio.wait_for(task, 5)
    await asyncio.to_thread(thread.join, 5)
    assert sorted(done) == ["loop", "thread"]
    assert not gate.look()
    assert gate.thaw() == Verdict(held=False, timed_out=True, held_ms=3000, permits_waited=2)
    assert gate.thaw() == Verdict(held=False), "it answers the time-out once"


async def test_the_thaw_makes_the_same_test_when_nobody_looked_before(gate: Gate, clock: ManualClock) -> None:
    await freeze(gate, clock, seconds=3)
    clock.advance(3)
    assert gate.thaw().timed_out


async def test_a_thread_passes_after_the_deadline_while_the_loop_is_blocked(gate: Gate, clock: ManualClock) -> None:
    await freeze(gate, clock, seconds=3)
    done: list[str] = []
    thread = in_thread(gate, done)
    await until(lambda: gate._permits_waited == 1)
    clock.advance(3)
    thread.join(5)  # the loop is blocked by this very call
    assert done == ["thread"]


async def test_a_renewed_freeze_holds_to_its_new_deadline(gate: Gate, clock: ManualClock) -> None:
    await freeze(gate, clock, seconds=3)
    clock.advance(2)
    assert gate.renew(clock.boot() + 5)
    clock.advance(4)
    assert gate.look()
    clock.advance(0.9)
    assert gate.look()
    clock.advance(0.1)
    assert not gate.renew(clock.boot() + 5), "too late"
    assert gate.thaw().timed_out


async def test_a_freeze_waits_for_holders_and_lets_no_new_one_in_meanwhile(gate: Gate, clock: ManualClock) -> None:
    with gate.permit("log"):
        freezing = asyncio.create_task(freeze(gate, clock))
        await until(lambda: gate.closing)
        with gate.try_permit("checkpoint") as allowed:
            assert not allowed
        assert not gate.look()
    await asyncio.wait_for(freezing, 5)
    assert gate.look()


async def test_a_freeze_that_cannot_drain_names_the_holders_and_leaves_the_gate_open(gate: Gate, clock: ManualClock) -> None:
    with gate.permit("log"), gate.permit("checkpoint"):
        freezing = asyncio.create_task(freeze(gate, clock, drain=1))
        await until(lambda: gate.closing)
        clock.advance(1)
        with pytest.raises(JetError) as caught:
            await freezing
        assert caught.value.code == Err.OSSnapshotNotAllowed
        assert caught.value.data["holders"] == ["checkpoint", "log"]
        with gate.try_permit("other") as allowed:
            assert allowed


async def test_a_holder_that_leaves_too_late_does_not_make_the_freeze(gate: Gate, clock: ManualClock) -> None:
    permit = gate.permit("log")
    with permit:
        freezing = asyncio.create_task(freeze(gate, clock, drain=1))
        await until(lambda: gate.closing)
        clock.advance(1)
    with pytest.raises(JetError) as caught:
        await freezing
    assert caught.value.data["holders"] == ["log"]
    assert not gate.look()


async def test_a_late_riser_does_not_take_the_next_freeze_for_its_own(gate: Gate, clock: ManualClock) -> None:
    with gate.permit("log"):
        first = asyncio.create_task(freeze(gate, clock, drain=1))
        await until(lambda: gate.closing)
        clock.advance(1)
        second = asyncio.create_task(freeze(gate, clock))
        await asyncio.sleep(0)
    with pytest.raises(JetError):
        await first
    await second
    assert gate.look()


@pytest.mark.parametrize("drained", [False, True])
async def test_a_cancelled_freeze_leaves_the_gate_open(gate: Gate, clock: ManualClock, drained: bool) -> None:
    permit = gate.permit("log")
    permit.__enter__()
    freezing = asyncio.create_task(freeze(gate, clock))
    await until(lambda: gate.closing)
    if drained:
        permit.__exit__()
    freezing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await freezing
    assert not gate.closing


async def test_a_cancelled_waiter_holds_nothing(gate: Gate, clock: ManualClock) -> None:
    await freeze(gate, clock)
    task = asyncio.create_task(on_loop(gate, []))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    gate.thaw()
    assert gate.holders() == []
    assert not gate._sleepers


async def test_a_second_freeze_is_refused_and_a_thaw_without_one_holds_nothing(gate: Gate, clock: ManualClock) -> None:
    assert gate.thaw() == Verdict(held=False)
    await freeze(gate, clock)
    with pytest.raises(JetError) as caught:
        await freeze(gate, clock)
    assert caught.value.code == Err.OSSnapshotInvalidSequence
    assert gate.thaw().held


async def test_an_unanswered_time_out_is_not_mistaken_for_the_end_of_a_later_freeze(gate: Gate, clock: ManualClock) -> None:
    await freeze(gate, clock, seconds=3)
    clock.advance(3)
    with gate.permit("log"):
        later = asyncio.create_task(freeze(gate, clock))
        await until(lambda: gate.closing)
        later.cancel()
        with pytest.raises(asyncio.CancelledError):
            await later
    assert gate.thaw() == Verdict(held=False)


async def test_a_latched_gate_gives_no_permit_ever_and_wakes_who_waits(gate: Gate, clock: ManualClock) -> None:
    await freeze(gate, clock)
    task = asyncio.create_task(on_loop(gate, []))
    failures: list[int] = []

    def work() -> None:
        try:
            with gate.permit("thread"):
                pass
        except JetError as error:
            failures.append(error.code)

    thread = threading.Thread(target=work)
    thread.start()
    await asyncio.sleep(0.01)
    gate.latch("edb.log: the sync failed")
    gate.latch("a later reason")
    with pytest.raises(JetError, match="the sync failed") as caught:
        await task
    assert caught.value.code == Err.InstanceUnavailable
    await asyncio.to_thread(thread.join, 5)
    assert failures == [Err.InstanceUnavailable]
    gate.thaw()
    with pytest.raises(JetError), gate.permit("log"):
        pass
    with pytest.raises(JetError), gate.try_permit("log"):
        pass
    with pytest.raises(JetError):
        await freeze(gate, clock)


async def test_a_latch_while_draining_ends_the_freeze(gate: Gate, clock: ManualClock) -> None:
    with gate.permit("log"):
        freezing = asyncio.create_task(freeze(gate, clock))
        await until(lambda: gate.closing)
        gate.latch("no disk")
        with pytest.raises(JetError) as caught:
            await freezing
    assert caught.value.code == Err.InstanceUnavailable
    assert not gate.look()


async def test_what_is_written_while_frozen_is_counted_and_spoils_the_verdict(gate: Gate, clock: ManualClock, tmp_path: Path) -> None:
    """The control of every "0 bytes" in other tests: a writer without a permit does not go unseen."""
    files = LocalFiles(tmp_path, watch=gate.wrote)
    file = files.open("edb.log", create=True)
    file.write(0, b"before the freeze")
    await freeze(gate, clock)
    file.write(0, b"twelve bytes")
    file.writev(12, [b"and", b"four", b"more"])
    file.allocate(4096)
    files.replace("edb.chk", b"five!")
    verdict = gate.thaw()
    file.write(0, b"after the thaw")
    assert not verdict.held
    assert not verdict.timed_out
    assert verdict.bytes_written == 12 + 11 + (4096 - 23) + 5
    assert verdict.changes >= 5


@pytest.mark.parametrize("change", ["create", "remove", "rename", "truncate", "make_directory"])
async def test_a_change_of_names_or_lengths_while_frozen_is_seen_too(gate: Gate, clock: ManualClock, tmp_path: Path, change: str) -> None:
    files = LocalFiles(tmp_path, watch=gate.wrote)
    file = files.open("a", create=True)
    await freeze(gate, clock)
    {
        "create": lambda: files.open("new", create=True).close(),
        "remove": lambda: files.remove("a"),
        "rename": lambda: files.rename("a", "b"),
        "truncate": lambda: file.truncate(0),
        "make_directory": lambda: files.make_directory("d"),
    }[change]()
    verdict = gate.thaw()
    assert (verdict.held, verdict.bytes_written) == (False, 0)


async def test_reading_and_syncing_while_frozen_is_not_writing(gate: Gate, clock: ManualClock, tmp_path: Path) -> None:
    files = LocalFiles(tmp_path, watch=gate.wrote)
    file = files.open("a", create=True)
    await freeze(gate, clock)
    file.sync()
    file.read(0, 10)
    files.open("a", create=True).close()
    files.list()
    assert gate.thaw().held


async def test_many_writers_and_freezes_no_write_ever_lies_inside_a_freeze(clock: ManualClock) -> None:
    """Real threads; each write checks, under its permit, that the gate is not frozen."""
    gate = Gate(clock)
    stop = threading.Event()
    wrong: list[str] = []
    rounds = [0] * 4

    def work(number: int) -> None:
        while not stop.is_set():
            with gate.permit(f"writer {number}"):
                gate.wrote(1)
                if gate.look():
                    wrong.append("written while frozen")
                rounds[number] += 1

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(50):
        before = sum(rounds)
        await freeze(gate, clock, drain=100)
        at_freeze = list(rounds)
        await asyncio.sleep(0.001)
        assert rounds == at_freeze
        assert gate.thaw().held
        await until(partial(more_than, rounds, before))
    stop.set()
    for thread in threads:
        thread.join()
    assert wrong == []
