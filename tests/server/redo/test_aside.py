"""Records that come in company are written on the event loop's thread and synced aside, while the loop goes on."""

from __future__ import annotations

import asyncio
import errno
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from jetwire_protocol.errors import Err, JetError
from jetwire_server import failpoints
from jetwire_server.clock import SystemClock
from jetwire_server.files.aside import Told, kernel_syncs
from jetwire_server.files.gate import Gate
from jetwire_server.files.interface import File
from jetwire_server.files.local import LocalFiles
from jetwire_server.files.memory import MemoryFiles
from jetwire_server.limits import LOG_BATCH_BYTES_MAX
from jetwire_server.redo.log import Log
from jetwire_server.redo.records import Kind
from jetwire_server.redo.tail import Placed
from tests.crash.faults import strace
from tests.server.redo.logs import payloads

needs_the_kernels = pytest.mark.skipif("sys.platform != 'linux'", reason="Linux AIO")


class Held:
    """Syncs that end when the test says so."""

    def __init__(self) -> None:
        self.under_way: list[tuple[File, Told]] = []
        self.begun = 0
        self.closed = False

    def begin(self, file: File, told: Told) -> None:
        self.begun += 1
        self.under_way.append((file, told))

    def end(self, error: JetError | None = None) -> None:
        file, told = self.under_way.pop()
        if error is None:
            file.sync()
        told(error)

    def close(self) -> None:
        assert not self.under_way
        self.closed = True


class Rig:
    """A log in memory whose syncs are held, warmed up with two records that came together."""

    def __init__(self) -> None:
        self.files, self.gate, self.syncs = MemoryFiles(), Gate(SystemClock()), Held()
        self.log = Log(self.files, self.gate, SystemClock(), file_kb=64, syncs_of=lambda loop: self.syncs)

    async def begin(self) -> Rig:
        self.log.open()
        self.log.create(b"s" * 16, incarnation=1)
        self.log.begin()
        return self

    def commit(self, payload: bytes, *, durable: bool = True) -> asyncio.Task[Placed]:
        return asyncio.create_task(self.log.write(Kind.COMMIT, payload, durable=durable))

    def durable(self) -> list[bytes]:
        """What a power cut at this moment would leave for certain."""
        instant = self.files.instant()
        content = {name: instant.durable[number] for name, number in instant.names.items()}
        return payloads(MemoryFiles(content))


@pytest.fixture
async def rig() -> Rig:
    return await Rig().begin()


async def turns(count: int = 12) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_nothing_is_acknowledged_before_its_sync_has_ended(rig: Rig) -> None:
    first, second = rig.commit(b"1"), rig.commit(b"2")
    await turns()
    assert rig.syncs.begun == 1
    assert not first.done()
    assert not second.done()
    assert rig.durable() == []
    rig.syncs.end()
    assert (await first).position < (await second).position
    assert rig.durable() == [b"1", b"2"]
    await rig.log.close()
    assert rig.syncs.closed


async def test_what_comes_meanwhile_shares_the_next_sync(rig: Rig) -> None:
    early = [rig.commit(b"1"), rig.commit(b"2")]
    await turns()
    late = [rig.commit(b"%d" % n) for n in range(3, 8)]
    await turns()
    assert rig.syncs.begun == 1, "one at a time"
    rig.syncs.end()
    await asyncio.gather(*early)
    await turns()
    assert rig.syncs.begun == 2
    assert not any(task.done() for task in late)
    rig.syncs.end()
    await asyncio.gather(*late)
    await rig.log.close()
    assert payloads(rig.files) == [b"%d" % n for n in range(1, 8)]


@pytest.mark.parametrize("what", ["flush", "roll", "large", "lazy", "close", "settle"])
async def test_what_the_writer_does_comes_after_it(rig: Rig, what: str) -> None:
    early = [rig.commit(b"1"), rig.commit(b"2")]
    await turns()
    if what == "large":
        other: asyncio.Task[object] = asyncio.create_task(rig.log.write(Kind.COMMIT, bytes(LOG_BATCH_BYTES_MAX + 1)))
    elif what == "lazy":
        other = asyncio.create_task(rig.log.write(Kind.COMMIT, b"3", durable=False))
    else:
        other = asyncio.create_task(getattr(rig.log, what)())
    await asyncio.sleep(0.05)
    assert not other.done()
    rig.syncs.end()
    await asyncio.gather(*early)
    await asyncio.wait_for(other, 10)
    if what != "close":
        await rig.log.close()
    assert payloads(rig.files)[:2] == [b"1", b"2"]


async def test_a_freeze_waits_for_it_and_then_holds_the_next(rig: Rig) -> None:
    early = [rig.commit(b"1"), rig.commit(b"2")]
    await turns()
    freezing = asyncio.create_task(rig.gate.freeze(rig.gate._clock.boot() + 30, drain_until=rig.gate._clock.boot() + 10))
    await asyncio.sleep(0.05)
    assert not freezing.done()
    assert rig.gate.holders() == ["log"]
    rig.syncs.end()
    await freezing
    await asyncio.gather(*early)
    late = [rig.commit(b"3"), rig.commit(b"4")]
    await asyncio.sleep(0.05)
    assert rig.syncs.begun == 1, "not while frozen"
    assert rig.durable() == [b"1", b"2"]
    assert rig.gate.thaw().held
    await asyncio.gather(*late)
    await rig.log.close()


