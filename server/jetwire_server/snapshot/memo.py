"""The memo of a freeze in force: written before the gates close, gone after the thaw.

Found at start, it means that the server died while frozen. Its recovery writes, so that freeze was lost, and whoever
comes back with the old snapId must be told so.
"""

from __future__ import annotations

import asyncio

import msgspec

from jetwire_server.files.interface import Files
from jetwire_server.files.whole import read_if_there

FILE_NAME = "freeze.memo"


class Lost(msgspec.Struct, frozen=True):
    snap_id: int
    grbit: int
    timeout_ms: int


class FreezeMemo:
    """One small file in the server's data directory."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._one_at_a_time = asyncio.Lock()
        self._of: int | None = None  # whose memo it is: a late clear must not take the next session's

    async def remember(self, snap_id: int, grbit: int, timeout_ms: int) -> None:
        # Shielded: cancelled, the thread would write on, and the clear that follows would come before it.
        await asyncio.shield(self._remember(Lost(snap_id, grbit, timeout_ms)))

    async def _remember(self, lost: Lost) -> None:
        async with self._one_at_a_time:
            self._of = lost.snap_id
            await asyncio.to_thread(self._files.replace, FILE_NAME, msgspec.json.encode(lost))

    async def clear(self, snap_id: int) -> None:
        """Removes the memo of this session, if it has one."""
        await asyncio.shield(self._clear(snap_id))

    async def _clear(self, snap_id: int) -> None:
        async with self._one_at_a_time:
            if self._of == snap_id:
                await self._remove()
                self._of = None

    async def _remove(self) -> None:
        if self._files.exists(FILE_NAME):
            await asyncio.to_thread(self._files.remove, FILE_NAME)
            await asyncio.to_thread(self._files.sync_directory)  # or a power cut makes a good freeze a lost one

    async def take(self) -> Lost | None:
        """The freeze that was lost, once."""
        data = read_if_there(self._files, FILE_NAME)
        if data is None:
            return None
        await self._remove()
        try:
            return msgspec.json.decode(data, type=Lost)
        except msgspec.DecodeError:
            return None  # torn while it was written: the freeze had not begun
