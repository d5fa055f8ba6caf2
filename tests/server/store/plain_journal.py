"""A log in memory, to test the store's half of the bargain: what was durable survives, what was lazy may not."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from jetwire_server.redo.position import Position
from jetwire_server.store.embedded.journal import Pending


class PlainJournal:
    signature = b"s" * 16
    incarnation = 1

    def __init__(self, records: list[tuple[int, bytes]] | None = None, checkpoint: tuple[Position | None, bytes] = (None, b"")) -> None:
        self.log: list[tuple[int, bytes]] = records or []
        self.durable = len(self.log)
        self.checkpoint = checkpoint
        self._waiting: list[tuple[Pending, bool]] = []
        self._scheduled = False

    def append(self, kind: int, payload: bytes, pending: Pending, *, durable: bool) -> None:
        self.log.append((kind, payload))
        self._waiting.append((pending, durable))
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._batch)

    def _batch(self) -> None:
        self._scheduled = False
        batch, self._waiting = self._waiting, []
        if any(durable for _, durable in batch):
            self.durable = len(self.log)
        first = len(self.log) - len(batch)
        for i, (pending, _) in enumerate(batch):
            pending.publish(Position(1, 0, first + i))

    async def flush(self) -> Position | None:
        while self._waiting:  # noqa: ASYNC110  (a stand-in may be simple)
            await asyncio.sleep(0)
        self.durable = len(self.log)
        return Position(1, 0, len(self.log))

    def read_checkpoint(self) -> tuple[Position | None, bytes]:
        return self.checkpoint

    def write_checkpoint(self, position: Position, content: bytes) -> None:
        self.checkpoint = (position, content)

    def records(self, start: Position | None) -> Iterator[tuple[int, bytes, Position]]:
        for i, (kind, payload) in enumerate(self.log):
            if start is None or i >= start.byte:
                yield kind, payload, Position(1, 0, i)

    async def open(self) -> None:
        self.durable = len(self.log)

    async def close(self) -> None:
        return None

    def after_crash(self, *, lazy_lost: bool) -> PlainJournal:
        return PlainJournal(self.log[: self.durable] if lazy_lost else list(self.log), self.checkpoint)
