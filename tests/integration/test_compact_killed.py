"""A server killed in the middle of a Compact: its copy is gone after the next start, or whole and not attached."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import jetwire.sync
from jetwire_protocol.errors import Wrn
from jetwire_server.__main__ import app
from tests.support.server_process import Lines, ServerProcess

ROWS = [{"id": number, "text": f"row {number} " + "x" * 100} for number in range(1_200)]
TABLES = ("t", "u")
COPY = "c.edb"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("compacted") / "data"
    with ServerProcess(directory) as server:
        with jetwire.sync.connect(server.addresses["tcp"]) as client, client.session() as session:
            db = session.open("a.edb", create=True)
            for name in TABLES:
                db.create_table(name, {"id": "Long", "text": "LongText"}, primary="id", indexes={"byText": "text"}).insert(*ROWS)
        assert server.stop() == 0
    return directory


def begun(lines: Lines) -> int:
    sesid: int = lines.call("BeginSession", instance=lines.call("Hello")["instances"][0]["instance"])["sesid"]
    return sesid


def killed(data: Path, to: Path, place: str) -> Path:
    """What is left of a copy of the data whose server died at a failpoint while it compacted."""
    shutil.copytree(data, to)
    with ServerProcess(to, JETWIRE_FAILPOINTS=place) as server:
        with server.connect() as lines:
            params = {"sesid": begun(lines), "sourceDatabase": "a.edb", "destinationDatabase": COPY}
            lines.send(json.dumps({"jsonrpc": "2.0", "id": 9, "method": "Compact", "params": params}).encode() + b"\n")
            while line := lines.line():
                assert json.loads(line)["method"] == "status", "it dies before it answers"
        server.process.wait(20)
    return to


def run(*words: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(word) for word in words])
    return result.exit_code, result.output


def rows(server: ServerProcess, database: str) -> dict[str, list[dict[str, Any]]]:
    with jetwire.sync.connect(server.addresses["tcp"]) as client, client.session() as session:
        db = session.open(database)
        return {name: list(db.table(name).range(index="byText")) for name in TABLES}


@pytest.mark.parametrize(
    ("place", "recovered"), [("compact.attached=kill", False), ("compact.table_copied=kill", True), ("compact.whole=kill", False)]
)
def test_the_source_is_not_left_attached_read_only(data: Path, tmp_path: Path, place: str, recovered: bool) -> None:
    """One that was not attached had been attached for the copy; nobody could write to it until he detached it. Others stay attached.

    `recovered`: offline before the start, which then knows it from the checkpoint file and not from the log.
    """
    shutil.copytree(data, tmp_path / "detached")
    with ServerProcess(tmp_path / "detached") as server, server.connect() as lines:
        sesid = begun(lines)
        lines.call("CreateDatabase", sesid=sesid, database="other.edb")
        lines.call("EndSession", sesid=sesid)
        sesid = begun(lines)
        for database in ("a.edb", "other.edb"):
            lines.call("DetachDatabase", sesid=sesid, database=database)
        lines.call("AttachDatabase", sesid=sesid, database="other.edb", grbit=["DbReadOnly"])
        assert server.stop() == 0
    left = killed(tmp_path / "detached", tmp_path / "left", place)
    if recovered:
        assert run("recover", left)[0] == 0
    with ServerProcess(left) as server, server.connect() as lines:
        sesid = begun(lines)
        assert lines.error("OpenDatabase", sesid=sesid, database="a.edb") == "JET_errDatabaseNotFound"
        assert "wrn" not in lines.call("AttachDatabase", sesid=sesid, database="a.edb")
        dbid = lines.call("OpenDatabase", sesid=sesid, database="a.edb")["dbid"]
        lines.call("DeleteTable", sesid=sesid, dbid=dbid, tablename="u")
        assert lines.call("AttachDatabase", sesid=sesid, database="other.edb")["wrn"] == Wrn.DatabaseAttached


@pytest.mark.parametrize(
    "place",
    [
        "compact.begun=kill",
        "compact.table_copied=kill",
        "compact.copied=kill",
        "pages.after_commit=kill:6",
        "compact.table_copied=error,databases.before_remove=kill",  # its end is in the log
    ],
)
def test_the_next_start_removes_what_a_compact_left(data: Path, tmp_path: Path, place: str) -> None:
    left = killed(data, tmp_path / "left", place)
    assert (left / "default" / COPY).exists(), "else this tests nothing"
    whole = sorted(ROWS, key=lambda row: str(row["text"]))
    with ServerProcess(left) as server:
        with server.connect() as lines:
            sesid = begun(lines)
            assert not (left / "default" / COPY).exists()
            assert lines.error("DetachDatabase", sesid=sesid, database=COPY) == "JET_errDatabaseNotFound"
            assert lines.error("AttachDatabase", sesid=sesid, database=COPY) == "JET_errFileNotFound"
        with jetwire.sync.connect(server.addresses["tcp"]) as client, client.session() as session:
            session.connection.Compact(session.id, "a.edb", COPY)
        for database in ("a.edb", COPY):
            assert rows(server, database) == dict.fromkeys(TABLES, whole)
        server.kill()
    assert run("recover", left)[0] == 0
    code, output = run("dump", left, "t", "-d", COPY)
    assert (code, output.count("\n")) == (0, len(ROWS)), "what was made in its place is nothing to recovery's clearing up"
    assert run("check", left)[0] == 0


def test_a_compact_that_is_whole_when_its_server_dies_stays_detached(data: Path, tmp_path: Path) -> None:
    """Control: the copy's leaving is in the log, and only its own file does not say so yet."""
    left = killed(data, tmp_path / "left", "databases.before_release=kill")
    with ServerProcess(left) as server, server.connect() as lines:
        sesid = begun(lines)
        lines.call("AttachDatabase", sesid=sesid, database=COPY)
        assert rows(server, COPY) == rows(server, "a.edb")


def test_the_offline_verbs_leave_it_to_a_server(data: Path, tmp_path: Path) -> None:
    left = killed(data, tmp_path / "left", "compact.table_copied=kill")
    for verb in ("check", "verify"):
        assert run(verb, left)[0] == 0
    code, output = run("dump", left)
    assert (code, COPY in output) == (0, False), output
    for _ in range(2):
        assert run("recover", left)[0] == 0
        assert (left / "default" / COPY).exists()
    with ServerProcess(left) as server:
        assert not (left / "default" / COPY).exists()
        assert len(rows(server, "a.edb")["t"]) == len(ROWS)
