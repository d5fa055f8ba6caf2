"""Backups taken under write load, restored, compared with a model: to the end, and to many points before it."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from jetwire_protocol.errors import Err, JetError
from jetwire_server.backup.manifest import load_chain
from jetwire_server.backup.restore import THE_END, Until, restore
from jetwire_server.backup.restore import _copy_all as copy_all
from jetwire_server.clock import SystemClock
from jetwire_server.files.local import LocalFile, LocalFiles
from jetwire_server.offline.places import instances_at
from jetwire_server.offline.recovering import recover
from jetwire_server.redo.position import Position
from jetwire_server.store.embedded.assemble import assemble
from tests.server.backup.lives import Taken, points_of, restored, take_under_load
from tests.support.hosted import copy_of


@pytest.fixture(scope="module")
def taken(tmp_path_factory: pytest.TempPathFactory) -> Taken:
    return asyncio.run(take_under_load(tmp_path_factory.mktemp("taken")))


async def test_the_whole_chain_holds_the_last_commit(taken: Taken, tmp_path: Path) -> None:
    result, rows = await restored(taken.directory, tmp_path / "r", taken.tree)
    assert rows == taken.hosted.history[taken.last]
    assert result.incarnation > 1
    again, _ = await restored(taken.directory, tmp_path / "r2", taken.tree)
    assert again.incarnation > result.incarnation


async def test_points_in_time(taken: Taken, tmp_path: Path) -> None:
    """Many more are a part of tests.torture."""
    dice = random.Random(7)
    kinds = set()
    for i in range(12):
        kind, until, commit = points_of(taken, dice)
        _, rows = await restored(taken.directory, tmp_path / str(i), taken.tree, until)
        assert rows == taken.hosted.history[commit], f"{until}"
        kinds.add(kind)
    assert kinds == {"position", "time", "commit"}


async def test_a_point_the_backup_does_not_reach_is_refused(taken: Taken, tmp_path: Path) -> None:
    for until, code in (
        (Until(commit=1), Err.StartingRestoreLogTooHigh),
        (Until(time=1.0), Err.StartingRestoreLogTooHigh),
        (Until(position=Position(1, 1, 0)), Err.StartingRestoreLogTooHigh),
        (Until(commit=taken.last + 1), Err.EndingRestoreLogTooLow),
        (Until(position=Position(10_000, 1, 0)), Err.EndingRestoreLogTooLow),
        (Until(time=time.time() + 3600), Err.EndingRestoreLogTooLow),
    ):
        with pytest.raises(JetError) as caught:
            await restored(taken.directory, tmp_path / f"r{until}", taken.tree, until)
        assert caught.value.code == code


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def logs(directory: Path) -> list[Path]:
    return sorted(directory.glob("edb0*.log"))


def swap(one: Path, two: Path) -> None:
    first, second = one.read_bytes(), two.read_bytes()
    one.write_bytes(second)
    two.write_bytes(first)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "a bit in a database": lambda d: flip(d / "a.edb", 9_000),
    "a bit in a log": lambda d: flip(logs(d)[1], 5_000),
    "a bit in unused log space": lambda d: flip(logs(d)[-1], -1),
    "a bit in the checkpoint file": lambda d: flip(d / "edb.chk", 40),
    "bytes that are no text in the manifest": lambda d: (d / "backup.json").write_bytes(
        (d / "backup.json").read_bytes().replace(b"default", b"def\xe3ult")
    ),
    "the last manifest is missing": lambda d: sorted(d.glob("backup-*.json"))[-1].unlink(),
    "a bit in the manifest": lambda d: (d / "backup.json").write_bytes((d / "backup.json").read_bytes().replace(b"default", b"defaulu")),
    "a cut database": lambda d: (d / "a.edb").write_bytes((d / "a.edb").read_bytes()[:-4096]),
    "a longer database": lambda d: (d / "a.edb").write_bytes((d / "a.edb").read_bytes() + b"\0" * 4096),
    "a cut log": lambda d: logs(d)[-1].write_bytes(logs(d)[-1].read_bytes()[:-1]),
    "a log is missing": lambda d: logs(d)[1].unlink(),
    "a database is missing": lambda d: (d / "a.edb").unlink(),
    "the manifest is missing": lambda d: (d / "backup.json").unlink(),
    "an incremental is missing": lambda d: sorted(d.glob("backup-*.json"))[0].unlink(),
    "logs are swapped": lambda d: swap(logs(d)[0], logs(d)[1]),
    "manifests are swapped": lambda d: swap(*sorted(d.glob("backup-*.json"))[:2]),
    "two chunks of a database are swapped": lambda d: (d / "a.edb").write_bytes(
        (lambda b: b[:8192] + b[12288:16384] + b[8192:12288] + b[16384:])((d / "a.edb").read_bytes())
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
async def test_every_kind_of_damage_is_detected(taken: Taken, tmp_path: Path, damage: str) -> None:
    copy = copy_of(taken.directory, tmp_path / "copy")
    DAMAGE[damage](copy)
    with pytest.raises(JetError):
        await restored(copy, tmp_path / "r", taken.tree)
    assert not (tmp_path / "r" / "edb.log").exists()


async def test_a_restore_that_was_cut_short_goes_on(taken: Taken, tmp_path: Path) -> None:
    copy = copy_of(taken.directory, tmp_path / "copy")
    flip(logs(copy)[-1], 5_000)
    with pytest.raises(JetError):
        await restored(copy, tmp_path / "r", taken.tree)
    with pytest.raises(JetError) as half:  # nobody takes the half of it for an instance
        await recover(instances_at(tmp_path / "r")[0], SystemClock())
    assert half.value.code == Err.RestoreInProgress
    kept = (tmp_path / "r" / "a.edb").stat().st_ino, (tmp_path / "r" / "a.edb").stat().st_mtime_ns
    flip(logs(copy)[-1], 5_000)
    _, rows = await restored(copy, tmp_path / "r2", taken.tree)
    await restore(LocalFiles(copy), LocalFiles(tmp_path / "r"), SystemClock(), until=THE_END, progress=lambda *_: None)
    assert rows == taken.hosted.history[taken.last]
    assert (tmp_path / "r" / "a.edb").stat().st_ino == kept[0]
    with pytest.raises(JetError) as caught:
        await restored(taken.directory, tmp_path / "r", taken.tree)
    assert caught.value.code == Err.BadRestoreTargetInstance


async def test_what_a_killed_restore_copied_is_durable_before_the_next_one_is_done(
    taken: Taken, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have been killed between a file's last write and its sync: the next one finds the bytes, in memory only."""
    chain, target = load_chain(LocalFiles(taken.directory)), LocalFiles(tmp_path / "r")
    target.make_directory("")
    synced: set[str] = set()
    sync = LocalFile.sync

    def noted(file: LocalFile) -> None:
        synced.add(file.path)
        sync(file)

    copy_all(LocalFiles(taken.directory), target, chain, lambda *_: None)
    monkeypatch.setattr(LocalFile, "sync", noted)
    copy_all(LocalFiles(taken.directory), target, chain, lambda *_: None)
    assert synced >= {file.path for manifest in chain for file in manifest.files}


