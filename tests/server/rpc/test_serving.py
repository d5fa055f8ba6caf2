"""A real server over real sockets: sessions and their connections, order, limits, rubbish, slow readers, the end."""

from __future__ import annotations

import http.client
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jetwire_protocol.errors import JetError
from jetwire_server.config import load
from jetwire_server.files.directory_lock import DirectoryLock
from jetwire_server.files.local import LocalFiles
from jetwire_server.server import Server
from tests.support.server_process import Lines, ServerProcess


def ping(id: Any) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": id, "method": "Ping"}).encode() + b"\n"


def instance_of(lines: Lines) -> int:
    instance: int = lines.call("Hello")["instances"][0]["instance"]
    return instance


def wait_for_connections(server: ServerProcess, count: int) -> None:
    """Until the server has noticed that the others are gone."""
    for _ in range(200):
        if f"\njetwire_rpc_connections {count}\n" in fetch(server, "/metrics")[1]:
            return
        time.sleep(0.02)
    raise AssertionError(f"not {count} connections")


# -- sessions and connections -----------------------------------------------------------------------------------------
def test_a_session_works_on_its_connection_alone_and_ends_with_it(server: ServerProcess) -> None:
    with server.connect() as one, server.connect() as other:
        sesid = one.call("BeginSession", instance=instance_of(one))["sesid"]
        one.call("BeginTransaction", sesid=sesid)
        assert other.error("BeginTransaction", sesid=sesid) == "JET_errInvalidSesid"
        assert other.error("EndSession", sesid=sesid) == "JET_errInvalidSesid"
        one.call("SetSessionContext", sesid=sesid, context=77)
        one.call("ResetSessionContext", sesid=sesid)
        one.close()
        wait_for_connections(server, 1)
        assert other.error("SetSessionContext", sesid=sesid, context=77) == "JET_errInvalidSesid"


def test_a_session_is_handed_over_by_its_context(server: ServerProcess) -> None:
    with server.connect() as one, server.connect() as other:
        sesid = one.call("BeginSession", instance=instance_of(one))["sesid"]
        assert other.error("SetSessionContext", sesid=sesid, context=5) == "JET_errSessionSharingViolation"
        assert one.error("SetSessionContext", sesid=sesid, context=0) == "JET_errInvalidParameter"
        one.call("SetSessionContext", sesid=sesid, context=5)
        assert one.error("SetSessionContext", sesid=sesid, context=5) == "JET_errSessionContextAlreadySet"
        assert other.error("SetSessionContext", sesid=sesid, context=5) == "JET_errSessionSharingViolation"
        assert one.error("EndSession", sesid=sesid) == "JET_errSessionInUse"
        one.call("ResetSessionContext", sesid=sesid)
        assert one.error("ResetSessionContext", sesid=sesid) == "JET_errSessionContextNotSetByThisThread"
        assert other.error("SetSessionContext", sesid=sesid, context=6) == "JET_errSessionSharingViolation"
        other.call("SetSessionContext", sesid=sesid, context=5)
        assert one.error("BeginTransaction", sesid=sesid) == "JET_errInvalidSesid"
        other.call("BeginTransaction", sesid=sesid)
        one.close()
        other.call("Rollback", sesid=sesid)
        other.call("ResetSessionContext", sesid=sesid)
        other.call("EndSession", sesid=sesid)
        assert other.error("EndSession", sesid=sesid) == "JET_errInvalidSesid"


def test_http_keeps_a_connection_s_state_for_one_request(server: ServerProcess) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.http_port)

    def post(message: Any) -> Any:
        connection.request("POST", "/rpc", body=json.dumps(message))
        return json.loads(connection.getresponse().read())

    with server.connect() as lines:
        instance = instance_of(lines)
    begin = {"jsonrpc": "2.0", "id": 1, "method": "BeginSession", "params": {"instance": instance}}
    sesid = post(begin)["result"]["sesid"]
    assert post({**begin, "method": "BeginTransaction", "params": [sesid]})["error"]["message"] == "JET_errInvalidSesid"
    calls = [
        {"method": "BeginSession", "params": {"instance": instance}},
        {"method": "BeginTransaction", "params": {"sesid": {"$ref": "0/sesid"}}},
        {"method": "CommitTransaction", "params": {"sesid": {"$ref": "0/sesid"}}},
    ]
    results = post({**begin, "method": "Batch", "params": {"calls": calls}})["result"]["results"]
    assert len(results) == 3
    assert post({**begin, "method": "EndSession", "params": [results[0]["sesid"]]})["error"]["message"] == "JET_errInvalidSesid"
    connection.close()


