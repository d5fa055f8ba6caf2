"""BackupInstance that does not come to its end: what is left of it."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from jetwire_protocol.data.parameters import Param
from jetwire_protocol.errors import Err, JetError
from jetwire_server.backup import directory
from jetwire_server.backup.directory import backup_instance
from jetwire_server.backup.inplace import restore_instance
from jetwire_server.backup.logs import LogsOfBackup
from jetwire_server.backup.service import BackupService
from jetwire_server.backup.streaming import Backup
from jetwire_server.files.local import LocalFiles
from jetwire_server.hosting import Hosting
from jetwire_server.store.embedded.assemble import Storage
from tests.server.backup.lives import restored
from tests.server.backup.reading import INCREMENTAL
from tests.support.hosted import Hosted

ATOMIC = 4


@pytest.fixture
async def hosted(tmp_path: Path) -> AsyncIterator[Hosted]:
    made = await (await Hosted(tmp_path / "data").start()).create("db/a.edb")
    await made.write(100)
    yield made
    await made.stop()


async def back_up(hosted: Hosted, where: str, grbit: int = 0) -> None:
    await backup_instance(hosted.hosting.backups, hosted.instance, where, grbit, lambda *_: None)


@pytest.mark.parametrize("how", ["stopped", "cancelled"])
async def test_log_files_that_it_has_removed_are_in_its_copy(
    hosted: Hosted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """The copy was removed too: what the instance had written since the last backup was in no backup any more."""
    await back_up(hosted, "bk")
    backups, instance, log = hosted.hosting.backups, hosted.instance, hosted.hosting.backups.storage_of(hosted.instance).log
    for _ in range(3):
        await hosted.write(100)
        await log.roll()
    model = dict(hosted.model)
    await instance.store.checkpoint()
    await hosted.write()
    await instance.store.checkpoint()
    loop, truncate = asyncio.get_running_loop(), LogsOfBackup._truncate

    def interrupted(logs: LogsOfBackup) -> list[int]:
        gone = truncate(logs)
        assert gone
        asyncio.run_coroutine_threadsafe(interrupt(), loop).result(10)
        return gone

    async def interrupt() -> None:
        if how == "stopped":
            backups.stop(instance)
        else:
            taking.cancel()

    monkeypatch.setattr(LogsOfBackup, "_truncate", interrupted)
    taking = asyncio.create_task(back_up(hosted, "bk", INCREMENTAL))
    with pytest.raises((JetError, asyncio.CancelledError)):
        await taking
    _, rows = await restored(hosted.directory / "bk", tmp_path / "r", hosted.tree)
    assert model.items() <= rows.items()


async def test_one_that_fails_leaves_nothing_in_the_way_of_the_next(hosted: Hosted, monkeypatch: pytest.MonkeyPatch) -> None:
    """A database in a directory left that, and every further backup found its place not empty."""
    (hosted.directory / "kept").mkdir()
    write = directory._to_its_end

    async def stopped(work: object) -> None:
        await write(work)  # type: ignore[arg-type]
        hosted.hosting.backups.stop(hosted.instance)

    for where in ("bk", "kept/bk"):
        with monkeypatch.context() as patched:
            patched.setattr(directory, "_to_its_end", stopped)
            with pytest.raises(JetError) as caught:
                await back_up(hosted, where)
        assert caught.value.code == Err.BackupAbortByServer
        await back_up(hosted, where)
    assert (hosted.directory / "kept/bk/backup.json").exists()


async def test_who_hangs_up_while_an_atomic_one_takes_its_place_loses_neither(
    hosted: Hosted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The files of the new one were removed while it was put in the place of the old one."""
    await back_up(hosted, "bk", ATOMIC)
    await hosted.write(100)
    loop, promote = asyncio.get_running_loop(), directory._promote

    def slowly(storage: Storage, target: str) -> None:
        loop.call_soon_threadsafe(taking.cancel)
        asyncio.run_coroutine_threadsafe(asyncio.sleep(0.3), loop).result(10)
        promote(storage, target)

    monkeypatch.setattr(directory, "_promote", slowly)
    taking = asyncio.create_task(back_up(hosted, "bk", ATOMIC))
    with pytest.raises(asyncio.CancelledError):
        await taking
    await asyncio.sleep(0.5)  # or longer: whatever goes on by itself
    _, rows = await restored(hosted.directory / "bk", tmp_path / "r", hosted.tree)
    assert rows == hosted.model


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("next_call", ["incremental", "atomic", "restore"])
async def test_a_crash_while_an_atomic_one_takes_its_place(hosted: Hosted, tmp_path: Path, next_call: str, whole: bool) -> None:
    """Killed between the two renames: neither the new one nor the old one was found under its name, and the new one was thrown away."""
    await back_up(hosted, "bk", ATOMIC)
    bk, new, old = (hosted.directory / name for name in ("bk", "bk.new", "bk.old"))
    before = dict(hosted.model)
    await hosted.write(100)
    shutil.copytree(bk, tmp_path / "old")
    await back_up(hosted, "bk", ATOMIC)
    bk.rename(new)
    (tmp_path / "old").rename(old)
    if not whole:  # as an earlier version may have left it
        (new / "backup.json").unlink()
    if next_call == "restore":
        await hosted.stop()
        hosting = hosted.hosted()
        instance = await hosting.engine.create_instance("default")
        await restore_instance(instance, str(hosted.directory), hosted.clock, "bk", "r", lambda *_: None)
    elif next_call == "incremental" and not whole:
        with pytest.raises(JetError) as caught:  # it is not the last backup any more
            await back_up(hosted, "bk", INCREMENTAL)
        assert caught.value.code == Err.MissingFullBackup
    else:
        await back_up(hosted, "bk", INCREMENTAL if next_call == "incremental" else ATOMIC)
    assert not old.exists()
    assert not new.exists() or not whole
    _, rows = await restored(bk, tmp_path / "r", hosted.tree)
    assert rows == (hosted.model if whole or next_call == "atomic" else before)


