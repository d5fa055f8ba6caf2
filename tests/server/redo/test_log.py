"""The log from outside: what is written is read back, over rolls, spans, restarts and changes of size."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jetwire_protocol.errors import Err, JetError
from jetwire_server import failpoints
from jetwire_server.clock import SystemClock
from jetwire_server.files.memory import MemoryFiles
from jetwire_server.redo.generation import DATA_START, decode_header
from jetwire_server.redo.log import Log
from jetwire_server.redo.position import SECTOR_BYTES, Position
from jetwire_server.redo.reader import LogFile, LogReader
from jetwire_server.redo.records import HEADER_BYTES, PIECE_RECORDS, CommitHeader, Kind, decode_commit, encode_commit
from tests.server.redo.logs import NAMES, SIGNATURE, make_log, payloads, snapshot, started, write_all

ROOM = 64 * 1024 - DATA_START  # bytes for records in the smallest log file


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(list(Kind)[1:]), st.integers(0, 100_000), st.booleans(), st.booleans()), max_size=12))
def test_what_is_written_is_read_back(records: list[tuple[Kind, int, bool, bool]]) -> None:
    async def run() -> None:
        files = MemoryFiles()
        wanted = []
        log = started(files)
        for index, (kind, size, durable, again) in enumerate(records):
            payload = bytes([index + 1]) * size
            placed = await log.write(kind, payload, durable=durable)
            wanted.append((kind, payload, placed.position, placed.end))
            if again:
                await log.close()
                log = started(files)
        await log.close()
        log = make_log(files)
        assert log.open()
        assert [(r.kind, r.payload, r.position, r.end) for r in log.records()] == wanted
        for index, (_, _, position, end) in enumerate(wanted):
            assert [r.payload for r in log.records(position)] == [w[1] for w in wanted[index:]]
            assert [r.payload for r in log.records(end)] == [w[1] for w in wanted[index + 1 :]]

    asyncio.run(run())


@pytest.mark.parametrize("over", [-HEADER_BYTES - 1, -HEADER_BYTES, -1, 0, 1, HEADER_BYTES, ROOM, ROOM + 1, 3 * ROOM, 3 * ROOM - 1])
async def test_a_roll_at_the_very_boundary(over: int) -> None:
    """The first record ends `over` bytes beyond the first generation's end."""
    files = MemoryFiles()
    records = [b"a" * (ROOM - HEADER_BYTES + over), b"b", b"c" * 70_000, b"d"]
    await write_all(files, records)
    assert payloads(files) == records


async def test_names_are_eses() -> None:
    files = MemoryFiles()
    log = started(files)
    for _ in range(16):
        await log.roll()
    await log.close()
    assert [name for name in files.list() if name != NAMES.prepared] == [
        "edb.chk",
        "edb.log",
        *sorted(f"edb{n:08X}.log" for n in range(1, 17)),
    ]
    assert log.generations() == list(range(1, 18))


async def test_truncation_stops_at_the_position_and_at_pins() -> None:
    files = MemoryFiles()
    log = started(files)
    places = []
    for index in range(6):
        places.append((await log.write(Kind.COMMIT, bytes([index]))).position)
        await log.roll()
    with log.pin(places[1]):
        assert log.truncate_before(places[4]) == [1]
    assert log.truncate_before(places[4]) == [2, 3, 4]
    assert log.truncate_before(log.end) == [5, 6]
    assert log.truncate_before(Position(99, 0, 0)) == []
    await log.write(Kind.COMMIT, b"kept")
    await log.close()
    assert payloads(files) == [b"kept"]
    with pytest.raises(JetError) as caught:
        make_log(files).open(places[2])
    assert caught.value.code == Err.MissingPreviousLogFile
    assert "edb00000003.log" in str(caught.value)


class Seen(MemoryFiles):
    """Keeps what was there after each file had got its name."""

    def rename(self, source: str, target: str) -> None:
        super().rename(source, target)
        self.seen.append(snapshot(self))

    seen: list[dict[str, bytes]]


