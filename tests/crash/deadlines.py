"""How late a freeze ends when nobody thaws it, measured from outside on a real server.

Commits are made to wait, then somebody is stopped, killed or blocked (`DEEDS`), and the deadline passes. What counts is
the first write to the log: its instant is the kernel's (the file's modification time), so that it does not matter when
this process gets to look. It may come at most `LATE_SECONDS` after the later of

- the deadline, as Freeze or Renew told it, which must lie one lease behind the call, and
- the moment at which a stopped server could run again.

Time that the server's threads spent in the kernel's run queue is theirs who kept the processors busy: it is taken off,
but only what was counted for the slowest thread between those two instants. A write before the deadline is as wrong.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from tests.crash.snapshots import COLUMNS, DATABASE, open_database
from tests.support.server_process import ServerProcess

ROOT = Path(__file__).parents[2]
LATE_SECONDS = 0.1
EARLY_SECONDS = 0.011  # the clock of modification times is as coarse as the kernel's tick
FOR_EVER_SECONDS = 4.0  # after the deadline: what still waits then would wait for ever
WAITERS = 3
LEASES_MS = (600, 1_000)
PATIENCE = (1, 4, 16)  # times the lease, where a busy machine did not get as far as the deed within it
CLASSES_MS = (5, 10, 25, 50, 100)
BLOCK_BEFORE_SECONDS, BLOCK_AFTER_SECONDS = 0.5, 1.0  # the deadline, of the event loop
BROKEN_BLOCK_AFTER_SECONDS = 2.5  # where it must be noticed, however much of it is spent in the run queue
JETWIRE = [sys.executable, "-m", "jetwire"]


class TooSlow(Exception):
    """The lease was over before the deed was done: nothing was measured."""


@dataclass
class Measured:
    """Of one freeze: instants on the clock of deadlines, and the run queue's share of the lateness."""

    deed: str
    deadline: float
    runnable: float
    written: float
    answered: float
    queued: float

    @property
    def late(self) -> float:
        """Seconds after the deadline and being runnable, the run queue's included."""
        return self.written - max(self.deadline, self.runnable)

    def __str__(self) -> str:
        answered = self.answered - max(self.deadline, self.runnable)
        queue = f"of these {self.queued * 1000:.1f} ms in the run queue"
        return f"{self.deed}: written {self.late * 1000:.1f} ms late, {queue}; answered {answered * 1000:.1f} ms late"

    @property
    def kind(self) -> str:
        most = next((ms for ms in CLASSES_MS if self.late - self.queued <= ms / 1000), 0)
        return f"{self.deed}: at most {most} ms late"

    def wrong(self) -> str:
        """What is wrong with it; empty if nothing is."""
        if self.written < self.deadline - EARLY_SECONDS:
            return f"written while frozen: {self}"
        if self.late - self.queued > LATE_SECONDS:
            return f"frozen past the deadline: {self}"
        return ""


@dataclass
class Result:
    freezes: int = 0
    failures: list[str] = field(default_factory=list)
    table: Counter[str] = field(default_factory=Counter)
    measured: list[Measured] = field(default_factory=list)


def boot() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def of_boot(wall: float) -> float:
    """An instant of the wall's clock on the other one."""
    return wall - time.time() + boot()


class Waiter:
    """A connection with a commit that comes to wait at the gate."""

    def __init__(self, server: ServerProcess, number: int) -> None:
        self._lines = server.connect()
        self._number = number
        self._sesid, dbid = open_database(self._lines)
        self._tableid = self._lines.call("OpenTable", sesid=self._sesid, dbid=dbid, tablename="t")["tableid"]
        self.answered = 0.0

    def commit(self) -> threading.Thread:
        self.answered = 0.0
        thread = threading.Thread(target=self._commit, daemon=True)
        thread.start()
        return thread

    def _commit(self) -> None:
        record = {"id": self._number, "text": "x" * 100}
        with suppress(ValueError, OSError):  # a server that stays frozen is killed in the end
            self._lines.call("PutRecords", sesid=self._sesid, tableid=self._tableid, records=[record], mode="upsert")
            self.answered = boot()


class Watch:
    """Looks at the log and at the server's run queues, from the freeze until the first write."""

    def __init__(self, server: ServerProcess) -> None:
        self._log = server.data / "default" / "edb.log"
        self._tasks = Path(f"/proc/{server.process.pid}/task")
        self._before = self._modified()
        self._queued: list[tuple[float, dict[str, int]]] = []
        self.written = 0.0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._done = threading.Event()
        self._thread.start()

    def _modified(self) -> tuple[int, int]:
        found = self._log.stat()
        return found.st_ino, found.st_mtime_ns

    def _run(self) -> None:
        while not self._done.is_set():
            now = self._modified()
            if now != self._before:
                self.written = of_boot(now[1] / 1e9)
            self._queued.append((boot(), self._queues()))
            if self.written:
                return
            time.sleep(0.004)

    def _queues(self) -> dict[str, int]:
        """How long each thread has waited in the run queue since it was born, in nanoseconds."""
        found = {}
        for task in self._tasks.iterdir():
            try:
                found[task.name] = int((task / "schedstat").read_text().split()[1])
            except OSError:  # it has ended
                continue
        return found

    def wait(self, until: float) -> bool:
        self._thread.join(max(0.0, until - boot()))
        self._done.set()
        self._thread.join()
        return bool(self.written)

    def queued_after(self, instant: float) -> float:
        """Seconds in the run queue since then, of the thread that waited longest; never more than have passed."""
        before = [queues for when, queues in self._queued if when <= instant]
        first = before[-1] if before else self._queued[0][1]
        last = self._queued[-1][1]
        longest = max((waited - first.get(task, 0) for task, waited in last.items()), default=0)
        return min(longest / 1e9, max(0.0, self._queued[-1][0] - instant))


