"""What people get wrong with `jetwired`: each is told in a line that names the setting, file or directory. No tracebacks."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

import jetwire.sync
from jetwire_server.descriptors import connections_that_fit
from tests.support.server_process import ServerProcess

JETWIRED = [sys.executable, "-m", "jetwire_server"]
EASY = ["--http", "127.0.0.1:0", "--tcp", "127.0.0.1:0", "--runtime", ""]


def told(tmp_path: Path, *words: str, code: int, stdout: int = subprocess.PIPE, **environment: str) -> str:
    done = subprocess.run([*JETWIRED, *words], cwd=tmp_path, env=environment, stdout=stdout, stderr=subprocess.PIPE, text=True, timeout=60)
    assert done.returncode == code, done.stderr
    assert done.stderr.startswith("jetwired: ")
    assert len(done.stderr.splitlines()) == 1, done.stderr
    return done.stderr.removeprefix("jetwired: ").rstrip("\n")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"nope = 1", "nope: there is no such setting"),
        (b"nope =", "c.toml: "),
        (b"\xff", "c.toml: "),
        (b"in_flight = 0", "in_flight: "),
        (b"tls_cert = 'a'", "tls_cert and tls_key go together"),
        (b"http = 'x'", "http: 'x' is not HOST:PORT"),
    ],
)
def test_settings_in_a_file(tmp_path: Path, text: bytes, says: str) -> None:
    (tmp_path / "c.toml").write_bytes(text)
    assert told(tmp_path, "serve", "--config", "c.toml", code=2).startswith(says)


def test_settings_that_point_nowhere(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert told(tmp_path, "serve", "--config", "no.toml", code=2) == "no.toml: there is no such file"
    assert "JETWIRE_ALLOW_HOSTS='[" in told(tmp_path, "serve", *EASY, code=2, JETWIRE_ALLOW_HOSTS="db.example")
    assert "file: File exists" in told(tmp_path, "serve", *EASY, "--data", "file", code=1)
    assert "no.pem and the key no.key" in told(tmp_path, "serve", *EASY, "--tls-cert", "no.pem", "--tls-key", "no.key", code=1)


def test_an_empty_name_is_not_the_current_directory(tmp_path: Path) -> None:
    """`--data "$DATA"`, where the variable is not set."""
    (tmp_path / "c.toml").write_text("data = ''")
    for words in (
        *(["serve", *EASY, "--data", ""], ["serve", *EASY, "--config", "c.toml"], ["token", "add", "x", "--data", ""]),
        *(["check", ""], ["dump", ""], ["recover", ""], ["verify", ""], ["restore", "backup", ""], ["restore", "", "new"]),
    ):
        assert "an empty name is no directory" in told(tmp_path, *words, code=2)
    assert "an empty name is no directory" in told(tmp_path, "serve", *EASY, code=2, JETWIRE_DATA="")
    assert list(tmp_path.iterdir()) == [tmp_path / "c.toml"]


@pytest.mark.parametrize("damaged", ["{", "[]", '[{"a": 1}]', '{"tokens": [{}]}', '{"tokens": 5}', "\udcff"], ids=repr)
def test_damaged_tokens_let_nobody_in_and_are_named(tmp_path: Path, damaged: str) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/tokens.json").write_bytes(damaged.encode(errors="surrogateescape"))
    for words, code in ((["token", "list"], 2), (["token", "add", "x"], 2), (["token", "remove", "x"], 2), (["serve", *EASY], 1)):
        assert "tokens.json is damaged" in told(tmp_path, *words, code=code)


def test_tokens(tmp_path: Path) -> None:
    for name in ("", "  ", "a\tb", "a\nb"):
        assert "is no name for a token" in told(tmp_path, "token", "add", name, code=2)
    for words in (["list"], ["remove", "x"]):
        assert told(tmp_path, "token", *words, "--data", "typo", code=2).startswith("typo is no directory")
    (tmp_path / "file").touch()
    assert "File exists" in told(tmp_path, "token", "add", "x", "--data", "file", code=2)


def test_the_offline_verbs(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert told(tmp_path, "verify", "no/where", code=2) == "no/where is no directory"
    assert told(tmp_path, "verify", "file", code=2) == "file is no directory"
    assert list(tmp_path.iterdir()) == [tmp_path / "file"], "nothing was verified, so nothing is noted"
    assert told(tmp_path, "verify", ".", "--manifest", "file", code=2).startswith("file is no manifest")
    assert told(tmp_path, "restore", "typo", "new/default", code=2) == "typo is no directory"
    assert told(tmp_path, "restore", ".", "file", code=2) == "file is no directory"
    for when in ("@nan", "@inf", "@1e999", "tomorrow"):
        assert "expected GEN:SECTOR:BYTE" in told(tmp_path, "restore", ".", "new/default", "--until", when, code=2)


@pytest.mark.parametrize("words", [["version"], ["check", "data", "--json"]], ids=lambda words: words[0])
def test_an_answer_that_nobody_can_take(tmp_path: Path, words: list[str]) -> None:
    (tmp_path / "data/default").mkdir(parents=True)
    (tmp_path / "data/default/edb.log").write_bytes(b"")
    good = subprocess.run([*JETWIRED, *words], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert good.stdout, "control: there is an answer"
    assert words[0] != "check" or json.loads(good.stdout)["instances"] == ["default"]
    with Path("/dev/full").open("w") as full:
        assert "No space left on device" in told(tmp_path, *words, code=2, stdout=full.fileno())


@pytest.mark.parametrize("closed", [(1,), (0, 1, 2)])
@pytest.mark.parametrize("words", [["version"], ["check", "data"], ["token", "list", "--data", "data"]], ids=lambda words: words[0])
def test_an_answer_that_nobody_wants(tmp_path: Path, words: list[str], closed: tuple[int, ...]) -> None:
    """`>&-`: the files that are opened then must not have the numbers that are printed to."""
    (tmp_path / "data/default").mkdir(parents=True)
    (tmp_path / "data/default/edb.log").write_bytes(b"")
    close = " ".join(f"{number}>&-" for number in closed)
    line = f"{sys.executable} -m jetwire_server {' '.join(words)} {close}; echo $? > code"
    done = subprocess.run(line, cwd=tmp_path, shell=True, capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr == ""
    assert (tmp_path / "code").read_text() == ("1\n" if words[0] == "check" else "0\n")
    assert (tmp_path / "data/default/edb.log").read_bytes() == b""


@pytest.mark.parametrize("device", ["pipe", "/dev/full"])
def test_a_server_whose_output_nobody_takes_ends_as_it_should(tmp_path: Path, device: str) -> None:
    line = [*JETWIRED, "serve", *EASY, "--unix", "s", "--data", "data"]
    with Path("/dev/full").open("w") as full:
        process = subprocess.Popen(line, cwd=tmp_path, stdout=subprocess.PIPE if device == "pipe" else full, stderr=subprocess.PIPE)
    assert process.stderr is not None
    if process.stdout is not None:
        process.stdout.readline()
        process.stdout.close()
    until = time.monotonic() + 60
    while not (tmp_path / "s").exists() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.05)
    time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    assert process.stderr.read() == b""
    assert not (tmp_path / "s").exists(), "it has tidied up"
    process.stderr.close()


def test_a_dump_that_is_ended_leaves_no_copy(tmp_path: Path) -> None:
    with (
        ServerProcess(tmp_path / "data") as server,
        jetwire.sync.connect(server.addresses["tcp"]) as connected,
        connected.session() as session,
    ):
        table = session.open("a.edb", create=True).create_table("t", {"id": "Long", "text": "LongText"}, primary="id")
        table.insert(*({"id": n, "text": "x" * 1000} for n in range(1000)))
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    line = [*JETWIRED, "dump", str(tmp_path / "data"), "t"]
    with subprocess.Popen(line, env=os.environ | {"TMPDIR": str(scratch)}, stdout=subprocess.PIPE) as dump:
        assert dump.stdout is not None
        assert dump.stdout.read(1000), "it is at work, and stays so: nobody reads the rest"
        assert list(scratch.iterdir()), "control: there is a copy meanwhile"
        time.sleep(0.1)
        dump.send_signal(signal.SIGTERM)
        dump.stdout.close()
        assert dump.wait(30) == 128 + signal.SIGTERM
    assert list(scratch.iterdir()) == []


def test_more_connections_than_files_may_be_open_do_not_end_an_instance(tmp_path: Path) -> None:
    """`ulimit -n` is often 1,024: whoever opened more connections left none for the log's next file, and the instance was unavailable."""
    line = [*JETWIRED, "serve", *EASY, "--unix", "s", "--data", "data"]
    few = (256, 256)
    process = subprocess.Popen(
        line, cwd=tmp_path, stdout=subprocess.PIPE, text=True, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, few)
    )
    assert process.stdout is not None
    said = [process.stdout.readline()]
    while "ready" not in said[-1]:
        said.append(process.stdout.readline())
        assert said[-1], said
    assert "72 connections at most: the limit of open files (ulimit -n) is 256\n" in said
    port = next(int(line.rsplit(":", 1)[1]) for line in said if line.startswith("listening tcp"))
    idle = []
    try:
        with jetwire.sync.connect(f"tcp://127.0.0.1:{port}") as connected, connected.session() as session:
            table = session.open("a.edb", create=True).create_table("t", {"id": "Long", "text": "LongText"}, primary="id")
            for _ in range(400):
                idle.append(socket.socket())
                idle[-1].setblocking(False)
                idle[-1].connect_ex(("127.0.0.1", port))
            for number in range(8):
                table.insert(*({"id": number * 5_000 + n, "text": "x" * 200} for n in range(5_000)))
        assert len(list((tmp_path / "data/default").glob("edb*.log"))) > 1, "control: the log went on to its next file"
    finally:
        for one in idle:
            one.close()
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        process.stdout.close()


