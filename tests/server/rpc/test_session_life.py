"""Who goes, who dawdles, who asks for much: what becomes of their sessions, and of the others."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import time
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession

from jetwire_server.clock import SystemClock
from jetwire_server.events import EventLog
from jetwire_server.rpc import handlers
from jetwire_server.rpc.dispatch import HANDLERS, table
from jetwire_server.rpc.http import HttpListener
from jetwire_server.rpc.peer import Peer
from jetwire_server.rpc.security import Gatekeeper
from jetwire_server.rpc.service import Service
from jetwire_server.rpc.tcp import listen_tcp
from tests.support.server_process import Lines, ServerProcess

assert handlers


def a_session(lines: Lines, database: str) -> tuple[int, int]:
    sesid = lines.call("BeginSession", instance=lines.call("Hello")["instances"][0]["instance"])["sesid"]
    return sesid, lines.call("CreateDatabase", sesid=sesid, database=database)["dbid"]


def metric(lines: Lines, server: ServerProcess, name: str) -> float:
    with socket.create_connection(("127.0.0.1", server.http_port)) as http:
        http.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        text = b"".join(iter(lambda: http.recv(1 << 16), b"")).decode()
    return float(next(line for line in text.splitlines() if line.startswith(f"jetwire_{name} ")).split()[1])


def wait_for(lines: Lines, server: ServerProcess, name: str, value: float) -> None:
    deadline = time.monotonic() + 20
    while (now := metric(lines, server, name)) != value:
        assert time.monotonic() < deadline, f"{name} is {now}, not {value}"
        time.sleep(0.1)


def test_a_session_is_not_handed_over_while_a_call_of_its_owner_is_under_way(server: ServerProcess) -> None:
    with server.connect() as owner, server.connect() as other:
        sesid, dbid = a_session(owner, "handed.edb")
        owner.call("SetSessionContext", sesid=sesid, context=5)
        owner.call("BeginTransaction", sesid=sesid)
        owner.call("CreateTable", sesid=sesid, dbid=dbid, tablename="t")
        owner.call("ResetSessionContext", sesid=sesid)
        snap_id = other.call("OSSnapshotPrepare")["snapId"]
        other.call("OSSnapshotFreeze", snapId=snap_id)
        owner.send(b'{"jsonrpc":"2.0","id":"commit","method":"CommitTransaction","params":{"sesid":%d}}\n' % sesid)
        owner.call("Ping")
        refused = other.error("SetSessionContext", sesid=sesid, context=5)
        other.call("OSSnapshotThaw", snapId=snap_id)
        assert owner.read()["id"] == "commit"
        assert refused == "JET_errSessionSharingViolation"
        other.call("SetSessionContext", sesid=sesid, context=5)
        other.call("ResetSessionContext", sesid=sesid)


def test_a_thaw_overtakes_a_commit_that_waits_for_it_and_nothing_else(server: ServerProcess) -> None:
    with server.connect() as lines:
        sesid, dbid = a_session(lines, "overtaken.edb")
        create = {"method": "PutRecords", "params": {"sesid": sesid, "tableid": 9_999_999, "records": []}}
        snap_id = lines.call("OSSnapshotPrepare")["snapId"]
        lines.call("OSSnapshotFreeze", snapId=snap_id, leaseMs=1_500)
        thaw = {"method": "OSSnapshotThaw", "params": {"snapId": snap_id}}
        refused = lines.ask("Batch", calls=[create, thaw])["error"]
        assert (refused["message"], refused["data"]["index"]) == ("JET_errInvalidTableId", 0)
        assert lines.call("SnapshotStatus")["state"] == "frozen"
        lines.call("BeginTransaction", sesid=sesid)
        lines.call("CreateTable", sesid=sesid, dbid=dbid, tablename="t")
        commit = {"method": "CommitTransaction", "params": {"sesid": sesid}}
        wrong = {"method": "OSSnapshotThaw", "params": {"snapId": snap_id, "grbit": 1}}
        refused = lines.ask("Batch", calls=[commit, wrong])["error"]  # the commit waits to the end of the lease
        assert (refused["message"], refused["data"]["index"]) == ("JET_errInvalidParameter", 1)
        assert refused["data"]["results"][0]["commitId"] is not None
        assert lines.error("CommitTransaction", sesid=sesid) == "JET_errNotInTransaction"
        assert lines.error("OSSnapshotThaw", snapId=snap_id) == "JET_errOSSnapshotTimeOut"


@pytest.mark.parametrize("method", ["CreateTable", "CommitTransaction"])
def test_a_server_ends_though_a_change_of_the_schema_waits_for_a_thaw(tmp_path: Path, method: str) -> None:
    with ServerProcess(tmp_path / "data", JETWIRE_DRAIN_SECONDS="0.5") as server:
        with server.connect() as lines, server.connect() as other:
            sesid, dbid = a_session(lines, "a.edb")
            params: dict[str, Any] = {"sesid": sesid, "dbid": dbid, "tablename": "t"}
            if method == "CommitTransaction":
                lines.call("BeginTransaction", sesid=sesid)
                lines.call("CreateTable", **params)
                params = {"sesid": sesid}
            snap_id = other.call("OSSnapshotPrepare")["snapId"]
            other.call("OSSnapshotFreeze", snapId=snap_id, leaseMs=600_000)
            lines.send(json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode() + b"\n")
            lines.call("Ping")
            assert server.stop() == 0
        assert server.errors.read_text() == ""


def test_who_reads_nothing_of_what_is_left_is_dropped_with_its_sessions(tmp_path: Path) -> None:
    """However it is that the connection ends: half closed with little left to write, or over HTTP."""
    with ServerProcess(tmp_path / "data", JETWIRE_SLOW_READER_SECONDS="1") as server, server.connect() as lines:
        slow = server.connect()
        slow.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        a_session(slow, "slow.edb")
        size = len(lines.ask("rpc.discover")["result"]["methods"].__repr__())
        discover = b'{"jsonrpc":"2.0","id":1,"method":"rpc.discover"}\n'
        slow.send(discover * ((4 << 20) // size))
        slow.socket.shutdown(socket.SHUT_WR)
        wait_for(lines, server, "sessions", 0)

        dropped = metric(lines, server, "rpc_slow_readers_dropped_total")
        http = socket.create_connection(("127.0.0.1", server.http_port))
        http.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        body = b"[" + b",".join([discover.strip()] * 300) + b"]"
        http.sendall(b"POST /rpc HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        wait_for(lines, server, "rpc_slow_readers_dropped_total", dropped + 1)
        http.close()
        slow.socket.close()


def test_who_goes_in_the_middle_of_a_request_leaves_no_traceback(server: ServerProcess) -> None:
    before = server.errors.read_text()
    for head in (
        b"Content-Length: 100\r\n\r\n{",
        b"Expect: 100-continue\r\nContent-Length: 100\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n5\r\n",
    ):
        for linger in (0, 1):
            for pause in (0, 0.02):
                http = socket.create_connection(("127.0.0.1", server.http_port))
                http.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", linger, 0))  # 1: reset
                http.sendall(b"POST /rpc HTTP/1.1\r\nHost: localhost\r\n" + head)
                time.sleep(pause)
                http.close()
    with server.connect() as lines:
        metric(lines, server, "rpc_connections")
    assert server.errors.read_text() == before


def slow_moves() -> tuple[Service, list[int]]:
    """A server whose Move takes two milliseconds and answers how many there were; and the tables of those."""
    ran: list[int] = []

    def move(peer: Peer, params: Any) -> dict[str, Any]:
        ran.append(params["tableid"])
        time.sleep(0.002)
        return {"wrn": len(ran)}

    return Service("1", SystemClock(), EventLog(), Gatekeeper(), table=table({**HANDLERS, "Move": move})), ran


@pytest.mark.parametrize("batch", [False, True], ids=["pipelined", "Batch"])
async def test_who_asks_for_much_at_once_does_not_hold_up_the_others(batch: bool) -> None:
    service, ran = slow_moves()
    listener = await listen_tcp(service, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    other_reader, other_writer = await asyncio.open_connection("127.0.0.1", port)
    call = {"method": "Move", "params": [1, 2, 0]}
    calls = [{"jsonrpc": "2.0", "id": number, **call} for number in range(200)]
    if batch:
        calls = [{"jsonrpc": "2.0", "id": 0, "method": "Batch", "params": {"calls": [call] * 200}}]
    writer.write(b"".join(json.dumps(one).encode() + b"\n" for one in calls))
    while not ran:  # noqa: ASYNC110
        await asyncio.sleep(0)
    other_writer.write(b'{"jsonrpc":"2.0","id":1,"method":"Ping"}\n')
    await other_reader.readline()
    assert len(ran) < 100, "the other one waited for all of it"
    answers = [json.loads(await reader.readline()) for _ in calls]
    assert [answer["id"] for answer in answers] == list(range(len(calls)))
    results = answers[0]["result"]["results"] if batch else [answer["result"] for answer in answers]
    assert [result["wrn"] for result in results] == list(range(1, 201))
    for one in (writer, other_writer):
        one.close()
    listener.close()
    while service.peers:  # noqa: ASYNC110
        await asyncio.sleep(0.001)


@pytest.mark.parametrize("kind", ["tcp", "websocket", "http"])
async def test_a_long_json_rpc_batch_does_not_hold_up_the_others(kind: str) -> None:
    """What the same connection sent behind it still comes behind it, and it is answered as one."""
    service, ran = slow_moves()
    plain, web = await listen_tcp(service, "127.0.0.1", 0), HttpListener(service, dict)
    url = "http://127.0.0.1:{1}/rpc".format(*await web.start("127.0.0.1", 0))
    port = plain.sockets[0].getsockname()[1]
    calls = [{"jsonrpc": "2.0", "id": n, "method": "Move", "params": [1, n + 1, 0]} for n in range(200)]
    last = {"jsonrpc": "2.0", "id": "last", "method": "Move", "params": [1, 201, 0]}
    other_reader, other_writer = await asyncio.open_connection("127.0.0.1", port)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    async with ClientSession() as session, session.ws_connect(url) as socket_:
        if kind == "tcp":
            writer.write(json.dumps(calls).encode() + b"\n" + json.dumps(last).encode() + b"\n")
        elif kind == "websocket":
            await socket_.send_json(calls)
            await socket_.send_json(last)
        else:
            posted = asyncio.create_task(session.post(url, json=calls))
        while not ran:  # noqa: ASYNC110
            await asyncio.sleep(0)
        other_writer.write(b'{"jsonrpc":"2.0","id":1,"method":"Ping"}\n')
        await other_reader.readline()
        assert len(ran) < 100, "the other one waited for all of it"
        if kind == "tcp":
            answers = [json.loads(await reader.readline()) for _ in range(2)]
        elif kind == "websocket":
            answers = [await socket_.receive_json() for _ in range(2)]
        else:
            answers = [await (await posted).json(), last]
        assert [one["id"] for one in answers[0]] == list(range(200))
        assert answers[1]["id"] == "last"
        assert ran == list(range(1, 202 if kind != "http" else 201))
    for one in (writer, other_writer):
        one.close()
    plain.close()
    await web.stop()


async def test_who_asks_for_much_over_a_websocket_does_not_hold_up_the_others() -> None:
    service, ran = slow_moves()
    listener = HttpListener(service, dict)
    url = "http://127.0.0.1:{1}/rpc".format(*await listener.start("127.0.0.1", 0))
    async with ClientSession() as session, session.ws_connect(url) as one, session.ws_connect(url) as other:
        for number in range(200):
            await one.send_json({"jsonrpc": "2.0", "id": number, "method": "Move", "params": [1, 2, 0]})
        await other.send_str('{"jsonrpc":"2.0","id":1,"method":"Ping"}')
        await other.receive()
        assert len(ran) < 100, "the other one waited for all of it"
        assert [(await one.receive_json())["id"] for _ in range(200)] == list(range(200))
    await listener.stop()


async def test_a_long_move_and_a_long_page_give_way(peer: tuple[Peer, asyncio.Queue[bytes], int]) -> None:
    one, answers, sesid = peer

    async def ask(method: str, **params: Any) -> Any:
        message = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": {"sesid": sesid, **params}}).encode()
        answer = one.receive(message)
        return json.loads(answer if isinstance(answer, bytes) else await answers.get())["result"]

    dbid = (await ask("OpenDatabase", database="a.edb"))["dbid"]
    index = {"name": "p", "key": ["+k"], "grbit": ["IndexPrimary"]}
    create = {"name": "t", "columns": [{"name": "k", "coltyp": "Long"}], "indexes": [index]}
    tableid = (await ask("CreateTableColumnIndex", dbid=dbid, tablecreate=create))["tableid"]
    await ask("PutRecords", tableid=tableid, records=[{"k": number} for number in range(10_000)])
    await ask("Move", tableid=tableid, numRows="First")
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    await ask("Move", tableid=tableid, numRows=9_999)
    counting.cancel()
    assert turns >= 9
    await ask("Move", tableid=tableid, numRows="First")
    turns, counting = 0, asyncio.create_task(count())
    assert len((await ask("GetRecords", tableid=tableid, limit=9_999))["records"]) == 9_999
    counting.cancel()
    assert turns >= 2
    assert (await ask("GetRecords", tableid=tableid, limit=1))["records"] == [{"k": 9_999}]
