"""A connection and a server that go on for days while instances come and go: nothing of those stays behind."""

from __future__ import annotations

import asyncio
import gc
import json
import weakref
from pathlib import Path
from typing import Any

import pytest

from jetwire_protocol.data.flags import TermGrbit
from jetwire_server import limits
from jetwire_server.clock import SystemClock
from jetwire_server.engine.instance import Instance
from jetwire_server.events import EventLog
from jetwire_server.files.local import LocalFiles
from jetwire_server.hosting import Hosting
from jetwire_server.rpc import handlers
from jetwire_server.rpc.peer import Peer
from jetwire_server.rpc.security import Gatekeeper
from jetwire_server.rpc.service import Service

assert handlers


class Caller:
    """A connection without a socket."""

    def __init__(self, hosting: Hosting) -> None:
        service = Service("test", SystemClock(), EventLog(), Gatekeeper(), engine=hosting.engine, remember=hosting.remember)
        self.answers: asyncio.Queue[bytes] = asyncio.Queue()
        self.peer = Peer(service, self.answers.put_nowait, role="admin", kind="test")
        self.notified: list[str] = []

    async def ask(self, method: str, **params: Any) -> dict[str, Any]:
        answer = self.peer.receive(json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode())
        while type(answer) is not bytes or b'"method"' in answer:
            if type(answer) is bytes:
                self.notified.append(json.loads(answer)["method"])
            answer = await asyncio.wait_for(self.answers.get(), 30)
        found: dict[str, Any] = json.loads(answer)
        return found

    async def call(self, method: str, **params: Any) -> Any:
        return (await self.ask(method, **params))["result"]


async def a_life(caller: Caller, name: str) -> tuple[int, weakref.ref[Instance]]:
    """An instance that is ended while a session of this connection has it open; the session, and whether the instance is there still."""
    engine = caller.peer.service.engine
    assert engine is not None
    instance = (await caller.call("CreateInstance", name=name))["instance"]
    await caller.call("Init", instance=instance)
    sesid: int = (await caller.call("BeginSession", instance=instance))["sesid"]
    dbid = (await caller.call("CreateDatabase", sesid=sesid, database="a.edb", grbit=["DbOverwriteExisting"]))["dbid"]
    await caller.call("BeginTransaction", sesid=sesid)
    await caller.call("CreateTable", sesid=sesid, dbid=dbid, tablename="t")
    await caller.call("CommitTransaction", sesid=sesid, grbit=["CommitLazyFlush"])
    await asyncio.sleep(0)
    here = weakref.ref(engine.instances[instance])
    await caller.call("Term", instance=instance, grbit=int(TermGrbit.TermDirty))
    return sesid, here


async def test_instances_that_came_and_went(tmp_path: Path) -> None:
    hosting = Hosting(LocalFiles(tmp_path), SystemClock(), EventLog())
    await hosting.start()
    caller, other = Caller(hosting), Caller(hosting)
    lives = [await a_life(caller, name) for name in "abc"]
    assert (await caller.ask("GetSessionParameter", sesid=lives[0][0], sesparamid=4096))["error"]["message"] == "JET_errNotInitialized"
    store: Any = lives[0][1]().store  # type: ignore[union-attr]
    assert not store.timeline.trees  # the session is told why it is dead, and holds no more than that
    assert len(hosting._storages) == len(hosting._participants) == 1
    for _ in range(500):
        if caller.peer.state["durable"]:
            await asyncio.sleep(0.02)
    assert not caller.peer.state["durable"]
    assert set(caller.peer._at_close) == {"sessions", "durable"}
    del store
    await caller.peer.close()
    caller.peer.sessions.clear()
    gc.collect()
    assert [here() for _, here in lives] == [None] * 3
    await a_life(other, "d")
    assert list(hosting.engine._left) == ["d"]  # of the others there is nobody left to be told
    await other.peer.close()
    await hosting.stop()


async def test_a_connection_forgets_the_oldest_of_its_dead_sessions(tmp_path: Path) -> None:
    hosting = Hosting(LocalFiles(tmp_path), SystemClock(), EventLog())
    await hosting.start()
    caller = Caller(hosting)
    kept = (await caller.call("BeginSession", instance=next(iter(hosting.engine.instances))))["sesid"]
    instance = (await caller.call("CreateInstance", name="a"))["instance"]
    await caller.call("Init", instance=instance)
    for _ in range(5 * limits.SESSIONS_LEFT_KEPT):
        last = (await caller.call("BeginSession", instance=instance))["sesid"]
    await caller.call("Term", instance=instance)
    for _ in range(limits.SESSIONS_LEFT_KEPT):
        newest = (await caller.call("BeginSession", instance=next(iter(hosting.engine.instances))))["sesid"]
    assert len(caller.peer.sessions) <= 2 * limits.SESSIONS_LEFT_KEPT + 1
    assert {kept, last, newest} <= set(caller.peer.sessions)
    await caller.peer.close()
    await hosting.stop()


@pytest.mark.parametrize("turns", range(5))
async def test_a_commit_is_answered_whoever_ends_its_instance_at_the_same_time(tmp_path: Path, turns: int) -> None:
    hosting = Hosting(LocalFiles(tmp_path), SystemClock(), EventLog())
    await hosting.start()
    caller, other = Caller(hosting), Caller(hosting)
    handle, instance = next(iter(hosting.engine.instances.items()))
    sesid = (await caller.call("BeginSession", instance=handle))["sesid"]
    dbid = (await caller.call("CreateDatabase", sesid=sesid, database="a.edb"))["dbid"]
    await caller.call("BeginTransaction", sesid=sesid)
    await caller.call("CreateTable", sesid=sesid, dbid=dbid, tablename="t")
    gate = hosting._storage_of(instance).gate
    now = SystemClock().boot()
    await gate.freeze(now + 60, drain_until=now + 5)
    waiting = asyncio.create_task(caller.ask("CommitTransaction", sesid=sesid))
    await asyncio.sleep(0.1)
    assert not waiting.done()
    for method in ("Term", "StopServiceInstance"):
        other.peer.receive(json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": {"instance": handle}}).encode())
        for _ in range(turns):
            await asyncio.sleep(0)
    answered = await asyncio.wait_for(waiting, 5)
    gate.thaw()
    assert answered["error"]["message"].removeprefix("JET_err") in {
        "ClientRequestToStopJetService",
        "TermInProgress",
        "InstanceUnavailable",
    }
    await caller.peer.close()
    await other.peer.close()
    await hosting.stop()
