"""Tokens, roles, TLS and client certificates, on real sockets."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import trustme
from typer.testing import CliRunner, Result

from jetwire_server.__main__ import app
from tests.support.server_process import Lines, ServerProcess


def jetwired(*arguments: str) -> Result:
    """The command in this process: a process of its own costs most of a second."""
    return CliRunner().invoke(app, arguments)


def make_token(data: Path, name: str, role: str) -> str:
    made = jetwired("token", "add", name, "--role", role, "--data", str(data))
    assert made.exit_code == 0, made.stderr
    return made.stdout.strip()


def post(server: ServerProcess, method: str, token: str | None = None) -> Any:
    connection = http.client.HTTPConnection("127.0.0.1", server.http_port)
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    connection.request("POST", "/rpc", body=json.dumps({"jsonrpc": "2.0", "id": 1, "method": method}), headers=headers)
    answer = json.loads(connection.getresponse().read())
    connection.close()
    return answer


def status(server: ServerProcess, path: str, token: str | None = None) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", server.http_port)
    connection.request("GET", path, headers={"Authorization": f"Bearer {token}"} if token else {})
    code = connection.getresponse().status
    connection.close()
    return code


def test_the_token_command(tmp_path: Path) -> None:
    data = tmp_path / "data"
    text = make_token(data, "one", "reader")
    make_token(data, "two", "admin")
    assert jetwired("token", "add", "one", "--data", str(data)).exit_code == 2
    assert jetwired("token", "add", "three", "--role", "root", "--data", str(data)).exit_code == 2
    listed = jetwired("token", "list", "--data", str(data)).stdout
    assert [line.split("\t")[:2] for line in listed.splitlines()] == [["one", "reader"], ["two", "admin"]]
    assert text not in (data / "tokens.json").read_text()
    assert (data / "tokens.json").stat().st_mode & 0o077 == 0
    assert jetwired("token", "remove", "one", "--data", str(data)).exit_code == 0
    assert jetwired("token", "remove", "one", "--data", str(data)).exit_code == 2
    assert "one" not in jetwired("token", "list", "--data", str(data)).stdout


def test_without_a_token_only_health_answers(tmp_path: Path) -> None:
    data = tmp_path / "data"
    token = make_token(data, "r", "reader")
    with ServerProcess(data, "--require-token") as server:
        assert [status(server, path) for path in ("/livez", "/readyz")] == [200, 200]
        assert [status(server, path) for path in ("/metrics", "/openrpc.json", "/console")] == [401, 401, 401]
        assert [status(server, path, token) for path in ("/metrics", "/openrpc.json", "/console")] == [200, 200, 200]
        assert status(server, "/metrics", "wrong") == 401
        for wrong in (None, "wrong", token + "x"):
            assert post(server, "Ping", wrong)["error"]["code"] == -32001
        assert post(server, "Ping", token)["result"] == {}
        with server.connect() as lines:
            assert lines.ask("Ping")["error"]["code"] == -32001
            assert lines.ask("foobar")["error"]["code"] == -32001
            assert lines.ask("Hello")["error"]["code"] == -32001
            assert lines.ask("Hello", token="wrong")["error"]["code"] == -32001
            assert lines.call("Hello", token=token)["role"] == "reader"
            assert lines.call("Ping") == {}
            assert lines.ask("PutRecords", sesid=1, tableid=1, records=[])["error"]["code"] == -32002
            refused = lines.ask("Batch", calls=[{"method": "Ping"}, {"method": "Term", "params": {"instance": 1}}])["error"]
            assert (refused["code"], refused["data"]["index"]) == (-32002, 1)
        assert jetwired("token", "remove", "r", "--data", str(data)).exit_code == 0
        assert post(server, "Ping", token)["result"] == {}
        server.process.send_signal(signal.SIGHUP)
        for _ in range(100):
            if "error" in post(server, "Ping", token):
                break
            time.sleep(0.02)
        assert post(server, "Ping", token)["error"]["code"] == -32001


def test_a_connection_that_fails_to_say_who_it_is_is_told_nothing_more(tmp_path: Path) -> None:
    """Its subscriptions went on telling it of everybody's snapshots."""
    token = make_token(tmp_path / "data", "s", "snapshotter")
    with ServerProcess(tmp_path / "data", "--require-token") as server, server.connect() as told, server.connect() as other:
        other.call("Hello", token=token)
        told.call("Hello", token=token)
        told.call("Subscribe", topics=["snapshot"])
        assert told.ask("Hello", token="wrong")["error"]["code"] == -32001
        other.call("OSSnapshotAbort", snapId=other.call("OSSnapshotPrepare")["snapId"])
        told.send(b'{"jsonrpc":"2.0","id":"next","method":"Ping"}\n')
        answer = told.read()
        assert (answer["id"], answer["error"]["code"]) == ("next", -32001)
        told.call("Hello", token=token)
        other.call("OSSnapshotPrepare")
        assert told.read()["params"]["event"]["id"] == 2005  # control: it may know again


