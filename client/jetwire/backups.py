"""A backup over the network: everything the server lists, file by file, checked against the manifest that comes with it.

A run that was cut short is taken up by the next one with the same target, as long as the server still has the backup
(it forgets a silent caller after some minutes); if it has not, the run begins anew.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from jetwire._sync.connection import Connection
from jetwire.errors import EngineError, JetwireError
from jetwire_protocol.data.flags import BackupGrbit, EndExternalBackupGrbit
from jetwire_protocol.errors import Err

CHUNK_BYTES = 1 << 20
JOURNAL = "backup.unfinished"
Progress = Callable[[str, int, int], None]
"""Told a file's name, the bytes that are there, and its size."""


class BackupFailed(JetwireError):
    """What arrived is not what the server's manifest says, or the target cannot take it."""


@dataclass
class Journal:
    """What an interrupted run left: which files are whole, and which was being read."""

    target: Path
    incremental: bool
    phase: str = "databases"  # databases, logs
    done: list[str] = field(default_factory=list)
    current: str | None = None
    handle: int = 0
    size: int = 0

    def save(self) -> None:
        facts = {name: value for name, value in vars(self).items() if name != "target"}
        aside = self.target / (JOURNAL + ".new")
        aside.write_text(json.dumps(facts), encoding="utf-8")
        aside.replace(self.target / JOURNAL)

    @classmethod
    def load(cls, target: Path) -> Journal | None:
        try:
            return cls(target, **json.loads((target / JOURNAL).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def forget(self) -> None:
        (self.target / JOURNAL).unlink(missing_ok=True)


@dataclass(frozen=True)
class Taken:
    """What a finished backup is."""

    kind: str
    files: int
    bytes: int
    digest: str
    resumed: bool


def take(connection: Connection, instance: int, target: Path, *, incremental: bool, truncate: bool, progress: Progress) -> Taken:
    """Fetches a backup of a running instance into a directory."""
    if incremental and not (target / "backup.json").exists():
        raise BackupFailed(f"{target} holds no full backup for an incremental one to continue")
    target.mkdir(parents=True, exist_ok=True)
    journal = Journal.load(target)
    if journal is None and not incremental and any(target.iterdir()):
        raise BackupFailed(f"{target} is not empty: a full backup needs a directory of its own")
    if journal is not None and journal.incremental == incremental:
        try:
            return _run(connection, instance, journal, truncate, progress, resumed=True)
        except EngineError as error:
            if error.code not in (Err.NoBackup, Err.InvalidParameter, Err.InvalidBackupSequence, Err.OutOfMemory, Err.BackupAbortByServer):
                raise
            _abort(connection, instance)
    if journal is not None:
        for name in [*journal.done, *([journal.current] if journal.current else [])]:
            (target / name).unlink(missing_ok=True)
    journal = Journal(target, incremental)
    grbit = int(BackupGrbit.BackupIncremental) if incremental else 0
    connection.call("BeginExternalBackupInstance", instance=instance, grbit=grbit, bind=False)
    journal.save()
    return _run(connection, instance, journal, truncate, progress, resumed=False)


def _abort(connection: Connection, instance: int) -> None:
    try:
        connection.call("EndExternalBackupInstance", instance=instance, grbit=int(EndExternalBackupGrbit.BackupEndAbort))
    except EngineError as error:
        if error.code != Err.NoBackup:
            raise


def _run(connection: Connection, instance: int, journal: Journal, truncate: bool, progress: Progress, *, resumed: bool) -> Taken:
    if journal.phase == "databases":
        if not journal.incremental:
            for name in connection.call("GetAttachInfoInstance", instance=instance)["files"]:
                _fetch(connection, instance, journal, name, progress)
        listed = connection.call("GetLogInfoInstance", instance=instance)["files"]
        journal.phase = "logs"
        journal.save()
    else:
        listed = None
    if listed is None or journal.current:  # listing needs every file closed
        if journal.current:
            _fetch(connection, instance, journal, journal.current, progress)
        listed = connection.call("GetLogInfoInstance", instance=instance)["files"]
    for name in listed:
        _fetch(connection, instance, journal, name, progress)
    try:
        manifest = check(journal.target, listed[-1])
    except BackupFailed:
        _abort(connection, instance)
        raise
    _make_names_durable(journal)
    if truncate:
        connection.call("TruncateLogInstance", instance=instance)
    connection.call("EndExternalBackupInstance", instance=instance, grbit=int(EndExternalBackupGrbit.BackupEndNormal))
    journal.forget()
    total = sum(row["size"] for row in manifest["files"])
    return Taken(manifest["kind"], len(manifest["files"]), total, manifest["digest"], resumed)


def _fetch(connection: Connection, instance: int, journal: Journal, name: str, progress: Progress) -> None:
    if name in journal.done:
        return
    path = _inside(journal.target, name)
    if journal.current != name:
        opened = connection.call("OpenFileInstance", instance=instance, file=name)
        journal.current, journal.handle, journal.size = name, opened["handle"], opened["fileSize"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
        journal.save()
    with path.open("r+b") as file:
        offset = file.seek(0, os.SEEK_END)
        while True:
            progress(name, offset, journal.size)
            answer = connection.call("ReadFileInstance", instance=instance, handle=journal.handle, bufferSize=CHUNK_BYTES, offset=offset)
            data = base64.b64decode(answer["buffer"])
            if not data:
                break
            file.write(data)
            file.flush()
            offset += len(data)
        os.fsync(file.fileno())
    connection.call("CloseFileInstance", instance=instance, handle=journal.handle)
    journal.done.append(name)
    journal.current = None
    journal.save()


def _inside(target: Path, name: str) -> Path:
    """A server's word for a file is no reason to write outside the target."""
    parts = PurePosixPath(name).parts
    if not parts or ".." in parts or parts[0] == "/" or "\\" in name:
        raise BackupFailed(f"the server named a file {name!r}, which is none of a backup")
    return target.joinpath(*parts)


def _make_names_durable(journal: Journal) -> None:
    """Before the server removes its log files: the copies are durable, and here their names become so."""
    if os.name != "posix":
        return  # no such call, and none needed
    directories = {journal.target.parent, journal.target}
    for name in journal.done:
        inner = _inside(journal.target, name).parent
        directories.update(path for path in (inner, *inner.parents) if path.is_relative_to(journal.target))
    for directory in directories:
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def check(target: Path, manifest_name: str) -> dict[str, Any]:
    """Every file of a manifest, read back from the disk and compared; the manifest."""
    manifest: dict[str, Any] = json.loads((target / manifest_name).read_text(encoding="utf-8"))
    for row in manifest["files"]:
        total = hashlib.sha256()
        with _inside(target, row["path"]).open("rb") as file:
            while data := file.read(CHUNK_BYTES):
                total.update(data)
        if total.hexdigest() != row["sha256"]:
            raise BackupFailed(f"{row['path']} is not what the server sent: its checksum does not match; the backup was given up")
    return manifest
