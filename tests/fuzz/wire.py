"""Coverage-guided bytes against one connection of a server in this process: decoder, validation, dispatch, handlers, engine.

`make fuzz` runs it. It stops at the first input that raises, is answered by an internal error or by what is no JSON-RPC,
takes too long, or after which the connection does not answer any more; libFuzzer leaves that input in `crash-...`.
Arguments are libFuzzer's: `python -m tests.fuzz.wire -max_total_time=300 corpus/`.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import tempfile
from pathlib import Path
from typing import Any

import atheris

with atheris.instrument_imports(include=["jetwire_protocol", "jetwire_server.rpc", "jetwire_server.engine"]):
    from jetwire_protocol.declarations import METHODS, Method
    from jetwire_protocol.jsonrpc import INTERNAL_ERROR
    from jetwire_server.rpc import handlers
    from jetwire_server.rpc.answers import PENDING
    from jetwire_server.rpc.peer import Peer
    from jetwire_server.rpc.security import Gatekeeper
    from jetwire_server.rpc.service import Service

from tests.support.edge_cases import CASES
from tests.support.hosted import Hosted

assert handlers
CALL_SECONDS = 20.0
INPUTS_PER_CONNECTION = 2_000
LOOK_EVERY = 20_000
_PING = b'{"jsonrpc":"2.0","id":"still there","method":"Ping"}'


class Target:
    """A hosted instance, and a connection that may do all to its tables and nothing to the instance itself."""

    def __init__(self, directory: Path) -> None:
        self.loop = asyncio.new_event_loop()
        self.hosted = self.loop.run_until_complete(Hosted(directory / "data").start())
        self.loop.run_until_complete(self.hosted.session.end_session())  # a session without a connection is no server's
        self.inputs = 0
        hosting = self.hosted.hosting
        self.service = Service("fuzz", self.hosted.clock, hosting.engine.events, Gatekeeper(), engine=hosting.engine)
        self.service.snapshots, self.service.backups, self.service.event_table = hosting.snapshots, hosting.backups, hosting.event_table
        self.sent: list[bytes] = []
        self.loop.run_until_complete(self.connect())

    async def connect(self) -> None:
        """A new connection with a session, a database and a table, whose handles stand in the first corpus."""
        self.peer = Peer(self.service, self.sent.append, role="schema", principal="fuzz", kind="tcp")
        instance = self.service.instance_names()[0]["instance"]
        self.sesid = (await self.ask("BeginSession", instance=instance))["result"]["sesid"]
        name = f"f{self.inputs}.edb"
        await self.ask("CreateDatabase", sesid=self.sesid, database=name)
        self.dbid = (await self.ask("OpenDatabase", sesid=self.sesid, database=name))["result"]["dbid"]
        columns = [{"name": "id", "coltyp": "Long"}, {"name": "text", "coltyp": "LongText"}]
        create = {"name": "t", "columns": columns, "indexes": [{"name": "p", "key": ["+id"], "grbit": ["IndexPrimary"]}]}
        made = await self.ask("CreateTableColumnIndex", sesid=self.sesid, dbid=self.dbid, tablecreate=create)
        self.tableid = made["result"]["tableid"]

    async def disconnect(self) -> None:
        await self.peer.close()
        assert not self.peer.sessions, "a closed connection has sessions"
        instance = self.hosted.instance
        assert not instance.sessions, "sessions outlive their connection"
        assert not instance.cursors, "cursors outlive their connection"
        session = await instance.begin_session()
        for database in list(instance.databases.values()):
            await session.detach_database(database.path)
        await session.end_session()

    async def ask(self, method: str, **params: Any) -> Any:
        answer: Any = json.loads(
            await self.send(json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()) or b""
        )
        assert "result" in answer, answer
        return answer

    async def send(self, data: bytes) -> bytes | None:
        """One message and its answer, as a listener would have it."""
        self.sent.clear()
        answer = self.peer.receive(data)
        if answer is PENDING:
            async with asyncio.timeout(CALL_SECONDS):
                await self.peer.idle()
            answers = [one for one in self.sent if b'"id"' in one]
            return answers[-1] if answers else None
        assert answer is None or isinstance(answer, bytes)
        return answer

    async def one(self, data: bytes) -> None:
        answer = await self.send(data)
        if answer is not None:
            check(answer)
        check(await self.send(_PING) or b"")
        self.inputs += 1
        if self.inputs % INPUTS_PER_CONNECTION == 0:
            await self.disconnect()
            await self.connect()
        if self.inputs % LOOK_EVERY == 0:
            print(f"{self.inputs} inputs, {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10} MiB at most", file=sys.stderr)

    def test(self, data: bytes) -> None:
        self.loop.run_until_complete(self.one(data))


def check(answer: bytes) -> None:
    """It is JSON-RPC, and tells nothing of the inside."""
    read = json.loads(answer)
    for one in read if isinstance(read, list) else [read]:
        assert one["jsonrpc"] == "2.0"
        assert ("result" in one) != ("error" in one)
        if "error" in one:
            assert one["error"]["code"] != INTERNAL_ERROR, one
    assert b"Traceback" not in answer


def _value(target: Target, name: str, kind: str) -> Any:
    known = {"sesid": target.sesid, "dbid": target.dbid, "tableid": target.tableid, "columnid": "text", "database": "g.edb"}
    if name in known:
        return known[name]
    if kind.startswith("list"):
        return []
    return {"int": 1, "bool": True, "string": "t", "base64": "AAE=", "number": 1.5}.get(kind.partition(" ")[0], 1)


def seeds(target: Target) -> list[bytes]:
    """The table of edge cases, and a call of each method."""

    def call(method: Method) -> bytes:
        params = {member.name: _value(target, member.name, member.type) for member in method.params}
        return json.dumps({"jsonrpc": "2.0", "id": 1, "method": method.name, "params": params}).encode()

    return [*(message for _, message, _ in CASES if len(message) < 4096), *map(call, METHODS.values())]


def main() -> None:
    directory = Path(tempfile.mkdtemp(prefix="jetwire-fuzz-"))
    target = Target(directory)
    corpus = directory / "seeds"
    corpus.mkdir()
    for number, seed in enumerate(seeds(target)):
        (corpus / f"{number:04}").write_bytes(seed)
    words = directory / "words"
    words.write_text("\n".join(f'"{word}"' for word in {*METHODS, *(m.name for one in METHODS.values() for m in one.params)}))
    atheris.Setup([*sys.argv, str(corpus), f"-dict={words}", "-max_len=4096", "-print_final_stats=1"], target.test)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
