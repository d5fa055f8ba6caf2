"""Restore: a backup's files, checked while they are copied, the log cut where it is to end, and recovery.

The order is such that a restore that was cut short is taken up again by the same call: files that are there with the
right checksum are kept, and until the last step the target bears a mark that no server mistakes for an instance.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec

from jetwire_protocol.errors import Err, JetError
from jetwire_server.backup.following import Following, databases_that_came, find_following, open_log
from jetwire_server.backup.manifest import BackupFile, BackupManifest, check_presence, load_chain, sha256_of
from jetwire_server.backup.swap import PLAN, finish_swap
from jetwire_server.clock import Clock
from jetwire_server.files.interface import ASIDE, Files
from jetwire_server.files.local import LocalFiles
from jetwire_server.files.whole import read_whole
from jetwire_server.limits import FILE_CHUNK_BYTES
from jetwire_server.redo.checkpoint import load_checkpoint
from jetwire_server.redo.generation import read_header
from jetwire_server.redo.names import LogNames
from jetwire_server.redo.position import Position
from jetwire_server.redo.reader import LogReader, discover
from jetwire_server.redo.records import Record, decode_commit
from jetwire_server.store.embedded.assemble import assemble
from jetwire_server.store.embedded.contents import CREATING, FORMAT, Head
from jetwire_server.store.embedded.pages import PageFile
from jetwire_server.store.interface import FIRST_NEW_TREE

MARK = "restore.unfinished"
Progress = Callable[[str, int, int], None]
"""Told which file is worked on, how many bytes are done, and how many there are in all."""


@dataclass(frozen=True, slots=True)
class Until:
    """Where to stop: before a log position, after the last commit up to a time, or after a commit. None: at the end."""

    position: Position | None = None
    time: float | None = None
    commit: int | None = None

    def beyond(self, record: Record) -> bool:
        """Whether this record is the first that is not wanted any more."""
        head = decode_commit(record.payload)
        return (
            (self.position is not None and record.position >= self.position)
            or (self.time is not None and head.time > self.time)
            or (self.commit is not None and head.number > self.commit)
        )

    @property
    def end(self) -> bool:
        return self.position is None and self.time is None and self.commit is None


THE_END = Until()


class _Mark(msgspec.Struct, frozen=True):
    digest: str
    until: str


def settle_unfinished(files: LocalFiles) -> None:
    """For whoever is about to start an instance: half a swap is finished, half a restore is refused."""
    finish_swap(files)
    refuse_unfinished(files)


def refuse_unfinished(files: LocalFiles) -> None:
    """For whoever only reads: half a restore is no instance."""
    if files.exists(PLAN):
        raise JetError(Err.RestoreInProgress, f"{files.root} holds a restore whose last step is not done: run recover, or start the server")
    if files.exists(MARK):
        raise JetError(Err.RestoreInProgress, f"{files.root} holds an unfinished restore; repeat the restore, it goes on where it was")


@dataclass(frozen=True, slots=True)
class Restored:
    """What came of it."""

    position: Position
    commit: int
    incarnation: int
    databases: list[str]


@dataclass(frozen=True, slots=True)
class RollForward:
    """An instance that is not running: its log files beyond the backup's are replayed too."""

    files: LocalFiles
    names: LogNames


async def restore(
    source: LocalFiles,
    target: LocalFiles,
    clock: Clock,
    *,
    until: Until = THE_END,
    forward: RollForward | None = None,
    progress: Progress,
) -> Restored:
    """Makes `target` an instance's directory again, in a life of its own: the logs of the old one are refused there."""
    chain = await asyncio.to_thread(load_chain, source)
    first, last = chain[0], chain[-1]
    await asyncio.to_thread(check_presence, source, chain)
    names = LogNames(first.log_directory, first.base_name)
    following = await asyncio.to_thread(_following, source, names, chain, forward) if forward else None
    mark = _Mark(last.digest, f"{until} {[log.number for log in following.logs] if following else []}")
    await asyncio.to_thread(_take_over, target, mark)
    await asyncio.to_thread(_clear_logs, target, names, {file.path for manifest in chain for file in manifest.files})
    await asyncio.to_thread(_copy_all, source, target, chain, progress)
    if following:
        await asyncio.to_thread(copy_following, following, target, names)
        await asyncio.to_thread(_copy_new_databases, following, target, set(first.databases))
    await asyncio.to_thread(end_log, target, names, chain, until)
    try:
        restored = await live_again(target, names, clock)
    except JetError as error:
        if not following or not following.logs or error.code != Err.AttachedDatabaseMismatch:
            raise
        detail = (
            f"{error.data.get('path')} was made anew, or another file took its place, since the backup: the log files that go on after it, "
            f"{', '.join(log.path for log in following.logs)}, cannot be replayed; move them away, and the backup alone is restored"
        )
        raise JetError(error.code, detail, **error.data) from error
    target.remove(MARK)
    target.sync_directory()
    return restored


