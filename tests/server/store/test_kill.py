"""A real process, killed for real (-9) at named places and at any time, again and again on the same files."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from jetwire_server.store.embedded import recovery
from jetwire_server.store.embedded.check import check_database
from jetwire_server.store.embedded.store import EmbeddedStore
from jetwire_server.store.interface import tree_id
from tests.server.store.kill_child import ACCOUNTS, START, WRITERS, amount, open_store

ROOT = Path(__file__).parents[3]
PLACES = [
    "redo.before_write=kill:30",
    "redo.after_write=kill:30",
    "redo.after_sync=kill:30",
    "pages.before_commit=kill:4",
    "pages.after_commit=kill:5",
    "redo.roll.between_renames=kill:2",
]


async def run_and_kill(directory: str, failpoint: str, seconds: float) -> dict[int, int]:
    """Runs the child until it dies or the time is over; answers the last acknowledged number of each writer."""
    environment = {**os.environ, "JETWIRE_FAILPOINTS": failpoint, "PYTHONPATH": str(ROOT)}
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.server.store.kill_child", directory, stdout=subprocess.PIPE, env=environment, cwd=ROOT
    )
    assert child.stdout is not None
    assert await child.stdout.readline() == b"started\n"
    loop = asyncio.get_running_loop()
    timer = loop.call_later(seconds, child.send_signal, signal.SIGKILL)
    out = await child.stdout.read()
    timer.cancel()
    assert await child.wait() == -signal.SIGKILL
    acknowledged: dict[int, int] = {}
    for line in out.decode().splitlines(keepends=True):
        if line.endswith("\n"):
            writer, number = line.split()
            acknowledged[int(writer)] = int(number)
    return acknowledged


async def verify(directory: str, acknowledged: dict[int, int]) -> None:
    store = await open_store(directory)
    try:
        await judge(store, acknowledged)
    finally:
        store.gate.latch("the test has seen enough")  # no clean stop: the next life recovers too
        await store.stop()
    assert [fault for fault in check_database(store.attached.page_files, "a.edb") if fault] == []


async def judge(store: EmbeddedStore, acknowledged: dict[int, int]) -> None:
    tree = tree_id(1, 1)
    reader = await store.begin()
    rows = dict(await reader.scan(tree))
    await reader.rollback()
    done = [amount(rows[b"writer%d" % writer]) for writer in range(WRITERS)]
    for writer, number in acknowledged.items():
        assert done[writer] in (number, number + 1), "an acknowledged commit was lost, or one that never was is there"
    assert sum(amount(rows[b"account%d" % account]) for account in range(ACCOUNTS)) == ACCOUNTS * START
    assert amount(rows[b"count"]) == sum(done), "an escrow add was lost or made twice"


async def test_acknowledged_commits_survive_kill_9(tmp_path: Path) -> None:
    pick = random.Random(5)
    for failpoint in PLACES:
        acknowledged = await run_and_kill(str(tmp_path), failpoint, 0.2 + pick.random())
        await verify(str(tmp_path), acknowledged)
    assert sum(acknowledged.values()) > 100


async def test_the_verdict_can_be_guilty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: a recovery that makes adds again which the pages have already, wherever a round of the checkpoint was cut."""
    monkeypatch.setattr(recovery, "commit_number", lambda _payload: 10**9)

    async def lives() -> None:
        for commits in range(4, 12):  # some of them are of the tree that is built and freed beside it
            directory = str(tmp_path / str(commits))
            await verify(directory, await run_and_kill(directory, f"pages.after_commit=kill:{commits}", 2.0))

    with pytest.raises(AssertionError, match="made twice"):
        await lives()


@pytest.mark.torture
async def test_many_kills(tmp_path: Path) -> None:
    pick = random.Random(6)
    for i in range(200):
        failpoint = pick.choice([*PLACES, ""])
        acknowledged = await run_and_kill(str(tmp_path), failpoint, pick.random())
        await verify(str(tmp_path), acknowledged)
        print(i, failpoint, acknowledged)