CREATE = [
    {"method": "BeginSession", "params": {"instance": 1}},
    {"method": "CreateDatabase", "params": {"sesid": {"$ref": "0/sesid"}, "database": "NAME"}},
    {"method": "CreateTable", "params": {"sesid": {"$ref": "0/sesid"}, "dbid": {"$ref": "1/dbid"}, "tablename": "t"}},
    {"method": "EndSession", "params": {"sesid": {"$ref": "0/sesid"}}},
]


def create(name: str, id: Any) -> bytes:
    """A call that has to wait for the disk."""
    calls = json.loads(json.dumps(CREATE).replace("NAME", name))
    return json.dumps({"jsonrpc": "2.0", "id": id, "method": "Batch", "params": {"calls": calls}}).encode()


def test_a_post_that_waits(server: ServerProcess) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.http_port)
    for body, status in ((create("post1.edb", 7), 200), (b"[" + create("post2.edb", 8) + b"," + ping(9) + b"]", 200)):
        connection.request("POST", "/rpc", body=body)
        response = connection.getresponse()
        assert response.status == status
        answers = json.loads(response.read())
        for answer in answers if isinstance(answers, list) else [answers]:
            assert "result" in answer, answer
    note = create("post3.edb", None).replace(b'"id": null, ', b"")
    connection.request("POST", "/rpc", body=note)
    assert connection.getresponse().status == 204
    connection.close()
    with server.connect() as lines:
        assert "post3.edb" in lines.call("GetInstanceInfo")["instances"][0]["databaseFileName"]
        sesid = lines.call("BeginSession", instance=1)["sesid"]
        for name in ("post1.edb", "post2.edb", "post3.edb"):
            lines.call("DetachDatabase", sesid=sesid, database=name)


async def test_a_websocket_s_late_answers_and_those_that_overtake(server: ServerProcess) -> None:
    async with aiohttp.ClientSession() as session, session.ws_connect(server.addresses["ws"]) as websocket:
        for place in range(2):
            await websocket.send_str(create(f"late{place}.edb", place).decode())
            await websocket.send_str(ping("overtakes").decode())
            answers = [await websocket.receive_json(), await websocket.receive_json()]
            assert [answer["id"] for answer in answers] == ["overtakes", place]
            assert len(answers[1]["result"]["results"]) == 4, answers[1]
        begin = {"jsonrpc": "2.0", "id": 1, "method": "BeginSession", "params": {"instance": 1}}
        await websocket.send_json(begin)
        sesid = (await websocket.receive_json())["result"]["sesid"]
        for place in range(2):
            detach = {"sesid": sesid, "database": f"late{place}.edb"}
            await websocket.send_json({**begin, "method": "DetachDatabase", "params": detach})
            assert "result" in await websocket.receive_json()


# -- pipelining and framing -------------------------------------------------------------------------------------------
def test_pipelined_calls_are_all_answered(server: ServerProcess) -> None:
    with server.connect() as lines:
        lines.send(b"".join(ping(i) for i in range(5000)))
        assert [lines.read()["id"] for _ in range(5000)] == list(range(5000))


def test_a_message_may_come_in_any_pieces(server: ServerProcess) -> None:
    pieces = random.Random(1)
    with server.connect() as lines:
        lines.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        text = b"".join(ping("x" * pieces.randrange(200)) for _ in range(30))
        while text:
            cut = pieces.randrange(1, 120)
            lines.send(text[:cut])
            text = text[cut:]
        for _ in range(30):
            assert lines.read()["result"] == {}
        lines.send(ping("crlf").replace(b"\n", b"\r\n"))
        assert lines.read()["id"] == "crlf"


def test_the_last_line_needs_no_end(server: ServerProcess) -> None:
    with server.connect() as lines:
        lines.send(ping(1) + ping(2).rstrip(b"\n"))
        lines.socket.shutdown(socket.SHUT_WR)
        assert [lines.read()["id"], lines.read()["id"]] == [1, 2]
        assert lines.line() == b""