async def live_again(
    target: LocalFiles, names: LogNames, clock: Clock, *, left_out: frozenset[str] = frozenset(), detach: bool = False
) -> Restored:
    """Recovers what was put together, in a new life, and reads it whole; databases that are left out stay away."""
    storage = assemble(target.root, clock, names=names, file_kb=await asyncio.to_thread(_file_kb, target, names))
    start = load_checkpoint(target, names)
    assert start is not None
    storage.store.left_out = left_out
    await asyncio.to_thread(storage.log.open, start.position, signature=start.signature)
    incarnation = max(storage.log.incarnation + 1, int(clock.now() * 1000))  # unique: two restores of one backup differ
    storage.log.begin(incarnation=incarnation)
    await storage.log.close()
    await storage.store.start()
    try:
        result = Restored(storage.log.end, storage.store.published, storage.log.incarnation, list(storage.store.databases().values()))
        await storage.store.checkpoint()
        faults = await storage.store.scrub()
        if faults:
            raise JetError(Err.DatabaseCorrupted, f"the restored databases are damaged: {faults[0]}")
        for slot in list(storage.store.databases()) if detach else ():
            await storage.store.detach_database(slot)
    finally:
        await storage.store.stop()
    return result


# -- the files ------------------------------------------------------------------------------------------------------
def _take_over(target: LocalFiles, mark: _Mark) -> None:
    """The target is empty, or was left by an unfinished restore."""
    target.make_directory("")
    wanted = msgspec.json.encode(mark)
    if target.exists(MARK):
        if read_whole(target, MARK) != wanted:
            raise JetError(Err.BadRestoreTargetInstance, f"{target.root} was left by the restore of something else; empty it first")
        return
    if set(target.list()) - {MARK + ASIDE}:
        raise JetError(Err.BadRestoreTargetInstance, f"{target.root} is not empty; restore into a new directory, nothing was changed")
    target.replace(MARK, wanted)


def _clear_logs(target: LocalFiles, names: LogNames, of_backup: set[str]) -> None:
    """An earlier attempt may have begun the new life: the log is put together anew, from files with the right checksums."""
    logs = [names.current, names.prepared, *(names.path(n) for n in target.list(names.directory) if names.number(n) is not None)]
    for path in logs:
        if path not in of_backup and target.exists(path):
            target.remove(path)


def _copy_all(source: LocalFiles, target: LocalFiles, chain: list[BackupManifest], progress: Progress) -> None:
    total = sum(file.size for manifest in chain for file in manifest.files)
    done = 0
    for manifest in chain:
        for wanted in manifest.files:
            progress(wanted.path, done, total)
            if not _is_there(target, wanted):
                _copy(source, target, wanted)
            done += wanted.size
    progress("", total, total)


def _is_there(target: LocalFiles, wanted: BackupFile) -> bool:
    if not target.exists(wanted.path) or sha256_of(target, wanted.path).sha256 != wanted.sha256:
        return False
    with closing(target.open(wanted.path)) as file:
        file.sync()  # an earlier attempt may have been killed before it did
    target.sync_directory(wanted.path.rpartition("/")[0])
    return True


def _copy(source: LocalFiles, target: LocalFiles, wanted: BackupFile) -> None:
    if copy_file(source, wanted.path, target, wanted.path) != wanted.sha256:
        raise JetError(Err.ReadVerifyFailure, f"{wanted.path} is not what was backed up: its checksum does not match", path=wanted.path)


# -- what goes on after the backup ----------------------------------------------------------------------------------
def _following(source: LocalFiles, names: LogNames, chain: list[BackupManifest], forward: RollForward) -> Following:
    numbers = range(chain[0].gen_low, chain[-1].gen_high + 1)
    backup = {number: open_log(source, names.archived(number)) for number in numbers}
    if forward.names.base != names.base:
        detail = f"the backup's log is named {names.base}, the instance's {forward.names.base}: set JET_paramBaseName"
        raise JetError(Err.InvalidParameter, detail)
    return find_following(forward.files, forward.names, backup)


