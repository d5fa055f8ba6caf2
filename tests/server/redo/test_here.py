"""While syncs are quick, what was gathered is written on the event loop's thread; everything else goes by the writer's."""

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
from jetwire_server.limits import LOG_GATHER_TURNS, LOG_HERE_BYTES_MAX, LOG_LAZY_SYNC_SECONDS_MAX, LOG_SEAL_SECONDS
from jetwire_server.redo import writer
from jetwire_server.redo.log import Log
from jetwire_server.redo.placed import Placed
from jetwire_server.redo.records import Kind
from jetwire_server.redo.writer import _LOOK_EVERY
from tests.server.redo.logs import NAMES, SIGNATURE, payloads, started

QUICK_SECONDS = 0.1  # generous: a busy machine is not what is tested


@pytest.fixture(autouse=True)
def _generous(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "LOG_HERE_SYNC_SECONDS", QUICK_SECONDS)


class Watched(MemoryFiles):
    """Notes on which thread the log is synced, and can make a sync slow."""

    def __init__(self) -> None:
        self.here: list[bool] = []
        self.sync_seconds = 0.0
        self.changes = 0
        self._held: dict[str, threading.Event] = {}
        self.waits = threading.Event()
        """Somebody waits for what is held."""
        super().__init__(step=self._note)

    def hold(self, path: str) -> threading.Event:
        """Syncs of this file wait until the event is set."""
        return self._held.setdefault(path, threading.Event())

    def _note(self, what: str, path: str) -> None:
        self.changes += 1
        if what == "sync" and path in self._held:
            self.waits.set()
            self._held[path].wait(10)
            return
        if what == "sync":
            self.here.append(threading.current_thread() is threading.main_thread())
            time.sleep(self.sync_seconds)


async def one(log: Log, payload: bytes = b"x", *, durable: bool = True) -> Placed:
    future: asyncio.Future[Placed] = asyncio.get_running_loop().create_future()

    def report(placed: Placed | JetError) -> None:
        if isinstance(placed, JetError):
            future.set_exception(placed)
        else:
            future.set_result(placed)

    log.append(Kind.COMMIT, payload, durable, report)
    assert not future.done(), "never told before append has returned"
    return await future


async def warm(files: Watched, gate: Gate | None = None) -> Log:
    log = started(files, gate=gate) if gate else started(files)
    await one(log)
    files.here.clear()
    return log


async def test_it_is_written_here_and_read_back_in_order() -> None:
    files = Watched()
    log = await warm(files)
    for number in range(50):
        await one(log, b"%d" % number)
    assert files.here == [True] * 50
    await log.close()
    assert payloads(files)[-50:] == [b"%d" % number for number in range(50)]


async def test_who_commits_in_following_turns_shares_a_sync() -> None:
    files = Watched()
    log = await warm(files)

    async def late(turns: int) -> None:
        for _ in range(turns):
            await asyncio.sleep(0)
        await one(log)

    await asyncio.gather(late(0), late(0), late(1), late(2))
    assert files.here == [True]
    files.here.clear()
    await asyncio.gather(*(late(turn) for turn in range(2 * LOG_GATHER_TURNS)))
    assert len(files.here) > 1, "nobody waits for ever because others keep coming"
    await log.close()


@pytest.mark.parametrize("why", ["lazy", "large", "under way", "slow disk", "frozen"])
async def test_else_the_writer_writes_it(why: str) -> None:
    files, gate = Watched(), Gate(SystemClock())
    log = await warm(files, gate)
    other: asyncio.Task[Placed] | None = None
    if why == "slow disk":
        files.sync_seconds = QUICK_SECONDS * 1.5
        for _ in range(3):
            await one(log)
        assert files.here == [True] * 3, "one that was late says nothing"
        files.sync_seconds = 0.0
        files.here.clear()
    elif why == "under way":
        files.sync_seconds = QUICK_SECONDS / 2
        other = asyncio.create_task(one(log, bytes(LOG_HERE_BYTES_MAX + 1)))
        await asyncio.sleep(QUICK_SECONDS / 10)
    elif why == "frozen":
        await gate.freeze(gate._clock.boot() + 10, drain_until=gate._clock.boot() + 1)
    waiting = asyncio.create_task(one(log, bytes(LOG_HERE_BYTES_MAX + (why == "large")), durable=why != "lazy"))
    if why == "frozen":
        await asyncio.sleep(0.05)
        assert not files.here, "not a byte while frozen"
        gate.thaw()
    await waiting
    if other is not None:
        await other
    assert True not in files.here
    await log.close()


