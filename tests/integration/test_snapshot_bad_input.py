"""What is wrong with a run or a call is said clearly, the gate is open afterwards, and nothing is lost."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.test_freeze import JETWIRE, Load, create_database, is_open, prepare, run, tables
from tests.support.server_process import ServerProcess


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("bad") / "data") as process:
        create_database(process)
        yield process


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_under_the_manifest_refuses_before_anything_is_copied(server: ServerProcess) -> None:
    done = run(server, "--manifest", "/dev/full", "--exec", "touch", str(server.data.parent / "copied"))
    assert done.returncode == 4, (done.stdout, done.stderr)
    assert "manifest" in json.loads(done.stdout)["message"]
    assert not (server.data.parent / "copied").exists()
    assert is_open(server)


@pytest.mark.parametrize("script", ["head -c 5000 /dev/urandom", "exec >&- 2>&-; true"], ids=["prints nonsense", "closes its output"])
def test_what_a_provider_prints_does_not_spoil_the_report(server: ServerProcess, script: str) -> None:
    done = run_binary(server, "--exec", "sh", "-c", script)
    assert json.loads(done)["exitCode"] == 0
    assert is_open(server)


def run_binary(server: ServerProcess, *arguments: str) -> bytes:
    command = [*JETWIRE, "--json", "--url", server.addresses["tcp"], "snapshot", "run", *arguments]
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=60, check=False).stdout


def test_a_provider_that_did_nothing_is_caught_by_the_verification(server: ServerProcess, tmp_path: Path) -> None:
    verify = f"{sys.executable} -m jetwire_server verify {tmp_path / 'copy'} --manifest {tmp_path / 'm.json'}"
    done = run(server, "--manifest", str(tmp_path / "m.json"), "--verify", verify, "--exec", "true", timeout=60)
    assert done.returncode == 6, (done.stdout, done.stderr)
    assert is_open(server)


def test_wrong_calls_are_refused_and_leave_the_gate_open(server: ServerProcess) -> None:
    with server.connect() as lines:
        for method in ("OSSnapshotFreeze", "OSSnapshotThaw", "OSSnapshotAbort", "OSSnapshotEnd", "OSSnapshotGetFreezeInfo"):
            assert lines.error(method, snapId=4711) == "JET_errOSSnapshotInvalidSnapId"
        snap = prepare(lines)
        assert lines.error("OSSnapshotThaw", snapId=snap) == "JET_errOSSnapshotInvalidSequence"
        for lease in (-1, 600_001, 2**53):
            assert lines.error("OSSnapshotFreeze", snapId=snap, leaseMs=lease) in ("JET_errInvalidParameter", "Invalid params")
        lines.call("OSSnapshotFreeze", snapId=snap)
        assert lines.error("SnapshotRenew", snapId=snap, leaseMs=-1) in ("JET_errInvalidParameter", "Invalid params")
        assert lines.call("SnapshotStatus")["state"] == "frozen"
        lines.call("SnapshotRenew", snapId=snap, leaseMs=2**40)
        assert lines.call("SnapshotStatus")["remainingMs"] <= 600_000
        assert lines.call("OSSnapshotThaw", snapId=snap)["held"]
    assert is_open(server)
    assert isinstance(tables(server), set)


OUTSIDE = ("../outside.edb", "/tmp/../etc/outside.edb", "a/../../outside.edb", "\0.edb", "x" * 5000)


@pytest.mark.parametrize("frozen", [False, True], ids=["open", "frozen"])
def test_paths_outside_the_roots_are_refused_whether_frozen_or_not(server: ServerProcess, frozen: bool) -> None:
    around = {path for path in server.data.parent.rglob("*") if server.data not in path.parents}
    with server.connect() as lines:
        instance = lines.call("Hello")["instances"][0]["instance"]
        sesid = lines.call("BeginSession", instance=instance)["sesid"]
        snap = prepare(lines)
        if frozen:
            lines.call("OSSnapshotFreeze", snapId=snap)
        for path in OUTSIDE:
            for method, name in (("CreateDatabase", "database"), ("AttachDatabase", "database")):
                assert lines.error(method, sesid=sesid, **{name: path}).startswith("JET_err"), (method, path)
            assert lines.error("BackupInstance", instance=instance, backupPath=path, grbit=0)
            assert lines.error("RestoreInstance", instance=instance, backupPath=path)
        assert lines.call("SnapshotStatus")["state"] == ("frozen" if frozen else "prepared")
        if frozen:
            assert lines.call("OSSnapshotThaw", snapId=snap)["held"]
        else:
            lines.call("OSSnapshotAbort", snapId=snap)
    assert is_open(server)
    assert {path for path in server.data.parent.rglob("*") if server.data not in path.parents} == around


BAD_PROVIDERS = {
    "hangs": (["--lease-ms", "600", "--exec", "sleep", "600"], 3, "still running when the freeze ended"),
    "prints nonsense and fails": (["--exec", "sh", "-c", "head -c 5000 /dev/urandom; exit 7"], 5, "exit status 7"),
    "exits 0 having done nothing": (["--copy", "{base}/nothing", "--exec", "true"], 5, "is missing"),
    "is no program": (["--exec", "/dev/null"], 5, "Permission denied"),
    "has a name that is none": (["--exec", "a\x01b"], 5, "No such file"),
}


@pytest.mark.parametrize("kind", BAD_PROVIDERS)
def test_whatever_a_provider_does_no_commit_is_lost(tmp_path: Path, kind: str) -> None:
    arguments, code, word = BAD_PROVIDERS[kind]
    with ServerProcess(tmp_path / "data") as server:
        create_database(server)
        load = Load(server, "w_")
        said = json.loads(run_binary(server, *(argument.replace("{base}", str(tmp_path)) for argument in arguments)))
        assert (said["exitCode"], word in said["message"]) == (code, True), said
        assert is_open(server)
        before = len(load.done)
        deadline = time.monotonic() + 20
        while len(load.done) <= before:
            assert time.monotonic() < deadline, "commits still wait"
            time.sleep(0.01)
        load.stop()
        server.kill()
    with ServerProcess(tmp_path / "data") as again:
        assert set(load.done) <= tables(again)