def copy_following(following: Following, target: LocalFiles, names: LogNames) -> None:
    """The last one may be the current generation, and is taken for it: recovery cuts what a crash tore."""
    for log in following.logs:
        archived = names.number(log.path.rpartition("/")[2]) is not None
        copy_file(following.files, log.path, target, names.archived(log.number) if archived else names.current)


def _copy_new_databases(following: Following, target: LocalFiles, known: set[str]) -> None:
    """Databases that came after the backup are not in it: the instance's own file is taken, or made anew from the log."""
    for record in databases_that_came(following):
        if record.path in known:
            continue
        directory = record.path.rpartition("/")[0]
        if directory:
            target.make_directory(directory)
        if following.files.exists(record.path):
            copy_file(following.files, record.path, target, record.path)
        elif record.base == 0:  # it was created then: all that was ever in it is in the log
            header = following.logs[0].header
            head = Head(FORMAT, record.signature, header.signature, header.incarnation, (0, 0, 0), 0, FIRST_NEW_TREE, CREATING)
            PageFile.create(target, record.path, head).close()


def copy_file(source: Files, path: str, target: LocalFiles, name: str) -> str:
    """Copies a file durably; its SHA-256."""
    directory = name.rpartition("/")[0]
    if directory:
        target.make_directory(directory)
    total = hashlib.sha256()
    reader = source.open(path, read_only=True)
    writer = target.open(name, create=True)
    try:
        writer.truncate(0)
        offset = 0
        while data := reader.read(offset, FILE_CHUNK_BYTES):
            total.update(data)
            writer.write(offset, data)
            offset += len(data)
        writer.sync()
    finally:
        reader.close()
        writer.close()
    target.sync_directory(directory)
    return total.hexdigest()


# -- the log --------------------------------------------------------------------------------------------------------
def _file_kb(files: LocalFiles, names: LogNames) -> int:
    file = files.open(names.current, read_only=True)
    try:
        return read_header(file).file_bytes // 1024
    finally:
        file.close()


def end_log(target: LocalFiles, names: LogNames, chain: list[BackupManifest], until: Until) -> None:
    """Gives the last generation its name as the current one, and cuts what is not wanted."""
    archived = [n for name in target.list(names.directory) if (n := names.number(name)) is not None]
    if not target.exists(names.current):
        target.rename(names.archived(max(archived)), names.current)
        target.sync_directory(names.directory)
    if until.end:
        return
    start = load_checkpoint(target, names)
    assert start is not None
    generations = discover(target, names, since=start.position.generation, signature=start.signature)
    reader = LogReader(target, generations)
    cut: Record | None = None
    last = 0
    for record in reader.records(start.position):
        if cut is None and until.beyond(record):
            cut = record
            break
        last = decode_commit(record.payload).number
    consistent = chain[0].consistent_commit
    if last < consistent:
        raise JetError(
            Err.StartingRestoreLogTooHigh,
            f"the databases of this backup hold commits up to {consistent}; nothing earlier can be restored from it ({last} was asked for)",
            commit=consistent,
        )
    if cut is None:
        end = reader.end.position if reader.end else None
        if (until.position is not None and until.position != end and end is not None and until.position > end) or (
            until.commit is not None and last < until.commit
        ):
            raise JetError(Err.EndingRestoreLogTooLow, f"the backup ends at {end}, commit {last}")
        if until.time is not None and until.time > chain[-1].time:
            made = datetime.fromtimestamp(chain[-1].time, UTC).isoformat(timespec="seconds")
            raise JetError(Err.EndingRestoreLogTooLow, f"the last backup was made at {made}: what came later is not in it")
        return
    if cut.generation < generations[-1].number:
        target.remove(names.current)
        for number in range(generations[-1].number - 1, cut.generation, -1):
            target.remove(names.archived(number))
        target.rename(names.archived(cut.generation), names.current)
        target.sync_directory(names.directory)
    file = target.open(names.current)
    try:
        size = file.size()
        file.write(cut.offset, bytes(size - cut.offset))
        file.sync()
    finally:
        file.close()
