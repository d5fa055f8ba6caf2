"""A whole server in this process, without listeners: every method is called as a connection would call it.

    async with Bench(tmp_path) as bench:
        world = await bench.world()                      # a session with a table of its own
        await world.ready("Seek")                        # what tests.support.calls says must come before it
        assert await world.name_of("Seek") == SUCCESS

What was answered to whom is kept in `Bench.seen`, so that a test which declares what it shows can be held to it.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from jetwire_protocol.data.codes import NAMES
from jetwire_server.clock import Clock, SystemClock
from jetwire_server.events import EventLog
from jetwire_server.files.local import LocalFiles
from jetwire_server.hosting import Hosting
from jetwire_server.rpc import handlers
from jetwire_server.rpc.answers import PENDING
from jetwire_server.rpc.peer import Peer
from jetwire_server.rpc.security import Gatekeeper
from jetwire_server.rpc.service import Service
from tests.support.calls import CALLS, COLUMNS, INDEXES, RECORDS, Params, Step

assert handlers, "importing the handlers registers them"

SUCCESS = "JET_errSuccess"
PREFIXES = {
    "grbit": ("bit", "ColInfoGrbit"),
    "prep": ("prep",),
    "numRows": ("Move",),
    "cbtyp": ("cbtyp",),
    "sesparamid": ("sesparam",),
    "infoLevel": ("DbInfo", "ColInfo", "IdxInfo", "ObjInfo", "TblInfo", "ErrorInfo", "InstanceMiscInfo"),
}
_VARIABLE = re.compile(r"\$(\w+)")


def name_of(answer: dict[str, Any]) -> str:
    """The answer's error, warning or success, by its name; a refusal of JSON-RPC's own by its text."""
    if "error" in answer:
        return str(answer["error"]["message"])
    warning = answer["result"].get("wrn", 0)
    return NAMES[warning] if warning else SUCCESS


def filled(value: Any, kept: dict[str, Any]) -> Any:
    """`$x` is replaced by what is kept under x; within a longer string as text."""
    if isinstance(value, str):
        whole = _VARIABLE.fullmatch(value)
        return kept[whole[1]] if whole else _VARIABLE.sub(lambda found: str(kept[found[1]]), value)
    if isinstance(value, list):
        return [filled(one, kept) for one in value]
    if isinstance(value, dict):
        return {name: filled(one, kept) for name, one in value.items()}
    return value


def at(result: Any, path: str) -> Any:
    for part in path.split("."):
        result = result[int(part) if part.isdigit() else part]
    return result


class Line:
    """One connection. `ask` waits for the answer, `name_of` wants no more than its name."""

    def __init__(self, bench: Bench, principal: str = "tester") -> None:
        self._bench = bench
        self._late: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self.notifications: list[dict[str, Any]] = []
        self.peer = Peer(bench.service, self._arrived, role="admin", principal=principal, kind="test")

    def _arrived(self, data: bytes) -> None:
        message = json.loads(data)
        if "method" in message:
            self.notifications.append(message)
        else:
            self._late.pop(message["id"]).set_result(message)

    async def ask(self, method: str, params: Params) -> dict[str, Any]:
        bench = self._bench
        bench.asked = number = bench.asked + 1
        message = {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
        late: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._late[number] = late
        answer = self.peer.receive(json.dumps(message).encode())
        if answer is not PENDING:
            assert isinstance(answer, bytes)
            self._arrived(answer)
        decoded = await late
        bench.note(method, params, name_of(decoded))
        return decoded

    async def must(self, method: str, params: Params) -> dict[str, Any]:
        """The result of a call that has to succeed."""
        answer = await self.ask(method, params)
        assert "error" not in answer, f"{method} {params}: {answer['error']}"
        result: dict[str, Any] = answer["result"]
        return result


class World:
    """A session, a database it shares with others, and a table of its own on whose first record a cursor stands.

    `kept` holds what `$name` in params stands for: instance, sesid, dbid, tableid, table, and `name`, which nobody else has.
    """

    def __init__(self, line: Line, kept: dict[str, Any]) -> None:
        self.line = line
        self.kept = kept

    async def do(self, steps: tuple[Step, ...]) -> None:
        for step in steps:
            result = await self.line.must(step.method, filled(step.params, self.kept))
            for name, path in step.keeps.items():
                self.kept[name] = at(result, path)

    async def ready(self, method: str) -> None:
        """Does what has to be done before a method can be called as the table has it."""
        await self.do(CALLS[method].before)

    def params(self, method: str, changes: Params | None = None) -> Params:
        """The table's params for a method, with these members in place of its own."""
        params: Params = filled({**CALLS[method].params, **(changes or {})}, self.kept)
        return params

    async def name_of(self, method: str, changes: Params | None = None) -> str:
        """Calls it as the table has it, and answers what came of it."""
        return await self.answer_of(method, self.params(method, changes))

    async def answer_of(self, method: str, params: Params) -> str:
        """Calls it, and answers what came of it; what `over` will need of the result is kept."""
        answer = await self.line.ask(method, params)
        if "result" in answer:
            self.kept.update({name: at(answer["result"], path) for name, path in CALLS[method].keeps.items()})
        return name_of(answer)

    async def over(self, method: str | None = None, after: tuple[Step, ...] = ()) -> None:
        """Takes back what a call has done that would be in others' way; ends the session and its database.

        What was never made, and so has no name in `kept`, need not be taken back.
        """
        own = (Step("EndSession", {"sesid": "$sesid"}), Step("DetachDatabase", {"sesid": "$keeper", "database": "$name.edb"}))
        for step in (*after, *(CALLS[method].after if method else ()), *own):
            with suppress(KeyError):
                await self.line.ask(step.method, filled(step.params, self.kept))


