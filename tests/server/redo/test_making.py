"""The next file is made beside everything else: commits on the loop's thread, rolls, freezes, failures. Nothing of the log is lost."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import pytest

from jetwire_protocol.errors import Err, JetError
from jetwire_server.clock import SystemClock
from jetwire_server.files.gate import Gate
from jetwire_server.files.memory import MemoryFiles
from jetwire_server.redo import generation, writer
from jetwire_server.redo.log import Log
from jetwire_server.redo.placed import Placed
from jetwire_server.redo.records import Kind
from jetwire_server.redo.tail import Tail
from tests.server.redo.logs import NAMES, payloads, started

STEPS = 300


@pytest.fixture(autouse=True)
def _many_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """16 of the smallest file; and the loop's thread writes what it may, however slow the machine is."""
    monkeypatch.setattr(generation, "_ZEROS", memoryview(bytes(4096)))
    monkeypatch.setattr(writer, "LOG_HERE_SYNC_SECONDS", 1.0)


class Beside:
    """A log with a gate that counts what is written while frozen."""

    def __init__(self, seed: int, step: Callable[[str, str], None] = lambda what, path: None) -> None:
        self.dice = random.Random(seed)
        self.clock = SystemClock()
        self.gate = Gate(self.clock)
        self.files = MemoryFiles(watch=self.gate.wrote, step=step)
        self.log: Log = started(self.files, gate=self.gate)
        self.wanted: list[bytes] = []
        self.told: list[Placed | JetError] = []

    def append(self, size: int, durable: bool) -> None:
        payload = len(self.wanted).to_bytes(4, "big") + bytes(size)
        self.log.append(Kind.COMMIT, payload, durable, self.told.append)
        self.wanted.append(payload)

    async def freeze(self) -> None:
        now = self.clock.boot()
        await self.gate.freeze(now + 30, drain_until=now + 30)
        await self.log.settle()
        self.append(100, True)
        await asyncio.sleep(self.dice.choice((0, 0.002)))
        assert self.gate.thaw().held, "not a byte while frozen"

    async def step(self) -> None:
        chance = self.dice.random()
        if chance < 0.03:
            await self.freeze()
        elif chance < 0.05:
            await self.log.roll()
        elif chance < 0.07:
            await self.log.flush()
        elif chance < 0.09:
            await asyncio.gather(self.log.roll(), self.log.roll())
        elif chance < 0.5:
            await asyncio.sleep(self.dice.choice((0, 0, 0, 0.0005)))
        else:
            self.append(self.dice.choice((0, 10, 500, 3000, 9000, 70_000 if chance > 0.97 else 100)), self.dice.random() < 0.8)


@pytest.mark.plain
@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("seed", range(10))
async def test_nothing_is_lost_beside_it(seed: int, fails: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """`fails`: pieces fail now and then, of which nobody hears, for the file is made anew when it is needed."""
    ahead = False
    failed = 0
    prepare = Tail.prepare

    def noted(tail: Tail) -> None:
        nonlocal ahead
        ahead = True
        prepare(tail)
        ahead = False

    def step(what: str, path: str) -> None:
        nonlocal failed
        if ahead and fails and path == NAMES.prepared and (not failed or dice.random() < 0.1):
            failed += 1
            raise JetError(Err.DiskFull if dice.random() < 0.5 else Err.DiskIO, path)

    dice = random.Random(seed)
    monkeypatch.setattr(Tail, "prepare", noted)
    beside = Beside(seed, step)
    beside.append(40_000, True)
    await beside.log.flush()  # behind this the next file is begun, come what may
    for _ in range(STEPS):
        await beside.step()
    await beside.log.close()
    assert all(isinstance(answer, Placed) for answer in beside.told)
    assert len(beside.told) == len(beside.wanted)
    assert payloads(beside.files) == beside.wanted
    assert bool(failed) == fails
    beside.log = started(beside.files, gate=beside.gate)
    beside.append(70_000, True)
    await beside.log.close()
    assert payloads(beside.files) == beside.wanted, "what was left of the next file is in nobody's way"


@pytest.mark.parametrize("seed", range(100, 106))
async def test_when_it_cannot_be_made_what_was_told_is_there(seed: int) -> None:
    """The roll that needs it fails, and with it all that comes later, each with an error of its own."""
    full = False

    def step(what: str, path: str) -> None:
        if full and path == NAMES.prepared:
            raise JetError(Err.DiskFull, path)

    beside = Beside(seed, step)
    try:
        for number in range(STEPS):
            full = full or number > beside.dice.randint(10, 60)
            await beside.step()
        await beside.log.flush()
        pytest.fail("it needed no next file")
    except JetError as error:
        code = error.code
    assert code in (Err.LogDiskFull, Err.InstanceUnavailable)
    with pytest.raises(JetError):
        await beside.log.close()
    assert len(beside.told) == len(beside.wanted), "everybody was told"
    told = [isinstance(answer, Placed) for answer in beside.told]
    assert told == sorted(told, reverse=True), "nobody behind one that failed"
    found = payloads(beside.files)
    assert sum(told) <= len(found)
    assert found == beside.wanted[: len(found)]


@pytest.mark.parametrize("latched", [False, True])
async def test_the_end_in_the_middle_of_it(latched: bool) -> None:
    beside = Beside(0)
    beside.append(40_000, True)
    await beside.log.flush()
    while NAMES.prepared not in beside.files.list():  # noqa: ASYNC110  (the writer's thread makes it)
        await asyncio.sleep(0)
    if latched:
        beside.gate.latch("a test")
        with pytest.raises(JetError):
            await beside.log.close()
    else:
        await beside.log.close()
    assert payloads(beside.files) == beside.wanted
