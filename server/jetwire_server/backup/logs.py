"""What a backup takes of the log: from where recovery of its databases begins, up to where the log is rolled for it."""

from __future__ import annotations

import asyncio
import time
from contextlib import ExitStack
from itertools import pairwise

from jetwire_protocol.errors import Err, JetError
from jetwire_server import limits
from jetwire_server.backup.following import check_linked, open_log
from jetwire_server.backup.manifest import BackupFile, sha256_of
from jetwire_server.redo.position import Position
from jetwire_server.redo.reader import LogReader
from jetwire_server.redo.records import COMMIT_HEADER_BYTES, Record, commit_number
from jetwire_server.store.embedded import changes
from jetwire_server.store.embedded.assemble import Storage


class LogsOfBackup:
    """Pinned from `pin` to `close`; its files are known once `roll` has ended the last of them."""

    def __init__(self, storage: Storage) -> None:
        """`detached` and `_came`: what the log says of databases that go, by the numbers of its records, and come."""
        self._storage = storage
        self._log = storage.log
        self._pin = ExitStack()
        self._removable: list[int] = []
        self.begin = Position(0, 0, 0)
        self.end = Position(0, 0, 0)
        self.files: dict[str, BackupFile] = {}
        self.detached: set[int] = set()
        self._came: dict[int, changes.AttachRecord] = {}

    @property
    def low(self) -> int:
        return self.begin.generation

    @property
    def high(self) -> int:
        return self.end.generation - 1

    def pin(self, begin: Position) -> None:
        """From here on no truncation removes what this backup needs."""
        self.begin = begin
        self._pin.enter_context(self._log.pin(begin))

    def close(self) -> None:
        self._pin.close()

    async def roll(self, *, from_position: bool) -> None:
        """Rolls the log and verifies what it is up to there: from `begin` itself, or from the start of its generation."""
        names = self._log.names
        self.end = await self._log.roll()
        numbers = range(self.low, self.high + 1)
        taken = [await asyncio.to_thread(sha256_of, self._storage.files, names.archived(n)) for n in numbers]
        await asyncio.to_thread(self._verify, self.begin if from_position else None)
        self.files = {file.path: file for file in taken}
        checkpoint = await asyncio.to_thread(self._log.checkpoint)
        first_needed = min(checkpoint.position.generation if checkpoint else 0, self.high + 1)
        self._removable = [n for n in self._log.generations() if n < first_needed]

    def _verify(self, start: Position | None) -> None:
        """Reads every record. It gives way to others at each new generation."""
        try:
            # By their own names: the current file has none for a moment whenever somebody else's roll is under way.
            archived = [open_log(self._storage.files, self._log.names.archived(n)) for n in range(self.low, self.high + 1)]
            for before, after in pairwise(archived):
                check_linked(before, after)
            last = 0
            for record in LogReader(self._storage.files, archived).records(start):
                if record.kind in changes.ABOUT_DATABASES:
                    self._note(record)
                if record.generation != last:
                    last = record.generation
                    time.sleep(limits.BACKUP_BREATHE_SECONDS)
        except JetError as error:
            raise JetError(Err.LogReadVerifyFailure, error.detail) from error

    def _note(self, record: Record) -> None:
        change = changes.decode(memoryview(record.payload)[COMMIT_HEADER_BYTES:])
        if isinstance(change, changes.AttachRecord):
            self._came[change.slot] = change
        elif isinstance(change, changes.DetachRecord):
            self._came.pop(change.slot, None)
            self.detached.add(commit_number(record.payload))

    def strangers(self) -> list[str]:
        """Databases that came and stayed, and are not as this log left them: made anew, or changed by another instance."""
        return [came.path for came in self._came.values() if came.base not in self.detached]

    def removable(self) -> list[str]:
        """What neither recovery nor the next backup needs."""
        return [self._log.names.archived(n) for n in self._removable]

    async def truncate(self) -> list[int]:
        """Removes it; answers which generations are gone. What comes after this backup stays pinned."""
        self._pin.close()
        self._pin.enter_context(self._log.pin(Position.at(self.high + 1, 0)))
        return await asyncio.to_thread(self._truncate)

    def _truncate(self) -> list[int]:
        checkpoint = self._log.checkpoint()
        if checkpoint is None or not self._removable:
            return []
        limit = min(checkpoint.position, Position.at(self._removable[-1] + 1, 0))
        with self._storage.gate.permit("log truncation"):
            return self._log.truncate_before(limit)
