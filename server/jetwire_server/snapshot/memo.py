"""The memo of a freeze in force: written before the gates close, gone after the thaw.

Found at start, it means that the server died while frozen. Its recovery writes, so that freeze was lost, and whoever
comes back with the old snapId must be told so.
"""

from __future__ import annotations

import asyncio

import msgspec

from jetwire_server.files.interface import Files

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

    async def remember(self, snap_id: int, grbit: int, timeout_ms: int) -> None:
        data = msgspec.json.encode(Lost(snap_id, grbit, timeout_ms))
        async with self._one_at_a_time:
            await asyncio.to_thread(self._files.replace, FILE_NAME, data)

    async def clear(self) -> None:
        async with self._one_at_a_time:
            if self._files.exists(FILE_NAME):
                await asyncio.to_thread(self._files.remove, FILE_NAME)

    async def take(self) -> Lost | None:
        """The freeze that was lost, once."""
        if not self._files.exists(FILE_NAME):
            return None
        file = self._files.open(FILE_NAME, read_only=True)
        try:
            data = file.read(0, file.size())
        finally:
            file.close()
        await self.clear()
        try:
            return msgspec.json.decode(data, type=Lost)
        except msgspec.DecodeError:
            return None  # torn while it was written: the freeze had not begun
