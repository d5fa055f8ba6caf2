"""The death matrix: who dies or stops, and at which step of a snapshot. After each, with real processes under load:

- nothing stays frozen past its deadline, once the server can run (and nothing past the end of who asked, if bound);
- a server that died is started again, holds every acknowledged commit, and its state is none or timedOut
  (that the old snapId answers the time-out is shown in `test_freeze.py`);
- a run that says "consistent" has made a copy that passes its verification;
- a new snapshot works.

A step is recognised by a failpoint in the server (it kills, or blocks the event loop), or by what the orchestrator's
journal and the server's status say.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.integration.test_freeze import JETWIRE, Load, create_database, prepare, tables
from tests.support.server_process import ServerProcess

# A writer whose server dies ends with an error, as it should.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")

LEASE_MS = 1_500
LATE_SECONDS = 2.0  # the promise is 100 ms of being runnable; the rest is two busy cores and Python starting

# Where the server can be hit: before, during and after each step. `marked` is the drain's beginning, `sealed` the end
# of the freeze; what truncates is only reached if there is log to truncate.
PLACES = {
    "prepare": "snapshot.prepared",
    "marker, during": "snapshot.between_markers",
    "marker, after; drain, before": "snapshot.marked",
    "freeze, during": "snapshot.sealed",
    "thaw, before": "snapshot.thawing",
    "thaw, after": "snapshot.thawed",
    "end": "snapshot.ended",
}
# What the orchestrator does when it is hit, as its journal tells: the step that was last written down.
STEPS = {"prepare": "prepared", "freeze": "frozen", "provider": "provided", "thaw": "thawed", "verify": "verified"}


@dataclass(frozen=True)
class Cell:
    who: str
    how: str
    at: str

    def __str__(self) -> str:
        return f"{self.who} {self.how} at {self.at}"


CELLS = [
    *(Cell("server", "killed", place) for place in PLACES),
    *(Cell("event loop", "blocked", place) for place in PLACES),
    *(Cell("server", "stopped", step) for step in ("freeze", "thaw")),
    *(Cell("orchestrator", how, step) for how in ("killed", "stopped") for step in STEPS),
    *(Cell("provider", how, "provider") for how in ("killed", "stopped")),
    *(Cell("connection", "closed", step) for step in ("prepare", "freeze", "thaw")),
]
# One of each kind in `make test`.
QUICK = {
    Cell("server", "killed", "freeze, during"),
    Cell("event loop", "blocked", "freeze, during"),
    Cell("orchestrator", "stopped", "freeze"),
    Cell("connection", "closed", "freeze"),
}


def until(true: Callable[[], object], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def steps(journal: Path) -> list[str]:
    return [json.loads(line)["step"] for line in journal.read_text().splitlines()] if journal.exists() else []


class Scene:
    """A server, a load, and an orchestrator at work."""

    def __init__(self, tmp_path: Path) -> None:
        self.path = tmp_path
        self.journal = tmp_path / "journal"
        self.copy = tmp_path / "copy"
        self.pid_file = tmp_path / "provider.pid"

    def start(self, **environment: str) -> None:
        self.server = ServerProcess(self.path / "data", **environment)
        create_database(self.server)
        self.load = Load(self.server, "w_")
        until(lambda: self.load.done, 5, "no load")

    def orchestrate(self) -> subprocess.Popen[bytes]:
        script = f"echo $$ > {self.pid_file}; rm -rf {self.copy}; cp -a {self.server.data} {self.copy}; sleep 0.3"
        verify = f"{sys.executable} -m jetwire_server verify {self.copy} --manifest {self.path / 'm.json'}"
        command = [*JETWIRE, "--url", self.server.addresses["tcp"], "snapshot", "run", "--journal", str(self.journal)]
        command += ["--manifest", str(self.path / "m.json"), "--lease-ms", str(LEASE_MS), "--truncate", "--verify", verify]
        return subprocess.Popen([*command, "--exec", "sh", "-c", script], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def commits_go_on(self, seconds: float) -> None:
        before = len(self.load.done)
        until(lambda: len(self.load.done) > before + 1, seconds, "commits still wait")

    def is_over(self) -> bool:
        with self.server.connect() as lines:
            return lines.call("SnapshotStatus")["state"] in ("none", "timedOut")

    def a_new_snapshot_works(self) -> None:
        with self.server.connect() as lines:
            snap = prepare(lines)
            lines.call("OSSnapshotFreeze", snapId=snap)
            assert lines.call("OSSnapshotThaw", snapId=snap)["held"]

    def restart(self, *, may_be_frozen: bool) -> None:
        """The server is dead: whatever it acknowledged is there when it is back, and the freeze is known to be lost."""
        self.server.process.wait(10)
        done = set(self.load.done)
        self.server.kill()
        with ServerProcess(self.server.data) as again, again.connect() as lines:
            assert lines.call("SnapshotStatus")["state"] in (("none", "timedOut") if may_be_frozen else ("none",))
            assert done <= tables(again)
            snap = prepare(lines)
            lines.call("OSSnapshotFreeze", snapId=snap)
            assert lines.call("OSSnapshotThaw", snapId=snap)["held"]

    def close(self) -> None:
        self.load.stop()
        if self.server.process.poll() is None:
            self.server.kill()


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def play(scene: Scene, cell: Cell) -> None:
    match cell.who, cell.how:
        case "server", "killed":
            scene.start(JETWIRE_FAILPOINTS=f"{PLACES[cell.at]}=kill")
            run = scene.orchestrate()
            code = run.wait(30)
            assert code != 0, "a run whose server died is not consistent"
            scene.restart(may_be_frozen=cell.at != "prepare")
            return
        case "event loop", "blocked":
            scene.start(JETWIRE_FAILPOINTS=f"{PLACES[cell.at]}=pause:{2 * LEASE_MS / 1000}")
            code = scene.orchestrate().wait(40)
            # Blocked for twice the lease between freeze and thaw: lost, or never frozen. Elsewhere it only takes longer.
            assert (code != 0) == (cell.at in ("freeze, during", "thaw, before")), code
        case "server", "stopped":
            scene.start()
            run = scene.orchestrate()
            until(lambda: STEPS[cell.at] in steps(scene.journal), 10, f"never {cell.at}")
            scene.server.process.send_signal(signal.SIGSTOP)
            time.sleep(2 * LEASE_MS / 1000)
            scene.server.process.send_signal(signal.SIGCONT)
            scene.commits_go_on(LATE_SECONDS)
            assert run.wait(30) == (3 if cell.at == "freeze" else 0)
        case "orchestrator", how:
            scene.start()
            run = scene.orchestrate()
            until(lambda: STEPS[cell.at] in steps(scene.journal), 20, f"never {cell.at}")
            run.send_signal(signal.SIGKILL if how == "killed" else signal.SIGSTOP)
            lease = 0.0 if how == "killed" else LEASE_MS / 1000
            scene.commits_go_on(lease + LATE_SECONDS)
            if how == "stopped":
                time.sleep(max(0.0, lease))
                run.send_signal(signal.SIGCONT)
            code = run.wait(30)
            assert how == "stopped" or code == -signal.SIGKILL
            if cell.at in ("prepare", "thaw", "verify") and how == "killed":
                with scene.server.connect() as lines:  # nothing is frozen: what is left is a name that an operator can abort
                    status = lines.call("SnapshotStatus")
                    if "snapId" in status:
                        lines.ask("OSSnapshotAbort", snapId=status["snapId"])
        case "provider", how:
            scene.start()
            run = scene.orchestrate()
            until(lambda: scene.pid_file.exists() and scene.pid_file.read_text().strip(), 10, "no provider")
            os.kill(int(scene.pid_file.read_text()), signal.SIGKILL if how == "killed" else signal.SIGSTOP)
            assert run.wait(30) == (5 if how == "killed" else 3)
        case _:
            scene.start()
            _close_the_connection(scene, cell.at)
    until(scene.is_over, LATE_SECONDS + LEASE_MS / 1000, "the session stays")
    scene.commits_go_on(LATE_SECONDS)
    scene.a_new_snapshot_works()


def _close_the_connection(scene: Scene, at: str) -> None:
    """Of who holds a bound freeze: gone without a word, at once after asking for the step."""
    with scene.server.connect() as lines:
        snap = prepare(lines, grbit=0 if at == "thaw" else 4)
        freeze = {"snapId": snap, "leaseMs": 60_000, "bind": True}
        if at == "thaw":
            lines.call("OSSnapshotFreeze", **freeze)
            lines.send(b'{"jsonrpc":"2.0","id":99,"method":"OSSnapshotThaw","params":{"snapId":%d}}\n' % snap)
        elif at == "freeze":
            lines.send(json.dumps({"jsonrpc": "2.0", "id": 99, "method": "OSSnapshotFreeze", "params": freeze}).encode() + b"\n")
    if at == "prepare":  # not bound yet: the session is the server's
        with scene.server.connect() as lines:
            lines.call("OSSnapshotAbort", snapId=snap)


def _parameters() -> list[object]:
    return [pytest.param(cell, id=str(cell), marks=[] if cell in QUICK else [pytest.mark.torture]) for cell in CELLS]


@pytest.mark.parametrize("cell", _parameters())
def test_whoever_dies_or_stops_nothing_stays_frozen_and_nobody_is_deceived(scene: Scene, cell: Cell):
    try:
        play(scene, cell)
    finally:
        scene.close()