async def test_while_the_next_file_is_made_commits_go_on_here() -> None:
    files = Watched()
    log = await warm(files)
    goes_on = files.hold(NAMES.prepared)
    await one(log, bytes(40_000))
    await one(log)  # by the writer, which then begins the next file, and is held there
    await asyncio.to_thread(files.waits.wait, 10)
    files.here.clear()
    for _ in range(3):
        await asyncio.wait_for(one(log), 5)
    assert files.here == [True] * 3
    goes_on.set()
    await one(log, bytes(40_000))
    await log.close()
    assert files.list() == [NAMES.checkpoint, NAMES.current, NAMES.archived(1)], "it was taken into use"


async def test_the_next_file_is_not_made_while_frozen() -> None:
    files, gate = Watched(), Gate(SystemClock())
    log = await warm(files, gate)
    goes_on = files.hold(NAMES.prepared)
    await one(log, bytes(40_000))
    await one(log)
    await asyncio.to_thread(files.waits.wait, 10)
    freezing = asyncio.create_task(gate.freeze(gate._clock.boot() + 10, drain_until=gate._clock.boot() + 5))
    await asyncio.sleep(0.05)
    assert not freezing.done(), "a piece of it is being written"
    goes_on.set()
    await freezing
    before = files.changes
    await asyncio.sleep(0.1)
    assert files.changes == before, "not a byte while frozen"
    gate.thaw()
    await one(log, bytes(40_000))
    assert files.changes > before
    await log.close()


async def test_what_is_lazy_does_not_wait_for_the_next_file() -> None:
    """It is made in many pieces, one behind the other where nothing else is to be done: but lazy records become durable in time."""
    done: list[str] = []

    def note(what: str, path: str) -> None:
        if what == "sync":
            done.append(path)
            if path == NAMES.prepared:
                time.sleep(LOG_LAZY_SYNC_SECONDS_MAX / 4)

    files, clock = MemoryFiles(), SystemClock()
    log = Log(files, Gate(clock), clock, file_kb=4096)
    log.create(SIGNATURE, incarnation=1)
    log.begin()
    files._step = note
    await log.write(Kind.COMMIT, bytes(3 << 20))
    await log.write(Kind.COMMIT, b"lazy", durable=False)
    done.clear()
    while done.count(NAMES.prepared) < 10:  # noqa: ASYNC110  (events of a thread)
        await asyncio.sleep(0.01)
    assert NAMES.current in done, "it was synced between two pieces"
    await log.close()


@pytest.mark.plain
def test_how_long_the_writer_waits_is_known_although_the_loop_syncs_meanwhile() -> None:
    class Synced(writer.LogWriter):
        """What is lazy is synced by the other thread right after this one has looked."""

        looks = 0

        def __init__(self) -> None:
            self._failure, self._sealed = None, False

        @property
        def _lazy_since(self) -> float | None:  # type: ignore[override]
            self.looks += 1
            return time.monotonic() if self.looks == 1 else None

    patience = Synced()._patience()
    assert patience is not None
    assert 0 < patience <= LOG_SEAL_SECONDS


async def test_a_disk_that_is_quick_again_is_noticed() -> None:
    files = Watched()
    log = await warm(files)
    files.sync_seconds = QUICK_SECONDS * 1.5
    for _ in range(3):
        await one(log)
    files.sync_seconds = 0.0
    files.here.clear()
    for _ in range(3 * _LOOK_EVERY):
        await one(log)
    assert files.here.index(True) == _LOOK_EVERY - 1
    assert files.here[-1] is True
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


@pytest.mark.plain
async def test_a_seal_that_comes_in_between_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The writer seals, lets go of the tail and sleeps for good just before the loop takes the tail."""
    files = Watched()
    log = await warm(files)
    its = log._writer
    assert its is not None
    sealing, lock = its, its._using_tail

    class Sealing:
        __enter__, __exit__, release = lock.__enter__, lock.__exit__, lock.release

        def acquire(self, *, blocking: bool) -> bool:
            sealing._sealed = True
            return lock.acquire(blocking=blocking)

    monkeypatch.setattr(its, "_using_tail", Sealing())
    await one(log)
    assert files.here == [False], "the writer is woken, so that it seals again"
    await log.close()


async def test_rolls_and_preparing_are_the_writers() -> None:
    files = Watched()
    log = await warm(files)
    for _ in range(600):  # more than two generations of the smallest size
        await one(log, bytes(4096))
    assert log.end.generation > 2
    assert files.here.count(True) > 400
    await log.close()
    assert len(payloads(files)) == 600 + 1


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
