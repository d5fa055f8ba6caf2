"""The streaming backup as a table of states: which call is good when, and what it answers when it is not."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from jetwire_protocol.errors import Err


class State(Enum):
    """Where a backup of an instance stands."""

    NONE = "none"
    DATABASES = "databases"  # a full one has begun: databases are listed and read
    LOGS_DUE = "logs due"  # an incremental one has begun: there are only logs to read
    LOGS = "logs"  # the log has been rolled, its files are listed and read
    TRUNCATED = "truncated"
    STOPPED = "stopped"  # by StopBackup, or because its caller went silent


class Call(Enum):
    """What the caller does. Opening depends on what kind of file it names."""

    GET_ATTACH_INFO = "GetAttachInfoInstance"
    OPEN_DATABASE = "OpenFileInstance of a database"
    OPEN_LOG = "OpenFileInstance of a log"
    READ = "ReadFileInstance"
    CLOSE = "CloseFileInstance"
    GET_LOG_INFO = "GetLogInfoInstance"
    GET_TRUNCATE_LOG_INFO = "GetTruncateLogInfoInstance"
    TRUNCATE = "TruncateLogInstance"
    END = "EndExternalBackupInstance"


@dataclass(frozen=True, slots=True)
class Cell:
    """The state after the call, and the error it answers, if any."""

    after: State
    error: Err | None = None


S, C = State, Call


def _stay(state: State) -> Cell:
    return Cell(state)


_LISTED: dict[tuple[State, Call], Cell] = {
    (S.DATABASES, C.GET_ATTACH_INFO): _stay(S.DATABASES),
    (S.DATABASES, C.OPEN_DATABASE): _stay(S.DATABASES),
    (S.DATABASES, C.READ): _stay(S.DATABASES),
    (S.DATABASES, C.CLOSE): _stay(S.DATABASES),
    (S.DATABASES, C.GET_LOG_INFO): Cell(S.LOGS),
    (S.DATABASES, C.GET_TRUNCATE_LOG_INFO): Cell(S.LOGS),
    (S.DATABASES, C.END): Cell(S.NONE, Err.BackupAbortByCaller),
    (S.LOGS_DUE, C.GET_LOG_INFO): Cell(S.LOGS),
    (S.LOGS_DUE, C.GET_TRUNCATE_LOG_INFO): Cell(S.LOGS),
    (S.LOGS_DUE, C.END): Cell(S.NONE, Err.BackupAbortByCaller),
    (S.LOGS, C.OPEN_LOG): _stay(S.LOGS),
    (S.LOGS, C.READ): _stay(S.LOGS),
    (S.LOGS, C.CLOSE): _stay(S.LOGS),
    (S.LOGS, C.GET_LOG_INFO): _stay(S.LOGS),
    (S.LOGS, C.GET_TRUNCATE_LOG_INFO): _stay(S.LOGS),
    (S.LOGS, C.TRUNCATE): Cell(S.TRUNCATED),
    (S.LOGS, C.END): Cell(S.NONE),
    (S.TRUNCATED, C.GET_LOG_INFO): _stay(S.TRUNCATED),
    (S.TRUNCATED, C.GET_TRUNCATE_LOG_INFO): _stay(S.TRUNCATED),
    (S.TRUNCATED, C.TRUNCATE): _stay(S.TRUNCATED),
    (S.TRUNCATED, C.END): Cell(S.NONE),
    (S.STOPPED, C.CLOSE): _stay(S.STOPPED),
    (S.STOPPED, C.END): Cell(S.NONE, Err.BackupAbortByServer),
}

_OTHERWISE = {S.NONE: Err.NoBackup, S.STOPPED: Err.BackupAbortByServer}

TABLE: dict[tuple[State, Call], Cell] = {
    (state, call): _LISTED.get((state, call)) or Cell(state, _OTHERWISE.get(state, Err.InvalidBackupSequence))
    for state in State
    for call in Call
}
"""A call out of order changes nothing: the backup goes on where it stood."""
