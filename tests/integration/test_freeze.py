"""The freeze on a real server under load: what is copied recovers to exactly what was acknowledged, and nothing can
leave the gate closed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.server_process import Lines, ServerProcess

JETWIRE = [sys.executable, "-m", "jetwire"]


class Load:
    """Commits as fast as it can, or with pauses, and knows when each was begun and when it was acknowledged."""

    def __init__(self, server: ServerProcess, name: str, pause_seconds: float = 0.0) -> None:
        self.begun: dict[str, float] = {}
        self.done: dict[str, float] = {}
        self._stop = threading.Event()
        self._lines = server.connect()
        self._name = name
        self._pause_seconds = pause_seconds
        instance = self._lines.call("Hello")["instances"][0]["instance"]
        self._sesid = self._lines.call("BeginSession", instance=instance)["sesid"]
        self._lines.ask("AttachDatabase", sesid=self._sesid, database="load.edb")
        self._dbid = self._lines.call("OpenDatabase", sesid=self._sesid, database="load.edb")["dbid"]
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        number = 0
        while not self._stop.is_set():
            name = f"{self._name}{number}"
            self.begun[name] = time.monotonic()
            answer = self._lines.ask("CreateTable", sesid=self._sesid, dbid=self._dbid, tablename=name)
            self.done[name] = time.monotonic()
            self._lines.call("CloseTable", sesid=self._sesid, tableid=answer["result"]["tableid"])
            number += 1
            time.sleep(self._pause_seconds)

    def wait_for_its_end(self) -> None:
        """Of a load whose server died: nothing more is acknowledged after this."""
        self._thread.join(30)

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(30)
        assert not self._thread.is_alive(), "a commit was never answered"
        self._lines.close()


def create_database(server: ServerProcess) -> None:
    with server.connect() as lines:
        instance = lines.call("Hello")["instances"][0]["instance"]
        sesid = lines.call("BeginSession", instance=instance)["sesid"]
        lines.call("CreateDatabase", sesid=sesid, database="load.edb")


def tables(server: ServerProcess) -> set[str]:
    with server.connect() as lines:
        instance = lines.call("Hello")["instances"][0]["instance"]
        sesid = lines.call("BeginSession", instance=instance)["sesid"]
        lines.ask("AttachDatabase", sesid=sesid, database="load.edb")
        dbid = lines.call("OpenDatabase", sesid=sesid, database="load.edb")["dbid"]
        rows = lines.call("GetObjectInfo", sesid=sesid, dbid=dbid, objtyp="Table", infoLevel="ListNoStats")["rows"]
    return {row["objectname"] for row in rows if not row["objectname"].startswith("MSys")}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path / "data") as process:
        create_database(process)
        yield process


@pytest.fixture
def loads(server: ServerProcess) -> Iterator[list[Load]]:
    running = [Load(server, f"w{n}_") for n in range(3)]
    time.sleep(0.2)
    yield running
    for load in running:
        load.stop()


def prepare(lines: Lines, **members: object) -> int:
    snap: int = lines.call("OSSnapshotPrepare", **members)["snapId"]
    return snap


def checksums(data: Path) -> dict[str, str]:
    files = [p for p in data.rglob("*") if p.is_file() and not p.name.endswith("-lock")]
    return {str(p.relative_to(data)): hashlib.blake2b(p.read_bytes()).hexdigest() for p in files}


def digest_of(server: ServerProcess) -> dict[str, object]:
    """What the server holds now, from a snapshot of its own."""
    with server.connect() as lines:
        snap = prepare(lines, grbit=4)
        lines.call("OSSnapshotFreeze", snapId=snap)
        lines.call("OSSnapshotThaw", snapId=snap)
        database: dict[str, object] = {}
        for _ in range(200):
            database = lines.call("SnapshotStatus")["manifest"]["instances"][0]["databases"][0]
            if "digest" in database:
                break
            time.sleep(0.02)
        lines.call("OSSnapshotAbort", snapId=snap)
    return database


def test_a_copy_taken_while_frozen_recovers_to_exactly_the_acknowledged_commits(
    server: ServerProcess, loads: list[Load], tmp_path: Path
) -> None:
    with server.connect() as lines:
        for round_ in range(3):
            snap = prepare(lines, grbit=4)
            asked = time.monotonic()
            frozen = lines.call("OSSnapshotFreeze", snapId=snap)
            answered = time.monotonic()
            copy = tmp_path / f"copy{round_}"
            before = checksums(server.data)
            time.sleep(0.15)
            shutil.copytree(server.data, copy, ignore=shutil.ignore_patterns("jetwire.lock", "*-lock"))
            assert checksums(server.data) == before, "a file changed while frozen"
            verdict = lines.call("OSSnapshotThaw", snapId=snap)
            assert verdict["held"]
            assert verdict["bytesWrittenWhileFrozen"] == 0
            assert verdict["commitsWaited"] >= 1
            time.sleep(0.2)
            manifest = lines.call("SnapshotStatus")["manifest"]["instances"][0]["databases"][0]
            lines.call("OSSnapshotEnd", snapId=snap)
            must = {name for load in loads for name, when in list(load.done.items()) if when < asked}
            may = {name for load in loads for name, when in list(load.begun.items()) if when < answered}
            with ServerProcess(copy) as restored:
                found = tables(restored)
                assert must <= found <= may
                again = digest_of(restored)
            assert (again["digest"], again["tables"]) == (manifest["digest"], manifest["tables"])
            assert frozen["manifest"]["snapId"] == snap


def test_the_waiting_commits_are_all_answered_after_the_thaw(server: ServerProcess, loads: list[Load]) -> None:
    with server.connect() as lines:
        snap = prepare(lines)
        lines.call("OSSnapshotFreeze", snapId=snap)
        time.sleep(0.2)
        status = lines.call("SnapshotStatus")
        assert status["state"] == "frozen"
        assert status["waitingCommits"] == len(loads)
        before = {load: len(load.done) for load in loads}
        time.sleep(0.1)
        assert {load: len(load.done) for load in loads} == before
        lines.call("OSSnapshotThaw", snapId=snap)
        time.sleep(0.2)
        assert all(len(load.done) > count for load, count in before.items())


def test_a_commit_and_a_thaw_on_one_connection_do_not_lock_each_other_out(server: ServerProcess) -> None:
    with server.connect() as lines:
        instance = lines.call("Hello")["instances"][0]["instance"]
        sesid = lines.call("BeginSession", instance=instance)["sesid"]
        dbid = lines.call("OpenDatabase", sesid=sesid, database="load.edb")["dbid"]
        for number, as_batch in enumerate((False, True)):
            lines.call("BeginTransaction", sesid=sesid)
            lines.call("CreateTable", sesid=sesid, dbid=dbid, tablename=f"pipelined{number}")
            snap = prepare(lines)
            lines.call("OSSnapshotFreeze", snapId=snap, leaseMs=30_000)
            commit = {"method": "CommitTransaction", "params": {"sesid": sesid}}
            thaw = {"method": "OSSnapshotThaw", "params": {"snapId": snap}}
            if as_batch:
                results = lines.call("Batch", calls=[commit, thaw])["results"]
                assert results[1]["held"]
                continue
            calls = [{"jsonrpc": "2.0", "id": f"c{i}", **call} for i, call in enumerate((commit, thaw))]
            lines.send(b"".join(json.dumps(call).encode() + b"\n" for call in calls))
            answers = {answer["id"]: answer for answer in (lines.read(), lines.read())}
            assert answers["c1"]["result"]["held"]
            assert "result" in answers["c0"]


def test_a_stopped_server_cannot_hold_the_freeze_past_its_deadline(server: ServerProcess, loads: list[Load]) -> None:
    with server.connect() as lines:
        snap = prepare(lines)
        lines.call("OSSnapshotFreeze", snapId=snap, leaseMs=500)
        counts = [len(load.done) for load in loads]
        server.process.send_signal(signal.SIGSTOP)
        time.sleep(1.0)
        server.process.send_signal(signal.SIGCONT)
        resumed = time.monotonic()
        while [len(load.done) for load in loads] == counts:
            assert time.monotonic() - resumed < 2.0, "still closed after the deadline"
            time.sleep(0.005)
        assert time.monotonic() - resumed < 0.5
        assert lines.error("OSSnapshotThaw", snapId=snap) == "JET_errOSSnapshotTimeOut"
        assert lines.error("OSSnapshotThaw", snapId=snap) == "JET_errOSSnapshotInvalidSnapId"


def test_a_server_killed_while_frozen_says_after_its_restart_that_the_freeze_was_lost(server: ServerProcess) -> None:
    with server.connect() as lines:
        snap = prepare(lines)
        lines.call("OSSnapshotFreeze", snapId=snap)
    server.kill()
    with ServerProcess(server.data) as again, again.connect() as lines:
        assert lines.call("SnapshotStatus")["state"] == "timedOut"
        assert lines.error("OSSnapshotThaw", snapId=snap) == "JET_errOSSnapshotTimeOut"
        events = [event["id"] for event in lines.call("GetEvents")["events"]]
        assert 2005 in events  # prepared; the freeze's own event was in memory only, since nothing is written while frozen
        assert 2004 in events


def test_a_server_stopped_while_frozen_says_after_its_restart_that_the_freeze_was_lost(server: ServerProcess) -> None:
    """Told to end (SIGTERM), not killed: it writes nothing on its way out, and the next start is as after a crash."""
    with server.connect() as lines:
        snap = prepare(lines)
        lines.call("OSSnapshotFreeze", snapId=snap)
        before = checksums(server.data)
        server.stop()
    assert checksums(server.data) == before
    with ServerProcess(server.data) as again, again.connect() as lines:
        assert lines.call("SnapshotStatus")["state"] == "timedOut"
        assert lines.error("OSSnapshotThaw", snapId=snap) == "JET_errOSSnapshotTimeOut"
        assert lines.error("OSSnapshotThaw", snapId=snap) == "JET_errOSSnapshotInvalidSnapId"


def run(server: ServerProcess, *arguments: str, timeout: float = 30) -> subprocess.CompletedProcess[str]:
    command = [*JETWIRE, "--json", "--url", server.addresses["tcp"], "snapshot", "run", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)


def is_open(server: ServerProcess) -> bool:
    with server.connect() as lines:
        return bool(lines.call("SnapshotStatus")["state"] == "none")


def test_the_orchestrated_run_is_consistent(server: ServerProcess, loads: list[Load], tmp_path: Path) -> None:
    done = run(server, "--manifest", str(tmp_path / "m.json"), "--truncate", "--exec", "cp", "-a", str(server.data), str(tmp_path / "copy"))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["servers"][0]["verdict"]["held"]
    assert is_open(server)
    manifest = json.loads((tmp_path / "m.json").read_text())[0]
    for file in manifest["instances"][0]["files"]:
        assert (tmp_path / "copy" / "default" / file["path"]).stat().st_size == file["size"]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--exec", "false"], 5),
        (["--exec", "/no/such/program"], 5),
        (["--lease-ms", "300", "--exec", "sleep", "10"], 3),
        (["--instance", "nobody", "--exec", "true"], 4),
        (["--lease-ms", "-1", "--exec", "true"], 4),
        (["--kind", "incremental", "--exec", "true"], 4),
        (["--verify", "false", "--exec", "true"], 6),
        (["--server", "tcp://127.0.0.1:1", "--exec", "true"], 4),
    ],
)
def test_every_failure_has_its_exit_code_and_leaves_the_gate_open(server: ServerProcess, arguments: list[str], code: int) -> None:
    done = run(server, *arguments)
    assert done.returncode == code, (done.stdout, done.stderr)
    assert is_open(server)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_orchestrator_that_is_told_to_end_or_killed_leaves_nothing_frozen(server: ServerProcess, number: signal.Signals) -> None:
    command = [*JETWIRE, "--url", server.addresses["tcp"], "snapshot", "run", "--exec", "sleep", "30"]
    orchestrator = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    with server.connect() as lines:
        for _ in range(200):
            if lines.call("SnapshotStatus")["state"] == "frozen":
                break
            time.sleep(0.05)
        else:
            pytest.fail("it never froze")
        os.kill(orchestrator.pid, number)
        orchestrator.wait(10)
        for _ in range(100):
            if lines.call("SnapshotStatus")["state"] == "none":
                break
            time.sleep(0.02)
        assert lines.call("SnapshotStatus")["state"] == "none"
