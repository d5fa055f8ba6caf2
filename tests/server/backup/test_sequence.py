"""The table of states and calls, walked on a real instance; who else is kept away meanwhile; what a call's failure does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from jetwire_protocol.data.flags import BackupGrbit, EndExternalBackupGrbit, OSSnapshotPrepareGrbit, TermGrbit
from jetwire_protocol.data.parameters import Param
from jetwire_protocol.errors import Err, JetError
from jetwire_server import limits
from jetwire_server.backup.directory import backup_instance
from jetwire_server.backup.logs import LogsOfBackup
from jetwire_server.backup.restore import Until
from jetwire_server.backup.service import BackupService
from jetwire_server.backup.stamp import load_stamp
from jetwire_server.backup.states import TABLE, Call, State
from jetwire_server.clock import SystemClock
from jetwire_server.engine.instance import Instance
from jetwire_server.redo.position import Position
from tests.server.backup.lives import restored
from tests.server.backup.reading import INCREMENTAL, fetch, take
from tests.support.hosted import Hosted

READ = 65_536


@pytest.fixture
async def hosted(tmp_path: Path) -> AsyncIterator[Hosted]:
    made = await (await Hosted(tmp_path / "data").start()).create()
    await made.write(100)
    yield made
    await made.stop()


async def refused(code: Err, call: Awaitable[Any] | Callable[[], Any]) -> None:
    with pytest.raises(JetError) as caught:
        await (call() if callable(call) else call)
    assert caught.value.code == code


async def reach(state: State, backups: BackupService, instance: Instance, target: Path) -> None:
    if state is State.NONE:
        return
    if state is State.LOGS_DUE:
        await take(backups, instance, target)
        await backups.begin(instance, INCREMENTAL)
        return
    await backups.begin(instance)
    if state is State.STOPPED:
        backups.stop(instance)
        return
    if state in (State.LOGS, State.TRUNCATED):
        await fetch(backups, instance, "a.edb", target)
        for name in (await backups.get_log_info(instance))[0]:
            await fetch(backups, instance, name, target)
    if state is State.TRUNCATED:
        await backups.truncate(instance)


async def make(call: Call, backups: BackupService, instance: Instance) -> None:
    match call:
        case Call.GET_ATTACH_INFO:
            assert backups.get_attach_info(instance) == ["a.edb"]
        case Call.OPEN_DATABASE:
            await backups.open(instance, "a.edb")
        case Call.OPEN_LOG:
            await backups.open(instance, "edb.chk")
        case Call.READ:
            await backups.read(instance, 10**9, READ)
        case Call.CLOSE:
            await backups.close(instance, 10**9)
        case Call.GET_LOG_INFO:
            await backups.get_log_info(instance)
        case Call.GET_TRUNCATE_LOG_INFO:
            await backups.get_truncate_log_info(instance)
        case Call.TRUNCATE:
            await backups.truncate(instance)
        case Call.END:
            await backups.end(instance)


# What a good call answers here, because the handle is none or databases are still to be read, or logs are.
_OTHER = {
    **{(state, call): Err.InvalidParameter for state in State for call in (Call.READ, Call.CLOSE)},
    (State.DATABASES, Call.GET_LOG_INFO): Err.InvalidBackupSequence,
    (State.DATABASES, Call.GET_TRUNCATE_LOG_INFO): Err.InvalidBackupSequence,
    (State.LOGS_DUE, Call.OPEN_LOG): Err.InvalidBackupSequence,
}


@pytest.mark.parametrize(("state", "call"), TABLE)
async def test_every_cell(hosted: Hosted, tmp_path: Path, state: State, call: Call) -> None:
    backups, instance = hosted.hosting.backups, hosted.instance
    await reach(state, backups, instance, tmp_path / "b")
    expected = TABLE[state, call].error or _OTHER.get((state, call))
    if expected is None:
        await make(call, backups, instance)
    else:
        await refused(expected, make(call, backups, instance))
    if call is Call.END or state is State.NONE:
        assert instance.backups == 0
        await refused(Err.NoBackup, backups.get_log_info(instance))
    else:
        assert instance.backups == 1
        if state is not State.STOPPED:
            await backups.end(instance, EndExternalBackupGrbit.BackupEndAbort)
            assert instance.backups == 0


async def test_one_backup_at_a_time_and_no_snapshot_beside_it(hosted: Hosted) -> None:
    backups, instance, snapshots = hosted.hosting.backups, hosted.instance, hosted.hosting.snapshots
    await backups.begin(instance)
    await refused(Err.BackupInProgress, backups.begin(instance))
    await refused(Err.BackupInProgress, hosted.session.create_database("b.edb"))
    snap = snapshots.prepare(int(OSSnapshotPrepareGrbit.ContinueAfterThaw))
    await refused(Err.OSSnapshotNotAllowed, snapshots.freeze(snap))
    await backups.end(instance, EndExternalBackupGrbit.BackupEndAbort)
    await snapshots.abort(snap)
    snap = snapshots.prepare(int(OSSnapshotPrepareGrbit.ContinueAfterThaw))
    await snapshots.freeze(snap)
    await refused(Err.BackupInProgress, backups.begin(instance))
    await snapshots.thaw(snap)
    await snapshots.end(snap)
    await backups.begin(instance)
    await backups.end(instance, EndExternalBackupGrbit.BackupEndAbort)


async def test_what_cannot_begin(hosted: Hosted, tmp_path: Path) -> None:
    backups, instance = hosted.hosting.backups, hosted.instance
    await refused(Err.MissingFullBackup, backups.begin(instance, INCREMENTAL))
    for grbit in (BackupGrbit.BackupAtomic, BackupGrbit.BackupSnapshot, 1 << 20):
        await refused(Err.InvalidGrbit, backups.begin(instance, grbit))
    await take(backups, instance, tmp_path / "copy", truncate=False)  # truncates nothing: a copy, that nothing continues
    await refused(Err.MissingFullBackup, backups.begin(instance, INCREMENTAL))
    await take(backups, instance, tmp_path / "b")
    hosted.hosting._storages[instance.handle].store.circular = True
    await refused(Err.InvalidBackup, backups.begin(instance, INCREMENTAL))
    hosted.hosting._storages[instance.handle].store.circular = False
    other = await hosted.hosting.engine.create_instance("other")
    await refused(Err.NotInitialized, backups.begin(other))
    await backups.begin(instance, INCREMENTAL)
    await backups.end(instance, EndExternalBackupGrbit.BackupEndAbort)
    assert instance.parameters.get(Param.CircularLog) in (0, False)


async def test_one_file_at_a_time_whole_or_not_at_all(hosted: Hosted, tmp_path: Path) -> None:
    backups, instance = hosted.hosting.backups, hosted.instance
    await backups.begin(instance)
    handle, size = await backups.open(instance, "a.edb")
    await refused(Err.OutOfMemory, backups.open(instance, "a.edb"))
    await refused(Err.InvalidBackupSequence, backups.get_log_info(instance))
    for wrong in (0, -1, 4095, 1 << 30):
        await refused(Err.InvalidParameter, backups.read(instance, handle, wrong))
    assert len(await backups.read(instance, handle, 4096)) == 4096 < size
    await backups.close(instance, handle)
    await refused(Err.InvalidBackupSequence, backups.get_log_info(instance))  # it was not read whole
    await fetch(backups, instance, "a.edb", tmp_path / "b")
    files, low, high, base = await backups.get_log_info(instance)
    assert (files[0], files[-1], base, len(files)) == ("edb.chk", "backup.json", "edb", high - low + 3)
    await refused(Err.LogFileNotCopied, backups.truncate(instance))
    await refused(Err.BackupAbortByCaller, backups.end(instance))
    assert instance.backups == 0


async def test_a_file_that_does_not_belong_to_the_backup_is_not_handed_out(hosted: Hosted, tmp_path: Path) -> None:
    backups, instance = hosted.hosting.backups, hosted.instance
    await reach(State.LOGS, backups, instance, tmp_path / "b")
    for name in ("edb.log", "running", "edb00000000.log"):
        await refused(Err.MissingFileToBackup, backups.open(instance, name))
    for name in ("../default/edb.chk", "backup.json/..", "/etc/passwd"):
        await refused(Err.InvalidPath, backups.open(instance, name))
    await refused(Err.InvalidParameter, backups.open(instance, ""))
    await backups.end(instance)


async def test_damage_in_a_database_fails_its_backup(hosted: Hosted) -> None:
    backups, instance = hosted.hosting.backups, hosted.instance
    await hosted.instance.store.checkpoint()
    path = hosted.directory / "a.edb"
    data = path.read_bytes()
    with path.open("r+b") as file:
        for at in [i for i in range(0, len(data), 1) if data.startswith(b"7 of 0 x", i)]:
            file.seek(at)
            file.write(b"8")
    await backups.begin(instance)
    handle, _ = await backups.open(instance, "a.edb")
    await refused(Err.ReadVerifyFailure, backups.read(instance, handle, READ))
    await refused(Err.InvalidParameter, backups.read(instance, handle, READ))  # closed by the failure
    await refused(Err.InvalidBackupSequence, backups.get_log_info(instance))
    await backups.end(instance, EndExternalBackupGrbit.BackupEndAbort)
    assert any(event.id == 218 for event in hosted.events)


async def test_truncation_keeps_what_recovery_and_the_next_backup_need(hosted: Hosted, tmp_path: Path) -> None:
    backups, instance = hosted.hosting.backups, hosted.instance
    log = hosted.hosting._storages[instance.handle].log
    for _ in range(4):
        await hosted.write(10)
        await log.roll()
    await hosted.instance.store.checkpoint()
    await hosted.write(10)
    before = log.generations()
    await take(backups, instance, tmp_path / "b")
    after = log.generations()
    checkpoint = log.checkpoint()
    assert checkpoint is not None
    assert len(after) < len(before)
    assert after[0] <= checkpoint.position.generation
    await take(backups, instance, tmp_path / "b", INCREMENTAL)
    ids = [event.id for event in hosted.events]
    assert {210, 211, 213, 220, 221, 223, 224} <= set(ids)


async def test_a_closed_connection_gives_it_up(hosted: Hosted) -> None:
    backups, instance = hosted.hosting.backups, hosted.instance
    owner = object()
    await backups.begin(instance, owner=owner)
    await backups.connection_closed(object())
    assert instance.backups == 1
    await backups.connection_closed(owner)
    assert instance.backups == 0


class Moved(SystemClock):
    """The machine's clock, and what a test adds to it."""

    ahead = 0.0

    def boot(self) -> float:
        return super().boot() + self.ahead


