"""BackupInstance and RestoreInstance over the wire: full, atomic, incremental, and back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.server_process import Lines, ServerProcess


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path / "data") as process:
        yield process


class Own:
    """An instance of the test's own, with a database of tables."""

    def __init__(self, lines: Lines) -> None:
        self.lines = lines
        self.start(create=True)

    def start(self, *, create: bool = False) -> None:
        self.instance = self.lines.call("CreateInstance", name="own")["instance"]
        if create:
            self.open(create=True)

    def open(self, *, create: bool = False) -> None:
        self.lines.call("Init", instance=self.instance)
        self.sesid = self.lines.call("BeginSession", instance=self.instance)["sesid"]
        method = "CreateDatabase" if create else "OpenDatabase"
        self.dbid = self.lines.call(method, sesid=self.sesid, database="a.edb")["dbid"]

    def table(self, name: str) -> None:
        self.lines.call("CreateTable", sesid=self.sesid, dbid=self.dbid, tablename=name)

    def has(self, name: str) -> bool:
        return "result" in self.lines.ask("OpenTable", sesid=self.sesid, dbid=self.dbid, tablename=name)

    def back_up(self, destination: str | None, grbit: object = 0) -> list[int]:
        """The call, and the kinds of status notifications that came with it."""
        call = {"instance": self.instance, "destination": destination, "grbit": grbit}
        self.lines.send(json.dumps({"jsonrpc": "2.0", "id": "b", "method": "BackupInstance", "params": call}).encode() + b"\n")
        kinds = []
        while (answer := self.lines.read()).get("id") != "b":
            kinds.append(answer["params"]["snt"])
        assert "result" in answer, answer
        return kinds


def test_full_atomic_incremental_and_restore(server: ServerProcess) -> None:
    with server.connect() as lines:
        own = Own(lines)
        own.table("one")
        backup = server.data / "own" / "bk"
        kinds = own.back_up("bk")
        assert (kinds[0], 0 in kinds) == (5, True)
        assert lines.error("BackupInstance", instance=own.instance, destination="bk") == "JET_errBackupDirectoryNotEmpty"
        own.table("two")
        own.back_up("bk", ["BackupIncremental"])
        assert len(list(backup.glob("backup*.json"))) == 2
        own.back_up("bk", ["BackupAtomic"])
        assert len(list(backup.glob("backup*.json"))) == 1
        own.table("three")
        own.back_up("bk", ["BackupIncremental"])
        own.table("four")
        for wrong in ("../x", "/tmp/x", "scratch/x", ""):
            assert lines.error("BackupInstance", instance=own.instance, destination=wrong) == "JET_errInvalidPath"
        assert lines.error("BackupInstance", instance=own.instance, destination="other", grbit=1) == "JET_errMissingFullBackup"
        assert lines.error("RestoreInstance", instance=own.instance, source="bk") == "JET_errAlreadyInitialized"
        own.back_up(None)
        lines.call("Term", instance=own.instance)
        own.start()
        lines.call("RestoreInstance", instance=own.instance, source="bk")
        own.open()
        assert [own.has(name) for name in ("one", "two", "three", "four")] == [True] * 4  # the last from the instance's own log
        assert lines.error("BackupInstance", instance=own.instance, destination="bk", grbit=1) == "JET_errMissingFullBackup"
        lines.call("Term", instance=own.instance)
        own.start()
        assert lines.error("RestoreInstance", instance=own.instance, source="nowhere") == "JET_errInvalidPath"
        lines.call("RestoreInstance", instance=own.instance, source="bk", destination="elsewhere")
        assert (server.data / "own" / "elsewhere" / "a.edb").exists()


def test_the_older_names_act_on_the_only_instance(server: ServerProcess) -> None:
    with server.connect() as lines:
        lines.send(b'{"jsonrpc":"2.0","id":1,"method":"Backup","params":{"destination":"default/bk"}}\n')
        while (answer := lines.read()).get("id") != 1:
            assert answer["method"] == "status"
        assert "result" in answer
        assert (server.data / "default" / "bk" / "backup.json").exists()
        assert lines.error("Backup", destination="bk") == "JET_errInvalidPath"
        assert lines.error("Restore", source="default/bk") == "JET_errAlreadyInitialized"
        own = Own(lines)
        assert lines.error("Backup", destination="default/bk2") == "JET_errRunningInMultiInstanceMode"
        assert lines.error("TruncateLog") == "JET_errRunningInMultiInstanceMode"
        lines.call("Term", instance=own.instance)


def test_restore_acts_where_no_other_instance_runs(server: ServerProcess) -> None:
    with server.connect() as lines:
        default = lines.call("Hello")["instances"][0]["instance"]
        sesid = lines.call("BeginSession", instance=default)["sesid"]
        dbid = lines.call("CreateDatabase", sesid=sesid, database="a.edb")["dbid"]
        lines.call("CreateTable", sesid=sesid, dbid=dbid, tablename="one")
        lines.ask("Backup", destination="default/bk")
        lines.call("CreateTable", sesid=sesid, dbid=dbid, tablename="two")
        own = Own(lines)
        assert lines.error("Restore", source="default/bk") == "JET_errRunningInMultiInstanceMode"
        lines.call("Term", instance=own.instance)
        assert lines.error("Restore", source="default/bk") == "JET_errAlreadyInitialized"
        lines.call("Term", instance=default)
        (server.data / "default" / "a.edb").unlink()
        for wrong, error in (("nowhere/bk", "InvalidPath"), ("default", "InvalidPath"), ("default/nowhere", "InvalidPath")):
            assert lines.error("Restore", source=wrong) == f"JET_err{error}"
        lines.call("Restore", source="default/bk")
        default = lines.call("Init", instance=None)["instance"]
        sesid = lines.call("BeginSession", instance=default)["sesid"]
        dbid = lines.call("OpenDatabase", sesid=sesid, database="a.edb")["dbid"]
        for table in ("one", "two"):
            lines.call("OpenTable", sesid=sesid, dbid=dbid, tablename=table)
