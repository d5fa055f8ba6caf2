"""A log in memory, to test the store's half of the bargain: what was durable survives, what was lazy may not."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from jetwire_server.redo.checkpoint import Checkpoint
from jetwire_server.redo.placed import Placed
from jetwire_server.redo.position import Position
from jetwire_server.redo.records import Record
from jetwire_server.redo.writer import Report

START = Position(1, 0, 0)


class PlainJournal:
    incarnation = 1
    end_was_lost = False

    def __init__(self) -> None:
        self.signature = b""
        self.log: list[tuple[int, bytes]] = []
        self.durable = 0
        self.saved: Checkpoint | None = None
        self._waiting: list[tuple[Report, bool]] = []
        self._scheduled = False

    def checkpoint(self) -> Checkpoint | None:
        return self.saved

    def save_checkpoint(self, position: Position, body: bytes = b"") -> None:
        assert position.byte < self.durable
        self.saved = Checkpoint(self.signature, position, 1, 0.0, body)

    def create(self, signature: bytes, *, incarnation: int, body: bytes = b"") -> None:
        self.signature = signature
        self.saved = Checkpoint(signature, START, 1, 0.0, body)

    def open(self, start: Position | None = None, *, signature: bytes | None = None, end_is_lost: bool = False) -> bool:
        return self.saved is not None

    def records(self, start: Position | None = None) -> Iterator[Record]:
        for i, (kind, payload) in enumerate(self.log):
            if start is None or i >= start.byte:
                yield Record(1, i, kind, payload, 1, i + 1)

    def begin(self, *, incarnation: int | None = None) -> None:
        self.durable = len(self.log)

    def append(self, kind: int, payload: bytes, durable: bool, report: Report) -> None:
        self.log.append((kind, payload))
        self._waiting.append((report, durable))
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._batch)

    def _batch(self) -> None:
        self._scheduled = False
        batch, self._waiting = self._waiting, []
        if any(durable for _, durable in batch):
            self.durable = len(self.log)
        first = len(self.log) - len(batch)
        for i, (report, _) in enumerate(batch):
            report(Placed(1, first + i, 1, first + i + 1))

    async def flush(self) -> Position:
        while self._waiting:  # noqa: ASYNC110  (a stand-in may be simple)
            await asyncio.sleep(0)
        self.durable = len(self.log)
        return Position(1, 0, len(self.log))

    def truncate_before(self, position: Position) -> list[int]:
        return []

    async def close(self) -> None:
        return None

    def after_crash(self, *, lazy_lost: bool) -> PlainJournal:
        again = PlainJournal()
        again.signature, again.saved = self.signature, self.saved
        again.log = self.log[: self.durable] if lazy_lost else list(self.log)
        return again