@pytest.fixture
async def silent(hosted: Hosted, monkeypatch: pytest.MonkeyPatch) -> Moved:
    """A backup's clock that can be moved, and a timer that looks often."""
    clock = Moved()
    monkeypatch.setattr(hosted.hosting.backups, "_clock", clock)
    monkeypatch.setattr("jetwire_server.limits.BACKUP_LOOK_SECONDS", 0.01)
    return clock


async def some_time() -> None:
    await asyncio.sleep(0.2)


async def test_a_silent_caller_is_given_up_by_the_timer_alone(hosted: Hosted, silent: Moved) -> None:
    backups, instance = hosted.hosting.backups, hosted.instance
    log = backups.storage_of(instance).log
    await backups.begin(instance)
    await backups.open(instance, "a.edb")
    await some_time()
    silent.ahead += limits.BACKUP_SILENT_SECONDS - 5
    await some_time()
    assert (instance.backups, len(log._pins)) == (1, 1)  # the control: not before its time
    backups.get_attach_info(instance)  # a sign of life
    silent.ahead += limits.BACKUP_SILENT_SECONDS - 5
    await some_time()
    assert instance.backups == 1
    silent.ahead += 10
    await some_time()
    assert (instance.backups, log._pins) == (0, [])
    assert list(Path(hosted.directory, "scratch", "backup").iterdir()) == []
    assert [event.id for event in hosted.events].count(226) == 1
    with pytest.raises(JetError) as caught:  # who comes back is told
        backups.get_attach_info(instance)
    assert caught.value.code == Err.BackupAbortByServer
    await refused(Err.BackupAbortByServer, backups.end(instance))
    await refused(Err.NoBackup, backups.end(instance))
    assert [event.id for event in hosted.events].count(226) == 1


