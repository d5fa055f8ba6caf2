"""The event table: every event with a sequence number, kept over restarts, up to a limit.

Events happen at any time, a freeze included; what is not written yet stays in memory until nothing is frozen, and until
the disk takes it: a full one costs no event, and does not stop the server from ending.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import Any

import msgspec

from jetwire_protocol.errors import JetError
from jetwire_server import limits
from jetwire_server.events import Event, EventLog
from jetwire_server.files.interface import Files
from jetwire_server.files.whole import read_if_there

FILE_NAME = "events.jsonl"

log = logging.getLogger(__name__)


class Entry(msgspec.Struct, frozen=True):
    """An event as `GetEvents` returns it."""

    seq: int
    time: float
    id: int
    name: str
    severity: str
    instance: str
    args: dict[str, Any]


class EventTable:
    """`frozen` says whether writing must wait. `start` before the first event, `stop` at the end."""

    def __init__(self, files: Files, log: EventLog, frozen: Callable[[], bool]) -> None:
        self._files = files
        self._frozen = frozen
        self._kept: deque[Entry] = deque(maxlen=limits.EVENTS_KEPT)
        self._unwritten: list[Entry] = []
        self._size = 0
        self._size_max = limits.EVENTS_BYTES_MAX
        self._failed = False  # the last time that anything was to be written
        self._news = asyncio.Event()
        self._writing = asyncio.Lock()
        self._writer: asyncio.Task[None] | None = None
        self._listeners: list[Callable[[Entry], None]] = []
        log.listen(self._note)

    async def start(self) -> None:
        await asyncio.to_thread(self._read)
        self._writer = asyncio.create_task(self._write_forever(), name="event table")

    async def stop(self) -> None:
        """Writes what is left, unless something is frozen: then it is lost with the freeze's own story told by the memo."""
        if self._writer is not None:
            async with self._writing:  # a write under way ends first: its thread cannot be called back
                self._writer.cancel()
            await asyncio.gather(self._writer, return_exceptions=True)
        if not self._frozen():
            await self._write()

    def listen(self, listener: Callable[[Entry], None]) -> Callable[[], None]:
        """Calls the listener with every new entry; the returned function stops that."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def after(self, seq: int, limit: int) -> list[Entry]:
        """The entries with a number above `seq`, oldest first."""
        return list(islice((e for e in self._kept if e.seq > seq), limit))

    def _note(self, event: Event) -> None:
        seq = self._kept[-1].seq + 1 if self._kept else 1
        entry = Entry(seq, event.time, event.id, event.name, event.severity, event.instance, event.args)
        self._kept.append(entry)
        self._unwritten.append(entry)
        self._news.set()
        for listener in list(self._listeners):
            listener(entry)

    async def _write_forever(self) -> None:
        while True:
            await self._news.wait()
            if self._frozen():
                await asyncio.sleep(limits.GATE_LOOK_SECONDS)  # a freeze may end by itself, and then nobody tells
                continue
            self._news.clear()
            await self._write()
            if self._failed:
                self._news.set()
                await asyncio.sleep(limits.EVENTS_RETRY_SECONDS)

    async def settle(self) -> None:
        """Waits for a write under way. Once `frozen` says yes, nothing is written after this."""
        async with self._writing:
            pass

    async def _write(self) -> None:
        async with self._writing:
            batch, self._unwritten = self._unwritten, []
            if not batch:
                return
            try:
                await asyncio.to_thread(self._append, batch)
            except JetError as error:
                self._unwritten = [*batch, *self._unwritten][-limits.EVENTS_KEPT :]
                if not self._failed:
                    log.error("events are not written for now: %s", error)
                self._failed = True
            else:
                self._failed = False

    def _append(self, batch: list[Entry]) -> None:
        data = _lines(batch)
        if self._size + len(data) > self._size_max:
            data = _lines(list(self._kept))
            self._files.replace(FILE_NAME, data)
            self._size = len(data)
            self._size_max = max(limits.EVENTS_BYTES_MAX, 2 * self._size)  # long ones may weigh more than that: not each time anew
            return
        file = self._files.open(FILE_NAME, create=True)
        try:
            file.write(self._size, data)
            file.sync()
        finally:
            file.close()
        self._size += len(data)

    def _read(self) -> None:
        data = read_if_there(self._files, FILE_NAME)
        if data is None:
            return
        whole = data.rfind(b"\n") + 1  # a line that a crash tore is overwritten by the next
        decode = msgspec.json.Decoder(Entry).decode
        fresh = list(self._kept)
        self._kept.clear()
        for line in data[:whole].splitlines():
            try:
                self._kept.append(decode(line))
            except msgspec.DecodeError:
                continue
        last = self._kept[-1].seq if self._kept else 0
        renumbered = [msgspec.structs.replace(entry, seq=last + 1 + i) for i, entry in enumerate(fresh)]
        self._kept.extend(renumbered)
        self._unwritten = renumbered
        self._size = whole


def _lines(entries: list[Entry]) -> bytes:
    return b"".join(msgspec.json.encode(entry) + b"\n" for entry in entries)