async def test_a_log_whose_end_was_lost_goes_on_in_the_new_incarnation_at_once() -> None:
    """Killed after the cut, it was begun by the next start as if nothing had been lost: what turned up again would have continued it."""
    files = Seen()
    files.seen = []
    await write_all(files, [b"%06d" % n * 1_000 for n in range(30)])
    files.remove(NAMES.current)
    files.seen.clear()
    log = make_log(files)
    assert log.open(end_is_lost=True)
    assert log.end_was_lost
    log.begin(incarnation=7)
    await log.close()
    begun = [decode_header(there[NAMES.current][:SECTOR_BYTES], NAMES.current) for there in files.seen if NAMES.current in there]
    assert begun
    assert {header.incarnation for header in begun} == {7}
    assert payloads(files) == [b"%06d" % n * 1_000 for n in range(len(payloads(files)))]


async def test_a_new_incarnation_begins_a_generation() -> None:
    files = MemoryFiles()
    await write_all(files, [b"before"])
    log = started(files, incarnation=7)
    assert log.incarnation == 7
    assert (await log.write(Kind.COMMIT, b"after")).generation == 2
    await log.close()
    assert payloads(files) == [b"before", b"after"]
    log = make_log(files)
    log.open()
    with pytest.raises(JetError) as caught:
        log.begin(incarnation=6)
    assert caught.value.code == Err.InvalidLogSequence


async def test_the_checkpoint_keeps_place_and_body() -> None:
    files = MemoryFiles()
    log = started(files)
    place = (await log.write(Kind.COMMIT, b"x")).end
    log.save_checkpoint(place, b"databases")
    found = log.checkpoint()
    assert found is not None
    assert (found.position, found.body, found.signature, found.incarnation) == (place, b"databases", SIGNATURE, 1)
    await log.close()
    file = files.open(NAMES.checkpoint)
    for at in range(file.size()):
        good = file.read(at, 1)
        file.write(at, bytes([good[0] ^ 4]))
        with pytest.raises(JetError) as caught:
            log.checkpoint()
        assert caught.value.code == Err.CheckpointCorrupt
        file.write(at, good)
    assert log.checkpoint() == found


def test_a_commit_header_comes_back() -> None:
    header = CommitHeader(1 << 60, 5, 1_700_000_000.25, 3)
    assert decode_commit(encode_commit(*header, b"changes")) == header


def test_positions_order_as_the_log_does() -> None:
    assert Position.at(1, 9000) < Position.at(2, 4096) < Position.at(2, 4097) < Position.at(2, 8192)
    assert Position.at(3, 9000).offset == 9000


@pytest.mark.parametrize("kb", [63, 32_769])
def test_a_log_file_size_out_of_bounds_is_refused(kb: int) -> None:
    from jetwire_server.files.gate import Gate

    with pytest.raises(JetError) as caught:
        Log(MemoryFiles(), Gate(SystemClock()), SystemClock(), file_kb=kb)
    assert caught.value.code == Err.InvalidParameter


ROLL = ["prepare", "before_sync", "after_header", "between_renames", "done"]


@pytest.mark.parametrize("where", ROLL)
@pytest.mark.parametrize("cut", [False, True])
async def test_a_crash_in_the_middle_of_a_roll_loses_nothing(where: str, cut: bool) -> None:
    """`cut`: with the machine, so that only what was synced is left."""
    files = MemoryFiles()
    log = started(files)
    await log.write(Kind.COMMIT, b"acknowledged")
    with crash_at(f"redo.roll.{where}", files, cut) as left:
        await log.roll()
        await log.write(Kind.COMMIT, b"later")
        await log.close()
    await write_all(left[0], [b"more"])
    assert payloads(left[0]) == [b"acknowledged", b"more"]