def test_how_many_connections_fit() -> None:
    for descriptors, wanted, connections in (
        (1 << 20, 8_192, 8_192),
        (1 << 20, 5, 5),
        (20_000, 8_192, 7_184),
        (1_024, 8_192, 288),
        (16, 8, 4),
    ):
        fit, backlog = connections_that_fit(descriptors, wanted)
        assert (fit, 2 * fit + 3 * backlog < descriptors) == (connections, True)


def test_more_databases_than_files_may_be_open_do_not_end_an_instance(tmp_path: Path) -> None:
    """Whoever made instances and databases until there were no descriptors left made those of others unavailable."""
    line = [*JETWIRED, "serve", *EASY, "--unix", "s", "--data", "data"]
    few = (256, 256)
    process = subprocess.Popen(
        line, cwd=tmp_path, stdout=subprocess.PIPE, text=True, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, few)
    )
    assert process.stdout is not None
    said = [process.stdout.readline()]
    while "ready" not in said[-1]:
        said.append(process.stdout.readline())
        assert said[-1], said
    address = next(line.split()[-1] for line in said if line.startswith("listening tcp"))
    refused = set()
    try:
        with jetwire.sync.connect(address) as connected, connected.session() as session:
            table = session.open("a.edb", create=True).create_table("t", {"id": "Long", "text": "LongText"}, primary="id")
            for number in range(40):
                try:
                    instance = connected.connection.call("CreateInstance", name=f"i{number}")["instance"]
                    connected.connection.call("Init", instance=instance)
                    sesid = connected.connection.call("BeginSession", instance=instance)["sesid"]
                    for place in range(6):
                        connected.connection.call("CreateDatabase", sesid=sesid, database=f"{place}.edb")
                except jetwire.errors.EngineError as error:
                    refused.add(error.name)
            for number in range(8):
                table.insert(*({"id": number * 5_000 + n, "text": "x" * 200} for n in range(5_000)))
        assert len(list((tmp_path / "data/default").glob("edb*.log"))) > 1, "control: the log went on to its next file"
        assert refused == {"JET_errOutOfFileHandles"}
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        process.stdout.close()
