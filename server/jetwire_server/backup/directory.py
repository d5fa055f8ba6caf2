"""Backup into a directory of the instance: a caller of the streaming backup like any other, but for where the files go."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from jetwire_protocol.data.flags import BackupGrbit, EndExternalBackupGrbit
from jetwire_protocol.errors import Err, JetError
from jetwire_server.backup.manifest import FULL_NAME, UNFINISHED, check_presence, load_chain
from jetwire_server.backup.service import BackupService
from jetwire_server.backup.stamp import load_stamp
from jetwire_server.backup.swap import remove_tree
from jetwire_server.engine.instance import Instance
from jetwire_server.files.local import LocalFiles
from jetwire_server.files.paths import components
from jetwire_server.redo.position import Position
from jetwire_server.store.embedded.assemble import SCRATCH_DIRECTORY, Storage

CHUNK_BYTES = 1 << 20
NEW, OLD = ".new", ".old"
_BITS = int(BackupGrbit.BackupIncremental | BackupGrbit.BackupAtomic)
Status = Callable[[int, int], None]
"""Told how many units are done, and how many there are."""


def inner_path(path: str) -> str:
    """A directory below the instance's, or InvalidPath."""
    plain = "/".join(part for part in path.replace("\\", "/").split("/") if part != ".").rstrip("/")
    if not plain or plain.split("/")[0] == SCRATCH_DIRECTORY:
        raise JetError(Err.InvalidPath, f"{path!r} is no directory for a backup")
    components(plain)
    return plain


async def backup_instance(service: BackupService, instance: Instance, destination: str | None, grbit: int, status: Status) -> None:
    """BackupInstance: a full or incremental backup into a directory; without one, the logs are truncated."""
    if grbit & ~_BITS:
        raise JetError(Err.InvalidGrbit)
    if grbit & BackupGrbit.BackupIncremental and grbit & BackupGrbit.BackupAtomic:
        raise JetError(Err.InvalidGrbit, "only a full backup takes the place of another")
    service.check_may_begin(instance)
    storage = service.storage_of(instance)
    if destination is None:
        instance.check_no_backup()
        await asyncio.to_thread(_truncate, storage)
        return
    target = inner_path(destination)
    incremental = bool(grbit & BackupGrbit.BackupIncremental)
    atomic = bool(grbit & BackupGrbit.BackupAtomic)
    files = storage.files
    if files.exists(target + OLD) and not files.exists(target):
        instance.check_no_backup()  # else another one is just taking the place
        with storage.gate.permit("backup"):
            finish_promotion(files, target)
    marker, left_over = f"{target}/{UNFINISHED}", ""
    if incremental:
        left_over = await asyncio.to_thread(_continues, files, target)
    elif not atomic and files.list(target):
        raise JetError(Err.BackupDirectoryNotEmpty, target)
    work = target + NEW if atomic else target
    await service.begin(instance, int(grbit & BackupGrbit.BackupIncremental), owner=service)
    written: list[str] = []
    try:
        if atomic:
            await asyncio.to_thread(remove_tree, files, work)
        if incremental:
            written.append(marker)
            await _to_its_end(partial(_begin, storage, marker, left_over))
        await _fill(service, instance, storage, work, incremental, written, status)
        if atomic:
            await _to_its_end(partial(_promote, storage, target))
        written.clear()  # whatever comes now, it is whole; and soon nobody else has the log files that are removed
        await service.find(instance).stamp()  # before they go: what the next one continues is known from here on
        await service.truncate(instance)
        await service.end(instance)
        if incremental:
            await _to_its_end(partial(_remove, storage, marker))
    except BaseException:
        with suppress(JetError):
            await service.end(instance, int(EndExternalBackupGrbit.BackupEndAbort))
        await asyncio.to_thread(_forget, storage, work, written)
        raise


async def _fill(
    service: BackupService, instance: Instance, storage: Storage, work: str, incremental: bool, written: list[str], status: Status
) -> None:
    databases = [] if incremental else service.get_attach_info(instance)
    done = 0
    total = len(databases)
    status(done, total)
    for name in databases:
        await _write(service, instance, storage, work, name, written)
        done += 1
        status(done, total)
    names = (await service.get_log_info(instance))[0]
    total += len(names)
    for name in names:  # the last one is the manifest: it is there whole, or not at all
        await _write(service, instance, storage, work, name, written, aside=NEW if name == names[-1] else "")
        done += 1
        status(done, total)


