"""The snapshot calls on real gates, in simulated time: every answer, every event, and the gate open after each failure."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from random import Random

import pytest

from jetwire_protocol.data.flags import OSSnapshotPrepareGrbit as P
from jetwire_protocol.errors import Err, JetError
from jetwire_server import limits
from jetwire_server.clock import ManualClock
from jetwire_server.events import EventLog
from jetwire_server.files.memory import MemoryFiles
from jetwire_server.snapshot.memo import FILE_NAME, FreezeMemo
from jetwire_server.snapshot.service import SnapshotService
from jetwire_server.snapshot.sessions import FORGOTTEN
from tests.support.participants import FakeInstance
from tests.support.powercut import images
from tests.support.simulated import run

TIMEOUT_MS = 70_000
CONTINUE = int(P.ContinueAfterThaw)
ALL_DATABASES = 1
ABORT_BIT = 1


class Bench:
    """A service, two instances, and what was logged."""

    def __init__(self, files: MemoryFiles | None = None, clock: ManualClock | None = None) -> None:
        self.clock = clock or ManualClock()
        self.instances = [FakeInstance(1, self.clock), FakeInstance(2, self.clock)]
        self.timeout_ms = TIMEOUT_MS
        self.events: list[tuple[int, str]] = []
        log = EventLog()
        log.listen(lambda e: self.events.append((e.id, e.instance)))
        self.files = files or MemoryFiles()
        self.service = SnapshotService(
            clock=self.clock,
            events=log,
            participants=lambda: self.instances,
            timeout_ms=lambda: self.timeout_ms,
            memo=FreezeMemo(self.files),
            settle=self.settle,
        )

    async def settle(self) -> None:
        assert self.service.holding
        assert not any(self.frozen())

    def frozen(self) -> list[bool]:
        return [i.gate.look() for i in self.instances]

    def ids(self) -> list[int]:
        return [event for event, _ in self.events]


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    for instance in made.instances:
        instance.gate.thaw()


def code(caught: pytest.ExceptionInfo[JetError]) -> Err:
    return Err(caught.value.code)


async def test_the_documented_sequence(bench: Bench) -> None:
    snap = bench.service.prepare()
    frozen = await bench.service.freeze(snap)
    assert bench.frozen() == [True, True]
    assert [i.handle for i in frozen.instances] == [1, 2]
    assert frozen.remaining_ms == TIMEOUT_MS
    bench.instances[0].waiting = 3
    bench.clock.advance(2)
    verdict = await bench.service.thaw(snap)
    assert verdict.to_wire() == {"held": True, "heldMs": 2000, "commitsWaited": 3, "bytesWrittenWhileFrozen": 0}
    assert bench.frozen() == [False, False]
    assert bench.ids() == [2005, 2001, 2001, 2001, 2003, 2006]
    with pytest.raises(JetError) as caught:
        await bench.service.thaw(snap)
    assert code(caught) == Err.OSSnapshotInvalidSnapId


@pytest.mark.parametrize(
    ("grbit", "event"),
    [(0, 2005), (P.IncrementalSnapshot, 2008), (P.CopySnapshot, 2009), (P.CopySnapshot | P.IncrementalSnapshot, 2010)],
)
async def test_each_kind_of_prepare_logs_its_event(bench: Bench, grbit: int, event: int) -> None:
    bench.service.prepare(int(grbit))
    assert bench.ids() == [event]


@pytest.mark.parametrize("grbit", [16, 1 << 31, -1])
async def test_unknown_prepare_bits(bench: Bench, grbit: int) -> None:
    with pytest.raises(JetError) as caught:
        bench.service.prepare(grbit)
    assert code(caught) == Err.InvalidParameter
    assert bench.service.status().state == "none"


async def test_a_second_prepare_is_refused(bench: Bench) -> None:
    bench.service.prepare()
    with pytest.raises(JetError) as caught:
        bench.service.prepare()
    assert code(caught) == Err.OSSnapshotInvalidSequence


async def test_prepare_instance_narrows_the_session(bench: Bench) -> None:
    snap = bench.service.prepare()
    bench.service.prepare_instance(snap, 2)
    await bench.service.freeze(snap)
    assert bench.frozen() == [False, True]
    await bench.service.abort(snap)


async def test_explicit_prepare_starts_empty_and_an_empty_freeze_succeeds(bench: Bench) -> None:
    snap = bench.service.prepare(int(P.ExplicitPrepare))
    frozen = await bench.service.freeze(snap)
    assert frozen.instances == []
    assert bench.frozen() == [False, False]
    assert (await bench.service.thaw(snap)).held


async def test_an_instance_joins_only_once(bench: Bench) -> None:
    snap = bench.service.prepare(int(P.ExplicitPrepare))
    bench.service.prepare_instance(snap, 1)
    with pytest.raises(JetError) as caught:
        bench.service.prepare_instance(snap, 1)
    assert code(caught) == Err.OSSnapshotNotAllowed


async def test_an_instance_that_came_later_stays_out(bench: Bench) -> None:
    late = FakeInstance(3, bench.clock)
    snap = bench.service.prepare()
    bench.instances.append(late)
    await bench.service.freeze(snap)
    assert bench.frozen() == [True, True, False]
    await bench.service.abort(snap)


async def test_the_deadline_opens_the_gate_and_thaw_tells(bench: Bench) -> None:
    snap = bench.service.prepare(CONTINUE)
    await bench.service.freeze(snap)
    bench.clock.advance(TIMEOUT_MS / 1000)
    assert bench.frozen() == [False, False]
    assert bench.service.status().state == "timedOut"
    for call in (bench.service.get_freeze_info,):
        with pytest.raises(JetError) as caught:
            call(snap)
        assert code(caught) == Err.OSSnapshotInvalidSequence
    with pytest.raises(JetError) as caught:
        await bench.service.truncate_log(snap, ALL_DATABASES)
    assert code(caught) == Err.OSSnapshotInvalidSequence
    with pytest.raises(JetError) as caught:
        await bench.service.thaw(snap)
    assert code(caught) == Err.OSSnapshotTimeOut
    assert bench.ids()[-2:] == [2004, 2007]
    with pytest.raises(JetError) as caught:
        await bench.service.thaw(snap)
    assert code(caught) == Err.OSSnapshotInvalidSnapId


async def test_a_moment_before_the_deadline_still_holds(bench: Bench) -> None:
    snap = bench.service.prepare()
    await bench.service.freeze(snap)
    bench.clock.advance(TIMEOUT_MS / 1000 - 0.001)
    assert (await bench.service.thaw(snap)).held


async def test_end_after_a_time_out_answers_it_once(bench: Bench) -> None:
    snap = bench.service.prepare(CONTINUE)
    await bench.service.freeze(snap, lease_ms=10)
    bench.clock.advance(1)
    with pytest.raises(JetError) as caught:
        await bench.service.end(snap)
    assert code(caught) == Err.OSSnapshotTimeOut
    with pytest.raises(JetError) as caught:
        await bench.service.end(snap)
    assert code(caught) == Err.OSSnapshotInvalidSnapId


async def test_a_timed_out_session_does_not_block_the_next_prepare(bench: Bench) -> None:
    first = bench.service.prepare()
    await bench.service.freeze(first, lease_ms=10)
    bench.clock.advance(1)
    second = bench.service.prepare()
    await bench.service.freeze(second)
    with pytest.raises(JetError) as caught:
        await bench.service.thaw(first)
    assert code(caught) == Err.OSSnapshotTimeOut
    assert bench.frozen() == [True, True], "the old session's thaw must not open the new one's gates"
    assert (await bench.service.thaw(second)).held


async def test_a_timeout_of_zero_expires_at_once(bench: Bench) -> None:
    bench.timeout_ms = 0
    snap = bench.service.prepare()
    with pytest.raises(JetError):
        await bench.service.freeze(snap)
    assert bench.frozen() == [False, False]


@pytest.mark.parametrize("lease_ms", [-1, 600_001, 2**63])
async def test_impossible_leases_are_refused_and_the_session_stays(bench: Bench, lease_ms: int) -> None:
    snap = bench.service.prepare()
    with pytest.raises(JetError) as caught:
        await bench.service.freeze(snap, lease_ms=lease_ms)
    assert code(caught) == Err.InvalidParameter
    await bench.service.freeze(snap)
    await bench.service.thaw(snap)


async def test_renew_moves_the_deadline_but_never_past_the_hard_maximum(bench: Bench) -> None:
    snap = bench.service.prepare()
    await bench.service.freeze(snap, lease_ms=1000)
    for _ in range(800):
        bench.clock.advance(0.9)
        if not all(bench.frozen()):
            break
        bench.service.renew(snap, 1000)
    with pytest.raises(JetError) as caught:
        bench.service.renew(snap, 1000)
    assert code(caught) == Err.OSSnapshotInvalidSequence
    assert bench.clock.boot() == pytest.approx(600, abs=1)
    assert bench.frozen() == [False, False]
    with pytest.raises(JetError) as caught:
        await bench.service.thaw(snap)
    assert code(caught) == Err.OSSnapshotTimeOut


async def test_renew_outside_a_freeze(bench: Bench) -> None:
    snap = bench.service.prepare()
    with pytest.raises(JetError) as caught:
        bench.service.renew(snap, 1000)
    assert code(caught) == Err.OSSnapshotInvalidSequence
    with pytest.raises(JetError) as caught:
        bench.service.renew(snap + 1, 1000)
    assert code(caught) == Err.OSSnapshotInvalidSnapId


@pytest.mark.parametrize("grbit", [0, CONTINUE])
async def test_abort_of_a_frozen_session_thaws_and_logs_2007(bench: Bench, grbit: int) -> None:
    snap = bench.service.prepare(grbit)
    await bench.service.freeze(snap)
    await bench.service.abort(snap)
    assert bench.frozen() == [False, False]
    assert bench.ids()[-1] == 2007
    assert "stamp full" not in bench.instances[0].log
    assert bench.service.status().state == "none"


async def test_a_failed_freeze_opens_every_gate_and_can_only_be_ended(bench: Bench) -> None:
    bench.instances[1].seal_error = JetError(Err.DiskIO, "the sync failed")
    snap = bench.service.prepare()
    with pytest.raises(JetError) as caught:
        await bench.service.freeze(snap)
    assert code(caught) == Err.DiskIO
    assert bench.frozen() == [False, False]
    assert bench.ids()[-1] == 2002
    with pytest.raises(JetError) as caught:
        await bench.service.freeze(snap)
    assert code(caught) == Err.OSSnapshotInvalidSequence
    await bench.service.end(snap)
    assert bench.service.status().state == "none"


async def test_an_obstacle_is_named(bench: Bench) -> None:
    bench.instances[0].in_the_way = "a streaming backup is in progress"
    snap = bench.service.prepare()
    with pytest.raises(JetError, match="streaming backup") as caught:
        await bench.service.freeze(snap)
    assert code(caught) == Err.OSSnapshotNotAllowed
    assert bench.frozen() == [False, False]


async def test_writers_that_do_not_leave_are_named_and_the_session_stays_prepared(bench: Bench) -> None:
    snap = bench.service.prepare()
    with bench.instances[1].gate.permit("checkpoint of a.edb"):
        freezing = asyncio.create_task(bench.service.freeze(snap, max_drain_ms=100))
        await asyncio.sleep(0.02)
        assert bench.service.status().state == "freezing"
        bench.clock.advance(0.2)
        with pytest.raises(JetError) as caught:
            await freezing
    assert code(caught) == Err.OSSnapshotNotAllowed
    assert caught.value.data["holders"] == ["checkpoint of a.edb"]
    assert bench.service.status().holders == ["checkpoint of a.edb"]
    assert bench.frozen() == [False, False]
    assert bench.service.status().state == "prepared"
    await bench.service.freeze(snap)
    assert (await bench.service.thaw(snap)).held


async def test_abort_while_freezing_wins(bench: Bench) -> None:
    snap = bench.service.prepare()
    with bench.instances[1].gate.permit("slow"):
        freezing = asyncio.create_task(bench.service.freeze(snap))
        await asyncio.sleep(0.02)
        await bench.service.abort(snap)
    with pytest.raises(JetError) as caught:
        await freezing
    assert code(caught) in (Err.OSSnapshotInvalidSequence, Err.OSSnapshotNotAllowed)
    assert bench.frozen() == [False, False]
    assert bench.service.status().state == "none"


async def test_a_cancelled_freeze_leaves_the_gates_open(bench: Bench) -> None:
    snap = bench.service.prepare()
    with bench.instances[1].gate.permit("slow"):
        freezing = asyncio.create_task(bench.service.freeze(snap))
        await asyncio.sleep(0.02)
        freezing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await freezing
    assert bench.frozen() == [False, False]


async def test_bytes_written_while_frozen_break_the_verdict(bench: Bench) -> None:
    """The control: a writer without a permit must not pass as a freeze that held."""
    snap = bench.service.prepare()
    await bench.service.freeze(snap)
    bench.instances[0].gate.wrote(1)
    with pytest.raises(JetError) as caught:
        await bench.service.thaw(snap)
    assert code(caught) == Err.OSSnapshotTimeOut


@pytest.mark.parametrize(
    ("grbit", "truncate", "events"),
    [(0, ALL_DATABASES, [224, 224]), (0, 0, [225, 225])],
)
async def test_truncation_after_the_thaw(bench: Bench, grbit: int, truncate: int, events: list[int]) -> None:
    snap = bench.service.prepare(CONTINUE | grbit)
    await bench.service.freeze(snap)
    await bench.service.thaw(snap)
    await bench.service.truncate_log(snap, truncate)
    assert bench.ids()[-2:] == events
    await bench.service.truncate_log(snap, truncate, instance=2)
    await bench.service.end(snap)
    assert bench.ids()[-1] == 2006


async def test_missing_logs_are_reported_at_truncation(bench: Bench) -> None:
    from jetwire_server.snapshot.participant import Truncation

    bench.instances[0].truncation = Truncation(1, 4, 2)
    bench.instances[1].circular = True
    snap = bench.service.prepare(CONTINUE)
    await bench.service.freeze(snap)
    await bench.service.thaw(snap)
    await bench.service.truncate_log(snap, ALL_DATABASES)
    assert bench.events[-3:] == [(227, "i1"), (224, "i1"), (225, "i2")]


async def test_a_copy_truncates_nothing_and_leaves_no_stamp(bench: Bench) -> None:
    snap = bench.service.prepare(CONTINUE | int(P.CopySnapshot))
    await bench.service.freeze(snap)
    await bench.service.thaw(snap)
    with pytest.raises(JetError) as caught:
        await bench.service.truncate_log(snap, ALL_DATABASES)
    assert code(caught) == Err.OSSnapshotInvalidSequence
    await bench.service.end(snap)
    assert bench.instances[0].full is None


async def test_an_incremental_snapshot_needs_a_full_one_and_no_circular_logging(bench: Bench) -> None:
    incremental = int(P.IncrementalSnapshot)
    snap = bench.service.prepare(incremental)
    with pytest.raises(JetError) as caught:
        await bench.service.freeze(snap)
    assert code(caught) == Err.MissingFullBackup
    await bench.service.abort(snap)
    full = bench.service.prepare()
    await bench.service.freeze(full)
    await bench.service.thaw(full)
    snap = bench.service.prepare(incremental)
    frozen = await bench.service.freeze(snap)
    assert [f.path for f in frozen.manifest.instances[0].files] == ["edb.log"]
    await bench.service.abort(snap)
    bench.instances[0].circular = True
    snap = bench.service.prepare(incremental)
    with pytest.raises(JetError) as caught:
        await bench.service.freeze(snap)
    assert code(caught) == Err.InvalidBackup


async def test_the_digests_come_in_the_background(bench: Bench) -> None:
    snap = bench.service.prepare()
    frozen = await bench.service.freeze(snap)
    assert frozen.manifest.to_wire()["instances"][0]["databases"] == ({"name": "a.edb"},)
    await asyncio.sleep(0.01)
    manifest = bench.service.status().manifest
    assert manifest is not None
    assert manifest.to_wire()["instances"][0]["databases"] == ({"name": "a.edb", "tables": 3, "records": 42, "digest": "d1"},)
    await bench.service.abort(snap)


async def test_a_server_that_died_while_frozen_says_so_after_its_restart(bench: Bench) -> None:
    snap = bench.service.prepare()
    await bench.service.freeze(snap)
    after = Bench(bench.files)
    after.clock.advance(5)
    await after.service.sessions.start()
    assert after.service.status().state == "timedOut"
    with pytest.raises(JetError) as caught:
        await after.service.thaw(snap)
    assert code(caught) == Err.OSSnapshotTimeOut
    again = Bench(bench.files)
    again.clock.advance(10)
    await again.service.sessions.start()
    assert again.service.status().state == "none"
    assert again.service.prepare() > snap


async def test_a_restart_after_the_thaw_knows_nothing(bench: Bench) -> None:
    snap = bench.service.prepare()
    await bench.service.freeze(snap)
    await bench.service.thaw(snap)
    after = Bench(bench.files)
    await after.service.sessions.start()
    with pytest.raises(JetError) as caught:
        await after.service.thaw(snap)
    assert code(caught) == Err.OSSnapshotInvalidSnapId


async def test_a_power_cut_after_the_thaw_does_not_make_the_freeze_a_lost_one(bench: Bench) -> None:
    snap = bench.service.prepare()
    await bench.service.freeze(snap)
    frozen = images(bench.files.instant(), Random(1), 20)
    assert all(FILE_NAME in image.files for image in frozen)  # control: until then every image has the memo
    await bench.service.thaw(snap)
    assert not any(FILE_NAME in image.files for image in images(bench.files.instant(), Random(1), 20))


async def test_a_bound_session_dies_with_its_connection_and_no_other_does(bench: Bench) -> None:
    mine, other = object(), object()
    snap = bench.service.prepare()
    await bench.service.freeze(snap, owner=mine)
    await bench.service.connection_closed(other)
    assert bench.frozen() == [True, True]
    await bench.service.connection_closed(mine)
    assert bench.frozen() == [False, False]
    unbound = bench.service.prepare()
    await bench.service.freeze(unbound)
    await bench.service.connection_closed(mine)
    assert bench.frozen() == [True, True]
    await bench.service.thaw(unbound)


async def test_a_session_bound_at_prepare_dies_with_its_connection_in_every_state(bench: Bench) -> None:
    """Before, only a freeze could be bound: who died between Prepare and Freeze blocked everybody until an operator came."""
    mine = object()
    bench.service.prepare(owner=mine)
    await bench.service.connection_closed(mine)
    assert bench.service.status().state == "none"
    snap = bench.service.prepare(CONTINUE, owner=mine)
    await bench.service.freeze(snap)  # by another, who asks for nothing: it stays bound
    await bench.service.thaw(snap)
    await bench.service.connection_closed(mine)
    assert bench.service.status().state == "none"
    assert bench.ids()[-1] == 2007


@pytest.mark.parametrize(
    ("steps", "patience"),
    [
        ((), limits.SNAPSHOT_PREPARED_SECONDS),
        (("refused",), limits.SNAPSHOT_PREPARED_SECONDS),
        (("freeze", "thaw"), limits.SNAPSHOT_THAWED_SECONDS),
        (("freeze", "thaw", "truncate_log"), limits.SNAPSHOT_THAWED_SECONDS),
    ],
    ids=lambda v: "-".join(v) if isinstance(v, tuple) else "",
)
async def test_a_session_that_nobody_speaks_of_is_aborted(bench: Bench, steps: tuple[str, ...], patience: float) -> None:
    snap = bench.service.prepare(CONTINUE)
    for step in steps:
        if step == "refused":
            bench.instances[0].in_the_way = "a backup"
            with pytest.raises(JetError):
                await bench.service.freeze(snap)
        else:
            await getattr(bench.service, step)(snap)
    bench.clock.advance(patience - 1)
    bench.service.get_freeze_info(snap)  # spoken of: it begins anew
    bench.clock.advance(patience - 1)
    assert bench.service.status().state != "none"
    forgotten = FORGOTTEN.value
    bench.clock.advance(1)
    assert bench.service.status().state == "none"
    assert FORGOTTEN.value == forgotten + 1
    assert bench.ids()[-1] == 2007
    assert bench.instances[0].log[-1] == "over"  # attach and detach work again
    with pytest.raises(JetError) as caught:
        await bench.service.freeze(snap)
    assert code(caught) == Err.OSSnapshotInvalidSnapId
    bench.service.prepare()


async def test_a_forgotten_session_is_noticed_without_anybody_looking() -> None:
    clock = ManualClock()

    def live() -> None:
        run(clock, random.Random(1), forget())

    async def forget() -> None:
        bench = Bench(clock=clock)
        bench.service.prepare()
        await asyncio.sleep(limits.SNAPSHOT_PREPARED_SECONDS + 2)
        assert bench.ids() == [2005, 2007]

    await asyncio.to_thread(live)


async def test_a_freeze_lasts_as_long_as_its_lease_however_silent_all_are(bench: Bench) -> None:
    snap = bench.service.prepare()
    bench.timeout_ms = limits.FREEZE_MS_MAX
    await bench.service.freeze(snap)
    bench.clock.advance(limits.FREEZE_MS_MAX / 1000 - 1)
    assert bench.frozen() == [True, True]
    assert (await bench.service.thaw(snap)).held


async def test_reserved_bits(bench: Bench) -> None:
    snap = bench.service.prepare()
    for call in (bench.service.freeze, bench.service.thaw, bench.service.abort):
        with pytest.raises(JetError) as caught:
            await call(snap, 2)
        assert code(caught) == Err.InvalidParameter
    for call in (bench.service.end, bench.service.truncate_log):
        with pytest.raises(JetError) as caught:
            await call(snap, 2)
        assert code(caught) == Err.InvalidGrbit
    with pytest.raises(JetError) as caught:
        bench.service.get_freeze_info(snap, 1)
    assert code(caught) == Err.InvalidGrbit
    assert bench.service.status().state == "prepared"