async def test_a_token_on_a_websocket(tmp_path: Path) -> None:
    token = make_token(tmp_path / "data", "r", "reader")
    ping = {"jsonrpc": "2.0", "id": 1, "method": "Ping"}
    with ServerProcess(tmp_path / "data", "--require-token") as server:
        async with aiohttp.ClientSession() as session:
            for headers, code in (({}, -32001), ({"Authorization": f"Bearer {token}"}, None), ({"Authorization": "Bearer x"}, -32001)):
                async with session.ws_connect(server.addresses["ws"], headers=headers) as socket_:
                    await socket_.send_json(ping)
                    answer = await socket_.receive_json()
                    assert answer.get("error", {}).get("code") == code


@pytest.mark.parametrize("flags", [[], ["--tls"], ["--token"]])
def test_an_open_address_needs_tls_and_tokens(tmp_path: Path, flags: list[str], certificates: Path) -> None:
    arguments = []
    if "--tls" in flags:
        arguments = ["--tls-cert", str(certificates / "server.pem"), "--tls-key", str(certificates / "server.key")]
    if "--token" in flags:
        make_token(tmp_path / "data", "x", "reader")
    command = [sys.executable, "-m", "jetwire_server", "serve", "--data", str(tmp_path / "data"), "--http", "0.0.0.0:0", *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    assert "not a loopback address" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_an_open_address_with_a_flag_or_with_both(tmp_path: Path, certificates: Path) -> None:
    with ServerProcess(tmp_path / "a", "--insecure", http="0.0.0.0:0") as server:
        assert post(server, "Ping")["result"] == {}
    make_token(tmp_path / "b", "x", "reader")
    tls = ["--tls-cert", str(certificates / "server.pem"), "--tls-key", str(certificates / "server.key")]
    with ServerProcess(tmp_path / "b", *tls, http="0.0.0.0:0") as server:
        assert server.addresses["http"].startswith("https://0.0.0.0:")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certificates")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    for name, issued in (
        ("server", authority.issue_cert("localhost", "127.0.0.1")),
        ("server2", authority.issue_cert("localhost", "127.0.0.1")),
        ("client", authority.issue_cert("client@example.org", common_name="cron")),
        ("stranger", authority.issue_cert("client@example.org", common_name="stranger")),
    ):
        issued.private_key_pem.write_to_path(folder / f"{name}.key")
        for place, blob in enumerate(issued.cert_chain_pems):
            blob.write_to_path(folder / f"{name}.pem", append=place > 0)
    return folder


def secure(server: ServerProcess, certificates: Path, client: str | None = None) -> tuple[Lines, bytes]:
    """A TLS connection, and the certificate the server showed."""
    context = ssl.create_default_context(cafile=str(certificates / "ca.pem"))
    if client:
        context.load_cert_chain(certificates / f"{client}.pem", certificates / f"{client}.key")
    wrapped = context.wrap_socket(socket.create_connection(("127.0.0.1", server.tcp_port)), server_hostname="localhost")
    shown = wrapped.getpeercert(binary_form=True)
    assert shown
    return Lines(wrapped), shown


def test_client_certificates_and_their_reload(tmp_path: Path, certificates: Path) -> None:
    for kind in ("pem", "key"):
        (tmp_path / f"server.{kind}").write_bytes((certificates / f"server.{kind}").read_bytes())
    config = tmp_path / "jetwired.toml"
    config.write_text(
        f'''
        require_token = true
        tls_cert = "{tmp_path / "server.pem"}"
        tls_key = "{tmp_path / "server.key"}"
        tls_client_ca = "{certificates / "ca.pem"}"
        [client_certificates]
        cron = "snapshotter"
        '''
    )
    with ServerProcess(tmp_path / "data", "--config", str(config)) as server:
        lines, first = secure(server, certificates, "client")
        assert lines.call("Hello")["role"] == "snapshotter"
        assert lines.ask("CreateInstance")["error"]["code"] == -32002
        for client in (None, "stranger"):
            with secure(server, certificates, client)[0] as nobody:
                assert nobody.ask("Ping")["error"]["code"] == -32001
        # Who renews them replaces one after the other: a signal in between changes nothing.
        (tmp_path / "server.pem").write_bytes((certificates / "server2.pem").read_bytes())
        server.process.send_signal(signal.SIGHUP)
        for _ in range(500):
            if "reload failed" in server.errors.read_text():
                break
            time.sleep(0.02)
        again, second = secure(server, certificates)
        again.close()
        assert second == first
        (tmp_path / "server.key").write_bytes((certificates / "server2.key").read_bytes())
        server.process.send_signal(signal.SIGHUP)
        for _ in range(100):
            again, second = secure(server, certificates)
            again.close()
            if second != first:
                break
            time.sleep(0.02)
        assert second != first
        assert lines.call("Ping") == {}
        lines.close()


def test_settings_that_make_no_sense(tmp_path: Path) -> None:
    for arguments in (["--http", "nowhere"], ["--tls-cert", "x"], ["--config", "not-there.toml"], ["--http", "127.0.0.1:99999"]):
        ended = jetwired("serve", "--data", str(tmp_path / "data"), *arguments)
        assert ended.exit_code == 2, ended
        assert "Traceback" not in ended.stderr
    (tmp_path / "bad.toml").write_text("colour = 5\n")
    ended = jetwired("serve", "--config", str(tmp_path / "bad.toml"))
    assert (ended.exit_code, "colour" in ended.stderr) == (2, True)
