"""Online defragmentation: giving back what deletions left, in passes, beside everything else.

A pass deletes the records whose DeleteOnZero sums are at zero, and saves a checkpoint, with which the space of deleted records and
dropped trees becomes free. The first pass belongs to the call that starts; the others follow in a task with a session of its own.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from jetwire_protocol.data.flags import Cbtyp
from jetwire_protocol.errors import JetError
from jetwire_server import limits
from jetwire_server.engine.database import Database, OpenDatabase
from jetwire_server.engine.zeroed import finish_zeroed

if TYPE_CHECKING:
    from jetwire_server.engine.session import Session


class Defragmentation:
    """One database's. `session` is not the caller's: nobody else knows it."""

    def __init__(self, session: Session, database: Database, passes: int | None, seconds: int | None) -> None:
        self.passes = 0
        self._session = session
        self._database = database
        self._clock = session.instance.clock
        self._began = self._clock.boot()
        self._passes_most = passes
        self._seconds_most = None if seconds is None or seconds < 0 else seconds
        self._task: asyncio.Task[None] | None = None
        handle = OpenDatabase(0, database, read_only=False)
        session.opened[handle.dbid] = handle  # not counted as open: a detach need not wait for it

    @property
    def seconds(self) -> int:
        return int(self._clock.boot() - self._began)

    @property
    def over(self) -> bool:
        if self._passes_most is not None and self.passes >= self._passes_most:
            return True
        return self._seconds_most is not None and self._clock.boot() - self._began >= self._seconds_most

    async def one_pass(self) -> None:
        await finish_zeroed(self._session)
        await self._session.instance.store.checkpoint()
        self.passes += 1

    async def start(self) -> None:
        """The first pass, at once; the others in a task."""
        self._database.defragmenting = self
        try:
            await self.one_pass()
        except BaseException:
            self._database.defragmenting = None
            raise
        if self.over or self._database.defragmenting is not self:  # stopped meanwhile
            self._ended()
        else:
            self._task = asyncio.create_task(self._go_on())

    async def _go_on(self) -> None:
        with suppress(JetError):  # the database was detached, or the instance is ending
            while not self.over:
                await asyncio.sleep(limits.DEFRAGMENT_PAUSE_SECONDS)
                if not self.over:
                    await self.one_pass()
        self._ended()

    async def stop(self) -> None:
        """Ends the task; a pass that is under way is cut short."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        self._ended()

    def _ended(self) -> None:
        if self._database.defragmenting is self:
            self._database.defragmenting = None
            self._database.callbacks.tell_all(Cbtyp.OnlineDefragCompleted)
