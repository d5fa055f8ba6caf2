"""Which instances are brought up at the next start: marks in their directories, whoever begins and ends beside whom."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from jetwire_server import failpoints
from jetwire_server.clock import SystemClock
from jetwire_server.events import EventLog
from jetwire_server.files.local import LocalFiles
from jetwire_server.hosting import RUNNING_FILE, Hosting


def marked(data: Path) -> set[str]:
    return {path.parent.name for path in data.glob(f"*/{RUNNING_FILE}")}


async def test_instances_that_begin_and_end_at_the_same_time(tmp_path: Path) -> None:
    hosting = Hosting(LocalFiles(tmp_path), SystemClock(), EventLog())
    await hosting.start()
    others = [await hosting.engine.create_instance(name) for name in "ab"]
    try:
        for name in ("files.before_rename", "files.before_remove"):
            failpoints.arm(name, lambda: time.sleep(0.02))
        for instance in others:
            await instance.init()
        await asyncio.gather(hosting.remember(), hosting.remember(), hosting.remember())
        assert marked(tmp_path) == {"default", "a", "b"}
        await others[0].term()
        gone = asyncio.create_task(hosting.remember())
        await asyncio.sleep(0.01)
        gone.cancel()  # its caller's connection closes
        await others[1].term()
        await asyncio.gather(hosting.remember(), hosting.remember())
        assert marked(tmp_path) == {"default"}
    finally:
        failpoints.disarm()
        assert await hosting.stop() == []
