"""RestoreInstance: a backup, and the log files that the instance has beyond it, take the place of the instance's files.

Everything is put together, recovered and read whole beside them first. No log file is lost: what the log directory has
beyond the backup is replayed and stays, what it has before the backup stays, and what does not fit is refused.
"""

from __future__ import annotations

import asyncio
from functools import partial

from jetwire_protocol.data.parameters import Param
from jetwire_protocol.errors import Err, JetError
from jetwire_server.backup.directory import Status, finish_promotion, inner_path
from jetwire_server.backup.manifest import FULL_NAME, decode
from jetwire_server.backup.restore import MARK, Restored, RollForward, restore, settle_unfinished
from jetwire_server.backup.stamp import STAMP_FILE
from jetwire_server.backup.swap import STAGING, Plan, remove_tree, swap
from jetwire_server.clock import Clock
from jetwire_server.engine.instance import Instance
from jetwire_server.files.local import LocalFiles
from jetwire_server.files.paths import plain
from jetwire_server.files.whole import read_whole
from jetwire_server.redo.names import LogNames
from jetwire_server.store.embedded.assemble import SCRATCH_DIRECTORY

_working: set[asyncio.Task[Restored]] = set()


async def restore_instance(instance: Instance, root: str, clock: Clock, source: str, destination: str | None, status: Status) -> Restored:
    """Over the instance's own files, or into a directory below; the instance must not have been initialised.

    While this runs, whoever calls the instance is answered `JET_errRestoreInProgress`.
    """
    work = asyncio.get_running_loop().create_task(_restore(instance, LocalFiles(root), clock, source, destination, status))
    _working.add(work)  # it goes on, and the instance says so, if its caller goes away
    work.add_done_callback(_working.discard)
    return await asyncio.shield(work)


async def _restore(instance: Instance, files: LocalFiles, clock: Clock, source: str, destination: str | None, status: Status) -> Restored:
    with instance.restoring():
        path, target = inner_path(source), inner_path(destination) if destination else STAGING
        await asyncio.to_thread(finish_promotion, files, path)
        if not files.exists(path):
            raise JetError(Err.InvalidPath, f"{source} is not there")
        instance.emit(204, source=source)
        names = LogNames(plain(instance.parameters.text(Param.LogFilePath)), instance.parameters.text(Param.BaseName))
        try:
            return await _put_together(files, names, clock, path, target, status)
        finally:
            instance.emit(205, source=source)


async def _put_together(files: LocalFiles, names: LogNames, clock: Clock, path: str, target: str, status: Status) -> Restored:
    loop = asyncio.get_running_loop()

    def progress(name: str, done: int, total: int) -> None:  # from the thread that copies
        loop.call_soon_threadsafe(status, done, total)

    await asyncio.to_thread(settle_unfinished, files)
    if target == STAGING and not files.exists(f"{STAGING}/{MARK}"):  # what an earlier attempt left before it could end
        await asyncio.to_thread(remove_tree, files, STAGING)
    backup = LocalFiles(f"{files.root}/{path}")
    work = partial(restore, backup, LocalFiles(f"{files.root}/{target}"), clock, forward=RollForward(files, names), progress=progress)
    try:
        restored = await work()
    except JetError as error:
        if target != STAGING or error.code != Err.BadRestoreTargetInstance:
            raise
        await asyncio.to_thread(remove_tree, files, STAGING)  # of a restore of something else, which failed
        restored = await work()
    if target == STAGING:
        await asyncio.to_thread(_take_place, files, backup, names)
    return restored


def _take_place(files: LocalFiles, backup: LocalFiles, names: LogNames) -> None:
    """Every log file that goes has a successor of its own number with the same content among those that come."""
    first = decode(read_whole(backup, FULL_NAME), FULL_NAME)
    staged_names = LogNames(first.log_directory, first.base_name)
    staged = LocalFiles(files.real_path(STAGING))
    moves = [(staged_names.archived(n), names.archived(n)) for n in _numbers(staged, staged_names)]
    moves += [(staged_names.current, names.current), (staged_names.checkpoint, names.checkpoint)]
    logs = {path for path, _ in moves} | {staged_names.prepared}
    others = [path for path in _all_files(staged, "") if path not in logs]
    moves += [(path, path) for path in others if path.removesuffix("-lock") == path or path.removesuffix("-lock") not in others]
    removes = [names.prepared, STAMP_FILE]
    swap(files, Plan([(f"{STAGING}/{source}", target) for source, target in moves], removes))


def _numbers(files: LocalFiles, names: LogNames) -> list[int]:
    return sorted(n for name in files.list(names.directory) if (n := names.number(name)) is not None)


def _all_files(files: LocalFiles, directory: str) -> list[str]:
    found = []
    for name in files.list(directory):
        path = f"{directory}/{name}" if directory else name
        if path == SCRATCH_DIRECTORY:
            continue
        try:
            found += _all_files(files, path)
        except JetError:  # no directory
            found.append(path)
    return found
