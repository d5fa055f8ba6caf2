"""`jetwire backup` and `jetwired restore` on a real server under load: what was acknowledged before is there after."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jetwire import backups
from jetwire._sync.connection import Connection
from jetwire_protocol.errors import Err
from tests.integration.test_freeze import Load, create_database
from tests.support.server_process import ServerProcess


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path / "data") as process:
        create_database(process)
        yield process


def jetwire(server: ServerProcess, *words: object) -> Any:
    command = [sys.executable, "-m", "jetwire", "--url", server.addresses["tcp"], "--json", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def jetwired(*words: object) -> tuple[int, str]:
    done = subprocess.run([sys.executable, "-m", "jetwire_server", *map(str, words)], capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout + done.stderr


def tables(data: Path) -> set[str]:
    with ServerProcess(data) as server, server.connect() as lines:
        instance = lines.call("Hello")["instances"][0]["instance"]
        sesid = lines.call("BeginSession", instance=instance)["sesid"]
        lines.ask("AttachDatabase", sesid=sesid, database="load.edb")
        dbid = lines.call("OpenDatabase", sesid=sesid, database="load.edb")["dbid"]
        rows = lines.call("GetObjectInfo", sesid=sesid, dbid=dbid, infoLevel="ListNoStats")["rows"]
        found = {row["objectname"] for row in rows}
        server.stop()
    return found


def test_backup_and_restore_under_load(server: ServerProcess, tmp_path: Path) -> None:
    load = Load(server, "t")
    target = tmp_path / "backup"
    assert jetwire(server, "backup", target)["kind"] == "full"
    before = set(load.done)
    taken = jetwire(server, "backup", target, "--incremental")
    assert taken["kind"] == "incremental"
    load.stop()
    for words, told in (("yesterday",), "--until yesterday: expected"), (("2099-01-01",), "the last backup was made at"):
        code, output = jetwired("restore", target, tmp_path / "none" / "default", "--until", *words)
        assert (code, told in output, len(output.splitlines())) == (2, True, 1), output
    code, output = jetwired("restore", target, tmp_path / "new" / "default", "--json")
    assert (code, len(output.splitlines())) == (0, 1), "no trace of a progress bar where nobody looks"
    assert jetwired("check", tmp_path / "new")[0] == 0
    found = tables(tmp_path / "new")
    assert before
    assert before <= {name for name in found if not name.startswith("MSys")} <= set(load.begun)
    code, output = jetwired("restore", target, tmp_path / "new" / "default")
    assert (code, "not empty" in output) == (2, True)


class Cut(Exception):
    """The network breaks here."""


def test_a_download_that_was_cut_goes_on_where_it_was(server: ServerProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backups, "CHUNK_BYTES", 65_536)
    target = tmp_path / "backup"
    seen: list[str] = []

    def break_at(count: int) -> backups.Progress:
        def progress(name: str, done: int, size: int) -> None:
            seen.append(f"{name} {done}")
            if len(seen) == count:
                raise Cut

        return progress

    for count in (2, 6, 9, 0):
        with Connection(server.addresses["tcp"]) as connection:
            instance = connection.call("Hello")["instances"][0]["instance"]
            try:
                taken = backups.take(connection, instance, target, incremental=False, truncate=True, progress=break_at(count))
            except Cut:
                continue
    assert taken.resumed
    again = [line for line in set(seen) if seen.count(line) > 1 and not line.endswith(" 0")]
    assert len(again) <= 3  # only what was asked for when it broke
    assert jetwired("restore", target, tmp_path / "new" / "default")[0] == 0


def test_the_names_are_durable_before_the_server_removes_its_log_files(
    server: ServerProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    fsync, call = os.fsync, Connection.call

    def noted(descriptor: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        fsync(descriptor)

    def called(connection: Connection, method: str, **params: Any) -> Any:
        if method == "TruncateLogInstance":
            target = tmp_path / "some" / "where"
            assert {str(target.parent), str(target)} <= set(synced), "the directories"
            assert set(synced) >= {str(path) for path in target.rglob("*") if path.name != backups.JOURNAL}, "and all that is in them"
        return call(connection, method, **params)

    monkeypatch.setattr(os, "fsync", noted)
    monkeypatch.setattr(Connection, "call", called)
    with Connection(server.addresses["tcp"]) as connection:
        instance = connection.call("Hello")["instances"][0]["instance"]
        backups.take(connection, instance, tmp_path / "some" / "where", incremental=False, truncate=True, progress=lambda *_: None)


def test_what_arrives_damaged_is_no_backup(server: ServerProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def damage(name: str, done: int, size: int) -> None:
        if name == "backup.json" and done == size:
            path = tmp_path / "b" / "load.edb"
            data = bytearray(path.read_bytes())
            data[5_000] ^= 1
            path.write_bytes(data)

    with Connection(server.addresses["tcp"]) as connection:
        instance = connection.call("Hello")["instances"][0]["instance"]
        with pytest.raises(backups.BackupFailed, match=r"load\.edb"):
            backups.take(connection, instance, tmp_path / "b", incremental=False, truncate=True, progress=damage)


def test_the_older_names_and_the_end_of_a_connection(server: ServerProcess) -> None:
    with server.connect() as one, server.connect() as two:
        instance = one.call("Hello")["instances"][0]["instance"]
        one.call("BeginExternalBackup")
        assert two.error("BeginExternalBackupInstance", instance=instance) == "JET_errBackupInProgress"
        assert one.call("GetAttachInfo")["files"] == ["load.edb"]
        opened = one.call("OpenFile", file="load.edb")
        assert one.call("ReadFile", handle=opened["handle"], bufferSize=4096)["buffer"]
        one.call("CloseFile", handle=opened["handle"])
        one.close()
        for _ in range(100):
            answer = two.ask("BeginExternalBackupInstance", instance=instance)
            if "result" in answer:
                break
            assert answer["error"]["code"] == Err.BackupInProgress
        two.call("StopBackup")
        assert two.error("GetAttachInfo") == "JET_errBackupAbortByServer"
        assert two.error("EndExternalBackup") == "JET_errBackupAbortByServer"


def test_external_restore_beside_the_running_instance(server: ServerProcess, tmp_path: Path) -> None:
    target = server.data / "default" / "placed"
    assert jetwire(server, "backup", target)["kind"] == "full"
    with server.connect() as lines:
        instance = lines.call("Hello")["instances"][0]["instance"]
        sesid = lines.call("BeginSession", instance=instance)["sesid"]
        dbid = lines.call("OpenDatabase", sesid=sesid, database="load.edb")["dbid"]
        lines.call("CreateTable", sesid=sesid, dbid=dbid, tablename="after")
        places = {
            "checkpointFilePath": "work",
            "logPath": "work",
            "backupLogPath": "default/placed",
            "rstmap": [{"databaseName": "load.edb", "newDatabaseName": "default/placed/load.edb"}],
        }
        running = {"targetInstanceLogPath": "default", "targetInstanceCheckpointPath": "default"}
        done = lines.call("JetExternalRestore2", **places, **running)
        assert (done["wrn"], done["logInfo"]["baseName"]) == (578, "edb")
        lines.call("AttachDatabase", sesid=sesid, database="placed/load.edb")
        beside = lines.call("OpenDatabase", sesid=sesid, database="placed/load.edb")["dbid"]
        lines.call("OpenTable", sesid=sesid, dbid=beside, tablename="after")
        assert lines.error("ExternalRestore", **places, genLow=3, genHigh=2) == "JET_errInvalidParameter"


SLOW = """
import sys
from pathlib import Path
from jetwire import backups
from jetwire._sync.connection import Connection
backups.CHUNK_BYTES = 8192
def show(name, done, size):
    print(name, done, flush=True)
    sys.stdin.readline()
