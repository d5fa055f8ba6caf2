"""Calls of one backup that come together, or whose callers go away: the rest of the backup is as if they had come one by one."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from jetwire_protocol.data.flags import EndExternalBackupGrbit, TermGrbit
from jetwire_protocol.errors import Err, JetError
from jetwire_server.backup import opened
from jetwire_server.backup.manifest import sha256_of
from jetwire_server.backup.service import BackupService
from jetwire_server.engine.instance import Instance
from jetwire_server.files.local import LocalFiles
from jetwire_server.store.embedded.check import check_database
from jetwire_server.store.embedded.pages import PageFile
from tests.server.backup.reading import fetch, take
from tests.support.hosted import Hosted

ABORT = int(EndExternalBackupGrbit.BackupEndAbort)
READ = 4096


@pytest.fixture
async def hosted(tmp_path: Path) -> AsyncIterator[Hosted]:
    made = await (await Hosted(tmp_path / "data").start()).create()
    await made.write(500)
    yield made
    await made.stop()


async def begin_full(hosted: Hosted) -> tuple[BackupService, Instance]:
    """Its backups, of which a full one has begun."""
    backups, instance = hosted.hosting.backups, hosted.instance
    await backups.begin(instance)
    return backups, instance


def outcome(found: object) -> object:
    return Err(found.code) if isinstance(found, JetError) else type(found)


async def test_of_two_opens_that_come_together_one_is_refused(hosted: Hosted) -> None:
    """Both copied the database, into one file."""
    backups, instance = await begin_full(hosted)
    found = await asyncio.gather(*(backups.open(instance, "a.edb") for _ in range(2)), return_exceptions=True)
    assert [outcome(one) for one in found] == [tuple, Err.OutOfMemory]
    await backups.end(instance, ABORT)


async def test_reads_that_come_together_go_on_from_each_other(hosted: Hosted, tmp_path: Path) -> None:
    """Each got the same bytes, and then all of them were left out."""
    backups, instance = await begin_full(hosted)
    handle, size = await backups.open(instance, "a.edb")
    parts = await asyncio.gather(*(backups.read(instance, handle, READ) for _ in range(-(-size // READ) + 1)))
    assert len(b"".join(parts)) == size
    (tmp_path / "copy").write_bytes(b"".join(parts))
    await backups.close(instance, handle)
    await backups.get_log_info(instance)
    manifest = hosted.hosting.backups.find(instance).manifest
    assert manifest is not None
    assert sha256_of(LocalFiles(str(tmp_path)), "copy").sha256 == manifest.files[0].sha256
    await backups.end(instance, ABORT)


async def test_the_log_is_rolled_once_however_many_ask(hosted: Hosted, tmp_path: Path) -> None:
    backups, instance = await begin_full(hosted)
    await fetch(backups, instance, "a.edb", tmp_path)
    first, second = await asyncio.gather(*(backups.get_log_info(instance) for _ in range(2)))
    assert first == second
    await backups.end(instance, ABORT)


async def test_a_close_waits_for_the_read_before_it(hosted: Hosted) -> None:
    """The file was closed under the thread that read it: its number may have been another file's by then."""
    backups, instance = await begin_full(hosted)
    handle, _ = await backups.open(instance, "a.edb")
    await backups.read(instance, handle, READ)
    data, _ = await asyncio.gather(backups.read(instance, handle, READ), backups.close(instance, handle))
    assert len(data) == READ
    await backups.end(instance, ABORT)


async def test_a_backup_that_is_stopped_while_it_truncates_stays_stopped(hosted: Hosted, tmp_path: Path) -> None:
    backups, instance = await begin_full(hosted)
    await fetch(backups, instance, "a.edb", tmp_path)
    for name in (await backups.get_log_info(instance))[0]:
        await fetch(backups, instance, name, tmp_path)
    truncating = asyncio.create_task(backups.truncate(instance))
    await asyncio.sleep(0)
    backups.stop(instance)
    await truncating
    with pytest.raises(JetError) as caught:
        await backups.end(instance)
    assert caught.value.code == Err.BackupAbortByServer


async def test_a_backup_that_is_ended_while_it_begins_holds_no_log(hosted: Hosted) -> None:
    """It began all the same, nobody knew of it, and no log file was removed any more until the restart."""
    backups, instance = hosted.hosting.backups, hosted.instance
    beginning = asyncio.create_task(backups.begin(instance))
    await asyncio.sleep(0)  # it looks for silent ones
    await asyncio.sleep(0)
    assert instance.backups
    with pytest.raises(JetError):
        await backups.end(instance)
    assert outcome(*await asyncio.gather(beginning, return_exceptions=True)) == Err.NoBackup
    log = backups.storage_of(instance).log
    newest = await log.roll()
    await instance.store.checkpoint()
    await hosted.write()
    await instance.store.checkpoint()
    log.truncate_before(newest)
    assert log.generations()[0] == newest.generation