@pytest.mark.parametrize("where", ROLL)
@pytest.mark.parametrize("cut", [False, True])
@pytest.mark.parametrize("files_more", [0, 1, 2])
async def test_a_crash_between_a_record_that_fills_its_file_to_the_last_byte_and_the_roll(where: str, cut: bool, files_more: int) -> None:
    """What comes next must not begin where there is no byte left: no reader would look for it there.

    Nor may the header of a file in which no record begins be taken for what is behind the log's end, and cleared.
    """
    files = MemoryFiles()
    log = started(files)
    await log.write(Kind.COMMIT, b"acknowledged")
    last = b"l" * (ROOM - 2 * HEADER_BYTES - len(b"acknowledged") + files_more * ROOM)
    with crash_at(f"redo.roll.{where}", files, cut) as left:
        await log.write(Kind.COMMIT, last)
        await log.close()
    assert len(left) >= files_more + 1 or where == "prepare"
    for found in left:
        survived = payloads(found)
        assert survived in ([b"acknowledged"], [b"acknowledged", last]), "acknowledged, and what was on its way or not"
        for more in (b"more", b"and more"):
            await write_all(found, [more])
        assert payloads(found) == [*survived, b"more", b"and more"]


@contextmanager
def crash_at(point: str, files: MemoryFiles, cut: bool) -> Iterator[list[MemoryFiles]]:
    """What is left when the process, or the machine, ends at this point; it goes on for the test."""
    left: list[MemoryFiles] = []

    def crash() -> None:
        instant = files.instant()
        images = (
            {path: instant.durable[number] for path, number in instant.names.items()} if cut else {n: _live(files, n) for n in files.list()}
        )
        left.append(MemoryFiles(images))

    failpoints.arm(point, crash)
    try:
        yield left
    finally:
        failpoints.disarm()


def _live(files: MemoryFiles, name: str) -> bytes:
    file = files.open(name, read_only=True)
    return file.read(0, file.size())


async def test_the_end_of_a_generation_closed_early_is_a_place_to_start_from() -> None:
    files = MemoryFiles()
    log = started(files)
    await log.write(Kind.COMMIT, b"before")
    early = log.end
    begins = await log.roll()
    assert begins.generation == early.generation + 1
    await log.write(Kind.COMMIT, b"after")
    await log.close()
    for start in (early, begins):
        again = make_log(files)
        assert again.open(start)
        assert [record.payload for record in again.records(start)] == [b"after"]
        assert [record.payload for record in again.records(start)] == [b"after"], "and once more, from the files"
    beyond = Position.at(early.generation, early.offset + 1)
    with pytest.raises(JetError):
        make_log(files).open(beyond)


async def test_what_open_has_read_is_not_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    files = MemoryFiles()
    await write_all(files, [bytes(5000)] * 40)
    read: list[int] = []
    whole = LogReader._read

    def counted(reader: LogReader, this: LogFile) -> Any:
        read.append(this.number)
        return whole(reader, this)

    monkeypatch.setattr(LogReader, "_read", counted)
    log = make_log(files)
    assert log.open()
    assert len(list(log.records())) == 40
    generations = len(log.generations())
    assert read == list(range(1, generations + 1))
    monkeypatch.setattr("jetwire_server.redo.log.LOG_KEPT_BYTES_MAX", 64 << 10)
    log = make_log(files)
    assert log.open()
    assert len(list(log.records())) == 40
    assert len(read) == 3 * generations, "a large log is read twice, not held"


async def test_a_file_of_many_records_is_read_in_pieces() -> None:
    """Where the reading is compiled it does not hand the interpreter over before a piece is done; a backup reads beside the server."""
    for count in (PIECE_RECORDS - 1, PIECE_RECORDS, 2 * PIECE_RECORDS + 1):
        files = MemoryFiles()
        wanted = [b"%d" % number for number in range(count)]
        log = started(files)
        places = [
            placed.position for placed in await asyncio.gather(*(log.write(Kind.COMMIT, payload, durable=False) for payload in wanted))
        ]
        await log.close()
        log = make_log(files)
        assert log.open()
        assert [record.payload for record in log.records()] == wanted
        reader = LogReader(files, log._generations)
        assert max(map(len, reader.batches())) <= PIECE_RECORDS
        for start in (PIECE_RECORDS - 2, count // 2, count - 1):
            assert [record.payload for record in reader.records(places[start])] == wanted[start:]
