"""The scrub: reads all of an instance's databases in the background, slowly, and tells of what is damaged.

It finds what no read would: damage in rows that nobody asks for, and rows that the pages do not lead to any more. The first begins
a while after Init, the next ones every `JET_paramDbScanIntervalMinSec`; `JET_paramDbScanThrottle` is its pause after each slice.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from jetwire_protocol.data.parameters import Param
from jetwire_protocol.errors import JetError
from jetwire_server import limits

if TYPE_CHECKING:
    from jetwire_server.engine.instance import Instance

log = logging.getLogger(__name__)


class Scrubbing:
    """One instance's."""

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Cut short, wherever it is."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    async def _run(self) -> None:
        wait = limits.SCRUB_AFTER_SECONDS
        while True:
            await asyncio.sleep(wait)
            try:
                await self.scrub()
            except JetError:
                pass  # the instance is unavailable: that was told
            except Exception:  # the next one may fare better
                log.exception("the scrub of %s", self._instance.name)
            wait = max(limits.SCRUB_PAUSE_SECONDS_MIN, self._instance.parameters.number(Param.DbScanIntervalMinSec))

    async def scrub(self) -> None:
        """Once, through everything; an event for each fault."""
        instance = self._instance
        instance.emit(717)
        for fault in await instance.store.scrub(instance.parameters.number(Param.DbScanThrottle) / 1000):
            instance.emit(474, file=fault.path, tree=fault.tree, key=fault.key.hex(), what=fault.what)
