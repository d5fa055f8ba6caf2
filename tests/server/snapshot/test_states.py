"""The state table against what the documentation says of each call, written down a second time by hand."""

from __future__ import annotations

import pytest

from jetwire_protocol.errors import Err
from jetwire_server.snapshot.states import TABLE, Call, State

# One row a state; columns as in CALLS. "!" is InvalidSequence, "dead" InvalidSnapId, "T>" the time-out and the end.
CALLS = [Call.PREPARE_INSTANCE, Call.FREEZE, Call.GET_FREEZE_INFO, Call.RENEW, Call.THAW, Call.TRUNCATE, Call.END, Call.ABORT]
EXPECTED = """
prepared     prepared freezing prepared     !      !      !         ended aborted
freezeFailed !        !        freezeFailed !      !      !         ended aborted
freezing     !        !        freezing     !      !      !         !     aborted
frozen       !        !        frozen       frozen thawed !         !     aborted
thawed       !        !        thawed       !      !      truncated ended aborted
truncated    !        !        truncated    !      !      truncated ended aborted
timedOut     !        !        !            !      T>     !         T>    aborted
ended        dead     dead     dead         dead   dead   dead      dead  dead
aborted      dead     dead     dead         dead   dead   dead      dead  dead
"""
ROWS = [line.split() for line in EXPECTED.strip().splitlines()]
CELLS = [(row[0], call, word) for row in ROWS for call, word in zip(CALLS, row[1:], strict=True)]


@pytest.mark.parametrize(("state", "call", "word"), CELLS, ids=lambda v: getattr(v, "name", v))
def test_each_cell(state: str, call: Call, word: str) -> None:
    found = TABLE[State(state), call]
    expected = {
        "!": (None, Err.OSSnapshotInvalidSequence),
        "dead": (None, Err.OSSnapshotInvalidSnapId),
        "T>": (State.ABORTED, Err.OSSnapshotTimeOut),
    }.get(word) or (State(word), None)
    assert (found.next, found.error) == expected


def test_the_table_is_whole() -> None:
    assert set(TABLE) == {(state, call) for state in State for call in Call}
    assert len(CELLS) == len(TABLE)