async def test_logs_of_an_abandoned_future_are_refused(taken: Taken, tmp_path: Path) -> None:
    """The old life's later logs must not be taken for the restored one's."""
    target = tmp_path / "r"
    await restored(taken.directory, target, taken.tree, Until(commit=taken.first + 5))
    number = max(int(p.name[3:11], 16) for p in target.glob("edb0*.log"))
    newer = taken.directory / f"edb{number + 1:08X}.log"
    assert newer.exists()
    (target / "edb.log").write_bytes(newer.read_bytes())
    storage = assemble(str(target), SystemClock())
    with pytest.raises(JetError):
        await storage.store.start()


async def test_an_unfinished_incremental_backup_does_not_spoil_the_ones_before(taken: Taken, tmp_path: Path) -> None:
    copy = copy_of(taken.directory, tmp_path / "copy")
    last = sorted(copy.glob("backup-*.json"))[-1]
    last.unlink()
    with pytest.raises(JetError) as caught:  # its log is there: is the manifest lost?
        await restored(copy, tmp_path / "r", taken.tree)
    assert caught.value.code == Err.InvalidBackup
    (copy / "backup.unfinished").write_text("{}")  # no: it was not finished
    _, rows = await restored(copy, tmp_path / "r", taken.tree)
    assert rows in taken.hosted.history.values()
