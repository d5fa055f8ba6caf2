"""The log files of an instance that go on where a backup's end: a restore replays them too, and loses none.

What lies in a log directory is believed only if it is the same log: one signature, every generation linked to the one
before. Anything else is refused by name, because replacing it would lose what only it knows.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from jetwire_protocol.errors import Err, JetError
from jetwire_server.files.interface import Files
from jetwire_server.redo.generation import read_header
from jetwire_server.redo.names import LogNames
from jetwire_server.redo.reader import LogFile, LogReader
from jetwire_server.redo.records import COMMIT_HEADER_BYTES, Kind
from jetwire_server.store.embedded import changes

_ADVICE = "move these log files to a safe place and restore again without them; nothing was changed"


@dataclass(frozen=True, slots=True)
class Following:
    """Log files beyond a backup's: where they are, oldest first, the last one perhaps still the current one."""

    files: Files
    logs: list[LogFile] = field(default_factory=list)


def open_log(files: Files, path: str) -> LogFile:
    file = files.open(path, read_only=True)
    try:
        header = read_header(file)
    finally:
        file.close()
    return LogFile(path, header, header.tag)


def find_following(files: Files, names: LogNames, backup: dict[int, LogFile]) -> Following:
    """What the log directory holds beyond the backup's generations. No log at all is good; another one is not."""
    present = {number: names.archived(number) for name in files.list(names.directory) if (number := names.number(name)) is not None}
    logs = [open_log(files, path) for number, path in sorted(present.items()) if number >= min(backup)]
    current = _current(files, names)
    if current is not None:
        logs.append(current)
    before = backup[max(backup)]
    following = []
    for log in logs:
        if log.header.signature != before.header.signature:
            raise JetError(Err.InvalidLogSequence, f"{log.path} is of another log than the backup: {_ADVICE}", path=log.path)
        if log.number in backup:
            if log.tag != backup[log.number].tag or log is current:
                raise JetError(Err.InvalidLogSequence, f"{log.path} is not the backup's generation {log.number}: {_ADVICE}", path=log.path)
            continue
        if log.number != before.number + 1:
            raise JetError(
                Err.MissingCurrentLogFiles, f"generation {before.number + 1:X} is missing before {log.path}: {_ADVICE}", path=log.path
            )
        check_linked(before, log)
        following.append(log)
        before = log
    return Following(files, following)


def check_linked(before: LogFile, after: LogFile) -> None:
    one, two = before.header, after.header
    if two.previous_tag != before.tag or two.previous_created != one.created or two.incarnation < one.incarnation:
        raise JetError(Err.InvalidLogSequence, f"{after.path} does not continue generation {before.number:X}: {_ADVICE}", path=after.path)


def _current(files: Files, names: LogNames) -> LogFile | None:
    """The current generation; the one prepared ahead is it if a crash came in the middle of a roll."""
    if files.exists(names.current):
        return open_log(files, names.current)
    if files.exists(names.prepared):
        try:
            return open_log(files, names.prepared)
        except JetError as error:
            if error.code != Err.LogFileCorrupt:
                raise
    return None


def databases_that_came(following: Following) -> list[changes.AttachRecord]:
    """The databases that these log files attach, or create, and leave attached."""
    attached: dict[int, changes.AttachRecord] = {}
    if following.logs:
        for record in LogReader(following.files, following.logs).records():
            if record.kind in (Kind.ATTACH_DATABASE, Kind.DETACH_DATABASE):
                change = changes.decode(memoryview(record.payload)[COMMIT_HEADER_BYTES:])
                if isinstance(change, changes.AttachRecord):
                    attached[change.slot] = change
                elif isinstance(change, changes.DetachRecord):
                    attached.pop(change.slot, None)
    return list(attached.values())
