"""`durableCommit`: a lazy commit is told when it is durable, to whom it belongs, and nothing else is."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from tests.support.server_process import Lines, ServerProcess


class Writer:
    """A connection with a session and an empty table of its own."""

    def __init__(self, server: ServerProcess, name: str) -> None:
        self.lines: Lines = server.connect()
        self.instance = self.lines.call("Hello")["instances"][0]["instance"]
        self.sesid = self.lines.call("BeginSession", instance=self.instance)["sesid"]
        self.lines.call("CreateDatabase", sesid=self.sesid, database=name)
        dbid = self.lines.call("OpenDatabase", sesid=self.sesid, database=name)["dbid"]
        create = {"name": "t", "columns": [{"name": "id", "coltyp": "Long"}], "indexes": [{"name": "p", "key": ["+id"], "grbit": 1}]}
        self.tableid = self.lines.call("CreateTableColumnIndex", sesid=self.sesid, dbid=dbid, tablecreate=create)["tableid"]
        self.last = 0

    def commit(self, **how: Any) -> dict[str, Any]:
        self.last += 1
        self.lines.call("BeginTransaction", sesid=self.sesid)
        self.lines.call("PutRecords", sesid=self.sesid, tableid=self.tableid, records=[{"id": self.last}])
        commit: dict[str, Any] = self.lines.call("CommitTransaction", sesid=self.sesid, **how)["commitId"]
        return commit

    def told(self, seconds: float) -> list[dict[str, Any]]:
        """The notifications that come within some time."""
        out = []
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.lines.socket.settimeout(left)
            try:
                line = json.loads(self.lines.line())
            except TimeoutError:
                break
            assert line["method"] == "durableCommit"
            out.append(line["params"])
        self.lines = Lines(self.lines.socket)  # a file that timed out can be read no more
        return out


@pytest.fixture
def writer(server: ServerProcess, request: pytest.FixtureRequest) -> Writer:
    return Writer(server, f"{request.node.originalname[:40]}.edb")


def test_a_lazy_commit_is_told(writer: Writer) -> None:
    commit = writer.commit(grbit=["CommitLazyFlush"])
    assert writer.told(0.6) == [{"instance": writer.instance, "commitIdSeen": commit, "grbit": 0}]


def test_commits_in_quick_succession_share_one(writer: Writer) -> None:
    commits = [writer.commit(durableCommit=60_000) for _ in range(10)]
    told = [one["commitIdSeen"] for one in writer.told(1.0)]
    assert told[-1] == commits[-1]
    assert len(told) < len(commits)


def test_it_is_told_within_the_time_asked_for(writer: Writer) -> None:
    began = time.monotonic()
    commit = writer.commit(durableCommit=1)
    assert json.loads(writer.lines.line())["params"]["commitIdSeen"] == commit
    assert time.monotonic() - began < 5, "loose: the machine is shared"


def test_durable_commits_and_other_connections_are_told_nothing(server: ServerProcess, writer: Writer) -> None:
    assert writer.commit() is not None
    assert writer.told(0.4) == []
    with server.connect() as other:
        writer.commit(grbit=["CommitLazyFlush"])
        other.socket.settimeout(0.4)
        with pytest.raises(TimeoutError):
            other.line()
    assert len(writer.told(0.4)) == 1


def test_a_connection_that_closes_first(server: ServerProcess, writer: Writer) -> None:
    writer.commit(grbit=["CommitLazyFlush"])
    writer.lines.close()
    with server.connect() as lines:
        time.sleep(0.3)
        lines.call("Ping")
    assert "Traceback" not in server.errors.read_text()
