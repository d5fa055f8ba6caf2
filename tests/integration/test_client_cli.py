"""The `jetwire` command against a real server; where pipes, terminals or the environment matter, in a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

import jetwire.sync
from jetwire.cli.app import app
from tests.support.server_process import ServerProcess

JETWIRE = [sys.executable, "-m", "jetwire"]
Run = Callable[..., Result]


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    """An environment in which nothing is configured."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("JETWIRE", "XDG"))}
    return {
        **kept,
        "HOME": str(tmp_path),
        "XDG_RUNTIME_DIR": str(tmp_path),
        "COLUMNS": "120",
        "TERM": "xterm",
        "PROMPT_TOOLKIT_NO_CPR": "1",
    }


@pytest.fixture
def run(shared_server: ServerProcess, home: dict[str, str]) -> Run:
    """Runs the command in this process, which is quicker; its exit code is checked."""

    def start(*words: str, url: str = "", stdin: str = "", code: int = 0, **more: str) -> Result:
        hidden = dict.fromkeys(os.environ.keys() - home.keys())
        environment: dict[str, str | None] = {**hidden, **home, **more}
        done = CliRunner().invoke(app, ["--url", url or shared_server.addresses["tcp"], *words], input=stdin, env=environment)
        assert done.exit_code == code, done.output
        return done

    return start


def answer(done: Result) -> Any:
    return json.loads(done.stdout)


# -- calls and exit codes -----------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["tcp", "unix", "ws", "http"])
def test_ping(run: Run, shared_server: ServerProcess, kind: str) -> None:
    facts = answer(run("ping", "-n", "2", url=shared_server.addresses[kind]))
    assert facts["count"] == 2
    assert 0 < facts["minMs"] <= facts["meanMs"] <= facts["maxMs"]


def test_a_server_that_is_not_there(run: Run, tmp_path: Path) -> None:
    for url in ("tcp://127.0.0.1:1", "http://127.0.0.1:1", f"unix://{tmp_path}/none.sock"):
        done = run("ping", url=url, code=7)
        assert done.stdout == ""
        assert len(done.stderr.splitlines()) == 1, "one line, no traceback"
    assert json.loads(run("--json", "ping", url="tcp://127.0.0.1:1", code=7).stderr)["error"]["message"]


def test_call(run: Run) -> None:
    assert answer(run("call", "Ping")) == {}
    assert answer(run("call", "JetSnapshotStatus"))["state"] == "none"
    assert answer(run("call", "GetSystemParameter", "instance=1", "paramid=MaxSessions"))["paramValue"] > 0
    assert answer(run("call", "GetSystemParameter", '{"instance": 1, "paramid": "MaxSessions"}'))["paramValue"] > 0
    batch = {
        "calls": [{"method": "BeginSession", "params": {"instance": 1}}, {"method": "EndSession", "params": {"sesid": {"$ref": "0/sesid"}}}]
    }
    assert len(answer(run("call", "Batch", json.dumps(batch)))["results"]) == 2


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["call", "EndSession", "sesid=77"], 1),
        (["call", "NoSuchMethod"], 2),
        (["call", "EndSession"], 2),
        (["call", "EndSession", "sesid=77", "colour=red"], 2),
        (["call", "EndSession", "sesid"], 2),
        (["call"], 2),
        (["nonsense"], 2),
        (["tables", "missing.edb"], 1),
        (["--instance", "nobody", "tables"], 2),
        (["--url", "gopher://127.0.0.1", "ping"], 2),
        (["dump", "t", "--format", "xml"], 2),
        (["dump", "t", "-o", "/nonexistent/x", "-d", "missing.edb"], 1),
        (["load", "t", "/nonexistent/x"], 2),
    ],
)
def test_exit_codes(run: Run, words: list[str], code: int) -> None:
    done = run(*words, code=code)
    assert done.stderr
    assert "Traceback" not in done.stderr