async def test_what_comes_of_a_call_of_an_ended_backup_is_not_the_next_ones(
    hosted: Hosted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file of the one stayed open; or the other was forgotten, and there could be no backup and no snapshot until the restart."""
    backups, instance = hosted.hosting.backups, hosted.instance
    held, copy_to = Held(), PageFile.copy_to

    def slowly(source: PageFile, fd: int) -> None:
        held.wait()
        copy_to(source, fd)

    await backups.begin(instance)
    with monkeypatch.context() as patched:
        patched.setattr(PageFile, "copy_to", slowly)
        opening = asyncio.create_task(backups.open(instance, "a.edb"))
        await asyncio.to_thread(held.reached.wait, 10)
    await backups.end(instance, ABORT)
    await backups.begin(instance)
    held.go.set()
    assert outcome(*await asyncio.gather(opening, return_exceptions=True)) == Err.NoBackup
    assert not _open_copies()
    await fetch(backups, instance, "a.edb", tmp_path)
    await backups.end(instance, ABORT)
    assert not instance.backups


class Held:
    """A step in a thread that waits until it is let go."""

    def __init__(self) -> None:
        self.reached, self.go = threading.Event(), threading.Event()

    def wait(self) -> None:
        self.reached.set()
        assert self.go.wait(10)


async def _gone(task: asyncio.Task[object], held: Held) -> None:
    """Its caller hangs up in the middle of the step."""
    await asyncio.to_thread(held.reached.wait, 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    held.go.set()


async def test_a_caller_who_hangs_up_while_a_database_is_copied_leaves_no_file_open(
    hosted: Hosted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backups, instance = hosted.hosting.backups, hosted.instance
    held, copy_to = Held(), PageFile.copy_to

    def slowly(source: PageFile, fd: int) -> None:
        held.wait()
        copy_to(source, fd)

    await backups.begin(instance)
    monkeypatch.setattr(PageFile, "copy_to", slowly)
    await _gone(asyncio.create_task(backups.open(instance, "a.edb")), held)
    for _ in range(500):
        if not _open_copies():
            break
        await asyncio.sleep(0.01)
    assert not _open_copies()
    await backups.end(instance, ABORT)


def _open_copies() -> list[str]:
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{name}"))
        except FileNotFoundError:  # the one that listed them
            continue
    return [path for path in found if ".copy" in path]


async def test_a_caller_who_hangs_up_while_a_copy_is_checked_does_not_get_it_unchecked(
    hosted: Hosted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever read on got it as it was, and the manifest did not name the database."""
    backups, instance = hosted.hosting.backups, hosted.instance
    held = Held()

    def slowly(*args: object) -> Iterator[object]:
        held.wait()
        yield from check_database(*args)  # type: ignore[arg-type]

    await backups.begin(instance)
    handle, size = await backups.open(instance, "a.edb")
    monkeypatch.setattr(opened, "check_database", slowly)
    await _gone(asyncio.create_task(backups.read(instance, handle, READ)), held)
    data = [await backups.read(instance, handle, READ) for _ in range(-(-size // READ))]
    assert sum(map(len, data)) == size
    await backups.close(instance, handle)
    await backups.get_log_info(instance)
    manifest = backups.find(instance).manifest
    assert manifest is not None
    assert "a.edb" in [file.path for file in manifest.files]
    await backups.end(instance, ABORT)
    await take(backups, instance, tmp_path / "b")


async def test_a_copy_that_is_closed_while_it_is_checked_is_out_of_the_next_ones_way(
    hosted: Hosted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LMDB opens a file once in a process: two checks of one name were taken for damage."""
    backups, instance = hosted.hosting.backups, hosted.instance
    held, steps = Held(), 0

    def slowly(files: LocalFiles, path: str) -> Iterator[object]:
        nonlocal steps
        for fault in check_database(files, path):
            steps += 1
            if steps == 1:
                held.wait()
            yield fault

    await backups.begin(instance)
    handle, _ = await backups.open(instance, "a.edb")
    monkeypatch.setattr(opened, "check_database", slowly)
    await _gone(asyncio.create_task(backups.read(instance, handle, READ)), held)
    await backups.close(instance, handle)
    assert steps == 1, "nobody wanted to know any more"
    await fetch(backups, instance, "a.edb", tmp_path / "b", READ)
    assert steps > 1
    await backups.end(instance, ABORT)


async def test_an_end_beside_a_copy_holds_up_nobody_else(hosted: Hosted, monkeypatch: pytest.MonkeyPatch) -> None:
    """LMDB closes a file when its copy is done: for a large database that is minutes, in which the loop stood still."""
    await hosted.write(5_000)
    await hosted.instance.store.checkpoint()
    reading, writing = os.pipe()
    begun = threading.Event()
    copy_to = PageFile.copy_to

    def slowly(file: PageFile, _descriptor: int) -> None:
        begun.set()
        copy_to(file, writing)  # nobody takes it yet

    def take_it() -> None:
        while os.read(reading, 1 << 20):
            pass

    monkeypatch.setattr(PageFile, "copy_to", slowly)
    backups, instance = await begin_full(hosted)
    opening = asyncio.create_task(backups.open(instance, "a.edb"))
    assert await asyncio.to_thread(begun.wait, 10)
    later = threading.Timer(2.0, take_it)
    later.start()
    ending = asyncio.create_task(instance.term(int(TermGrbit.TermAbrupt)))
    began = time.monotonic()
    await asyncio.sleep(0.5)
    assert time.monotonic() - began < 1.5, "others are served"
    assert not ending.done()
    await ending
    with pytest.raises(JetError):
        await opening
    os.close(writing)
    later.join()
    os.close(reading)