# -- sizes ------------------------------------------------------------------------------------------------------------
def test_a_line_that_is_too_long_is_refused_and_the_next_one_answered(server: ServerProcess) -> None:
    with server.connect() as lines:
        lines.send(ping("x" * (8 << 20)))
        lines.send(ping("after"))
        refused = lines.read()
        assert (refused["id"], refused["error"]["code"]) == (None, -32004)
        assert lines.read()["id"] == "after"
        lines.send(ping("x" * (8 << 20))[: (8 << 20) + 20])
        assert lines.read()["error"]["code"] == -32004
        lines.send(b"more of it" * 1000 + b"\n" + ping("again"))
        assert lines.read()["id"] == "again"
        almost = "x" * ((8 << 20) - 200)
        lines.send(ping(almost))
        assert lines.read()["id"] == almost


def test_a_body_that_is_too_long_is_413(server: ServerProcess) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.http_port)
    connection.putrequest("POST", "/rpc")
    connection.putheader("Content-Length", str(9 << 20))
    connection.endheaders()
    with suppress(ConnectionError):
        connection.send(b" " * (9 << 20))
    assert connection.getresponse().status == 413
    connection.close()


def test_a_frame_that_is_too_long_closes_the_websocket_with_a_reason(server: ServerProcess) -> None:
    """Told by its head alone: of the nine megabytes that it announces nothing is read."""
    with Lines(socket.create_connection(("127.0.0.1", server.http_port))) as lines:
        lines.send(
            b"GET /rpc HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        assert b"101" in lines.line()
        while lines.line() != b"\r":
            pass
        lines.send(bytes([0x81, 0xFF]) + (9 << 20).to_bytes(8, "big") + bytes(4))
        closing = lines.read_bytes(4)
        assert closing[0] == 0x88
        assert int.from_bytes(closing[2:4], "big") == 1009


# -- rubbish ----------------------------------------------------------------------------------------------------------
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.one_of(st.binary(max_size=300), st.sampled_from([b"\n", b"[", b'{"jsonrpc":"2.0"', b"\x00", b"\r\n"])), max_size=8))
def test_rubbish_neither_hurts_nor_silences(server: ServerProcess, rubbish: list[bytes]) -> None:
    with server.connect() as lines:
        for piece in rubbish:
            lines.send(piece)
        lines.send(b"\n" + ping("still there?"))
        while (answer := lines.read()) != {"jsonrpc": "2.0", "id": "still there?", "result": {}}:
            for one in answer if isinstance(answer, list) else [answer]:
                assert one["jsonrpc"] == "2.0"
                assert one["error"]["code"] in (-32700, -32600, -32601, -32602)
                assert "Traceback" not in json.dumps(one)
    assert server.process.poll() is None


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=400))
def test_rubbish_over_http(server: ServerProcess, rubbish: bytes) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.http_port)
    connection.request("POST", "/rpc", body=rubbish)
    response = connection.getresponse()
    answer = json.loads(response.read() or "null")
    assert response.status in (200, 204)
    assert answer is None or answer["error"]["code"] in (-32700, -32600)
    connection.close()
    with socket.create_connection(("127.0.0.1", server.http_port)) as raw, suppress(ConnectionError):
        raw.settimeout(5)
        raw.sendall(rubbish + b"\r\n\r\n")
        raw.shutdown(socket.SHUT_WR)
        assert b"Traceback" not in raw.recv(10_000)
    assert server.process.poll() is None


async def test_rubbish_over_a_websocket(server: ServerProcess) -> None:
    dice = random.Random(3)
    async with aiohttp.ClientSession() as session, session.ws_connect(server.addresses["ws"]) as websocket:
        for _ in range(200):
            await websocket.send_str(
                "".join(chr(dice.choice((dice.randrange(32, 127), dice.randrange(0x800)))) for _ in range(dice.randrange(60)))
            )
            await websocket.send_str(ping("still there?").decode())
            while (answer := await websocket.receive_json()) != {"jsonrpc": "2.0", "id": "still there?", "result": {}}:
                assert answer["error"]["code"] in (-32700, -32600)