class Scene:
    """A frozen server with commits that wait; a deed is done to it and tells when the freeze must end."""

    def __init__(self, server: ServerProcess, waiters: list[Waiter], dice: Random, patience: int) -> None:
        self.server = server
        self.waiters = waiters
        self.dice = dice
        self.patience = patience
        self.lease_ms = self.a_lease()
        self.lines = server.connect()
        self.runnable = 0.0
        self.deadline = 0.0
        self.orchestrator: subprocess.Popen[bytes] | None = None

    def a_lease(self) -> int:
        return self.dice.randrange(*LEASES_MS) * self.patience

    def freeze(self) -> None:
        self.snap = self.lines.call("OSSnapshotPrepare")["snapId"]
        asked = boot()
        answer = self.lines.call("OSSnapshotFreeze", snapId=self.snap, leaseMs=self.lease_ms, maxDrainMs=30_000)
        self._told(answer["deadline"], asked, self.lease_ms)

    def renew(self) -> None:
        lease_ms = self.a_lease()
        asked = boot()
        answer = self.lines.ask("SnapshotRenew", snapId=self.snap, leaseMs=lease_ms)
        if "result" not in answer:
            raise TooSlow
        self._told(answer["result"]["deadline"], asked, lease_ms)

    def _told(self, deadline: float, asked: float, lease_ms: int) -> None:
        """The server's word for its deadline is taken as far as the clock outside bears it out."""
        self.deadline = of_boot(deadline)
        earliest, latest = asked + lease_ms / 1000, boot() + lease_ms / 1000
        assert earliest - 0.002 <= self.deadline <= latest + 0.002, "the deadline is not one lease after the freeze"

    def orchestrate(self) -> subprocess.Popen[bytes]:
        """Frozen by a run, whose provider does not come to an end."""
        command = [*JETWIRE, "--url", self.server.addresses["tcp"], "snapshot", "run", "--lease-ms", str(self.lease_ms)]
        command += ["--max-drain-ms", "30000", "--exec", "sleep", "5"]
        run = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.orchestrator = run
        until(lambda: self.lines.call("SnapshotStatus")["state"] == "frozen" or run.poll() is not None, "the run never froze")
        return run

    def look_when(self) -> None:
        """The deadline of somebody else's freeze."""
        remaining = self.lines.call("SnapshotStatus")["remainingMs"]
        if not remaining:
            raise TooSlow
        self.deadline = boot() + (remaining + 1) / 1000

    def commits_wait(self) -> list[threading.Thread]:
        threads = [waiter.commit() for waiter in self.waiters]
        while (status := self.lines.call("SnapshotStatus"))["waitingCommits"] != len(threads):
            if status["state"] != "frozen":
                raise TooSlow
            time.sleep(0.002)
        return threads

    def close(self) -> None:
        if self.orchestrator is not None:
            self.orchestrator.send_signal(signal.SIGCONT)
            self.orchestrator.terminate()  # it ends its provider
            self.orchestrator.wait()
        self.lines.close()