async def _write(
    service: BackupService, instance: Instance, storage: Storage, work: str, name: str, written: list[str], aside: str = ""
) -> None:
    files, gate = storage.files, storage.gate
    path = f"{work}/{name}{aside}"
    handle, _ = await service.open(instance, name)

    def put(offset: int, data: bytes) -> None:
        with gate.permit("backup"):
            if offset == 0:
                files.make_directory(path.rpartition("/")[0])
            file = files.open(path, create=True)
            try:
                if offset == 0:
                    file.truncate(0)  # what one that was killed may have left
                if data or offset == 0:
                    file.write(offset, data)
                else:
                    file.sync()
            finally:
                file.close()
            if aside and offset and not data:
                files.rename(path, f"{work}/{name}")

    offset = 0
    written += [path, f"{work}/{name}"] if aside else [path]
    while data := await service.read(instance, handle, CHUNK_BYTES):
        await _to_its_end(partial(put, offset, data))
        offset += len(data)
    await _to_its_end(partial(put, max(offset, 1), b""))
    await asyncio.to_thread(files.sync_directory, path.rpartition("/")[0])
    await service.close(instance, handle)


async def _to_its_end(work: Callable[[], None]) -> None:
    """In a thread. Who is cancelled waits for it: what it writes late nobody would remove."""
    task = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise


def _continues(files: LocalFiles, target: str) -> str:
    """An incremental backup goes where the one it continues is. Answers the manifest of one that was killed before it counted."""
    stamp = load_stamp(files)
    directory = LocalFiles(files.real_path(target))
    if stamp is None or not directory.exists(FULL_NAME):
        raise JetError(Err.MissingFullBackup, f"{target} holds no full backup")
    chain = load_chain(directory)
    if chain[-1].digest == stamp.digest:
        return ""
    if directory.exists(UNFINISHED) and len(chain) > 1 and chain[-2].digest == stamp.digest:
        return f"{target}/{chain[-1].name}"  # its log files are still in the log, and get copied again
    raise JetError(Err.MissingFullBackup, f"{target} does not hold the last backup of this instance")


def _begin(storage: Storage, marker: str, left_over: str) -> None:
    """Says for the case of a crash that log files without a manifest are no fault."""
    with storage.gate.permit("backup"):
        storage.files.replace(marker, b"")
        if left_over:
            storage.files.remove(left_over)
            storage.files.sync_directory(left_over.rpartition("/")[0])


def _remove(storage: Storage, path: str) -> None:
    with storage.gate.permit("backup"):
        storage.files.remove(path)


def _truncate(storage: Storage) -> None:
    """Never beyond what the last backup's continuation needs."""
    checkpoint = storage.log.checkpoint()
    if checkpoint is None:
        return
    stamp = load_stamp(storage.files)
    limit = checkpoint.position
    if stamp is not None:
        limit = min(limit, Position.at(stamp.next_generation, 0))
    with storage.gate.permit("log truncation"):
        storage.log.truncate_before(limit)


def _promote(storage: Storage, target: str) -> None:
    """The new backup takes the old one's place; at every moment one of them is whole."""
    files = storage.files
    with storage.gate.permit("backup"):
        remove_tree(files, target + OLD)
        if files.exists(target):
            files.rename(target, target + OLD)
        files.rename(target + NEW, target)
        files.sync_directory(target.rpartition("/")[0])
        remove_tree(files, target + OLD)


def finish_promotion(files: LocalFiles, target: str) -> None:
    """After a crash between the two renames: the new backup, which was whole by then, has its place, or else the old one has."""
    if not files.exists(target + OLD) or files.exists(target):
        return
    files.rename(target + (NEW if _is_whole(files, target + NEW) else OLD), target)
    files.sync_directory(target.rpartition("/")[0])
    remove_tree(files, target + OLD)


def _is_whole(files: LocalFiles, path: str) -> bool:
    try:
        directory = LocalFiles(files.real_path(path))
        check_presence(directory, load_chain(directory))
    except JetError:
        return False
    return True


def _forget(storage: Storage, work: str, written: list[str]) -> None:
    """Removes these files, and the directories that are empty then."""
    directories = {path[:end] for path in written for end in range(len(work), len(path)) if path[end] == "/"}
    with suppress(JetError), storage.gate.permit("backup"):
        for path in [*written, *sorted(directories, key=len, reverse=True)]:
            with suppress(JetError):
                storage.files.remove(path)
