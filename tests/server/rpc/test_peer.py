"""One connection's calls: order by session, overtaking, limits, batches, the end. In process, with handlers of the test's own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from jetwire_protocol.errors import Err, JetError
from jetwire_server.clock import ManualClock
from jetwire_server.events import EventLog
from jetwire_server.rpc.answers import PENDING
from jetwire_server.rpc.dispatch import HANDLERS, table
from jetwire_server.rpc.handlers import connection
from jetwire_server.rpc.peer import CONNECTIONS, IN_FLIGHT, Peer
from jetwire_server.rpc.security import Gatekeeper
from jetwire_server.rpc.service import Service

assert connection


class Bench:
    """A peer whose Seek waits until the test lets it go on, and whose Move ends at once."""

    def __init__(self, **settings: Any) -> None:
        self.gates: dict[int, asyncio.Future[Any]] = {}
        self.ran: list[tuple[str, int, int]] = []
        self.sent: list[Any] = []
        handlers: dict[str, Callable[..., Any]] = {
            **HANDLERS,
            "Seek": self.seek,
            "Move": self.move,
            "CommitTransaction": self.commit,
            "BeginTransaction": self.begin,
            "Rollback": self.rollback,
            "GetBookmark": lambda peer, params: {"bookmark": b"\x00\xff"},
            "GetCurrentIndex": lambda peer, params: 1 / 0,
            "RetrieveKey": lambda peer, params: {"data": object()},
            "RetrieveColumn": lambda peer, params: {"data": "x" * params["maxDataSize"]},
        }
        self.service = Service("1", ManualClock(), EventLog(), Gatekeeper(), table=table(handlers), **settings)
        self.peer = Peer(self.service, lambda data: self.sent.append(json.loads(data)), role="admin")

    async def seek(self, peer: Peer, params: Any) -> dict[str, Any]:
        self.ran.append(("Seek", params["sesid"], params["tableid"]))
        await self.gates.setdefault(params["tableid"], asyncio.get_running_loop().create_future())
        return {}

    def move(self, peer: Peer, params: Any) -> dict[str, Any]:
        self.ran.append(("Move", params["sesid"], params["tableid"]))
        if params["numRows"] < 0:
            raise JetError(Err.NoCurrentRecord, numRows=params["numRows"])
        return {"wrn": params["numRows"]}

    async def commit(self, peer: Peer, params: Any) -> dict[str, Any]:
        self.ran.append(("Commit", params["sesid"], 0))
        await self.gates.setdefault(params["sesid"], asyncio.get_running_loop().create_future())
        return {}

    async def begin(self, peer: Peer, params: Any) -> dict[str, Any]:
        self.ran.append(("Begin", params["sesid"], 0))
        return {}

    def rollback(self, peer: Peer, params: Any) -> dict[str, Any]:
        self.ran.append(("Rollback", params["sesid"], 0))
        return {}

    def send(self, method: str, params: Any, id: Any = 1) -> Any:
        """Sends one call; the answer, None, or PENDING."""
        message: dict[str, Any] = {"jsonrpc": "2.0", "method": method, "params": params}
        answer = self.peer.receive(json.dumps(message if id is None else {**message, "id": id}).encode())
        return json.loads(answer) if isinstance(answer, bytes) else answer

    async def open(self, gate: int) -> None:
        self.gates[gate].set_result(None)
        for _ in range(30):
            await asyncio.sleep(0)


async def test_a_call_that_ends_at_once_is_answered_at_once() -> None:
    bench = Bench()
    assert bench.send("Move", [1, 1, 5]) == {"jsonrpc": "2.0", "id": 1, "result": {"wrn": 5}}
    assert bench.send("BeginTransaction", [1])["result"] == {}
    assert bench.send("Move", [1, 1, 5], id=None) is None
    assert bench.sent == []


async def test_calls_of_a_session_keep_their_order_and_others_overtake() -> None:
    bench = Bench()
    assert bench.send("Seek", [1, 10], id="slow") is PENDING
    assert bench.send("Move", [1, 11, 0], id="behind") is PENDING
    assert bench.send("Seek", [1, 12], id="behind too") is PENDING
    assert bench.send("Move", [2, 13, 0], id="other")["id"] == "other"
    assert bench.send("Ping", {}, id="ping")["id"] == "ping"
    assert bench.ran == [("Seek", 1, 10), ("Move", 2, 13)]
    await bench.open(10)
    assert [answer["id"] for answer in bench.sent] == ["slow", "behind"]
    await bench.open(12)
    assert [answer["id"] for answer in bench.sent] == ["slow", "behind", "behind too"]
    assert [tableid for _, sesid, tableid in bench.ran if sesid == 1] == [10, 11, 12]
    assert bench.send("Move", [1, 14, 0])["result"] == {"wrn": 0}
    assert bench.peer.in_flight == 0


async def test_a_json_rpc_batch_overtakes_and_is_answered_whole() -> None:
    bench = Bench()
    calls = [
        {"jsonrpc": "2.0", "method": "Seek", "params": [1, 10], "id": "a"},
        {"jsonrpc": "2.0", "method": "Move", "params": [2, 11, 0], "id": "b"},
        {"jsonrpc": "2.0", "method": "Move", "params": [1, 12, 0]},
        {"jsonrpc": "2.0", "method": "Move", "params": [1, 13, 0], "id": "c"},
    ]
    assert bench.peer.receive(json.dumps(calls).encode()) is PENDING
    assert bench.ran == [("Seek", 1, 10), ("Move", 2, 11)]
    await bench.open(10)
    assert [answer["id"] for answer in bench.sent[0]] == ["a", "b", "c"]
    assert len(bench.sent) == 1


async def test_calls_in_flight_are_limited_and_a_waiting_commit_takes_no_place() -> None:
    bench = Bench(in_flight_max=3)
    assert bench.send("CommitTransaction", [100]) is PENDING
    for place in range(3):
        assert bench.send("Seek", [place, place]) is PENDING
    refused = bench.send("Seek", [9, 9], id="too many")["error"]
    assert (refused["code"], refused["message"], refused["data"]) == (-32003, "Too many", {"limit": "inFlight", "max": 3})
    assert bench.send("Move", [0, 1, 0])["error"]["code"] == -32003  # it would have to wait behind a Seek
    assert bench.send("Move", [9, 1, 0])["result"] == {"wrn": 0}  # it does not wait
    assert bench.send("CommitTransaction", [101])["error"]["code"] == -32003
    await bench.open(0)
    assert bench.send("Seek", [9, 9]) is PENDING
    assert ("Seek", 9, 9) in bench.ran


async def test_a_batch_that_names_sessions_that_are_none_takes_a_place() -> None:
    bench = Bench(in_flight_max=2)
    calls = [{"method": "Seek", "params": [{"$ref": "0"}, 1]}]
    answers = [
        bench.send("Batch", {"sesid": 1_000 + place, "calls": [{"method": "Seek", "params": [place, place]}, *calls]}) for place in range(3)
    ]
    assert answers[:2] == [PENDING, PENDING]
    assert answers[2]["error"]["data"] == {"limit": "inFlight", "max": 2}
    await bench.peer.close()


async def test_errors_on_the_wire() -> None:
    bench = Bench()
    answer = bench.send("Move", [1, 1, -7])["error"]
    assert (answer["code"], answer["message"]) == (-1603, "JET_errNoCurrentRecord")
    assert answer["data"] == {"description": "no current record", "category": "State", "retryable": False, "numRows": -7}
    for method in ("GetCurrentIndex", "RetrieveKey"):
        answer = bench.send(method, [1, 1])
        assert answer["error"] == {"code": -32603, "message": "Internal error"}
    assert bench.send("Move", [1, 1, -7], id=None) is None


async def test_a_result_that_is_too_large() -> None:
    bench = Bench(result_bytes_max=1000)
    assert "result" in bench.send("RetrieveColumn", [1, 1, "a", 900])
    answer = bench.send("RetrieveColumn", [1, 1, "a", 1000])["error"]
    assert (answer["code"], answer["data"]) == (-32004, {"limit": "result", "max": 1000})
    calls = [{"jsonrpc": "2.0", "method": "RetrieveColumn", "params": [1, 1, "a", 400], "id": i} for i in range(3)]
    answers = json.loads(bench.peer.receive(json.dumps(calls).encode()))  # type: ignore[arg-type]
    assert ["result" in answer for answer in answers] == [True, True, False]


async def test_closing_cancels_what_runs_and_gives_everything_back() -> None:
    bench = Bench()
    before, flying = CONNECTIONS.value, IN_FLIGHT.value
    closed: list[str] = []

    async def second() -> None:
        closed.append("second")

    for _ in range(3):  # a connection may come to it again and again
        bench.peer.at_close("first", lambda: closed.append("first"))
    bench.peer.at_close("second", second)
    bench.send("Seek", [1, 10])
    bench.send("Move", [1, 11, 0])
    await bench.peer.close()
    await bench.peer.close()
    assert closed == ["second", "first"]
    assert bench.gates[10].cancelled()
    assert bench.ran == [("Seek", 1, 10)]
    assert bench.sent == []
    assert CONNECTIONS.value == before - 1
    assert IN_FLIGHT.value == flying
    assert bench.peer not in bench.service.peers


async def test_draining_refuses_new_calls_and_finishes_those_that_run() -> None:
    bench = Bench()
    bench.send("Seek", [1, 10], id="old")
    bench.send("Seek", [1, 11], id="queued")
    draining = asyncio.create_task(bench.service.drain(5))
    await asyncio.sleep(0)
    assert bench.send("Ping", {})["error"]["code"] == -32005
    await bench.open(10)
    await bench.open(11)
    await draining
    assert [answer["id"] for answer in bench.sent] == ["old", "queued"]
    assert bench.peer.closed


async def test_draining_does_not_wait_for_ever() -> None:
    bench = Bench()
    bench.send("Seek", [1, 10])
    await asyncio.wait_for(bench.service.drain(0.01), 5)
    assert bench.gates[10].cancelled()


@pytest.mark.parametrize(("role", "method", "code"), [
    ("", "Ping", -32001), ("", "nonsense", -32001), ("reader", "PutRecords", -32002), ("reader", "nonsense", -32601),
    ("snapshotter", "Seek", -32002),
])  # fmt: skip
async def test_roles(role: str, method: str, code: int) -> None:
    bench = Bench()
    bench.peer.role = role
    assert bench.send(method, {})["error"]["code"] == code


# -- Batch ------------------------------------------------------------------------------------------------------------
async def test_a_batch_runs_in_order_and_refers_back() -> None:
    bench = Bench()
    result = bench.send(
        "Batch",
        {
            "calls": [
                {"method": "Move", "params": [1, 1, 44]},
                {"method": "Move", "params": {"sesid": 1, "tableid": 2, "numRows": {"$ref": "0/wrn"}}},
                {"method": "GetBookmark", "params": [1, 1]},
                {"method": "JetPing"},
            ]
        },
    )["result"]
    assert result == {"results": [{"wrn": 44}, {"wrn": 44}, {"bookmark": "AP8="}, {}]}


@pytest.mark.parametrize("reference", ["1/wrn", "0/nothing", "x", "0/wrn/0", "", 5, None, "-1"])
async def test_a_reference_that_leads_nowhere(reference: Any) -> None:
    bench = Bench()
    calls = [{"method": "Move", "params": [1, 1, 1]}, {"method": "Move", "params": [1, 1, {"$ref": reference}]}]
    answer = bench.send("Batch", {"calls": calls})["error"]
    assert (answer["code"], answer["message"], answer["data"]["index"]) == (-32602, "Invalid params", 1)
    assert answer["data"]["results"] == [{"wrn": 1}]


async def test_a_batch_stops_at_its_first_error() -> None:
    bench = Bench()
    calls = [{"method": "Move", "params": [1, 1, n]} for n in (3, -1, 4)]
    answer = bench.send("Batch", {"calls": calls})["error"]
    assert (answer["code"], answer["message"]) == (-1603, "JET_errNoCurrentRecord")
    assert (answer["data"]["index"], answer["data"]["results"], answer["data"]["numRows"]) == (1, [{"wrn": 3}], -1)
    assert len(bench.ran) == 2
    answer = bench.send("Batch", {"calls": [{"method": "Ping"}, {"method": "nonsense"}]})["error"]
    assert (answer["code"], answer["data"]) == (-32601, {"index": 1, "results": [{}]})


async def test_results_of_a_batch_weigh_together() -> None:
    """It stops where they are too much, instead of carrying everything out and having no answer."""
    bench = Bench(result_bytes_max=1000)
    calls = [{"method": "RetrieveColumn", "params": [1, 1, "a", 400]}, {"method": "Move", "params": [1, 1, 1]}] * 3
    answer = bench.send("Batch", {"calls": calls})["error"]
    assert (answer["code"], answer["data"]["limit"], answer["data"]["max"], answer["data"]["index"]) == (-32004, "result", 1000, 4)
    assert len(answer["data"]["results"]) == 4
    assert len(bench.ran) == 2


@pytest.mark.parametrize(("size", "times", "limit"), [(1_000_000, 9, "message"), (10, 60_000, "elements"), (300_000, 2, None)])
async def test_what_references_bring_counts_as_if_it_had_been_sent(size: int, times: int, limit: str | None) -> None:
    bench = Bench()
    told: dict[str, Any] = {"method": "RetrieveColumn", "params": [1, 1, "a", size]}
    if limit == "elements":  # a list that is referred to from a few places
        told = {"method": "GetInstances", "params": {}}
        bench.service.table["GetInstances"] = replace(bench.service.table["Ping"], handler=lambda peer, params: {"data": [{}] * times})
    calls = [told, {"method": "SetColumns", "params": {"sesid": 1, "tableid": 1, "setcolumns": [{"$ref": "0/data"}] * min(times, 9)}}]
    answer = bench.send("Batch", {"calls": calls})["error"]
    assert answer["data"].get("limit") == limit
    assert answer["code"] == (-32602 if limit is None else -32004), "control: less is looked at, and is no list of columns"
    assert answer["data"]["index"] == 1


async def test_a_batch_as_a_transaction() -> None:
    bench = Bench()
    good = {"calls": [{"method": "Move", "params": [7, 1, 1]}], "transaction": True, "sesid": 7}
    assert bench.send("Batch", good) is PENDING
    assert bench.send("Move", [7, 2, 1]) is PENDING  # it waits for the whole Batch
    await bench.open(7)
    assert [answer["id"] for answer in bench.sent] == [1, 1]
    assert [what for what, _, _ in bench.ran] == ["Begin", "Move", "Commit", "Move"]
    bench.ran.clear()
    answer = bench.send("Batch", {**good, "calls": [{"method": "Move", "params": [7, 1, -1]}]})
    assert answer["error"]["code"] == -1603
    assert [what for what, _, _ in bench.ran] == ["Begin", "Move", "Rollback"]


@pytest.mark.parametrize(("params", "member"), [
    ({"calls": [{"method": "Batch", "params": {"calls": []}}]}, "calls.0.method"),
    ({"calls": [{"method": "Ping"}, {"method": "JetBatch"}]}, "calls.1.method"),
    ({"calls": [], "transaction": True}, "sesid"),
    ({"calls": [{"method": "Ping", "params": 5}]}, "calls.0.params"),
    ({"calls": [{"method": 5}]}, "calls.0.method"),
    ({"calls": [{"methods": "Ping"}]}, "calls.0.methods"),
    ({"calls": {}}, "calls"),
    ({}, "calls"),
])  # fmt: skip
async def test_a_batch_that_is_none(params: Any, member: str) -> None:
    answer = Bench().send("Batch", params)["error"]
    assert (answer["code"], answer["data"]["member"]) == (-32602, member)


async def test_a_batch_of_many_sessions_waits_for_all_and_is_waited_for() -> None:
    bench = Bench()
    bench.send("Seek", [1, 10], id="one")
    bench.send("Seek", [2, 20], id="two")
    calls = [{"method": "Move", "params": [1, 11, 0]}, {"method": "Move", "params": {"sesid": 2, "tableid": 21, "numRows": 0}}]
    assert bench.send("Batch", {"calls": calls}, id="both") is PENDING
    assert bench.send("Move", [2, 22, 0], id="last") is PENDING
    assert bench.send("Move", [3, 30, 0], id="free")["id"] == "free"
    await bench.open(10)
    assert [answer["id"] for answer in bench.sent] == ["one"]
    await bench.open(20)
    assert [answer["id"] for answer in bench.sent] == ["one", "two", "both", "last"]


# -- Hello ------------------------------------------------------------------------------------------------------------
async def test_hello() -> None:
    bench = Bench()
    result = bench.send("Hello", {"client": "test", "int64": "string"})["result"]
    assert result["server"] == "jetwire"
    assert result["role"] == "admin"
    assert result["limits"]["message"] == 8 << 20
    assert (bench.peer.client, bench.peer.int64_strings) == ("test", True)
    assert bench.send("Hello", {"int64": "float"})["error"]["code"] == -32602
    assert bench.send("Hello", {"token": "wrong"})["error"]["code"] == -32001
    assert bench.send("Ping", {})["error"]["code"] == -32001  # a wrong token takes away what the address gave
