"""A restore that is killed (SIGKILL), wherever that is, and repeated: the same as one that was left in peace."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from jetwire_server.backup.restore import THE_END, Until
from tests.server.backup.lives import Taken, restored, take_under_load

RESTORE = """
import asyncio, os, sys
from jetwire_server import failpoints
from jetwire_server.backup.restore import restore
from jetwire_server.clock import SystemClock
from jetwire_server.files.local import LocalFiles
from jetwire_server.offline.commands import parse_until
failpoints.arm_from_environment(os.environ["JETWIRE_FAILPOINTS"])
source, target, until = sys.argv[1:]
asyncio.run(restore(LocalFiles(source), LocalFiles(target), SystemClock(), until=parse_until(until or None), progress=lambda *_: None))
"""

PLACES = (
    "files.after_write=kill:2",
    "files.after_write=kill:6",
    "files.before_rename=kill:1",
    "files.after_rename=kill:2",
    "files.before_truncate=kill:3",
    "redo.roll.after_header=kill:1",
    "redo.roll.between_renames=kill:1",
    "redo.roll.done=kill:1",
    "pages.before_commit=kill:1",
    "pages.after_commit=kill:2",
    "files.before_remove=kill:1",
)


@pytest.fixture(scope="module")
def taken(tmp_path_factory: pytest.TempPathFactory) -> Taken:
    return asyncio.run(take_under_load(tmp_path_factory.mktemp("taken"), 9))


@pytest.mark.parametrize(
    ("place", "to_the_end"),
    [
        pytest.param(place, end, marks=() if (n + end) % 4 == 0 else pytest.mark.torture)
        for n, place in enumerate(PLACES)
        for end in (True, False)
    ],
)
async def test_killed_and_repeated(taken: Taken, tmp_path: Path, place: str, to_the_end: bool) -> None:
    commit = taken.last if to_the_end else (taken.first + taken.last) // 2
    commit = max(number for number in taken.hosted.history if number <= commit)
    until = THE_END if to_the_end else Until(commit=commit)
    target = tmp_path / "r"
    command = [sys.executable, "-c", RESTORE, str(taken.directory), str(target), "" if to_the_end else str(commit)]
    environment = {**os.environ, "JETWIRE_FAILPOINTS": place}
    done = await asyncio.to_thread(subprocess.run, command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, (place, done.stderr[-500:])
    _, rows = await restored(taken.directory, target, taken.tree, until)
    assert rows == taken.hosted.history[commit]