async def test_one_that_cannot_be_tidied_up_does_not_save_the_others(
    hosted: Hosted, silent: Moved, monkeypatch: pytest.MonkeyPatch
) -> None:
    backups, instance = hosted.hosting.backups, hosted.instance
    other = await hosted.hosting.engine.create_instance("other")
    await other.init()
    stuck = await backups.begin(instance)
    await backups.begin(other)

    def cannot() -> None:
        raise JetError(Err.FileAccessDenied, "scratch/backup")

    monkeypatch.setattr(stuck, "_clear_scratch", cannot)
    silent.ahead += limits.BACKUP_SILENT_SECONDS * 2
    await some_time()
    assert (instance.backups, other.backups) == (0, 0)
    monkeypatch.undo()
    assert (await backups.begin(other)).full  # nor is the next one told of it


async def test_who_waits_for_an_answer_is_not_silent(hosted: Hosted, silent: Moved) -> None:
    backups, instance = hosted.hosting.backups, hosted.instance
    backup = await backups.begin(instance)
    with backup.at_work():  # as while a large database is copied
        silent.ahead += limits.BACKUP_SILENT_SECONDS * 10
        await some_time()
        assert instance.backups == 1
    await some_time()
    assert instance.backups == 1  # the silence begins with the answer
    silent.ahead += limits.BACKUP_SILENT_SECONDS * 2
    await backups.begin(instance)  # a new one need not wait for the timer
    assert instance.backups == 1


