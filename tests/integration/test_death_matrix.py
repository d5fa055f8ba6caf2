"""The death matrix: who dies or stops, at which step of a snapshot, before, during or after it. After each, with real
processes under load:

- nothing stays frozen past its deadline, once the server can run (and nothing past the end of who asked, since a run
  binds its session to its connection);
- a server that died is started again, holds every acknowledged commit, and its state is none or timedOut;
- whenever a thaw said "held", the copy passes its verification; a run that says "consistent" is one that may;
- a new snapshot works, with no help from an operator.

An instant is recognised by a failpoint in the server, which kills it, or waits there while the test does its deed; or,
where the server has no part in it, by what the orchestrator's journal says or what a command of the plan has begun.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.integration.test_freeze import JETWIRE, Load, create_database, prepare, tables
from tests.support.server_process import Lines, ServerProcess

# A writer whose server dies ends with an error, as it should.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")

# Two leases: a short one where the deed is to outlast it, and elsewhere one that no busy machine reaches, so that what
# thaws the server there is not the deadline.
SHORT_LEASE_MS = 2_500
LONG_LEASE_MS = 120_000
LONG_STOP_SECONDS = SHORT_LEASE_MS / 1000 + 1.0  # the lease may begin a little after the deed
SHORT_STOP_SECONDS = 1.0
WINDOW_SECONDS = 0.4  # how long the server waits at an instant for the deed of the test
LATE_SECONDS = 15.0  # the promise is 100 ms of being runnable (`test_freeze_deadline.py`); the rest is two busy cores
WRITERS = 2
WRITER_PAUSE_SECONDS = 0.01  # a hundred commits a second each: more would only take the processor from those who are to die
AT_ONCE = 60.0  # no deadline that is measured: long enough for any machine

STEPS = ("prepare", "marker", "drain", "freeze", "provider", "thaw", "verify", "truncate", "end")
MOMENTS = ("before", "during", "after")
# How each instant is recognised; "freeze" is the call with its sealing, whose middle has steps of their own.
PLACES: dict[tuple[str, str], tuple[str, str]] = {
    ("prepare", "before"): ("failpoint", "snapshot.preparing"),
    ("prepare", "after"): ("failpoint", "snapshot.prepared"),
    ("freeze", "before"): ("failpoint", "snapshot.asked"),
    ("marker", "before"): ("failpoint", "snapshot.freezing"),
    ("marker", "during"): ("failpoint", "snapshot.between_markers"),
    ("marker", "after"): ("failpoint", "snapshot.marked"),
    ("drain", "before"): ("failpoint", "snapshot.draining"),
    ("drain", "during"): ("failpoint", "gate.draining"),
    ("drain", "after"): ("failpoint", "snapshot.closed"),
    ("freeze", "during"): ("failpoint", "snapshot.sealed"),
    ("freeze", "after"): ("failpoint", "snapshot.frozen"),
    ("provider", "before"): ("journal", "frozen"),
    ("provider", "during"): ("file", "provider"),
    ("provider", "after"): ("file", "copied"),  # and the provider ends once the deed is done
    ("thaw", "before"): ("failpoint", "snapshot.thawing"),
    ("thaw", "during"): ("failpoint", "snapshot.released"),
    ("thaw", "after"): ("failpoint", "snapshot.thawed"),
    ("verify", "before"): ("journal", "thawed"),
    ("verify", "during"): ("file", "verify"),
    ("verify", "after"): ("journal", "verified"),
    ("truncate", "before"): ("failpoint", "snapshot.truncate"),
    ("truncate", "during"): ("failpoint", "snapshot.truncating"),
    ("truncate", "after"): ("failpoint", "snapshot.truncated"),
    ("end", "before"): ("failpoint", "snapshot.ending"),
    ("end", "during"): ("failpoint", "snapshot.ended"),
    ("end", "after"): ("failpoint", "snapshot.stamped"),
}
ORDER = list(PLACES)
FROZEN = (("drain", "before"), ("thaw", "before"))  # a server that stands still here for longer than the lease loses the freeze
ASKED = (("freeze", "before"), ("provider", "after"))  # the same for an orchestrator: the server goes on while it stands still
IN_A_THREAD = ("snapshot.between_markers", "snapshot.truncating")  # a pause there does not block the event loop
ACTORS = [
    ("server", "killed"),
    ("server", "stopped"),
    ("event loop", "blocked"),
    ("orchestrator", "killed"),
    ("orchestrator", "stopped"),
    ("connection", "closed"),
    ("provider", "killed"),
    ("provider", "stopped"),
]


@dataclass(frozen=True)
class Cell:
    who: str
    how: str
    step: str
    moment: str

    def __str__(self) -> str:
        return f"{self.who} {self.how} {self.moment} {self.step}"

    @property
    def place(self) -> tuple[str, str]:
        return PLACES[self.step, self.moment]

    def within(self, first: tuple[str, str], last: tuple[str, str]) -> bool:
        return ORDER.index(first) <= ORDER.index((self.step, self.moment)) <= ORDER.index(last)

    @property
    def provided_before(self) -> bool:
        """Whether the provider must have ended for this instant to come. Otherwise it ends once the deed is done."""
        return not self.within(ORDER[0], ("provider", "after"))

    @property
    def outlasts(self) -> bool:
        """Whether who stops stands still for longer than the lease, while it counts."""
        if self.how == "killed" or self.who == "connection":
            return False
        return self.who == "provider" or self.within(*(ASKED if self.who == "orchestrator" else FROZEN))

    @property
    def stopped_seconds(self) -> float:
        return LONG_STOP_SECONDS if self.outlasts else SHORT_STOP_SECONDS

    def impossible(self) -> str:
        """Why there can be no such cell; empty if there is one."""
        if (self.step, self.moment) not in PLACES:
            return "Prepare is one piece of synchronous code: nothing comes between its beginning and its end"
        if self.who == "provider" and (self.step, self.moment) != ("provider", "during"):
            return "the provider's process exists only while it provides"
        return ""


ALL = [Cell(who, how, step, moment) for who, how in ACTORS for step in STEPS for moment in MOMENTS]
CELLS = [cell for cell in ALL if not cell.impossible()]
# A sample in `make test`.
QUICK = {
    Cell("server", "killed", "freeze", "during"),
    Cell("event loop", "blocked", "freeze", "during"),
    Cell("orchestrator", "killed", "prepare", "after"),
    Cell("connection", "closed", "thaw", "during"),
}


def until(true: Callable[[], object], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.005)


class Scene:
    """A server, a load, and an orchestrator at work."""

    def __init__(self, tmp_path: Path, filled: Path) -> None:
        self.path = tmp_path
        self.filled = filled
        self.journal = tmp_path / "journal"
        self.copy = tmp_path / "copy"
        self.manifest = tmp_path / "m.json"
        self.held = False

    def start(self, **environment: str) -> None:
        shutil.copytree(self.filled, self.path / "data")
        self.server = ServerProcess(self.path / "data", **environment)
        self.loads = [Load(self.server, f"w{n}_", WRITER_PAUSE_SECONDS) for n in range(WRITERS)]
        until(lambda: all(load.done for load in self.loads), AT_ONCE, "no load")

    def orchestrate(self, lease_ms: int) -> subprocess.Popen[bytes]:
        provider = f"echo $$ > {self.path}/provider.new; mv {self.path}/provider.new {self.path}/provider; sleep 0.1; "
        provider += f"rm -rf {self.copy} && cp -a {self.server.data} {self.copy} && touch {self.path}/copied && "
        provider += f"while [ ! -e {self.path}/go ]; do sleep 0.02; done"
        # Recovery changes what is verified: a copy of the copy, so that the test can verify it too.
        verify = f"touch {self.path}/verify; sleep 0.2; cp -a {self.copy} {self.path}/verified; "
        verify += f"{sys.executable} -m jetwire_server verify {self.path}/verified --manifest {self.manifest}; "
        verify += f"code=$?; echo $code > {self.path}/verify.code; exit $code"
        command = [*JETWIRE, "--url", self.server.addresses["tcp"], "snapshot", "run", "--journal", str(self.journal)]
        command += ["--manifest", str(self.manifest), "--lease-ms", str(lease_ms), "--max-drain-ms", "30000", "--truncate"]
        command += ["--verify", f"sh -c '{verify}'", "--exec", "sh", "-c", provider]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    # -- what has happened so far -----------------------------------------------------------------------------
    def steps(self) -> list[str]:
        return [json.loads(line)["step"] for line in self.journal.read_text().splitlines()] if self.journal.exists() else []

    def reached(self, place: tuple[str, str]) -> bool:
        kind, name = place
        if kind == "failpoint":
            return f"failpoint {name}" in self.server.errors.read_text()
        return name in self.steps() if kind == "journal" else (self.path / name).exists()

    def wait_for(self, place: tuple[str, str]) -> None:
        until(lambda: self.reached(place), AT_ONCE, f"never at {place}")

    def let_the_provider_end(self) -> None:
        """Whoever is stopped or blocked when it does finds it ended."""
        (self.path / "go").touch()

    # -- the rules --------------------------------------------------------------------------------------------
    def commits_go_on(self, seconds: float) -> None:
        before = [len(load.done) for load in self.loads]
        until(lambda: all(len(load.done) > n + 1 for load, n in zip(self.loads, before, strict=True)), seconds, "commits still wait")

    def is_over(self) -> bool:
        with self.server.connect() as lines:
            return lines.call("SnapshotStatus")["state"] in ("none", "timedOut")

    def nothing_stays(self) -> None:
        until(self.is_over, LATE_SECONDS, "the session stays")
        self.commits_go_on(LATE_SECONDS)
        a_new_snapshot_works(self.server)

    def everything_is_there_again(self, *, may_be_frozen: bool) -> None:
        """The server is dead: whatever it acknowledged is there when it is back, and the freeze is known to be lost."""
        self.server.process.wait(AT_ONCE)
        for load in self.loads:
            load.wait_for_its_end()
        done = {name for load in self.loads for name in load.done}
        self.server.kill()
        with ServerProcess(self.server.data) as again, again.connect() as lines:
            assert lines.call("SnapshotStatus")["state"] in (("none", "timedOut") if may_be_frozen else ("none",))
            assert done <= tables(again)
            a_new_snapshot_works(again)

    def held_means_restorable(self) -> None:
        if not self.held and "thawed" not in self.steps():
            return
        judged = self.path / "verify.code"  # by the run's own command, if it came to its end
        if judged.exists() and judged.read_text().strip():
            assert judged.read_text().strip() == "0"
            return
        command = [sys.executable, "-m", "jetwire_server", "verify", str(self.copy), "--manifest", str(self.manifest)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=AT_ONCE, check=False)
        assert done.returncode == 0, (done.stdout, done.stderr)

    def close(self) -> None:
        self.let_the_provider_end()
        if hasattr(self, "server") and self.server.process.poll() is None:
            for load in self.loads:
                with suppress(AssertionError):
                    load.stop()
            self.server.kill()


def _fill(server: ServerProcess) -> None:
    with server.connect() as lines:
        sesid = lines.call("BeginSession", instance=lines.call("Hello")["instances"][0]["instance"])["sesid"]
        dbid = lines.call("OpenDatabase", sesid=sesid, database="load.edb")["dbid"]
        columns = [{"name": "id", "coltyp": "Long"}, {"name": "text", "coltyp": "LongText", "cp": 1200}]
        index = {"name": "primary", "key": ["+id"], "grbit": ["IndexPrimary", "IndexUnique"]}
        create = {"name": "fill", "columns": columns, "indexes": [index]}
        tableid = lines.call("CreateTableColumnIndex", sesid=sesid, dbid=dbid, tablecreate=create)["tableid"]
        for number in range(12):
            record = {"id": number, "text": str(number) * 1_000_000}
            lines.call("PutRecords", sesid=sesid, tableid=tableid, records=[record], mode="insert")


def a_new_snapshot_works(server: ServerProcess) -> None:
    with server.connect() as lines:
        snap = prepare(lines)
        lines.call("OSSnapshotFreeze", snapId=snap, maxDrainMs=30_000)
        assert lines.call("OSSnapshotThaw", snapId=snap)["held"]


# -- the deeds ----------------------------------------------------------------------------------------------------


def play(scene: Scene, cell: Cell) -> None:
    kind, name = cell.place
    if cell.who == "connection":
        scene.start(JETWIRE_FAILPOINTS=f"{name}=pause:{WINDOW_SECONDS}" if kind == "failpoint" else "")
        _close_the_connection(scene, cell)
        scene.nothing_stays()
        return
    deed = {
        ("server", "killed"): _kill_the_server,
        ("server", "stopped"): _stop_the_server,
        ("event loop", "blocked"): _block_the_loop,
        ("orchestrator", "killed"): _kill_the_orchestrator,
        ("orchestrator", "stopped"): _stop_the_orchestrator,
        ("provider", "killed"): _hit_the_provider,
        ("provider", "stopped"): _hit_the_provider,
    }[cell.who, cell.how]
    deed(scene, cell)
    scene.held_means_restorable()


def _start(scene: Scene, cell: Cell, action: str = f"pause:{WINDOW_SECONDS}", also: str = "") -> subprocess.Popen[bytes]:
    kind, name = cell.place
    scene.start(JETWIRE_FAILPOINTS=(f"{name}={action}" if kind == "failpoint" else "") + also)
    if cell.provided_before:
        scene.let_the_provider_end()
    return scene.orchestrate(SHORT_LEASE_MS if cell.outlasts else LONG_LEASE_MS)


def _kill_the_server(scene: Scene, cell: Cell) -> None:
    run = _start(scene, cell, "kill")
    if cell.place[0] != "failpoint":
        scene.wait_for(cell.place)
        scene.server.process.kill()
    scene.let_the_provider_end()
    assert run.wait(AT_ONCE) != 0, "a run whose server died is not consistent"
    scene.everything_is_there_again(may_be_frozen=cell.within(("marker", "during"), ("thaw", "after")))


def _stop_the_server(scene: Scene, cell: Cell) -> None:
    run = _start(scene, cell, "stop")
    scene.wait_for(cell.place)
    if cell.place[0] != "failpoint":
        scene.server.process.send_signal(signal.SIGSTOP)
    until(lambda: _state(scene.server.process.pid) == "T", AT_ONCE, "it was not stopped")
    scene.let_the_provider_end()
    if cell.step == "provider" and cell.moment == "after":
        scene.wait_for(("journal", "provided"))
    time.sleep(cell.stopped_seconds)
    scene.server.process.send_signal(signal.SIGCONT)
    scene.commits_go_on(LATE_SECONDS)
    _check_code(run, cell, scene)
    scene.nothing_stays()


def _block_the_loop(scene: Scene, cell: Cell) -> None:
    kind, name = cell.place
    block = f"pause:{cell.stopped_seconds}"
    if kind == "failpoint" and name not in IN_A_THREAD:
        run = _start(scene, cell, block)
    else:  # by a call of somebody else's, at the same time
        run = _start(scene, cell, also=f",snapshot.status={block}")
        scene.wait_for(cell.place)
        with scene.server.connect() as lines:
            lines.send(b'{"jsonrpc":"2.0","method":"SnapshotStatus"}\n')
            scene.wait_for(("failpoint", "snapshot.status"))
    scene.let_the_provider_end()
    _check_code(run, cell, scene)
    scene.nothing_stays()


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def _check_code(run: subprocess.Popen[bytes], cell: Cell, scene: Scene) -> None:
    """A freeze that was outlasted is lost (3), or never came about (4). Otherwise all is consistent, and there is a copy to prove it."""
    code = run.wait(AT_ONCE)
    assert code in ({3, 4} if cell.outlasts else {0}), code
    assert ("thawed" in scene.steps()) == (code == 0), "only what was held is said to be consistent, and verified below"


def _kill_the_orchestrator(scene: Scene, cell: Cell) -> None:
    run = _start(scene, cell)
    scene.wait_for(cell.place)
    run.kill()
    scene.let_the_provider_end()
    scene.commits_go_on(LATE_SECONDS)  # the lease is longer than that, but the session was bound
    scene.nothing_stays()
    run.wait(AT_ONCE)


def _stop_the_orchestrator(scene: Scene, cell: Cell) -> None:
    run = _start(scene, cell)
    scene.wait_for(cell.place)
    run.send_signal(signal.SIGSTOP)
    scene.let_the_provider_end()
    time.sleep(cell.stopped_seconds)
    scene.commits_go_on(LATE_SECONDS)  # it is still stopped: the deadline opened the gate
    run.send_signal(signal.SIGCONT)
    _check_code(run, cell, scene)
    scene.nothing_stays()


def _hit_the_provider(scene: Scene, cell: Cell) -> None:
    run = _start(scene, cell)
    scene.wait_for(cell.place)
    os.killpg(int((scene.path / "provider").read_text()), signal.SIGKILL if cell.how == "killed" else signal.SIGSTOP)
    assert run.wait(AT_ONCE) == (5 if cell.how == "killed" else 3)
    scene.nothing_stays()


def _close_the_connection(scene: Scene, cell: Cell) -> None:
    """Of who goes through a snapshot by hand: gone without a word when the instant has come."""
    closed = threading.Event()

    def close_when_reached(lines: Lines) -> None:
        scene.wait_for(cell.place)
        lines.socket.shutdown(2)
        closed.set()

    lines = scene.server.connect()
    if cell.place[0] == "failpoint":
        threading.Thread(target=close_when_reached, args=(lines,), daemon=True).start()
    with suppress(AssertionError, ValueError, OSError):  # the answer that does not come any more
        for at, step in _by_hand(scene, lines):
            step()
            if cell.place[0] != "failpoint" and at == (cell.step, cell.moment):
                lines.socket.shutdown(2)
                closed.set()
                break
    assert closed.wait(AT_ONCE), "the instant never came"
    scene.held_means_restorable()
    lines.close()


def _by_hand(scene: Scene, lines: Lines) -> list[tuple[tuple[str, str], Callable[[], object]]]:
    """The steps of a run, and what instant it is when each is done."""
    snap = 0

    def prepare_bound() -> None:
        nonlocal snap
        snap = prepare(lines, grbit=4, bind=True)

    def freeze() -> None:
        frozen = lines.call("OSSnapshotFreeze", snapId=snap, leaseMs=60_000, maxDrainMs=30_000)
        scene.manifest.write_text(json.dumps([frozen["manifest"]]))

    def thaw() -> None:
        scene.held = lines.call("OSSnapshotThaw", snapId=snap)["held"]

    def copy() -> None:
        shutil.copytree(scene.server.data, scene.copy, ignore=shutil.ignore_patterns("*-lock"))

    return [
        (("prepare", "after"), prepare_bound),
        (("provider", "before"), freeze),
        (("provider", "during"), lambda: None),
        (("provider", "after"), copy),
        (("verify", "before"), thaw),
        (("verify", "during"), lambda: None),
        (("verify", "after"), lambda: None),
        (("truncate", "after"), lambda: lines.call("OSSnapshotTruncateLog", snapId=snap, grbit=1)),
        (("end", "after"), lambda: lines.call("OSSnapshotEnd", snapId=snap)),
    ]


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of a server that was at work before: there are logs to truncate, and a checkpoint behind them."""
    with ServerProcess(tmp_path_factory.mktemp("filled") / "data") as first:
        create_database(first)
        _fill(first)
        first.stop()
    return first.data


def _parameters() -> list[object]:
    return [pytest.param(cell, id=str(cell), marks=[] if cell in QUICK else [pytest.mark.torture]) for cell in CELLS]


@pytest.mark.parametrize("cell", _parameters())
def test_whoever_dies_or_stops_nothing_stays_frozen_and_nobody_is_deceived(tmp_path: Path, filled: Path, cell: Cell) -> None:
    scene = Scene(tmp_path, filled)
    try:
        play(scene, cell)
    finally:
        scene.close()


def test_the_matrix_is_whole() -> None:
    """Every combination is either played or has a reason not to exist."""
    assert {(c.who, c.step, c.moment) for c in ALL} == {(who, s, m) for who, _ in ACTORS for s in STEPS for m in MOMENTS}
    assert set(CELLS) >= QUICK
    assert (len(ALL), len(CELLS)) == (216, 158)
    assert sorted({cell.who for cell in ALL if cell.impossible() and cell.step != "prepare"}) == ["provider"]