def test_a_dead_socket_file_is_replaced_and_a_live_one_respected(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="jw") as folder:
        path = f"{folder}/s"
        with ServerProcess(tmp_path / "one", "--unix", path) as server:
            with pytest.raises(AssertionError, match=f"{path} is in use by process {server.process.pid}"):
                ServerProcess(tmp_path / "two", "--unix", path)
            server.kill()
        assert Path(path).is_socket()
        with ServerProcess(tmp_path / "three", "--unix", path) as server, server.connect("unix") as lines:
            assert Path(path).stat().st_mode & 0o077 == 0
            assert lines.call("Hello")["role"] == "admin"
            assert server.stop() == 0
        assert not Path(path).exists()


async def test_of_servers_that_find_the_same_dead_socket_one_has_it(tmp_path: Path) -> None:
    """The lock is taken before the dead socket is looked at: a server that is between removing it and listening is not robbed."""
    with tempfile.TemporaryDirectory(prefix="jw") as folder:
        path = Path(folder, "s")
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(path))

        def server(name: str) -> Server:
            return Server(load(data=tmp_path / name, http="", tcp="", runtime="", unix=path), say=lambda line: None)

        with (
            DirectoryLock(LocalFiles(folder), "s.lock"),  # as a server has it that has not come further yet
            pytest.raises(JetError, match=f"{path} is in use by process {os.getpid()}"),
        ):
            await server("one").start()
        assert path.is_socket(), "control: the loser took nothing away"
        winner = server("two")
        await winner.start()
        await winner.stop()
        assert not path.exists()


async def test_a_socket_of_another_program_is_respected(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="jw") as folder, socket.socket(socket.AF_UNIX) as other:
        path = Path(folder, "s")
        other.bind(str(path))
        other.listen()
        with pytest.raises(OSError, match="another program listens there"):
            await Server(load(data=tmp_path / "data", http="", tcp="", runtime="", unix=path), say=lambda line: None).start()
        assert path.is_socket()


def test_connections_that_vanish_leave_nothing(server: ServerProcess) -> None:
    for _ in range(200):
        lines = server.connect()
        lines.send(b'{"jsonrpc":"2.0","id":1,"method":"BeginSession","params":{"instance":1}}\n{"jsonrpc"')
        lines.close()
    with server.connect() as lines:
        assert lines.call("Ping") == {}
    wait_for_connections(server, 0)
    assert "\njetwire_rpc_calls_in_flight 0\n" in fetch(server, "/metrics")[1]