with Connection(sys.argv[1]) as connection:
    instance = connection.call("Hello")["instances"][0]["instance"]
    backups.take(connection, instance, Path(sys.argv[2]), incremental=sys.argv[3] == "1", truncate=True, progress=show)
"""


@pytest.mark.parametrize("incremental", [False, True])
def test_a_client_killed_in_the_middle_is_resumed_by_the_same_command(server: ServerProcess, tmp_path: Path, incremental: bool) -> None:
    target = tmp_path / "backup"
    if incremental:
        jetwire(server, "backup", target)
        load = Load(server, "x")
        while len(load.done) < 5:
            time.sleep(0.05)
        load.stop()
    pieces: list[str] = []
    for lines in (3, 5):  # killed twice, at different places
        command = [sys.executable, "-c", SLOW, server.addresses["tcp"], str(target), str(int(incremental))]
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert child.stdin is not None
        assert child.stdout is not None
        for _ in range(lines):
            pieces.append(child.stdout.readline())
            child.stdin.write("\n")
            child.stdin.flush()
        child.kill()
        child.communicate()
    assert (target / "backup.unfinished").exists()
    assert len(set(pieces)) >= len(pieces) - 2  # the second went on where the first had been
    flags = ["--incremental"] if incremental else []
    assert jetwire(server, "backup", target, *flags)["resumed"]
    assert not (target / "backup.unfinished").exists()
    code, output = jetwired("restore", target, tmp_path / "new" / "default", "--json")
    assert code == 0, output
    assert jetwired("check", tmp_path / "new")[0] == 0