class Killed(BaseException):
    """Nothing is cleared up after it."""


class SmallLogs(Hosted):
    def hosted(self) -> Hosting:
        hosting = super().hosted()
        hosting.engine.set_parameter(Param.LogFileSize, 128)
        return hosting


PLACES_MAX = 60


@pytest.mark.parametrize("apart", [4, pytest.param(1, marks=pytest.mark.torture)])
async def test_an_incremental_one_that_was_killed_is_done_again_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, apart: int
) -> None:
    """Killed before and after each of its steps. Its manifest, torn or not counted yet, was in the way of every further one."""
    hosted = await (await SmallLogs(tmp_path / "data").start()).create()
    steps = [(directory, "_to_its_end"), (Backup, "stamp"), (BackupService, "truncate"), (BackupService, "end")]
    for place in range(2, PLACES_MAX, apart):
        await back_up(hosted, "bk", ATOMIC)
        await hosted.write(50)
        before = dict(hosted.model)
        with monkeypatch.context() as patched:
            left = count_down(patched, steps, place)
            patched.setattr(directory, "_forget", lambda *_: None)
            with suppress(Killed):
                await back_up(hosted, "bk", INCREMENTAL)
        await hosted.hosting.backups.connection_closed(hosted.hosting.backups)
        kept = shutil.copytree(hosted.directory / "bk", tmp_path / f"{place}")
        _, rows = await restored(kept, tmp_path / f"{place}.killed", hosted.tree)
        assert rows.items() <= before.items()
        await hosted.write(50)
        await back_up(hosted, "bk", INCREMENTAL)
        assert not [name for name in LocalFiles(hosted.directory).list("bk") if name.endswith(("unfinished", ".new"))]
        _, rows = await restored(hosted.directory / "bk", tmp_path / f"{place}.again", hosted.tree)
        assert rows == hosted.model
        if left[0] >= 0:
            assert place > 15
            break
    else:
        raise AssertionError("it has more steps")
    await hosted.stop()


def count_down(patched: pytest.MonkeyPatch, steps: list[tuple[Any, str]], place: int) -> list[int]:
    """Before the step with that number, or after it, comes the end. What is renamed is one too, in the backup's directory."""
    left = [place]

    def step() -> None:
        left[0] -= 1
        if left[0] == -1:
            raise Killed

    def broken(function: Any) -> Any:
        async def steps(*args: Any, **kwargs: Any) -> Any:
            step()
            answer = await function(*args, **kwargs)
            step()
            return answer

        return steps

    def rename(files: LocalFiles, source: str, target: str) -> None:
        if target.startswith("bk/"):
            step()
        renamed(files, source, target)

    for where, name in steps:
        patched.setattr(where, name, broken(getattr(where, name)))
    renamed = LocalFiles.rename
    patched.setattr(LocalFiles, "rename", rename)
    return left
