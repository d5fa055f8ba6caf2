"""What is easily missed about snapshots: lines 1 to 10 of the list of such things, each a test named after its line.

| line | what is easily missed |
| --- | --- |
| 1 | the freeze's deadline is a server-wide parameter that may change at any time, looked at once, when the freeze begins |
| 2 | past the deadline the gates open by themselves and it is logged; the caller is told by Thaw and by nothing else |
| 3 | a session that continues after the thaw lingers after a time-out: End answers it, once |
| 4 | a Thaw that does not continue ends the session too |
| 5 | aborting a frozen session is an abort, whether it continues after the thaw or not: no stamp, 2007 |
| 6 | one session at a time |
| 7 | a plain Prepare takes all that run, and PrepareInstance narrows it; instances that come later stay out |
| 8 | from the freeze to the session's end the instance counts as being backed up |
| 9 | logs go only with AllDatabasesSnapshot, after the thaw of a session that continues, no copy, no circular logging |
| 10 | an incremental one needs a full snapshot before it, which no streaming backup stands for, and no circular logging |

Lines 11 to 25 are the engine's: `tests/server/engine/test_easily_missed.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterator
from pathlib import Path

import pytest

from jetwire_protocol.data.flags import OSSnapshotPrepareGrbit as P
from jetwire_protocol.data.flags import TermGrbit
from jetwire_protocol.data.parameters import PARAMETERS, Param
from jetwire_protocol.errors import Err
from tests.server.backup.reading import take
from tests.server.engine.refusals import refused, refused_now
from tests.server.snapshot.test_service import ALL_DATABASES, CONTINUE, Bench
from tests.support.hosted import Hosted
from tests.support.participants import FakeInstance

INCREMENTAL, COPY, EXPLICIT = int(P.IncrementalSnapshot), int(P.CopySnapshot), int(P.ExplicitPrepare)


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    for instance in made.instances:
        instance.gate.thaw()


async def frozen(bench: Bench, grbit: int = 0) -> int:
    snap = bench.service.prepare(grbit)
    await bench.service.freeze(snap)
    return snap


# -- the deadline -------------------------------------------------------------------------------------------------------
async def test_line_01_the_deadline_is_read_once_when_the_freeze_begins(bench: Bench) -> None:
    _, _, _, _, scope, mutable, _ = PARAMETERS[Param.OSSnapshotTimeout]
    assert (int(Param.OSSnapshotTimeout), scope, mutable) == (82, "global", "any_time")
    snap = bench.service.prepare()
    bench.timeout_ms = 1_000
    await bench.service.freeze(snap)
    bench.timeout_ms = 1
    bench.clock.advance(0.999)
    assert (await bench.service.thaw(snap)).held
    bench.timeout_ms = 0
    await refused(bench.service.freeze(bench.service.prepare()), Err.OSSnapshotTimeOut)
    assert bench.frozen() == [False, False]


async def test_line_01_the_parameter_of_a_real_server(tmp_path: Path) -> None:
    hosted = await Hosted(tmp_path).start()
    engine, snapshots = hosted.hosting.engine, hosted.hosting.snapshots
    assert engine.parameters.number(Param.OSSnapshotTimeout) == 70_000
    snap = snapshots.prepare()
    hosted.instance.set_parameter(Param.OSSnapshotTimeout, 60_000)
    answer = await snapshots.freeze(snap)
    assert 50_000 < answer.remaining_ms <= 60_000
    hosted.instance.set_parameter(Param.OSSnapshotTimeout, 0)
    assert (await snapshots.thaw(snap)).held
    await refused(snapshots.freeze(snapshots.prepare()), Err.OSSnapshotTimeOut)
    await hosted.stop()


async def test_line_02_the_gates_open_by_themselves_and_thaw_tells(bench: Bench) -> None:
    snap = await frozen(bench)
    bench.clock.advance(70)
    assert bench.frozen() == [False, False]
    assert bench.service.status().state == "timedOut"
    assert bench.ids()[-1] == 2004
    error = await refused(bench.service.thaw(snap), Err.OSSnapshotTimeOut)
    assert error.code == -2402


async def test_line_03_end_after_a_time_out_answers_it_once(bench: Bench) -> None:
    snap = await frozen(bench, CONTINUE)
    bench.clock.advance(70)
    assert bench.frozen() == [False, False]
    await refused(bench.service.end(snap), Err.OSSnapshotTimeOut)
    await refused(bench.service.end(snap), Err.OSSnapshotInvalidSnapId)
    snap = await frozen(bench, CONTINUE)
    bench.clock.advance(70)
    await bench.service.end(snap, 1)  # AbortSnapshot: nothing is expected of it any more
    await refused(bench.service.abort(snap), Err.OSSnapshotInvalidSnapId)


# -- the session --------------------------------------------------------------------------------------------------------
async def test_line_04_thaw_ends_a_session_that_does_not_continue(bench: Bench) -> None:
    snap = await frozen(bench)
    await bench.service.thaw(snap)
    assert bench.ids()[-1] == 2006
    await refused(bench.service.end(snap), Err.OSSnapshotInvalidSnapId)
    snap = await frozen(bench)
    bench.clock.advance(70)
    await refused(bench.service.thaw(snap), Err.OSSnapshotTimeOut)
    assert bench.ids()[-1] == 2007
    await refused(bench.service.end(snap), Err.OSSnapshotInvalidSnapId)


@pytest.mark.parametrize("grbit", [0, CONTINUE])
async def test_line_05_an_abort_is_an_abort(bench: Bench, grbit: int) -> None:
    snap = await frozen(bench, grbit)
    await bench.service.abort(snap)
    assert bench.frozen() == [False, False]
    assert bench.ids()[-1] == 2007
    assert 2006 not in bench.ids()
    assert bench.instances[0].full is None


async def test_line_06_one_session_at_a_time(bench: Bench) -> None:
    snap = bench.service.prepare()
    refused_now(bench.service.prepare, Err.OSSnapshotInvalidSequence)
    await bench.service.freeze(snap)
    refused_now(bench.service.prepare, Err.OSSnapshotInvalidSequence)
    await bench.service.thaw(snap)
    await bench.service.end(bench.service.prepare())


async def test_line_07_prepare_takes_all_that_run_and_no_later_ones(bench: Bench) -> None:
    snap = bench.service.prepare()
    bench.instances.append(FakeInstance(3, bench.clock))
    assert [i.handle for i in (await bench.service.freeze(snap)).instances] == [1, 2]
    await bench.service.thaw(snap)
    for grbit in (0, EXPLICIT):
        snap = bench.service.prepare(grbit)
        bench.service.prepare_instance(snap, 3)
        assert [i.handle for i in (await bench.service.freeze(snap)).instances] == [3]
        await bench.service.thaw(snap)


async def test_line_08_the_instance_counts_as_in_backup_until_the_session_ends(tmp_path: Path) -> None:
    hosted = await Hosted(tmp_path).start()
    await hosted.create()
    session, snapshots = hosted.session, hosted.hosting.snapshots

    def calls() -> list[Awaitable[object]]:
        return [
            session.create_database("b.edb"),
            session.attach_database("b.edb"),
            session.detach_database("a.edb"),
            hosted.instance.term(int(TermGrbit.TermComplete)),
        ]

    snap = snapshots.prepare(CONTINUE)
    await session.create_database("c.edb")  # prepared is not frozen
    await snapshots.freeze(snap)
    for call in calls():
        await refused(call, Err.BackupInProgress)
    await snapshots.thaw(snap)
    for call in calls():
        await refused(call, Err.BackupInProgress)
    ending = asyncio.create_task(hosted.instance.term())
    await asyncio.sleep(0.05)
    assert not ending.done(), "a plain Term waits for the session's end"
    await snapshots.end(snap)
    await ending
    await hosted.stop()


@pytest.mark.parametrize(
    ("prepared", "circular", "grbit", "events"),
    [
        (CONTINUE, False, ALL_DATABASES, [224, 224]),
        (CONTINUE, False, 0, [225, 225]),
        (CONTINUE, True, ALL_DATABASES, [225, 225]),
        (CONTINUE | COPY, False, ALL_DATABASES, None),
        (0, False, ALL_DATABASES, None),
    ],
)
async def test_line_09_when_logs_go(bench: Bench, prepared: int, circular: bool, grbit: int, events: list[int] | None) -> None:
    for instance in bench.instances:
        instance.circular = circular
    snap = await frozen(bench, prepared)
    await refused(bench.service.truncate_log(snap, grbit), Err.OSSnapshotInvalidSequence)  # not while it is frozen
    await bench.service.thaw(snap)
    if events is None:
        code = Err.OSSnapshotInvalidSequence if prepared else Err.OSSnapshotInvalidSnapId
        await refused(bench.service.truncate_log(snap, grbit), code)
    else:
        await bench.service.truncate_log(snap, grbit)
        assert bench.ids()[-2:] == events
    assert ("truncate" in bench.instances[0].log) == (events == [224, 224])


async def test_line_10_an_incremental_snapshot_and_what_it_needs(bench: Bench) -> None:
    snap = bench.service.prepare(INCREMENTAL)
    await refused(bench.service.freeze(snap), Err.MissingFullBackup)
    await refused(bench.service.freeze(snap), Err.OSSnapshotInvalidSequence)
    await bench.service.end(snap)
    await bench.service.thaw(await frozen(bench))
    await bench.service.thaw(await frozen(bench, INCREMENTAL))
    bench.instances[1].circular = True
    snap = bench.service.prepare(INCREMENTAL)
    await refused(bench.service.freeze(snap), Err.InvalidBackup)


async def test_line_10_a_streaming_backup_is_no_full_snapshot(tmp_path: Path) -> None:
    hosted = await (await Hosted(tmp_path / "data").start()).create()
    snapshots = hosted.hosting.snapshots
    await take(hosted.hosting.backups, hosted.instance, tmp_path / "streamed")
    snap = snapshots.prepare(INCREMENTAL)
    await refused(snapshots.freeze(snap), Err.MissingFullBackup)
    await snapshots.end(snap)
    for grbit in (0, INCREMENTAL):
        snap = snapshots.prepare(grbit)
        await snapshots.freeze(snap)
        await snapshots.thaw(snap)
    await hosted.stop()
