"""The event table: numbered, kept over restarts, bounded, and silent while something is frozen."""

from __future__ import annotations

import asyncio
import errno
import os
import time

import pytest

from jetwire_server import failpoints, limits
from jetwire_server.event_table import FILE_NAME, Entry, EventTable
from jetwire_server.events import Event, EventLog
from jetwire_server.files.memory import MemoryFiles


class Bench:
    def __init__(self, files: MemoryFiles | None = None) -> None:
        self.files = files or MemoryFiles()
        self.log = EventLog()
        self.frozen = False
        self.table = EventTable(self.files, self.log, lambda: self.frozen)

    def emit(self, count: int = 1) -> None:
        for n in range(count):
            self.log.emit(Event(2001, "OS_SNAPSHOT_FREEZE_START_ID", "information", 1.5, "default", {"snapId": n}))

    def size(self) -> int:
        if not self.files.exists(FILE_NAME):
            return 0
        file = self.files.open(FILE_NAME, read_only=True)
        try:
            return file.size()
        finally:
            file.close()


async def test_entries_survive_a_restart_and_go_on_counting() -> None:
    first = Bench()
    await first.table.start()
    first.emit(3)
    await first.table.stop()
    second = Bench(first.files)
    second.emit()  # before the table was read: it must not take a number that is taken
    await second.table.start()
    assert [e.seq for e in second.table.after(0, 100)] == [1, 2, 3, 4]
    assert second.table.after(2, 1)[0].args == {"snapId": 2}
    await second.table.stop()


async def test_nothing_is_written_while_frozen_and_nothing_is_lost() -> None:
    bench = Bench()
    await bench.table.start()
    bench.frozen = True
    await bench.table.settle()
    before = bench.size()
    bench.emit(5)
    await asyncio.sleep(2 * limits.GATE_LOOK_SECONDS)
    assert bench.size() == before
    bench.frozen = False
    await asyncio.sleep(2 * limits.GATE_LOOK_SECONDS + 0.1)
    assert bench.size() > before
    await bench.table.stop()


@pytest.mark.parametrize("cut", [1, 10, 60])
async def test_a_torn_last_line_is_dropped_and_written_over(cut: int) -> None:
    first = Bench()
    await first.table.start()
    first.emit(2)
    await first.table.stop()
    file = first.files.open(FILE_NAME)
    file.truncate(file.size() - cut)
    file.close()
    second = Bench(first.files)
    await second.table.start()
    assert [e.seq for e in second.table.after(0, 100)] == [1]
    second.emit()
    await second.table.stop()
    third = Bench(first.files)
    await third.table.start()
    assert [e.seq for e in third.table.after(0, 100)] == [1, 2]
    await third.table.stop()


async def test_the_file_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "EVENTS_BYTES_MAX", 4_000)
    monkeypatch.setattr(limits, "EVENTS_KEPT", 10)
    bench = Bench()
    await bench.table.start()
    for _ in range(50):
        bench.emit(2)
        await asyncio.sleep(0.002)
    await bench.table.stop()
    assert bench.size() <= 4_000
    again = Bench(bench.files)
    await again.table.start()
    assert [e.seq for e in again.table.after(0, 100)] == list(range(91, 101))
    await again.table.stop()


async def test_a_stop_in_the_middle_of_a_write_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench()
    await bench.table.start()
    append = bench.table._append

    def slowly(batch: list[Entry]) -> None:
        if batch[0].seq == 1:
            time.sleep(0.1)
        append(batch)

    monkeypatch.setattr(bench.table, "_append", slowly)
    bench.emit()
    await asyncio.sleep(0.02)
    bench.emit()
    await bench.table.stop()
    again = Bench(bench.files)
    await again.table.start()
    assert [e.seq for e in again.table.after(0, 100)] == [1, 2]
    await again.table.stop()


async def test_listeners_hear_entries_with_their_numbers() -> None:
    bench = Bench()
    heard: list[int] = []
    stop = bench.table.listen(lambda e: heard.append(e.seq))
    bench.emit(2)
    stop()
    bench.emit()
    assert heard == [1, 2]


async def test_a_full_disk_costs_no_event_and_does_not_keep_the_server_from_ending(monkeypatch: pytest.MonkeyPatch) -> None:
    def full() -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(limits, "EVENTS_RETRY_SECONDS", 0.01)
    bench = Bench()
    await bench.table.start()
    failpoints.arm("files.before_write", full)
    try:
        bench.emit(2)
        await asyncio.sleep(0.1)
        bench.emit()
        await bench.table.stop()  # which raises nothing
    finally:
        failpoints.disarm()

    second = Bench()
    await second.table.start()
    failpoints.arm("files.before_write", full)
    second.emit(2)
    await asyncio.sleep(0.1)
    failpoints.disarm()
    second.emit()
    await asyncio.sleep(0.1)
    third = Bench(second.files)  # as after a crash
    await third.table.start()
    assert [entry.seq for entry in third.table.after(0, 10)] == [1, 2, 3]
    await third.table.stop()
    await second.table.stop()


async def test_long_events_do_not_write_the_whole_file_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench()
    monkeypatch.setattr(limits, "EVENTS_BYTES_MAX", 1_000)  # less than what is kept weighs
    bench.table._size_max = 1_000
    whole = 0
    replace = bench.files.replace

    def replacing(path: str, data: bytes) -> None:
        nonlocal whole
        whole += 1
        replace(path, data)

    monkeypatch.setattr(bench.files, "replace", replacing)
    await bench.table.start()
    for _ in range(100):
        bench.emit()
        await bench.table._write()
    await bench.table.stop()
    assert 2 < whole < 10
