"""SnapshotStatus tells the states of the protocol and no other, whatever the session has gone through."""

from __future__ import annotations

import pytest

from tests.support.server_process import ServerProcess

STATES = {"none", "prepared", "freezing", "frozen", "thawed", "timedOut", "truncated"}
WAYS = {
    "ended before the freeze": ["End"],
    "aborted before the freeze": ["Abort"],
    "ended": ["Freeze", "Thaw", "End"],
    "aborted frozen": ["Freeze", "Abort"],
    "ended with truncation": ["Freeze", "Thaw", "TruncateLog", "End"],
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_a_session_that_is_over_is_none(server: ServerProcess, way: list[str]) -> None:
    with server.connect() as lines:
        snap_id = lines.call("OSSnapshotPrepare", grbit=["ContinueAfterThaw"])["snapId"]
        seen = [lines.call("SnapshotStatus")["state"]]
        for call in way:
            lines.call(f"OSSnapshot{call}", snapId=snap_id)
            seen.append(lines.call("SnapshotStatus")["state"])
        assert seen[0] == "prepared"
        assert set(seen) <= STATES
        assert seen[-1] == "none"
