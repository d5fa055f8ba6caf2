"""One connection: who is at its other end, what it owns, and the calls it has in flight.

A listener hands each message to `receive`, and writes what comes back. An answer that is not there yet goes to the
listener's `send` later. Nothing here knows what kind of connection it is.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from jetwire_protocol import jsonrpc
from jetwire_protocol.errors import Err, JetError
from jetwire_protocol.jsonrpc import NO_ID, Call, Message, Refusal, RpcError
from jetwire_protocol.validate import Params
from jetwire_server.metrics import Counter, Gauge
from jetwire_server.rpc import straight, straight_scan
from jetwire_server.rpc.answers import PENDING, Answer, Deliver, Gathered
from jetwire_server.rpc.dispatch import Entry, failure
from jetwire_server.rpc.eager import Waiting, begin
from jetwire_server.rpc.lanes import Lanes, Turn

if TYPE_CHECKING:
    from jetwire_server.rpc.service import Service

log = logging.getLogger(__name__)

CALLS = Counter("jetwire_rpc_calls_total", "Calls received, notifications among them")
ERRORS = Counter("jetwire_rpc_errors_total", "Calls answered with an error")
IN_FLIGHT = Gauge("jetwire_rpc_calls_in_flight", "Calls that wait for something")
CONNECTIONS = Gauge("jetwire_rpc_connections", "Open connections")


class Peer:
    """The server's end of one connection."""

    def __init__(
        self,
        service: Service,
        send: Callable[[bytes], None],
        *,
        role: str = "",
        principal: str = "",
        kind: str = "",
        outlives_request: bool = True,
    ) -> None:
        self.service = service
        self.send = send
        self.role = role  # "" until it has authenticated
        self.principal = principal
        self.kind = kind
        self.stateful = outlives_request  # False over plain HTTP, where a connection's state lasts one request
        self.in_turns = False  # whether the connection runs the rest of a long batch in its next turn
        self.client = ""
        self.int64_strings = False
        self.sessions: dict[int, Any] = {}  # sesid -> the engine's session
        self.state: dict[str, Any] = {}  # what groups of handlers keep for this connection, by their own names
        self.in_flight = 0
        self.closed = False
        self._at_close: dict[str, Callable[[], Any]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._writing: set[straight.Writing] = set()  # calls on the straight road whose commits are on their way
        self._written: asyncio.Event | None = None  # set when there are no more of them, if anybody waits for that
        self.lanes = Lanes()
        self.table = {} if service.draining else service.table
        self._result_bytes_max = service.result_bytes_max
        self.limits = service.wire_limits
        # A message of the straight road is flat by its structs' types, so up to this size it cannot be beyond any limit.
        self.straight_bytes = min(self.limits.elements, self.limits.message_bytes) if self.limits.depth >= straight.DEPTH else -1
        service.peers.add(self)
        CONNECTIONS.value += 1

    def session(self, sesid: int) -> Any:
        """This connection's session of that handle; another's, or a dead one, is none."""
        found = self.sessions.get(sesid)
        if found is None:
            raise JetError(Err.InvalidSesid, f"this connection has no session {sesid}")
        return found

    # -- messages in --------------------------------------------------------------------------------------------
    def receive(self, data: bytes) -> Answer | Gathered:
        """Takes one message. Returns its answer, None if it has none, or PENDING if it goes to `send` later; of a long batch, its rest."""
        if len(data) > straight.HEAD:
            head = data[: straight.HEAD]
            if head.find(straight.GET) >= 0:  # `in` raises and drops an error first: 2,000 instructions
                answer = straight.get_record(self, data)
                if answer is not None and len(answer) <= self._result_bytes_max:
                    CALLS.value += 1
                    return answer
            elif head.find(straight.PUT) >= 0 and straight.put_records(self, data):
                CALLS.value += 1
                return PENDING
            elif head.find(straight_scan.BATCH) >= 0:
                answer = straight_scan.scan(self, data)
                if answer is not None and len(answer) <= self._result_bytes_max:
                    CALLS.value += 1
                    return answer
        message = jsonrpc.decode(data, self.limits)
        if type(message) is Call:
            return self._start(message, self._send_late)
        if type(message) is Refusal:
            return jsonrpc.encode_refusal(message)
        assert type(message) is list
        clock = self.service.clock if self.in_turns else None
        return Gathered(message, self._start, self._result_bytes_max, self._send_late, clock).go_on()

    def _send_late(self, answer: bytes | None) -> None:
        if answer is not None and not self.closed:
            self.send(answer)

    def _start(self, call: Message, deliver: Deliver) -> Answer:
        """Runs a call as far as it goes now."""
        CALLS.value += 1
        if isinstance(call, Refusal):
            ERRORS.value += 1
            return jsonrpc.encode_refusal(call)
        try:
            entry = self.table.get(call.method)
            if entry is None or self.role not in entry.roles:
                raise self._refusal(entry)
            params = entry.validate(call.params)
            if entry.by_session:
                sessions = _sessions_of_batch(params) if entry.is_batch else _session_of(params)
                if not self.lanes.free(sessions):
                    return self._queue(call, entry, params, sessions, deliver)
            else:
                sessions = ()
            if not entry.waits:
                return self._answer(call, entry.handler(self, params))
            self._room()
            coroutine = entry.handler(self, params)
            result = begin(coroutine) if entry.at_once else Waiting(coroutine, None)
            if type(result) is not Waiting:
                return self._answer(call, result)
        except Exception as error:
            return self._error(call, error)
        return self._wait(call, entry, result, sessions, deliver)

    def _refusal(self, entry: Entry | None) -> RpcError:
        """Why a call is not even looked at."""
        if not self.role:
            return RpcError(jsonrpc.NOT_AUTHENTICATED)
        if self.service.draining:
            return RpcError(jsonrpc.SHUTTING_DOWN)
        if entry is None:
            return RpcError(jsonrpc.METHOD_NOT_FOUND)
        return RpcError(jsonrpc.NOT_ALLOWED, role=self.role, needs=entry.method.role)

    # -- calls that wait ----------------------------------------------------------------------------------------
    def _room(self) -> None:
        """A call that may wait must find a place before it begins: afterwards it cannot be refused any more."""
        if self.in_flight >= self.service.in_flight_max:
            raise RpcError(jsonrpc.TOO_MANY, limit="inFlight", max=self.service.in_flight_max)

    def _queue(self, call: Call, entry: Entry, params: Params, sessions: tuple[int, ...], deliver: Deliver) -> Answer:
        """A call of a session that is busy: it runs when those before it have ended."""
        self._room()

        def run() -> None:
            self._follow(asyncio.get_running_loop().create_task(self._run(call, entry, params)), turn, deliver)

        turn = Turn(sessions, run, counts=True)
        self._enter(turn)
        return PENDING

    async def _run(self, call: Call, entry: Entry, params: Params) -> bytes | None:
        try:
            result = entry.handler(self, params)
            return self._answer(call, await result if entry.waits else result)
        except Exception as error:
            return self._error(call, error)

    def _wait(self, call: Call, entry: Entry, waiting: Waiting, sessions: tuple[int, ...], deliver: Deliver) -> Answer:
        """A call that has begun and waits: the rest of it is a task, and its sessions' later calls wait behind it."""
        # A commit may wait for a thaw, one a session: it takes no place from the others. A Batch can name sessions that are none.
        one_a_session = entry.commits and sessions and (not entry.is_batch or all(session in self.sessions for session in sessions))
        turn = Turn(sessions, _nothing, counts=not one_a_session)
        self._enter(turn)
        self._follow(asyncio.get_running_loop().create_task(self._rest(call, waiting)), turn, deliver)
        return PENDING

    def _enter(self, turn: Turn) -> None:
        self.lanes.enter(turn)
        if turn.counts:
            self.in_flight += 1
            IN_FLIGHT.value += 1

    async def _rest(self, call: Call, waiting: Waiting) -> bytes | None:
        try:
            return self._answer(call, await waiting.rest())
        except Exception as error:
            return self._error(call, error)

    def _follow(self, task: asyncio.Task[bytes | None], turn: Turn, deliver: Deliver) -> None:
        self._tasks.add(task)

        def ended(task: asyncio.Task[bytes | None]) -> None:
            self._tasks.discard(task)
            if self.closed:
                return
            if turn.counts:
                self.in_flight -= 1
                IN_FLIGHT.value -= 1
            deliver(None if task.cancelled() else task.result())
            self.lanes.leave(turn)

        task.add_done_callback(ended)

    # -- calls on the straight road -----------------------------------------------------------------------------
    def began(self, writing: straight.Writing) -> None:
        """Its session's later calls wait behind it. It may wait for a thaw, so it takes no place from the others."""
        self.lanes.enter(writing.turn)
        self._writing.add(writing)

    def ended(self, writing: straight.Writing, answer: bytes | None) -> None:
        if self.closed:
            return
        self._writing.discard(writing)
        if self._written is not None and not self._writing:
            self._all_written()
        if answer is not None:
            self.send(answer)
        self.lanes.leave(writing.turn)

    def _all_written(self) -> None:
        if self._written is not None:
            self._written.set()
            self._written = None

    def refused(self, call_id: int, error: JetError) -> bytes | None:
        return self._error(Call("2.0", "", call_id), error)

    # -- answers out --------------------------------------------------------------------------------------------
    def _answer(self, call: Call, result: Any) -> bytes | None:
        if call.id is NO_ID:
            return None
        answer = jsonrpc.encode_result(call.id, result)
        if len(answer) > self._result_bytes_max:
            raise RpcError(jsonrpc.TOO_LARGE, limit="result", max=self._result_bytes_max)
        return answer

    def _error(self, call: Call, error: Exception) -> bytes | None:
        ERRORS.value += 1
        code, message, data = failure(error)
        if call.id is NO_ID:
            return None
        try:
            return jsonrpc.encode_error(call.id, code, message, data)
        except Exception:
            log.exception("an error's data cannot be encoded")
            return jsonrpc.encode_error(call.id, code, message)

    def notify(self, method: str, params: Any) -> None:
        """Sends a notification, if there is still somebody to send it to, whom we know."""
        if not self.closed and self.stateful and self.role:
            self.send(jsonrpc.encode_notification(method, params))

    # -- the end ------------------------------------------------------------------------------------------------
    def at_close(self, name: str, action: Callable[[], Any]) -> None:
        """`action`, plain or async, is run when the connection has closed; the last registered first. One a name: the first."""
        self._at_close.setdefault(name, action)

    async def close(self) -> None:
        """Cancels what runs and gives back everything that was this connection's. A commit on its way goes on, unreported."""
        if self.closed:
            return
        self.closed = True
        CONNECTIONS.value -= 1
        IN_FLIGHT.value -= self.in_flight
        self.lanes.clear()
        self._writing.clear()  # nobody is told of them any more
        self._all_written()
        # A task that is cancelled before its first step never tells the coroutine that it has taken over.
        await asyncio.sleep(0)
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for action in reversed(self._at_close.values()):
            try:
                waiting = action()
                if waiting is not None:
                    await waiting
            except Exception:
                log.exception("closing a connection")
        self.service.peers.discard(self)

    def busy(self) -> bool:
        """Whether anything is in flight."""
        return bool(self._tasks or self._writing)

    async def idle(self) -> None:
        """Returns when nothing is in flight any more."""
        while self._tasks or self._writing:
            if self._tasks:
                await asyncio.wait(self._tasks)
            else:
                self._written = self._written or asyncio.Event()
                await self._written.wait()


def _nothing() -> None:
    """A call that has begun already has nothing to do when its turn comes."""


def _session_of(params: Params) -> tuple[int, ...]:
    """Some methods take a session or none."""
    sesid = params["sesid"]
    return () if sesid is None else (sesid,)


def _sessions_of_batch(params: Params) -> tuple[int, ...]:
    """The sessions that a Batch names, as far as they are known before it runs."""
    named = [params["sesid"]] if params["sesid"] is not None else []
    for call in params["calls"]:
        inner = call["params"]
        sesid = inner.get("sesid") if type(inner) is dict else inner[0] if type(inner) is list and inner else None
        if type(sesid) is int:
            named.append(sesid)
    return tuple(dict.fromkeys(named))