def until(true: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + 30
    while not true():
        assert time.monotonic() < end, what
        time.sleep(0.002)


# -- the deeds: each leaves a frozen server with commits waiting, and nobody who will thaw it --------------------------------
def _renewed(scene: Scene) -> None:
    scene.freeze()
    time.sleep(scene.dice.random() * 0.2)
    scene.renew()


def _closed(scene: Scene) -> None:
    """The session is bound to no connection: it outlives this one, up to its deadline."""
    scene.freeze()
    scene.lines.close()
    scene.lines = scene.server.connect()


def _stop_past_the_deadline(scene: Scene) -> None:
    pid = scene.server.process.pid
    os.kill(pid, signal.SIGSTOP)
    time.sleep(max(0.0, scene.deadline - boot()) + 0.05 + scene.dice.random() * 0.4)
    scene.runnable = boot()
    os.kill(pid, signal.SIGCONT)


def _stop_within_the_lease(scene: Scene) -> None:
    pid = scene.server.process.pid
    os.kill(pid, signal.SIGSTOP)
    time.sleep(max(0.0, scene.deadline - boot()) * scene.dice.random())
    scene.runnable = boot()
    os.kill(pid, signal.SIGCONT)


def _wait_until_it_is_time_to_block(scene: Scene) -> None:
    time.sleep(max(0.0, scene.deadline - BLOCK_BEFORE_SECONDS - boot()))


def _loop_sleeps(scene: Scene) -> None:
    _wait_until_it_is_time_to_block(scene)
    os.kill(scene.server.process.pid, signal.SIGUSR1)


def _loop_computes(scene: Scene) -> None:
    _wait_until_it_is_time_to_block(scene)
    os.kill(scene.server.process.pid, signal.SIGUSR2)


def _stop_the_orchestrator(scene: Scene) -> None:
    assert scene.orchestrator is not None
    scene.orchestrator.send_signal(signal.SIGSTOP)
    scene.look_when()


def _kill_the_orchestrator(scene: Scene) -> None:
    """Its session is bound to its connection: the freeze ends with it, long before the deadline."""
    assert scene.orchestrator is not None
    scene.look_when()
    if scene.deadline - boot() < LATE_SECONDS:
        raise TooSlow
    scene.deadline = boot()
    scene.orchestrator.kill()


def _leave(_: Scene) -> None:
    """Nobody does anything any more."""


DEEDS: dict[str, tuple[Callable[[Scene], object], Callable[[Scene], None]]] = {  # before the commits wait, and after
    "nobody thaws": (Scene.freeze, _leave),
    "renewed, then nobody thaws": (_renewed, _leave),
    "connection closed": (_closed, _leave),
    "server stopped past the deadline": (Scene.freeze, _stop_past_the_deadline),
    "server stopped within the lease": (Scene.freeze, _stop_within_the_lease),
    "event loop asleep": (Scene.freeze, _loop_sleeps),
    "event loop computes": (Scene.freeze, _loop_computes),
    "orchestrator stopped": (Scene.orchestrate, _stop_the_orchestrator),
    "orchestrator killed": (Scene.orchestrate, _kill_the_orchestrator),
}


@contextmanager
def served(directory: Path, broken: str = "") -> Iterator[tuple[ServerProcess, list[Waiter]]]:
    """`broken`: one of `odd_server.BREAKS`."""
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    block = BLOCK_BEFORE_SECONDS + (BROKEN_BLOCK_AFTER_SECONDS if broken else BLOCK_AFTER_SECONDS)
    environment = {"PYTHONPATH": paths, "BLOCK_SECONDS": str(block), "BREAK": broken}
    with ServerProcess(directory / "data", module="tests.crash.odd_server", **environment) as server:
        with server.connect() as lines:
            sesid = lines.call("BeginSession", instance=lines.call("Hello")["instances"][0]["instance"])["sesid"]
            dbid = lines.call("CreateDatabase", sesid=sesid, database=DATABASE)["dbid"]
            index = {"name": "primary", "key": ["+id"], "grbit": ["IndexPrimary", "IndexUnique"]}
            create = {"name": "t", "columns": COLUMNS, "indexes": [index]}
            lines.call("CreateTableColumnIndex", sesid=sesid, dbid=dbid, tablecreate=create)
        yield server, [Waiter(server, number) for number in range(WAITERS)]


def measure(server: ServerProcess, waiters: list[Waiter], deed: str, dice: Random, patience: int = 1) -> Measured:
    before, after = DEEDS[deed]
    scene = Scene(server, waiters, dice, patience)
    threads: list[threading.Thread] = []
    try:
        before(scene)
        watch = Watch(server)
        threads = scene.commits_wait()
        if scene.deadline and boot() > scene.deadline:
            raise TooSlow
        after(scene)
        written = watch.wait(max(scene.deadline, scene.runnable) + FOR_EVER_SECONDS)
        if not written:
            return Measured(deed, scene.deadline, scene.runnable, boot(), boot(), 0.0)
    finally:
        scene.close()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), f"{deed}: a commit was never answered"
    answered = min(waiter.answered for waiter in waiters)
    due = max(scene.deadline, scene.runnable)
    return Measured(deed, scene.deadline, scene.runnable, watch.written, answered, watch.queued_after(due))


def measured(server: ServerProcess, waiters: list[Waiter], deed: str, dice: Random) -> Measured:
    for patience in PATIENCE:
        try:
            return measure(server, waiters, deed, dice, patience)
        except TooSlow:
            time.sleep(patience * LEASES_MS[1] / 1000)  # whatever was frozen is over then, and who waited answered
    raise AssertionError(f"{deed}: this machine does not get anything done within {PATIENCE[-1] * LEASES_MS[0]} ms")


def run(seed: int, freezes: int, *, broken: str = "", deeds: tuple[str, ...] = tuple(DEEDS)) -> Result:
    """Freezes in turn, one server for all; with a broken server it ends at the first that is caught."""
    result = Result()
    dice = Random(seed)
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="jetwire-deadlines-")))
        server, waiters = stack.enter_context(served(scratch, broken))
        for number in range(freezes):
            one = measured(server, waiters, deeds[number % len(deeds)], dice)
            result.freezes += 1
            result.measured.append(one)
            if wrong := one.wrong():
                result.failures.append(f"seed {seed}, freeze {number}: {wrong}")
                if broken:
                    break
            else:
                result.table[one.kind] += 1
    return result