def test_a_method_that_is_not_there_is_named(run: Run) -> None:
    for words, typed in ((["call", "NoSuchMethod"], ""), (["shell"], "NoSuchMethod\n")):
        assert run(*words, stdin=typed, code=2).stderr == "the server has no method NoSuchMethod\n"


def test_errors_for_programs(run: Run) -> None:
    error = json.loads(run("--json", "call", "EndSession", "sesid=77", code=1).stderr)["error"]
    assert error["code"] == -1104
    assert error["name"] == "JET_errInvalidSesid"
    assert error["retryable"] is False


def test_not_allowed(run: Run, tmp_path: Path) -> None:
    token = subprocess.run(
        [sys.executable, "-m", "jetwire_server", "token", "add", "r", "--role", "reader", "--data", str(tmp_path / "data")],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    with ServerProcess(tmp_path / "data", "--require-token") as server:
        for kind in ("tcp", "ws", "http"):
            url = server.addresses[kind]
            run("ping", url=url, code=8)
            run("--token", token, "ping", url=url)
            run("--token", token + "x", "ping", url=url, code=8)
        url = server.addresses["tcp"]
        run("ping", url=url, JETWIRE_TOKEN=token)
        (tmp_path / "jetwire").mkdir()
        (tmp_path / "jetwire" / "token").write_text(token)
        run("ping", url=url, XDG_CONFIG_HOME=str(tmp_path))
        run("call", "OSSnapshotPrepare", url=url, JETWIRE_TOKEN=token, code=8)  # a reader may not


def test_help_says_the_exit_codes(run: Run) -> None:
    text = run("--help").stdout
    assert all(word in text for word in ("ping", "call", "shell", "tables", "dump", "load", "top", "snapshot"))
    assert "Exit codes: 0 done" in text


# -- the shell ----------------------------------------------------------------------------------------------------
def test_a_shell_from_a_pipe_keeps_its_session(run: Run, database: str) -> None:
    script = f"""
        # a comment
        CreateDatabase database={database}
        CreateTable tablename=t
        AddColumn columnname=id columndef='{{"coltyp": "Long"}}'
        CloseTable
        .open {database}
        .use t
        BeginTransaction
        .handles
        Rollback
        .quit
        NoSuchMethod
    """
    lines = [json.loads(line) for line in run("shell", stdin=script).stdout.splitlines()]
    assert lines[0]["dbid"] > 0
    handles = next(line for line in lines if "sesid" in line)
    assert {"instance", "sesid", "dbid", "tableid"} <= set(handles)


def test_a_script_stops_at_its_first_error(run: Run) -> None:
    assert run("shell", stdin="Ping\nNoSuchMethod\nPing\n", code=2).stdout == "{}\n"
    assert run("shell", stdin="EndSession sesid=9999\nPing\n", code=1).stdout == ""
    assert run("shell", stdin=".nonsense\n", code=2).stdout == ""
    assert run("shell", stdin=".use people\n", code=2).stdout == ""


class Terminal:
    """Somebody at a terminal."""

    def __init__(self, words: list[str], environment: dict[str, str]) -> None:
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            os.execve(sys.executable, [*JETWIRE, *words], environment)
        self.text = ""

    def type(self, text: str) -> None:
        os.write(self._fd, text.encode())

    def wait_for(self, text: str, seconds: float = 20.0) -> str:
        """Everything shown up to this text; it is taken away."""
        deadline = time.monotonic() + seconds
        while text not in self.text:
            left = deadline - time.monotonic()
            assert left > 0, f"{text!r} was never shown: {self.text!r}"
            if select.select([self._fd], [], [], left)[0]:
                try:
                    self.text += os.read(self._fd, 65536).decode(errors="replace")
                except OSError:
                    break
        before, _, self.text = self.text.partition(text)
        return before

    def end(self) -> int:
        """Its exit code."""
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            if select.select([self._fd], [], [], 0.05)[0]:
                with contextlib.suppress(OSError):
                    os.read(self._fd, 65536)
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                os.close(self._fd)
                return os.waitstatus_to_exitcode(status)
        os.kill(self.pid, signal.SIGKILL)
        raise AssertionError("it did not end")


def test_a_shell_at_a_terminal(shared_server: ServerProcess, home: dict[str, str], tmp_path: Path) -> None:
    terminal = Terminal(["--url", shared_server.addresses["tcp"], "shell"], home)
    terminal.wait_for("jetwire>")
    terminal.type("SnapshotSta\t")
    terminal.wait_for("tus")
    terminal.type("\r")
    terminal.wait_for('"state"')
    terminal.type("EndSession sesid=9999\r")
    terminal.wait_for("JET_errInvalidSesid")
    terminal.type(".help\r")
    terminal.wait_for("ends the shell")
    terminal.wait_for("jetwire>")
    terminal.type("half a li\x03")  # Ctrl-C throws the line away
    terminal.wait_for("li")
    terminal.wait_for("jetwire>")
    terminal.type("\x04")
    assert terminal.end() == 0
    file = tmp_path / ".local" / "state" / "jetwire" / "history"
    assert file.stat().st_mode & 0o777 == 0o600, "what was typed may hold a token"
    history = file.read_text()
    assert "EndSession sesid=9999" in history


# -- tables, dump, load -------------------------------------------------------------------------------------------
@pytest.fixture
def filled(shared_server: ServerProcess, database: str) -> str:
    """A database with a table of everything that is awkward in files."""
    columns: dict[str, str | dict[str, Any]] = {
        "id": "LongLong",
        "text": "LongText",
        "real": "IEEEDouble",
        "when": "DateTime",
        "guid": "GUID",
        "bytes": "LongBinary",
        "bit": "Bit",
        "tags": {"coltyp": "LongText", "grbit": ["ColumnTagged", "ColumnMultiValued"]},
        "kind": {"coltyp": "Text", "defaultValue": "plain"},
    }
    with jetwire.sync.connect(shared_server.addresses["tcp"]) as server, server.session() as session:
        db = session.open(database, create=True)
        table = db.create_table("awkward", columns, primary="id", indexes={"byText": "-text"})
        rows: list[dict[str, Any]] = [
            {"id": 1, "text": 'a "b", c\nd\r\n', "real": 0.1, "when": 45000.123456789, "guid": "01020304-0506-0708-090a-0b0c0d0e0f10"},
            {"id": 2**63 - 1, "text": "", "real": "NaN", "bytes": b"\x00\xff", "bit": True, "tags": ["x", "y", "\\N"]},
            {"id": -(2**63), "text": "\\N", "real": "-Infinity", "bytes": b"", "bit": False, "tags": "[1]", "kind": None},
            {"id": 4, "text": "\\J[]", "kind": "other"},
        ]
        table.insert(*rows)
        table.insert(*({"id": n, "text": f"row {n}" * 10} for n in range(1000, 3500)))
        db.create_table("empty", columns, primary="id")
    return database


def test_tables(run: Run, filled: str) -> None:
    found = {one["table"]: one for one in answer(run("tables", filled))}
    assert set(found) == {"awkward", "empty"}
    assert found["awkward"]["records"] == 2504
    assert found["empty"]["records"] == 0
    assert {"name": "when", "type": "DateTime", "max": 8} in found["awkward"]["columns"]
    assert found["awkward"]["indexes"] == [
        {"name": "primary", "key": ["+id"], "primary": True, "unique": True},
        {"name": "byText", "key": ["-text"], "primary": False, "unique": False},
    ]


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_what_is_dumped_loads_as_what_it_was(run: Run, filled: str, tmp_path: Path, form: str) -> None:
    file = tmp_path / f"a.{form}"
    run("dump", "awkward", "-d", filled, "-o", str(file))
    assert answer(run("load", "empty", str(file), "-d", filled))["count"] == 2504
    first, second = (run("dump", name, "-d", filled, "-f", form).stdout for name in ("awkward", "empty"))
    assert first == second
    records = [json.loads(line) for line in run("dump", "empty", "-d", filled).stdout.splitlines()]
    assert len(records) == 2504
    assert records[0]["id"] == -(2**63)
    assert records[0]["kind"] is None, "a NULL where the column has a default"


def test_a_pipe_from_dump_to_load(run: Run, filled: str, shared_server: ServerProcess, home: dict[str, str]) -> None:
    url = shared_server.addresses["tcp"]
    line = f"{' '.join(JETWIRE)} --url {url} dump awkward -d {filled} | {' '.join(JETWIRE)} --url {url} load empty -d {filled}"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", line], env=home, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["count"] == 2504


def test_dump_by_index_and_columns(run: Run, filled: str) -> None:
    out = run("dump", "awkward", "-d", filled, "--index", "byText", "--columns", "id,text", "-f", "csv").stdout
    rows = out.splitlines()
    assert rows[0] == "id,text"
    assert rows[1].startswith("3499,")
    run("dump", "awkward", "-d", filled, "--columns", "id,nope", code=2)
    run("dump", "nope", "-d", filled, code=1)


def test_a_dump_into_a_pipe_that_closes(filled: str, shared_server: ServerProcess, home: dict[str, str]) -> None:
    line = f"{' '.join(JETWIRE)} --url {shared_server.addresses['tcp']} dump awkward -d {filled} | head -n 1"
    done = subprocess.run(["bash", "-c", line], env=home, capture_output=True, text=True, timeout=60)
    assert json.loads(done.stdout)["id"] == -(2**63)
    assert "Traceback" not in done.stderr


def test_a_load_that_stops_can_go_on(run: Run, filled: str, tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    lines = [json.dumps({"id": n}) for n in range(2000)]
    lines[1500] = json.dumps({"id": 7})
    file.write_text("\n".join(lines) + "\n")
    done = run("load", "empty", str(file), "-d", filled, code=1)
    assert "line 1501" in done.stderr
    assert "KeyDuplicate" in done.stderr
    assert "--after 1500" in done.stderr
    assert answer(run("tables", filled))[1]["records"] == 1500
    lines[1500] = "{rubbish"
    file.write_text("\n".join(lines) + "\n")
    done = run("load", "empty", str(file), "-d", filled, "--after", "1500", code=2)
    assert "line 1501" in done.stderr
    lines[1500] = json.dumps({"id": 1500})
    file.write_text("\n".join(lines) + "\n")
    assert answer(run("load", "empty", str(file), "-d", filled, "--after", "1500")) == {"count": 500, "lastLine": 2000}
    assert answer(run("tables", filled))[1]["records"] == 2000


def test_load_modes(run: Run, filled: str) -> None:
    def load(mode: str, *records: dict[str, Any], code: int = 0) -> Result:
        return run("load", "empty", "-d", filled, "--mode", mode, stdin="".join(json.dumps(r) + "\n" for r in records), code=code)

    load("insert", {"id": 1, "text": "a"}, {"id": 2, "text": "b"})
    load("upsert", {"id": 2, "text": "B"}, {"id": 3, "text": "c"})
    load("replace", {"id": 1, "text": "A"})
    load("replace", {"id": 9, "text": "A"}, code=1)
    load("delete", {"id": 3})
    records = [json.loads(line) for line in run("dump", "empty", "-d", filled, "--columns", "id,text").stdout.splitlines()]
    assert records == [{"id": 1, "text": "A"}, {"id": 2, "text": "B"}]


def test_a_dump_is_one_snapshot(run: Run, filled: str, shared_server: ServerProcess, home: dict[str, str]) -> None:
    """Records change in pairs while it is dumped: no dump sees half a change."""
    with jetwire.sync.connect(shared_server.addresses["tcp"]) as server, server.session() as session:
        table = session.open(filled).table("awkward")
        line = [*JETWIRE, "--url", shared_server.addresses["tcp"], "dump", "awkward", "-d", filled, "--columns", "id,text"]
        for _ in range(3):
            process = subprocess.Popen(line, env=home, stdout=subprocess.PIPE, text=True)
            number = 0
            while process.poll() is None and number < 50:
                number += 1
                with session.transaction():
                    table.replace({"id": 1, "text": f"change {number}"}, {"id": 3499, "text": f"change {number}"})
                if number == 1:
                    assert process.stdout
                    first = process.stdout.readline()
            assert process.stdout
            records = {r["id"]: r.get("text") for r in map(json.loads, [first, *process.stdout])}
            assert process.wait(20) == 0
            assert len(records) == 2504
            assert records[1] == records[3499] or not records[1].startswith("change")
            process.stdout.close()


# -- top ----------------------------------------------------------------------------------------------------------
def test_top_once(run: Run, shared_server: ServerProcess, database: str) -> None:
    seen = answer(run("top", "--once", "-i", "0.1", url=shared_server.addresses["http"]))
    assert seen["snapshot"]["state"] == "none"
    assert seen["instances"][0]["instanceName"] == "default"
    assert seen["rates"]["jetwire_rpc_calls_total"] > 0
    where = shared_server.addresses["http"].replace("/rpc", "/metrics")
    names = ("sessions", "transactions", "cursors", "locks")
    with jetwire.sync.connect(shared_server.addresses["tcp"]) as server, server.session() as session:
        table = session.open(database, create=True).create_table("t", {"id": "Long"}, primary="id")
        with session.transaction():
            table.insert({"id": 1}, {"id": 2})
            now = answer(run("top", "--once", "-i", "0.1", "--metrics", where))["metrics"]
    more = [now[f"jetwire_{name}"] - seen["metrics"][f"jetwire_{name}"] for name in names]
    assert more[:3] == [1, 1, 1]
    assert more[3] >= 2
    assert answer(run("top", "--once", "-i", "0.1", "--metrics", where))["metrics"]["jetwire_rpc_connections"] >= 1
    another = shared_server.addresses["tcp"].replace("tcp:", "http:")
    for nowhere in ("http://127.0.0.1:1/metrics", another, "nope", "http://127.0.0.1:x/", "http://a b/"):
        assert answer(run("top", "--once", "-i", "0.1", "--metrics", nowhere))["metrics"] == {}, "shown without"


def test_top_at_a_terminal(shared_server: ServerProcess, home: dict[str, str]) -> None:
    terminal = Terminal(["--url", shared_server.addresses["http"], "top", "-i", "0.1"], home)
    terminal.wait_for("waiting commits")
    terminal.wait_for("sessions, ")
    terminal.wait_for("rpc calls")
    terminal.type("\x03")
    assert terminal.end() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_terminal_is_put_back_at_a_signal(shared_server: ServerProcess, home: dict[str, str], number: int) -> None:
    terminal = Terminal(["--url", shared_server.addresses["tcp"], "top", "-i", "0.1"], {**home, "TERM": "xterm"})
    terminal.wait_for("\x1b[?1049h")
    terminal.wait_for("waiting commits")
    os.kill(terminal.pid, number)
    terminal.wait_for("\x1b[?1049l")
    terminal.wait_for("\x1b[?25h")
    assert terminal.end() == 128 + number


def test_a_shell_without_a_place_for_its_history(shared_server: ServerProcess, home: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "state" / "jetwire" / "history").mkdir(parents=True)
    terminal = Terminal(["--url", shared_server.addresses["tcp"], "shell"], {**home, "XDG_STATE_HOME": str(tmp_path / "state")})
    terminal.wait_for("no history is kept")
    terminal.wait_for("jetwire>")
    terminal.type("\x04")
    assert terminal.end() == 0


def test_a_terminal_that_knows_few_letters(shared_server: ServerProcess, home: dict[str, str], database: str) -> None:
    with jetwire.sync.connect(shared_server.addresses["tcp"]) as server, server.session() as session:
        session.open(database, create=True).create_table("\xfc", {"id": "Long"}, primary="id")
    terminal = Terminal(["--url", shared_server.addresses["tcp"], "tables", database], {**home, "PYTHONIOENCODING": "ascii"})
    terminal.wait_for("\\xfc")
    assert terminal.end() == 0