class Bench:
    """The server: `default` runs, `world.edb` is attached. Everything lies below `data`."""

    seen: set[tuple[str, str]] = set()  # what any bench has answered since a test began: method, name

    def __init__(self, data: Path, clock: Clock | None = None) -> None:
        self.clock = clock or SystemClock()
        events = EventLog()
        self.hosting = Hosting(LocalFiles(data), self.clock, events)
        self.service = Service("test", self.clock, events, Gatekeeper())
        self.service.engine = self.hosting.engine
        self.service.snapshots = self.hosting.snapshots
        self.service.backups = self.hosting.backups
        self.service.event_table = self.hosting.event_table
        self.service.remember = self.hosting.remember
        self.data = data
        self.asked = 0
        self._worlds = 0

    async def __aenter__(self) -> Bench:
        await self.hosting.start()
        self.line = Line(self)
        self.instance: int = (await self.line.must("Hello", {"client": "bench"}))["instances"][0]["instance"]
        self.keeper = (await self.line.must("BeginSession", {"instance": self.instance}))["sesid"]
        dbid = (await self.line.must("CreateDatabase", {"sesid": self.keeper, "database": "world.edb"}))["dbid"]
        await self.line.must("CloseDatabase", {"sesid": self.keeper, "dbid": dbid})
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for peer in list(self.service.peers):
            await peer.close()
        await self.hosting.stop()

    def note(self, method: str, params: Params, answer: str) -> None:
        self.seen.add((method, answer))
        if answer == SUCCESS or answer.startswith("JET_wrn"):
            self.seen.update((method, flag) for flag in flags_in(params))

    async def world(self, line: Line | None = None) -> World:
        line = line or self.line
        self._worlds += 1
        name = f"n{self._worlds}"
        sesid = (await line.must("BeginSession", {"instance": self.instance}))["sesid"]
        dbid = (await line.must("OpenDatabase", {"sesid": sesid, "database": "world.edb"}))["dbid"]
        create = {"name": f"t{name}", "columns": COLUMNS, "indexes": INDEXES}
        tableid = (await line.must("CreateTableColumnIndex", {"sesid": sesid, "dbid": dbid, "tablecreate": create}))["tableid"]
        await line.must("PutRecords", {"sesid": sesid, "tableid": tableid, "records": RECORDS, "grbit": ["CommitLazyFlush"]})
        await line.must("Move", {"sesid": sesid, "tableid": tableid, "numRows": "First"})
        kept = {"instance": self.instance, "keeper": self.keeper, "sesid": sesid, "dbid": dbid, "tableid": tableid}
        return World(line, {**kept, "table": f"t{name}", "name": name})


def flags_in(params: Any, member: str = "") -> Iterator[str]:
    """The constants that params name, wherever they stand in them, spelled as in C."""
    if isinstance(params, dict):
        for name, value in params.items():
            yield from flags_in(value, name)
    elif isinstance(params, list):
        for value in params:
            yield from flags_in(value, member)
    elif isinstance(params, str):
        yield from (f"JET_{prefix}{params.removeprefix('Default')}" for prefix in PREFIXES.get(member, ()))