# -- the HTTP port ----------------------------------------------------------------------------------------------------
def fetch(server: ServerProcess, path: str, **headers: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", server.http_port)
    connection.putrequest("GET", path, skip_host="Host" in headers)
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.endheaders()
    response = connection.getresponse()
    text = response.read().decode()
    connection.close()
    return response.status, text


def test_pages(server: ServerProcess) -> None:
    assert fetch(server, "/livez") == (200, "ok\n")
    assert json.loads(fetch(server, "/readyz")[1])["status"] == "ready"
    assert "# TYPE jetwire_rpc_calls_total counter" in fetch(server, "/metrics")[1]
    assert "<title>Jetwire</title>" in fetch(server, "/console")[1]
    assert fetch(server, "/nothing")[0] == 404
    assert fetch(server, "/rpc")[0] == 426
    document = json.loads(fetch(server, "/openrpc.json")[1])
    with server.connect() as lines:
        assert lines.call("rpc.discover") == document
    assert len(document["methods"]) == 129 + 12


def test_hosts_and_origins(server: ServerProcess) -> None:
    own = f"127.0.0.1:{server.http_port}"
    for path in ("/livez", "/metrics", "/rpc", "/console"):
        assert fetch(server, path, Host="evil.example")[0] == 403
        assert fetch(server, path, Host=own, Origin="http://evil.example")[0] == 403
        assert fetch(server, path, Host=own, Origin="null")[0] == 403
        assert fetch(server, path, Host=own, Origin=f"http://{own}")[0] != 403
        assert fetch(server, path, Host="localhost")[0] != 403


async def test_a_websocket_of_another_site_is_refused(server: ServerProcess) -> None:
    async with aiohttp.ClientSession() as session:
        for headers in ({"Origin": "http://evil.example"}, {"Host": "evil.example"}):
            with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
                await session.ws_connect(server.addresses["ws"], headers=headers)
            assert caught.value.status == 403
        async with session.ws_connect(server.addresses["ws"], origin=f"http://127.0.0.1:{server.http_port}") as websocket:
            await websocket.send_str(ping(1).decode())
            assert (await websocket.receive_json())["result"] == {}


def health(server: ServerProcess) -> tuple[int, str]:
    command = [sys.executable, "-m", "jetwire_server", "health", "--http", f"127.0.0.1:{server.http_port}"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    return ended.returncode, ended.stdout + ended.stderr


def health_alone(server: ServerProcess) -> tuple[int, str]:
    """As the image asks, every few seconds: without loading the server."""
    heavy = "import sys, runpy; sys.modules.update(dict.fromkeys(['typer', 'aiohttp', 'pydantic', 'lmdb']))"
    run = f"{heavy}; sys.argv[1:] = ['127.0.0.1:{server.http_port}']; runpy.run_module('jetwire_server.health', run_name='__main__')"
    ended = subprocess.run([sys.executable, "-c", run], capture_output=True, text=True, timeout=20, check=False)
    return ended.returncode, ended.stdout + ended.stderr


def test_a_port_that_is_taken(server: ServerProcess, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"address already in use; .*--http"):
        ServerProcess(tmp_path / "data", http=f"127.0.0.1:{server.http_port}")


def test_the_health_command(tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "data") as server:
        for code, said in (health(server), health_alone(server)):
            assert (code, json.loads(said)) == (0, {"status": "ready", "frozen": False})
        with server.connect() as lines:
            snap_id = lines.call("OSSnapshotPrepare")["snapId"]
            lines.call("OSSnapshotFreeze", snapId=snap_id)
            assert json.loads(health(server)[1]) == {"status": "ready", "frozen": True}
            lines.call("OSSnapshotThaw", snapId=snap_id)
        server.kill()
        for code, said in (health(server), health_alone(server)):
            assert code == 1
            assert "refused" in said
            assert "Traceback" not in said


# -- slow readers -----------------------------------------------------------------------------------------------------
def test_a_slow_reader_hurts_nobody_and_is_dropped(tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "data", JETWIRE_SLOW_READER_SECONDS="1") as server:
        slow = server.connect()
        slow.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.socket.setblocking(False)
        discover = b'{"jsonrpc":"2.0","id":1,"method":"rpc.discover"}\n' * 1000
        sent = 0
        with suppress(BlockingIOError):  # when the server has stopped reading: what it would answer to all this is gigabytes
            while True:
                sent += slow.socket.send(discover)
        assert sent > 0
        memory = _memory(server.process.pid)
        assert memory < 400 << 20
        with server.connect() as lines:
            for _ in range(100):
                began = time.monotonic()
                lines.call("Ping")
                assert time.monotonic() - began < 1
            deadline = time.monotonic() + 20
            while time.monotonic() < deadline:
                if "\njetwire_rpc_slow_readers_dropped_total 1\n" in fetch(server, "/metrics")[1]:
                    break
                time.sleep(0.2)
            else:
                raise AssertionError("the slow reader was not dropped")
        slow.socket.close()


def _memory(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * 4096


# -- frozen -----------------------------------------------------------------------------------------------------------
def test_a_commit_that_waits_for_a_thaw_holds_up_nobody(server: ServerProcess) -> None:
    with server.connect() as lines, server.connect() as other:
        instance = instance_of(lines)
        sesid = lines.call("BeginSession", instance=instance)["sesid"]
        dbid = lines.call("CreateDatabase", sesid=sesid, database="frozen.edb")["dbid"]
        free = lines.call("BeginSession", instance=instance)["sesid"]
        lines.call("BeginTransaction", sesid=sesid)
        lines.call("CreateTable", sesid=sesid, dbid=dbid, tablename="t")
        snap_id = other.call("OSSnapshotPrepare")["snapId"]
        other.call("OSSnapshotFreeze", snapId=snap_id)

        def send(id: str, method: str, **params: Any) -> None:
            lines.send(json.dumps({"jsonrpc": "2.0", "id": id, "method": method, "params": params}).encode() + b"\n")

        send("commit", "CommitTransaction", sesid=sesid)
        send("behind it", "BeginTransaction", sesid=sesid)
        send("free", "BeginTransaction", sesid=free)
        send("free too", "OpenDatabase", sesid=free, database="frozen.edb")
        send("empty", "CommitTransaction", sesid=free)
        assert [lines.read()["id"] for _ in range(3)] == ["free", "free too", "empty"]
        send("refused", "CreateDatabase", sesid=free, database="no.edb")
        assert lines.read()["error"]["message"] == "JET_errBackupInProgress"
        send("status", "SnapshotStatus")
        assert (status := lines.read()["result"])["waitingCommits"] == 1, status
        assert json.loads(fetch(server, "/readyz")[1])["frozen"] is True
        verdict = other.call("OSSnapshotThaw", snapId=snap_id)
        assert (verdict["held"], verdict["commitsWaited"], verdict["bytesWrittenWhileFrozen"]) == (True, 1, 0)
        assert [lines.read()["id"] for _ in range(2)] == ["commit", "behind it"]


def test_a_snapshot_bound_to_a_connection_is_aborted_with_it(server: ServerProcess) -> None:
    with server.connect() as lines:
        with server.connect() as owner:
            snap_id = owner.call("OSSnapshotPrepare")["snapId"]
            owner.call("OSSnapshotFreeze", snapId=snap_id, bind=True)
            assert lines.call("SnapshotStatus")["state"] == "frozen"
        wait_for_connections(server, 1)
        for _ in range(500):  # the abort goes on while the connection gives its state back
            if (state := lines.call("SnapshotStatus")["state"]) == "none":
                break
            time.sleep(0.02)
        assert state == "none"
        snap_id = lines.call("OSSnapshotPrepare")["snapId"]
        refused = post(server, "OSSnapshotFreeze", snapId=snap_id, bind=True)["error"]
        assert (refused["code"], refused["data"]["member"]) == (-32602, "bind")
        lines.call("OSSnapshotAbort", snapId=snap_id)
        refused = post(server, "OSSnapshotPrepare", bind=True)["error"]
        assert (refused["code"], refused["data"]["member"]) == (-32602, "bind")
        assert lines.call("SnapshotStatus")["state"] == "none"


def post(server: ServerProcess, method: str, **params: Any) -> Any:
    connection = http.client.HTTPConnection("127.0.0.1", server.http_port)
    connection.request("POST", "/rpc", body=json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}))
    answer = json.loads(connection.getresponse().read())
    connection.close()
    return answer


def test_events_come_to_who_subscribed(server: ServerProcess) -> None:
    with server.connect() as lines:
        number = lines.call("Subscribe", topics=["snapshot"])["subscription"]
        snap_id = post(server, "OSSnapshotPrepare")["result"]["snapId"]
        notice = lines.read()
        assert "id" not in notice
        assert (notice["method"], notice["params"]["subscription"], notice["params"]["topic"]) == ("event", number, "snapshot")
        assert notice["params"]["event"]["id"] == 2005
        lines.call("OSSnapshotAbort", snapId=snap_id)
        lines.call("Unsubscribe", subscription=number)
        assert lines.error("Unsubscribe", subscription=number) == "JET_errInvalidParameter"
        assert lines.error("Subscribe", topics=["nothing"]) == "Invalid params"
        assert lines.call("GetEvents", after=0, limit=1000)["events"][-1]["id"] == 2007


# -- the end ----------------------------------------------------------------------------------------------------------
def test_sigterm_ends_it_well_and_the_data_directory_is_free_again(tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "data") as server:
        with server.connect() as lines:
            lines.call("CreateInstance", name="second")
            second = next(i for i in range(1, 100) if lines.ask("Init", instance=i).get("result"))
            assert {one["name"] for one in lines.call("Hello")["instances"]} == {"default", "second"}
            server.process.send_signal(signal.SIGTERM)
            assert server.process.wait(20) == 0
            rest = [json.loads(line) for line in iter(lines.line, b"")]
        assert all(one["error"]["code"] == -32005 for one in rest)
        assert second
        assert "Traceback" not in server.errors.read_text()
    with ServerProcess(tmp_path / "data") as again, again.connect() as lines:
        assert {one["name"] for one in lines.call("Hello")["instances"]} == {"default", "second"}
        again.kill()
    with ServerProcess(tmp_path / "data") as third, third.connect() as lines:
        assert {one["name"] for one in lines.call("Hello")["instances"]} == {"default", "second"}


def test_a_second_server_on_the_same_data_does_not_start(server: ServerProcess) -> None:
    with pytest.raises(AssertionError, match="JET_errSystemPathInUse"):
        ServerProcess(server.data)