@pytest.mark.parametrize("grbit", [0, TermGrbit.TermAbrupt, TermGrbit.TermStopBackup, TermGrbit.TermComplete | TermGrbit.TermStopBackup])
async def test_an_end_of_the_instance_ends_its_backup(hosted: Hosted, tmp_path: Path, grbit: int) -> None:
    backups, instance = hosted.hosting.backups, hosted.instance
    await reach(State.LOGS, backups, instance, tmp_path / "b")
    await backups.open(instance, "edb.chk")
    await refused(Err.BackupInProgress, instance.term(int(TermGrbit.TermComplete)))
    await instance.term(int(grbit))
    assert instance.backups == 0
    assert hosted.events[-1].id == 103
    assert any(event.id == 226 for event in hosted.events)
    await refused(Err.InvalidInstance, backups.end(instance))
    again = await hosted.hosting.engine.create_instance("default")
    await again.init()
    await backups.begin(again)
    await backups.end(again, EndExternalBackupGrbit.BackupEndAbort)


@pytest.mark.parametrize("pinned", [True, False])
async def test_what_a_backup_pins_is_not_truncated_by_another_road(hosted: Hosted, tmp_path: Path, pinned: bool) -> None:
    """While a backup reads, circular logging and BackupInstance(None) remove no log file it needs; the control pins nothing."""
    backups, instance = hosted.hosting.backups, hosted.instance
    storage = backups.storage_of(instance)
    log = storage.log
    await backups.begin(instance)
    if not pinned:
        log._pins.clear()
    needed = log.end.generation
    for _ in range(3):
        await hosted.write(10)
        await log.roll()
    storage.store.circular = True
    await hosted.write(10)
    await instance.store.checkpoint()
    assert (needed in log.generations()) is pinned
    if not pinned:
        return
    await fetch(backups, instance, "a.edb", tmp_path / "b")
    for name in (await backups.get_log_info(instance))[0]:
        await fetch(backups, instance, name, tmp_path / "b")
    await backups.end(instance)
    await hosted.write(10)
    await log.roll()
    await instance.store.checkpoint()
    assert needed not in log.generations()  # its end lets them go


async def test_recovery_and_the_next_incremental_backup_find_their_logs(hosted: Hosted, tmp_path: Path) -> None:
    """What truncation leaves is enough to recover and to continue the backup; one file less is noticed (the control)."""
    backups, instance = hosted.hosting.backups, hosted.instance
    log = backups.storage_of(instance).log
    await take(backups, instance, tmp_path / "b")
    for _ in range(3):
        await hosted.write(10)
        await log.roll()
    await instance.store.checkpoint()
    await backup_instance(backups, instance, None, 0, lambda *_: None)
    stamp = load_stamp(backups.storage_of(instance).files)
    assert stamp is not None
    assert log.generations()[0] <= stamp.next_generation
    await take(backups, instance, tmp_path / "b", INCREMENTAL)
    await hosted.write(10)
    await log.roll()
    (hosted.directory / log.names.archived(log.end.generation - 1)).unlink()
    await refused(Err.MissingFileToBackup, backups.begin(instance, INCREMENTAL))


