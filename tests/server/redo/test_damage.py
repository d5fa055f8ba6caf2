"""What is believed and what is refused: torn tails are cut, everything else is an error that changes nothing."""

from __future__ import annotations

import asyncio
from random import Random

import pytest

from jetwire_protocol.errors import Err, JetError
from jetwire_server.files.memory import MemoryFiles
from jetwire_server.redo.generation import DATA_START
from jetwire_server.redo.position import Position
from jetwire_server.redo.records import HEADER_BYTES, Kind
from tests.server.redo.logs import NAMES, SIGNATURE, make_log, payloads, snapshot, started, write_all

RECORDS = [bytes([65 + n]) * (10 + 37 * n) for n in range(20)]


async def crashed(records: list[bytes] = RECORDS, *, durable: bool = True) -> tuple[dict[str, bytes], list[int]]:
    """The files after a kill without a close (hence no seal), and where each record of the current file ends."""
    files = MemoryFiles()
    log = started(files)
    placed = [await log.write(Kind.COMMIT, payload, durable=durable) for payload in records]
    found = snapshot(files)
    await log.close()
    return found, [p.end_offset for p in placed]


def refused(image: dict[str, bytes], *codes: int) -> JetError:
    """It is refused, by one of these codes, and nothing was changed."""
    files = MemoryFiles(image)
    with pytest.raises(JetError) as caught:
        make_log(files).open()
    assert caught.value.code in codes, caught.value
    assert snapshot(files) == image
    return caught.value


async def test_every_cut_of_the_tail_keeps_the_whole_records_before_it() -> None:
    """One batch, not yet synced: any part of it may be missing."""
    image, ends = await crashed(RECORDS[:8], durable=False)
    current = image[NAMES.current]
    for cut in range(DATA_START, ends[-1] + 1):
        files = MemoryFiles({**image, NAMES.current: current[:cut] + bytes(len(current) - cut)})
        whole = sum(end <= cut for end in ends)
        assert payloads(files) == RECORDS[:whole]
        if cut % 97 == 0:
            await write_all(files, [b"after"])
            assert payloads(files) == [*RECORDS[:whole], b"after"]


async def test_a_hole_in_what_was_never_synced_is_a_torn_tail() -> None:
    image, ends = await crashed(durable=False)
    current = bytearray(image[NAMES.current])
    current[ends[4] : ends[5]] = bytes(ends[5] - ends[4])
    files = MemoryFiles({**image, NAMES.current: bytes(current)})
    assert payloads(files) == RECORDS[:5]
    await write_all(files, [RECORDS[5]])  # the same bytes again at the hole: what lay beyond must not come back
    assert payloads(files) == RECORDS[:6]


async def test_a_hole_in_what_was_synced_is_refused() -> None:
    image, ends = await crashed()
    current = bytearray(image[NAMES.current])
    current[ends[4] : ends[5]] = bytes(ends[5] - ends[4])
    error = refused({**image, NAMES.current: bytes(current)}, Err.LogFileCorrupt)
    assert NAMES.current in str(error)
    assert str(ends[4]) in str(error)


async def test_every_flipped_bit_is_found() -> None:
    """Over all bytes of a log of three generations: refused, or at the very tail cut. Never other data."""
    image, _ = await crashed([b"%d" % n * 3000 for n in range(1, 26)] + [b"last", b"one"])
    wanted = payloads(MemoryFiles(image))
    rng = Random(5)
    refusals = cuts = 0
    for name in [n for n in image if n.endswith(".log") and n != NAMES.prepared]:
        data = image[name]
        used = len(data.rstrip(b"\0"))
        for at in sorted({*range(120), *rng.sample(range(used), 150), *range(used - 40, used)}):
            flipped = bytearray(data)
            flipped[at] ^= 1 << rng.randrange(8)
            files = MemoryFiles({**image, name: bytes(flipped)})
            try:
                found = payloads(files)
            except JetError:
                refusals += 1
            else:
                cuts += 1
                assert name == NAMES.current
                assert found == wanted[:-1], "only the last record, whose sync nothing followed, may be taken for torn"
    assert refusals > 500
    assert cuts > 20


async def test_a_clean_log_hides_no_flip() -> None:
    """Closed in order, the log is sealed: damage to any record is refused, damage to the seal harms nobody."""
    files = MemoryFiles()
    await write_all(files, RECORDS)
    image = snapshot(files)
    current = image[NAMES.current]
    used = len(current.rstrip(b"\0"))
    for at in range(DATA_START, used, 3):
        flipped = bytearray(current)
        flipped[at] ^= 16
        damaged = {**image, NAMES.current: bytes(flipped)}
        if at < used - HEADER_BYTES:
            refused(damaged, Err.LogFileCorrupt)
        else:
            assert payloads(MemoryFiles(damaged)) == RECORDS


async def test_control_a_reader_that_stops_at_the_first_bad_record_loses_acknowledged_commits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jetwire_server.redo.reader.was_durable", lambda *_: None)
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        await test_a_hole_in_what_was_synced_is_refused()


