"""What people get wrong at the command line: each is told in a line what it was, and nothing is done that was not asked for."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

import jetwire.sync
from tests.integration.test_client_cli import JETWIRE, Run, answer, filled, home, run
from tests.support.fake_server import SILENCE, FakeServer
from tests.support.server_process import ServerProcess

__all__ = ["filled", "home", "run"]  # the fixtures


def refused(run: Run, *words: str, code: int, says: str, **more: Any) -> None:
    done = run(*words, code=code, **more)
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr


DEEP = "[" * 9000


# -- in a process of its own: the command's outermost shell ---------------------------------------------------------
def started(server: ServerProcess, home: dict[str, str], *words: str | bytes, stdout: int = subprocess.PIPE) -> Any:
    line = [*JETWIRE, "--url", server.addresses["tcp"], *words]
    return subprocess.run(line, env=home, stdout=stdout, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True, timeout=60)


@pytest.mark.parametrize(
    "words",
    [
        ["nope"],
        ["ping", "-n", "0"],
        ["dump"],
        ["ping", "--nope"],
        ["call", b"\xff\xfe"],
        ["call", "Ping", b"a=\xff"],
        ["call", "Batch", "[" * 9000],
    ],
    ids=["command", "value", "argument", "option", "method", "text", "depth"],
)
def test_wrong_usage_is_a_line(shared_server: ServerProcess, home: dict[str, str], words: list[str | bytes]) -> None:
    done = started(shared_server, home, *words)
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    done = subprocess.run([*JETWIRE, "--json", *words], env=home, capture_output=True, text=True, timeout=60)
    if words[0] != "call":
        assert json.loads(done.stderr)["error"]["message"]


@pytest.mark.parametrize("words", [["ping"], ["call", "Hello"], ["tables"]], ids=lambda words: words[0])
def test_an_answer_that_nobody_can_take(shared_server: ServerProcess, home: dict[str, str], words: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        done = started(shared_server, home, *words, stdout=full.fileno())
    assert done.returncode == 2
    assert done.stderr == "the answer cannot be written: No space left on device\n"


# -- words ----------------------------------------------------------------------------------------------------------
def test_what_is_no_json_is_not_sent_as_null(run: Run) -> None:
    for value in ("NaN", "1e400", "Infinity"):
        refused(run, "call", "GetSystemParameter", f"instance={value}", "paramid=1", code=2, says="instance: expected an integer")
    refused(run, "call", "GetSystemParameter", '{"instance": NaN}', code=2, says="NaN is no JSON")


def test_methods_that_are_nearly_there(run: Run) -> None:
    refused(run, "call", "opentable", code=2, says="there is OpenTable")
    refused(
        run, "call", "JetCreateInstance", "instanceName=a", code=2, says="CreateInstance has no parameter instanceName; there are name, "
    )
    refused(run, "call", "", code=2, says="no method ''")
    calls = json.dumps([{"method": "Ping"}, {"method": "Nope"}])
    assert "Batch" not in run("call", "Batch", f"calls={calls}", code=2).stderr, "which is there: it is one of its calls that is not"


def test_errors_say_which_member_it_is_and_why(run: Run) -> None:
    refused(
        run, "call", "GetSystemParameter", "instance=x", "paramid=1", code=2, says="(-32602): instance: expected an integer of 64 bits\n"
    )


def test_the_shell(run: Run, filled: str) -> None:
    lines = f'.open {filled}\n.use awkward\nMakeKey data=1 grbit=["NewKey"]\nSeek grbit=["SeekEQ"]\nRetrieveColumn columnid=id\n'
    assert json.loads(run("shell", stdin=lines).stdout.splitlines()[-1])["data"] == 1, "flags as the completion proposes them"
    refused(run, "shell", stdin="help\n", code=2, says=".help")
    done = run("shell", stdin=f".open {filled}\n.columns nope\n", code=2)
    assert "no table is called nope" in done.stderr


def test_an_instance_that_is_not_there(run: Run, tmp_path: Path) -> None:
    refused(run, "--instance", "", "tables", code=2, says="called ''; there are default")
    refused(run, "--instance", "nope", "backup", str(tmp_path / "b"), code=2, says="called 'nope'; there are default")


# -- files ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("a.jsonl", b'{"id": 70000}\n{"id": 70001, "text": "\xfc"}\n', "line 2 is no text in UTF-8"),
        ("a.csv", b"id,text\n70000,a\n70001,\xfc\n", "line 3 is no text in UTF-8"),
        ("e.csv", b"id,tags\n70000,a\n70001,\\J" + b"[" * 100_000 + b"\n", "line 3: nested too deep"),
        ("f.csv", b"id,real\n70000,1\n70001," + b"[" * 100_000 + b"\n", "line 3: "),
        ("b.csv", b"\xff\xfe\x00", "line 1 is no text in UTF-8"),
        ("b.jsonl", b'{"id": 70000}\n{"id": 70001, "text": "\\ud800"}\n', "line 2: "),
        ("c.jsonl", b'{"id": 70000}\n{"id":' + b"[" * 100_000 + b"\n", "line 2: nested too deep"),
        ("c.csv", b"id,text,id\n1,a,2\n", "line 1: id is named twice"),
        ("d.csv", b"id;text\n1;a\n", "it has bit, bytes, guid, id"),
    ],
)
def test_files_that_cannot_be_loaded(run: Run, filled: str, tmp_path: Path, name: str, data: bytes, says: str) -> None:
    file = tmp_path / name
    file.write_bytes(data)
    refused(run, "load", "empty", str(file), "-d", filled, code=2, says=says)
    there = answer(run("tables", filled))[1]["records"]
    assert there == (0 if b"70000" not in data else 1), "what stands before is loaded"


def test_a_file_of_a_spreadsheet(run: Run, filled: str, tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_bytes(b"\xef\xbb\xbfid,text\r\n1,\xc3\xbc\r\n")
    assert answer(run("load", "empty", str(file), "-d", filled)) == {"count": 1, "lastLine": 2}


def test_where_to_go_on_after_a_second_stop(run: Run, filled: str, tmp_path: Path) -> None:
    """Nothing was loaded this time: the place is still the one that was given."""
    file = tmp_path / "a.jsonl"
    file.write_text('{"id": 1}\n{"id": 2}\n{"id": 1}\n')
    assert "--after 2" in run("load", "empty", str(file), "-d", filled, code=1).stderr
    assert "--after 2" in run("load", "empty", str(file), "-d", filled, "--after", "2", code=1).stderr
    assert answer(run("load", "empty", str(file), "-d", filled, "--after", "3"))["lastLine"] == 3


def test_values_that_were_cut_are_told(run: Run, filled: str, tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text(json.dumps({"id": 1, "kind": "k" * 300}) + "\n")
    done = run("load", "empty", str(file), "-d", filled)
    assert "cut, in lines 1 to 1" in done.stderr
    file.write_text(json.dumps({"id": 2, "kind": "k" * 127}) + "\n")
    assert run("load", "empty", str(file), "-d", filled).stderr == "", "control: what fits"


def test_targets_that_are_none(run: Run, filled: str, tmp_path: Path) -> None:
    refused(run, "dump", "empty", "-d", filled, "-o", "", code=2, says="is no file")
    file = tmp_path / "file"
    file.touch()
    refused(run, "backup", str(file), code=2, says="File exists")
    refused(run, "backup", str(tmp_path / "new"), "--incremental", code=2, says="no full backup")
    assert not (tmp_path / "new").exists()


def test_a_token_file_that_is_none(run: Run, tmp_path: Path) -> None:
    (tmp_path / "token").write_bytes(b"\xff\xfe")
    refused(run, "ping", code=2, says="holds no token", JETWIRE_TOKEN_FILE=str(tmp_path / "token"))


# -- servers --------------------------------------------------------------------------------------------------------
def test_another_port_than_the_address_says(run: Run, shared_server: ServerProcess) -> None:
    http, tcp = (shared_server.addresses[kind].split("://")[1].split("/")[0] for kind in ("http", "tcp"))
    refused(run, "ping", code=2, says="its address begins with http:// or ws://", url=f"tcp://{http}")
    for kind in ("http", "ws"):
        refused(run, "ping", code=7, says="begins with tcp://", url=f"{kind}://{tcp}")
    refused(run, "ping", code=7, says=f"http://{http}/nope answered 404: Not Found", url=f"http://{http}/nope")
    for url in (f"tcps://{tcp}", f"wss://{http}", f"https://{http}"):
        refused(run, "ping", code=7, says="does not speak TLS", url=url)


def test_sessions_need_another_transport_than_http(run: Run, shared_server: ServerProcess) -> None:
    for words in (("tables",), ("shell",), ("dump", "t", "-d", "a.edb")):
        refused(run, *words, code=2, says=f"use {shared_server.addresses['ws']}\n", url=shared_server.addresses["http"])
    run("tables", url=shared_server.addresses["ws"])


def test_no_token_and_what_to_do(run: Run, tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "data", "--require-token") as server:
        refused(run, "ping", code=8, says="--token gives one", url=server.addresses["tcp"])
        refused(run, "--token", "nope", "ping", code=8, says="a wrong token", url=server.addresses["http"])


def test_a_server_that_dies_during_a_load(run: Run, tmp_path: Path) -> None:
    async def die(call: dict[str, Any], peer: Any) -> Any:
        if call["method"] == "Hello":
            return {"instances": [{"instance": 1, "name": "default"}]}
        if call["method"] == "PutRecords":
            if call["params"]["records"][0]["id"] >= 1000:
                await peer.close()
            return {"count": len(call["params"]["records"])}
        return {"sesid": 1, "dbid": 1, "tableid": 1, "rows": [{"columnname": "id", "coltyp": 4}]}

    file = tmp_path / "a.jsonl"
    file.write_text("".join(json.dumps({"id": n}) + "\n" for n in range(3000)))
    with FakeServer(die) as server:
        done = run("load", "t", str(file), "-d", "a.edb", url=server.tcp, code=7)
    assert "lines 1001 to 2000 are there all or none" in done.stderr
    assert "--after 1000" in done.stderr


@pytest.mark.parametrize("under_way", [True, False], ids=["in a call", "between"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_load_that_is_interrupted_says_where_to_go_on(home: dict[str, str], number: int, under_way: bool) -> None:
    async def stop(call: dict[str, Any], peer: Any) -> Any:
        if call["method"] == "Hello":
            return {"instances": [{"instance": 1, "name": "default"}]}
        if call["method"] == "PutRecords":
            if under_way and call["params"]["records"][0]["id"] >= 1000:
                return SILENCE
            return {"count": len(call["params"]["records"])}
        return {"sesid": 1, "dbid": 1, "tableid": 1, "rows": [{"columnname": "id", "coltyp": 4}]}

    with FakeServer(stop) as server:
        line = [*JETWIRE, "--url", server.tcp, "load", "t", "-d", "a.edb"]
        with subprocess.Popen(line, env=home, stdin=subprocess.PIPE, stderr=subprocess.PIPE, stdout=subprocess.PIPE) as load:
            assert load.stdin is not None
            assert load.stderr is not None
            load.stdin.write(b"".join(b'{"id": %d}\n' % n for n in range(2001)))
            load.stdin.flush()
            deadline = time.monotonic() + 30
            while server.methods.count("PutRecords") < 2 and time.monotonic() < deadline:
                time.sleep(0.02)
            time.sleep(0.2)
            load.send_signal(number)
            try:
                assert load.wait(20) == 128 + number
            finally:
                load.kill()
            told = load.stderr.read().decode()
    assert ("whether lines 1001 to 2000 are there is not known" in told) is under_way
    assert f"go on with --after {1000 if under_way else 2000}" in told


@pytest.mark.parametrize("words", [["ping"], ["dump", "awkward"], ["shell"], ["load", "empty"]], ids=lambda words: words[0])
def test_standard_streams_that_are_closed(shared_server: ServerProcess, home: dict[str, str], filled: str, words: list[str]) -> None:
    words = [*words, "-d", filled] if len(words) > 1 else words
    line = ["sh", "-c", '"$@" <&- >&-', "sh", *JETWIRE, "--url", shared_server.addresses["tcp"], *words]
    done = subprocess.run(line, env=home, stderr=subprocess.PIPE, text=True, timeout=60)
    assert done.stderr == ""
    assert done.returncode == 0


def test_an_error_that_nobody_hears_is_still_the_exit_code(home: dict[str, str]) -> None:
    with Path("/dev/full").open("w") as full:
        for words, code in ((["nope"], 2), (["--url", "tcp://127.0.0.1:1", "ping"], 7)):
            assert subprocess.run([*JETWIRE, *words], env=home, stderr=full, timeout=60).returncode == code


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["nope"], "No such command"),
        (["--url", "tcp://[::1", "ping"], "Invalid IPv6 URL"),
        (["--token", "a\nb", "ping"], "a token has only"),
        (["snapshot", "verify", "/nope"], "/nope is no directory"),
    ],
    ids=["command", "address", "token", "verify"],
)
def test_programs_are_told_in_json(shared_server: ServerProcess, home: dict[str, str], words: list[str], says: str) -> None:
    line = [*JETWIRE, "--url", shared_server.addresses["http"], "--json", *words]
    done = subprocess.run(line, env=home, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2, done.stderr
    assert says in json.loads(done.stderr)["error"]["message"]
    assert done.stdout == ""


# -- the objects ------------------------------------------------------------------------------------------------------
def test_the_objects_are_no_more_careless(shared_server: ServerProcess, filled: str) -> None:
    with jetwire.sync.connect(shared_server.addresses["tcp"]) as server, server.session() as session:
        db = session.open(filled)
        table = db.table("empty")
        for wrong in ("text", ["text"], float("inf")):
            with pytest.raises(TypeError, match="bytes holds bytes"):
                table.insert({"id": 1, "bytes": wrong})
        with pytest.warns(jetwire.errors.ValueCut, match="table empty") as told:
            table.insert({"id": 1, "kind": "k" * 300})
        assert told[0].filename == __file__
        for wrong_key in ("", ["id", ""]):
            with pytest.raises(jetwire.JetwireError):
                db.create_table("t", {"id": "Long"}, primary=wrong_key)
        with pytest.raises(jetwire.RpcError, match=r"columns\.0\.coltyp: missing member"):
            db.create_table("t", {"id": {"cp": 1200}})
        with pytest.raises(jetwire.RpcError, match="expected an array"):
            list(table.range(columns="id"))
        with pytest.raises(jetwire.JetwireError, match="cannot be sent"):
            table.get("\ud800")