@pytest.mark.parametrize(
    ("grbit", "stamped", "error"),
    [
        (EndExternalBackupGrbit.BackupEndNormal, False, None),
        (EndExternalBackupGrbit.BackupEndNormal | EndExternalBackupGrbit.BackupTruncateDone, True, None),
        (
            EndExternalBackupGrbit.BackupEndNormal
            | EndExternalBackupGrbit.BackupTruncateDone
            | EndExternalBackupGrbit.BackupNoDbHeaderUpdate,
            False,
            None,
        ),
        (EndExternalBackupGrbit.BackupEndAbort, False, None),
        (EndExternalBackupGrbit.BackupEndAbort | EndExternalBackupGrbit.BackupTruncateDone, False, None),
        (EndExternalBackupGrbit.BackupEndAbort | EndExternalBackupGrbit.BackupEndNormal, False, Err.InvalidParameter),
        (1 << 20, False, Err.InvalidGrbit),
    ],
)
async def test_how_a_backup_ends_decides_whether_it_can_be_continued(
    hosted: Hosted, tmp_path: Path, grbit: int, stamped: bool, error: Err | None
) -> None:
    """Without truncation a backup is a copy, unless its end says that the truncation is done by other means."""
    backups, instance = hosted.hosting.backups, hosted.instance
    await reach(State.LOGS, backups, instance, tmp_path / "b")
    if error:
        await refused(error, backups.end(instance, int(grbit)))
        await backups.end(instance)
    else:
        await backups.end(instance, int(grbit))
    if stamped:
        await backups.begin(instance, INCREMENTAL)
        await backups.end(instance, EndExternalBackupGrbit.BackupEndAbort)
    else:
        await refused(Err.MissingFullBackup, backups.begin(instance, INCREMENTAL))


async def test_each_log_list(hosted: Hosted, tmp_path: Path) -> None:
    """GetLogInfo is the backup's files with their range, GetTruncateLogInfo what TruncateLog then removes: no more, no less."""
    backups, instance = hosted.hosting.backups, hosted.instance
    log = backups.storage_of(instance).log
    for _ in range(3):
        await hosted.write(10)
        await log.roll()
    await instance.store.checkpoint()
    await reach(State.LOGS, backups, instance, tmp_path / "b")
    files, low, high, _ = await backups.get_log_info(instance)
    assert [name for name in files if name.endswith(".log")] == [log.names.archived(n) for n in range(low, high + 1)]
    promised = await backups.get_truncate_log_info(instance)
    before = set(log.generations())
    await backups.truncate(instance)
    gone = {log.names.archived(n) for n in before - set(log.generations())}
    assert gone <= set(promised)
    assert gone
    assert (await backups.get_log_info(instance))[0] == files
    await backups.end(instance)


async def test_a_roll_that_is_under_way_while_the_log_is_verified_is_no_fault(
    hosted: Hosted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under load about one backup in fifty failed: the current log file has no name between the two renames of a roll."""
    verify, current = LogsOfBackup._verify, hosted.directory / "edb.log"

    def between_the_renames(logs: LogsOfBackup, start: Position | None) -> None:
        away = current.rename(current.with_name("away"))
        try:
            verify(logs, start)
        finally:
            away.rename(current)

    monkeypatch.setattr(LogsOfBackup, "_verify", between_the_renames)
    await take(hosted.hosting.backups, hosted.instance, tmp_path / "b")
    await hosted.write()
    await take(hosted.hosting.backups, hosted.instance, tmp_path / "b", INCREMENTAL)


async def test_a_backup_of_no_database_is_not_restored_to_a_time_when_there_was_one(hosted: Hosted, tmp_path: Path) -> None:
    """The log up to there asked for the file of a database that was detached before the backup."""
    for dbid in list(hosted.session.opened):
        await hosted.session.close_database(dbid)
    commit = await hosted.write()
    await hosted.session.detach_database("a.edb")
    await take(hosted.hosting.backups, hosted.instance, tmp_path / "b")
    with pytest.raises(JetError) as caught:
        await restored(tmp_path / "b", tmp_path / "r", hosted.tree, Until(commit=commit))
    assert caught.value.code == Err.StartingRestoreLogTooHigh