async def test_stale_blocks_of_another_life_are_no_records() -> None:
    """The same records, of an instance whose header differs by its time, lie beyond the end and within a torn tail."""
    image, ends = await crashed()
    await asyncio.sleep(0.01)
    other, _ = await crashed()
    current, stale = image[NAMES.current], other[NAMES.current]
    for keep in (0, 3, 10):
        cut = ends[keep]
        assert payloads(MemoryFiles({**image, NAMES.current: current[:cut] + stale[cut:]})) == RECORDS[: keep + 1]


async def generations() -> dict[str, bytes]:
    files = MemoryFiles()
    log = started(files)
    for n in range(4):
        await log.write(Kind.COMMIT, bytes([n]))
        await log.roll()
    await log.write(Kind.COMMIT, b"end")
    await log.close()
    return snapshot(files)


async def test_a_missing_generation_is_named() -> None:
    image = await generations()
    gap = {name: data for name, data in image.items() if name != NAMES.archived(3)}
    assert NAMES.archived(3) in str(refused(gap, Err.MissingPreviousLogFile))
    headless = {name: data for name, data in image.items() if name not in (NAMES.current, NAMES.prepared)}
    assert NAMES.current in str(refused(headless, Err.MissingLogFile))
    refused({NAMES.checkpoint: image[NAMES.checkpoint]}, Err.MissingLogFile)
    with pytest.raises(JetError) as caught:
        make_log(MemoryFiles(image)).open(Position.at(77, DATA_START))
    assert caught.value.code == Err.CommittedLogFilesMissing


async def test_the_wrong_file_under_a_name_is_refused() -> None:
    image, other = await generations(), await generations()
    refused({**image, NAMES.archived(2): image[NAMES.archived(3)]}, Err.LogGenerationMismatch)
    refused({**image, NAMES.archived(2): other[NAMES.archived(2)]}, Err.InvalidLogSequence)
    refused({**image, NAMES.archived(9): image[NAMES.archived(3)]}, Err.LogGenerationMismatch)
    refused({**image, NAMES.archived(2): image[NAMES.archived(2)][:-1]}, Err.LogFileCorrupt)
    refused({**image, NAMES.current: b""}, Err.LogFileCorrupt)
    refused({**image, NAMES.current: b"no log"}, Err.LogFileCorrupt)


async def test_another_instances_log_is_refused() -> None:
    image = await generations()
    files = MemoryFiles(image)
    with pytest.raises(JetError) as caught:
        make_log(files).open(signature=b"another-instance")
    assert caught.value.code == Err.BadLogSignature
    assert make_log(files).open(signature=SIGNATURE)
    foreign = MemoryFiles()
    log = make_log(foreign)
    log.create(b"another-instance", incarnation=1)
    refused({**image, NAMES.archived(1): snapshot(foreign)[NAMES.current]}, Err.BadLogSignature)


async def test_a_newer_format_is_refused_by_name() -> None:
    from crc32c import crc32c

    image = await generations()
    sector = bytearray(image[NAMES.current][: DATA_START - 4])
    sector[8] = 9
    newer = bytes(sector) + crc32c(bytes(sector)).to_bytes(4, "little") + image[NAMES.current][DATA_START:]
    assert "format 9" in str(refused({**image, NAMES.current: newer}, Err.BadLogVersion))


async def test_an_abandoned_future_is_refused() -> None:
    """A restore began incarnation 2 after generation 2; a generation of the old future is still lying there."""
    image = await generations()
    restored = MemoryFiles({name: image[name] for name in (NAMES.checkpoint, NAMES.archived(1), NAMES.archived(2))})
    restored.rename(NAMES.archived(2), NAMES.current)
    log = started(restored, incarnation=2)
    await log.write(Kind.COMMIT, b"new future")
    await log.roll()
    await log.close()
    new = snapshot(restored)
    assert payloads(MemoryFiles(new)) == [bytes([0]), bytes([1]), b"new future"]
    refused({**new, NAMES.archived(3): image[NAMES.archived(3)]}, Err.InvalidLogSequence)
    refused({**new, NAMES.archived(4): image[NAMES.archived(4)]}, Err.LogGenerationMismatch, Err.InvalidLogSequence)


async def test_a_start_beyond_the_end_or_within_a_record_is_refused() -> None:
    image, ends = await crashed()
    files = MemoryFiles(image)
    for offset in (ends[3] + 1, ends[-1] + 1, ends[-1] + 5000):
        with pytest.raises(JetError) as caught:
            make_log(files).open(Position.at(1, offset))
        assert caught.value.code == Err.CommittedLogFileCorrupt
    assert make_log(files).open(Position.at(1, ends[-1]))


@pytest.mark.parametrize("size", [40_000, 150_000])
async def test_a_torn_record_that_spans_generations_is_cut_where_it_begins(size: int) -> None:
    image, _ = await crashed([b"first" * 5000, b"x" * size], durable=True)
    current = bytearray(image[NAMES.current])
    current[DATA_START + 10 : DATA_START + 20] = b"torn......"
    files = MemoryFiles({**image, NAMES.current: bytes(current)})
    assert payloads(files) == [b"first" * 5000]
    await write_all(files, [b"second", b"third" * 20_000])
    assert payloads(files) == [b"first" * 5000, b"second", b"third" * 20_000]
