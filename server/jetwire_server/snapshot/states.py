"""The snapshot session as a table: each state, each call, and what comes of it.

A cell is the state the session goes to, or the error that is answered and leaves the session as it is. The only
cells that do both are those of `TIMED_OUT`, whose Thaw and End answer the time-out once and end the session.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from jetwire_protocol.errors import Err


class State(Enum):
    PREPARED = "prepared"
    FREEZE_FAILED = "freezeFailed"  # a Freeze was refused: the session can only be ended
    FREEZING = "freezing"
    FROZEN = "frozen"
    THAWED = "thawed"
    TRUNCATED = "truncated"
    TIMED_OUT = "timedOut"
    ENDED = "ended"
    ABORTED = "aborted"


class Call(Enum):
    PREPARE_INSTANCE = "OSSnapshotPrepareInstance"
    FREEZE = "OSSnapshotFreeze"
    GET_FREEZE_INFO = "OSSnapshotGetFreezeInfo"
    RENEW = "SnapshotRenew"
    THAW = "OSSnapshotThaw"
    TRUNCATE = "OSSnapshotTruncateLog"
    END = "OSSnapshotEnd"
    ABORT = "OSSnapshotAbort"  # also OSSnapshotEnd with AbortSnapshot


class Cell(NamedTuple):
    """What a call does in a state: go somewhere, answer an error, or both."""

    next: State | None = None
    error: Err | None = None


S, C = State, Call
_SEQUENCE = Cell(error=Err.OSSnapshotInvalidSequence)
_DEAD = Cell(error=Err.OSSnapshotInvalidSnapId)
_ABORTS = Cell(S.ABORTED)


def _stay(state: State) -> Cell:
    return Cell(state)


# What is not listed is JET_errOSSnapshotInvalidSequence; a session that is over is JET_errOSSnapshotInvalidSnapId.
_LISTED: dict[tuple[State, Call], Cell] = {
    (S.PREPARED, C.PREPARE_INSTANCE): _stay(S.PREPARED),
    (S.PREPARED, C.FREEZE): Cell(S.FREEZING),
    (S.PREPARED, C.GET_FREEZE_INFO): _stay(S.PREPARED),
    (S.PREPARED, C.END): Cell(S.ENDED),
    (S.PREPARED, C.ABORT): _ABORTS,
    (S.FREEZE_FAILED, C.GET_FREEZE_INFO): _stay(S.FREEZE_FAILED),
    (S.FREEZE_FAILED, C.END): Cell(S.ENDED),
    (S.FREEZE_FAILED, C.ABORT): _ABORTS,
    (S.FREEZING, C.GET_FREEZE_INFO): _stay(S.FREEZING),
    (S.FREEZING, C.ABORT): _ABORTS,
    (S.FROZEN, C.GET_FREEZE_INFO): _stay(S.FROZEN),
    (S.FROZEN, C.RENEW): _stay(S.FROZEN),
    (S.FROZEN, C.THAW): Cell(S.THAWED),
    (S.FROZEN, C.ABORT): _ABORTS,
    (S.THAWED, C.GET_FREEZE_INFO): _stay(S.THAWED),
    (S.THAWED, C.TRUNCATE): Cell(S.TRUNCATED),
    (S.THAWED, C.END): Cell(S.ENDED),
    (S.THAWED, C.ABORT): _ABORTS,
    (S.TRUNCATED, C.GET_FREEZE_INFO): _stay(S.TRUNCATED),
    (S.TRUNCATED, C.TRUNCATE): _stay(S.TRUNCATED),
    (S.TRUNCATED, C.END): Cell(S.ENDED),
    (S.TRUNCATED, C.ABORT): _ABORTS,
    (S.TIMED_OUT, C.THAW): Cell(S.ABORTED, Err.OSSnapshotTimeOut),
    (S.TIMED_OUT, C.END): Cell(S.ABORTED, Err.OSSnapshotTimeOut),
    (S.TIMED_OUT, C.ABORT): _ABORTS,
}

OVER = frozenset({S.ENDED, S.ABORTED})

TABLE: dict[tuple[State, Call], Cell] = {
    (state, call): _DEAD if state in OVER else _LISTED.get((state, call), _SEQUENCE) for state in State for call in Call
}


def cell(state: State, call: Call) -> Cell:
    return TABLE[state, call]