async def test_a_failed_sync_is_for_ever(rig: Rig) -> None:
    early = [rig.commit(b"1"), rig.commit(b"2")]
    await turns()
    late = rig.commit(b"3")
    await turns()
    rig.syncs.end(JetError(Err.DiskIO, "gone"))
    answers = await asyncio.gather(*early, late, return_exceptions=True)
    codes = [answer.code for answer in answers if isinstance(answer, JetError)]
    assert codes == [Err.LogWriteFail, Err.LogWriteFail, Err.InstanceUnavailable]
    assert rig.gate.latched
    with pytest.raises(JetError) as error:
        await rig.log.write(Kind.COMMIT, b"4")
    assert error.value.code == Err.InstanceUnavailable
    with pytest.raises(JetError):
        await rig.log.close()


async def test_a_sync_that_cannot_begin_lets_go_of_what_it_held(rig: Rig) -> None:
    def fail() -> None:
        raise OSError(5, "failpoint")

    failpoints.arm("redo.before_sync", fail)
    try:
        answers = await asyncio.gather(rig.commit(b"1"), rig.commit(b"2"), return_exceptions=True)
    finally:
        failpoints.disarm()
    assert [answer.code for answer in answers if isinstance(answer, JetError)] == [Err.LogWriteFail, Err.LogWriteFail]
    assert rig.gate.holders() == []
    with pytest.raises(JetError):
        await asyncio.wait_for(rig.log.close(), 10)


@needs_the_kernels
async def test_the_kernel_syncs_a_real_log(tmp_path: Path) -> None:
    clock = SystemClock()
    files = LocalFiles(tmp_path)
    log = Log(files, Gate(clock), clock, file_kb=64, syncs_of=kernel_syncs)
    log.open()
    log.create(b"s" * 16, incarnation=1)
    log.begin()
    sent = []
    for turn in range(40):
        some = [b"%d %d " % (turn, n) + bytes(300) for n in range(20)]
        await asyncio.gather(*(log.write(Kind.COMMIT, payload) for payload in some))
        sent += some
    assert log.end.generation > 2
    await log.close()
    assert payloads(files) == sent


@needs_the_kernels
async def test_a_file_that_failed_once_is_not_synced_again(tmp_path: Path) -> None:
    files = LocalFiles(tmp_path)
    file = files.open("a", create=True)
    syncs = kernel_syncs(asyncio.get_running_loop())
    assert syncs is not None
    told: asyncio.Future[JetError | None] = asyncio.get_running_loop().create_future()
    syncs.begin(file, told.set_result)
    assert await asyncio.wait_for(told, 10) is None
    heard: list[JetError | None] = []
    file.sync_begins(heard.append)(-5)
    assert heard[0] is not None
    assert heard[0].code == Err.DiskIO
    for again in (file.sync, lambda: syncs.begin(file, heard.append)):
        with pytest.raises(JetError) as error:
            again()
        assert error.value.code == Err.DiskIO
    syncs.close()
    file.close()


@needs_the_kernels
async def test_what_the_kernel_will_not_take_is_synced_the_plain_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = LocalFiles(tmp_path)
    syncs = kernel_syncs(asyncio.get_running_loop())
    assert syncs is not None
    loop = asyncio.get_running_loop()
    file = files.open("a", create=True)

    def refuse(operation: object) -> None:
        raise BlockingIOError(errno.EAGAIN, "no room")

    monkeypatch.setattr(syncs, "_context", SimpleNamespace(submit=refuse))
    told: asyncio.Future[JetError | None] = loop.create_future()
    syncs.begin(file, told.set_result)
    assert not told.done(), "never at once"
    assert await told is None

    def fail() -> None:
        raise OSError(errno.EIO, "failpoint")

    failpoints.arm("files.before_sync", fail)
    try:
        told = loop.create_future()
        syncs.begin(file, told.set_result)
        failure = await told
    finally:
        failpoints.disarm()
    assert failure is not None
    assert failure.code == Err.DiskIO
    monkeypatch.undo()
    syncs.close()
    file.close()


@needs_the_kernels
@pytest.mark.parametrize("when", ["1+", "2+"], ids=["none are allowed", "none are left"])
def test_without_the_kernels_there_are_none(when: str) -> None:
    """As in a container that forbids them: the writer's thread does it then."""
    if strace() is None:
        pytest.skip("strace is not installed, or not allowed")
    program = (
        "import asyncio\nfrom jetwire_server.files.aside import kernel_syncs\n"
        "async def main():\n    print(kernel_syncs(asyncio.get_running_loop()))\nasyncio.run(main())"
    )
    command = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"inject=io_setup:error=EPERM:when={when}", sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.strip() == "None", done.stderr
