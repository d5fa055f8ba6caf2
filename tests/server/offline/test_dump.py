"""`jetwired dump`: what a client would be told, from files that nobody serves and that stay as they are."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import jetwire.sync
from jetwire_server.__main__ import app
from jetwire_server.files.directory_lock import DirectoryLock
from jetwire_server.files.local import LocalFiles
from tests.support.server_process import ServerProcess

COLUMNS: dict[str, str | dict[str, Any]] = {
    "id": "LongLong",
    "text": "LongText",
    "when": "DateTime",
    "guid": "GUID",
    "bytes": "LongBinary",
    "tags": {"coltyp": "LongText", "grbit": ["ColumnTagged", "ColumnMultiValued"]},
    "kind": {"coltyp": "Text", "defaultValue": "plain"},
}
ROWS: list[dict[str, Any]] = [
    {"id": 1, "text": 'a "b", c\nd\r\n', "when": 45000.123456789, "guid": "01020304-0506-0708-090a-0b0c0d0e0f10"},
    {"id": 2**63 - 1, "text": "", "bytes": b"\x00\xff" * 50_000, "tags": ["x", "y", "\\N"]},
    {"id": -(2**63), "text": "\\N", "bytes": b"", "kind": None},
    *({"id": n, "text": f"row {n}"} for n in range(100, 1300)),
]


def run(*words: object, code: int = 0) -> str:
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == code, done.output
    return done.stdout_bytes.decode() if code == 0 else done.stderr


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A data directory whose server was killed with records in the log only, and what `jetwire dump` said before."""
    data = tmp_path_factory.mktemp("dumped") / "data"
    with ServerProcess(data) as server:
        with jetwire.sync.connect(server.addresses["tcp"]) as client, client.session() as session:
            db = session.open("a.edb", create=True)
            db.create_table("t", COLUMNS, primary="id", indexes={"byText": "-text"}).insert(*ROWS)
            db.create_table("empty", {"id": "Long"}, primary="id")
        client_says = {}
        for form in ("jsonl", "csv"):
            command = [sys.executable, "-m", "jetwire", "--url", server.addresses["tcp"], "dump", "t", "-f", form]
            client_says[form] = subprocess.run(command, capture_output=True, timeout=60, check=True).stdout.decode()
        server.kill()
    return data, client_says


def content(data: Path) -> dict[Path, bytes]:
    """All but the locks, which mean nothing in a copy."""
    return {path: path.read_bytes() for path in data.rglob("*") if path.is_file() and not path.name.endswith(("-lock", "jetwire.lock"))}


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_the_same_as_a_client_is_told_and_nothing_changes(killed: tuple[Path, dict[str, str]], form: str) -> None:
    data, client_says = killed
    before = content(data)
    assert run("dump", data, "t", "-f", form) == client_says[form]
    assert content(data) == before, "control of this comparison: test_recovery_would_change_the_files"


def test_recovery_would_change_the_files(killed: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-a", killed[0], copy], check=True)
    before = content(copy)
    run("recover", copy)
    assert content(copy) != before


def test_tables_index_and_columns(killed: tuple[Path, dict[str, str]]) -> None:
    data, _ = killed
    assert [json.loads(line) for line in run("dump", data).splitlines()] == [
        {"database": "a.edb", "table": "empty"},
        {"database": "a.edb", "table": "t"},
    ]
    rows = list(csv.DictReader(run("dump", data / "default", "t", "--index", "byText", "--columns", "text,id", "-f", "csv").splitlines()))
    texts = [row["text"] for row in rows if row["text"].startswith("row")]
    assert texts == sorted(texts, reverse=True)
    assert len(texts) == 1200
    assert run("dump", data, "empty", "-d", "a.edb") == ""


def test_what_the_files_say_of_themselves(killed: tuple[Path, dict[str, str]]) -> None:
    data, _ = killed
    before = content(data)
    heads = [json.loads(line) for line in run("dump", data, "--headers").splitlines()]
    assert {head["file"] for head in heads} >= {"edb.chk", "edb.log", "a.edb"}
    assert len({head.get("log_signature", head["signature"]) for head in heads}) == 1, "one log for all of them"
    records = [json.loads(line) for line in run("dump", data, "--log").splitlines()]
    assert records[0]["kind"] == "attach"
    assert [one["number"] for one in records] == list(range(1, len(records) + 1))
    assert sum(sum(one["rows"].values()) for one in records if one["kind"] == "commit") > 2 * len(ROWS), "rows and index entries"
    assert content(data) == before


def test_refusals(killed: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    data, _ = killed
    assert "table nope" in run("dump", data, "nope", code=2)
    assert "has no column nope; it has" in run("dump", data, "t", "--columns", "nope", code=2)
    assert "which instance? default" in run("dump", data, "t", "-i", "nope", code=2)
    assert "nope.edb" in run("dump", data, "t", "-d", "nope.edb", code=2)
    with DirectoryLock(LocalFiles(data)):
        assert "in use by process" in run("dump", data, "t", code=2)
    windows = tmp_path / "ntds.edb"
    windows.write_bytes(b"\0\0\0\0\xef\xcd\xab\x89" + bytes(4096))
    assert "of the engine on Windows" in run("dump", windows, code=2)
    windows.write_bytes(b"hello")
    assert "is a file" in run("dump", windows, code=2)


def test_a_pipe_that_closes(killed: tuple[Path, dict[str, str]]) -> None:
    command = f"{sys.executable} -m jetwire_server dump {killed[0]} t | head -1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith("{")
    assert done.stderr == ""
