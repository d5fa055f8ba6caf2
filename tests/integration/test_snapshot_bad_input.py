"""What is wrong with a run or a call is said clearly, the gate is open afterwards, and nothing is lost."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.test_freeze import JETWIRE, create_database, is_open, prepare, run, tables
from tests.support.server_process import ServerProcess


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("bad") / "data") as process:
        create_database(process)
        yield process


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_under_the_manifest_refuses_before_anything_is_copied(server: ServerProcess):
    done = run(server, "--manifest", "/dev/full", "--exec", "touch", str(server.data.parent / "copied"))
    assert done.returncode == 4, (done.stdout, done.stderr)
    assert "manifest" in json.loads(done.stdout)["message"]
    assert not (server.data.parent / "copied").exists()
    assert is_open(server)


@pytest.mark.parametrize("script", ["head -c 5000 /dev/urandom", "exec >&- 2>&-; true"], ids=["prints nonsense", "closes its output"])
def test_what_a_provider_prints_does_not_spoil_the_report(server: ServerProcess, script: str):
    done = run_binary(server, "--exec", "sh", "-c", script)
    assert json.loads(done)["exitCode"] == 0
    assert is_open(server)


def run_binary(server: ServerProcess, *arguments: str) -> bytes:
    command = [*JETWIRE, "--json", "--url", server.addresses["tcp"], "snapshot", "run", *arguments]
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=60, check=False).stdout


def test_a_provider_that_did_nothing_is_caught_by_the_verification(server: ServerProcess, tmp_path: Path):
    verify = f"{sys.executable} -m jetwire_server verify {tmp_path / 'copy'} --manifest {tmp_path / 'm.json'}"
    done = run(server, "--manifest", str(tmp_path / "m.json"), "--verify", verify, "--exec", "true", timeout=60)
    assert done.returncode == 6, (done.stdout, done.stderr)
    assert is_open(server)


def test_wrong_calls_are_refused_and_leave_the_gate_open(server: ServerProcess):
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
