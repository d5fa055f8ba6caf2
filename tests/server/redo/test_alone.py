"""A record that is alone is written on the event loop's thread; everything else goes by the writer's."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from jetwire_protocol.errors import Err, JetError
from jetwire_server import failpoints
from jetwire_server.clock import SystemClock
from jetwire_server.files.gate import Gate
from jetwire_server.files.memory import MemoryFiles
from jetwire_server.limits import LOG_ALONE_BYTES_MAX, LOG_SEAL_SECONDS
from jetwire_server.redo import writer
from jetwire_server.redo.log import Log
from jetwire_server.redo.records import Kind
from jetwire_server.redo.tail import Placed
from jetwire_server.redo.writer import _QUICK_SYNCS
from tests.server.redo.logs import payloads, started

QUICK_SECONDS = 0.1  # generous: a busy machine is not what is tested


@pytest.fixture(autouse=True)
def _generous(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "LOG_ALONE_SYNC_SECONDS_MAX", QUICK_SECONDS)


class Watched(MemoryFiles):
    """Notes on which thread the log is synced, and can make a sync slow."""

    def __init__(self) -> None:
        self.here: list[bool] = []
        self.sync_seconds = 0.0
        super().__init__(step=self._note)

    def _note(self, what: str, path: str) -> None:
        if what == "sync":
            self.here.append(threading.current_thread() is threading.main_thread())
            time.sleep(self.sync_seconds)


async def one(log: Log, payload: bytes = b"x", *, alone: bool = True, durable: bool = True) -> Placed:
    future: asyncio.Future[Placed] = asyncio.get_running_loop().create_future()

    def report(placed: Placed | JetError) -> None:
        if isinstance(placed, JetError):
            future.set_exception(placed)
        else:
            future.set_result(placed)

    log.append(Kind.COMMIT, payload, durable=durable, report=report, alone=alone)
    assert not future.done(), "never told before append has returned"
    return await future


async def warm(files: Watched, gate: Gate | None = None) -> Log:
    log = started(files, gate=gate) if gate else started(files)
    for _ in range(_QUICK_SYNCS + 1):
        await one(log)
    files.here.clear()
    return log


async def test_alone_and_quick_it_is_written_here_and_read_back_in_order() -> None:
    files = Watched()
    log = await warm(files)
    for number in range(50):
        await one(log, b"%d" % number, alone=number % 3 > 0)
    assert files.here == [number % 3 > 0 for number in range(50)]
    await log.close()
    assert payloads(files)[-50:] == [b"%d" % number for number in range(50)]


@pytest.mark.parametrize("why", ["not said", "lazy", "large", "under way", "slow disk", "frozen"])
async def test_else_the_writer_writes_it(why: str) -> None:
    files, gate = Watched(), Gate(SystemClock())
    log = await warm(files, gate)
    other: asyncio.Task[Placed] | None = None
    if why == "slow disk":
        files.sync_seconds = QUICK_SECONDS * 1.5
        await one(log)
        files.sync_seconds = 0.0
        files.here.clear()
    elif why == "under way":
        other = asyncio.create_task(one(log, alone=False))
        await asyncio.sleep(0)
    elif why == "frozen":
        await gate.freeze(gate._clock.boot() + 10, drain_until=gate._clock.boot() + 1)
    waiting = asyncio.create_task(one(log, bytes(LOG_ALONE_BYTES_MAX + (why == "large")), alone=why != "not said", durable=why != "lazy"))
    if why == "frozen":
        await asyncio.sleep(0.05)
        assert not files.here, "not a byte while frozen"
        gate.thaw()
    await waiting
    if other is not None:
        await other
    assert True not in files.here
    await log.close()


async def test_an_idle_log_is_sealed_after_records_written_here_too() -> None:
    files = Watched()
    log = await warm(files)
    await one(log)
    assert files.here == [True]
    end = log.end
    await asyncio.sleep(LOG_SEAL_SECONDS * 2.5)
    assert (await log.flush()) > end, "a seal was written"
    await one(log)  # the writer sleeps for good: it must be woken, so that it seals again
    assert files.here[-1] is False
    await log.close()


async def test_rolls_and_preparing_are_the_writers() -> None:
    files = Watched()
    log = await warm(files)
    for _ in range(600):  # more than two generations of the smallest size
        await one(log, bytes(4096))
    assert log.end.generation > 2
    assert files.here.count(True) > 400
    await log.close()
    assert len(payloads(files)) == 600 + _QUICK_SYNCS + 1


@pytest.mark.parametrize("where", ["redo.before_write", "redo.before_sync", "redo.after_sync"])
async def test_a_failure_here_is_as_final_as_there(where: str) -> None:
    files, gate = Watched(), Gate(SystemClock())
    log = await warm(files, gate)

    def fail() -> None:
        raise OSError(5, "failpoint")

    failpoints.arm(where, fail)
    try:
        with pytest.raises(JetError) as error:
            await one(log)
        assert error.value.code == Err.LogWriteFail
        assert gate.latched
    finally:
        failpoints.disarm()
    with pytest.raises(JetError) as error:
        await one(log)
    assert error.value.code == Err.InstanceUnavailable
    with pytest.raises(JetError):
        await log.close()
