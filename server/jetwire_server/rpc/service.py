"""What all connections share: the engine's instances, the limits, the peers, and how the server stands."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from jetwire_protocol.jsonrpc import WireLimits
from jetwire_server import limits
from jetwire_server.backup.service import BackupService
from jetwire_server.clock import Clock
from jetwire_server.engine.engine import Engine
from jetwire_server.engine.instance import State
from jetwire_server.event_table import EventTable
from jetwire_server.events import EventLog
from jetwire_server.metrics import Counter
from jetwire_server.rpc.dispatch import Entry, table
from jetwire_server.rpc.security import Gatekeeper
from jetwire_server.snapshot.service import SnapshotService

if TYPE_CHECKING:
    from jetwire_server.rpc.peer import Peer

PROTOCOL_VERSION = "1.0"

SLOW_READERS = Counter("jetwire_rpc_slow_readers_dropped_total", "Connections dropped because they did not read what they asked for")
REFUSED = Counter("jetwire_rpc_connections_refused_total", "Connections refused because there were too many")

log = logging.getLogger(__name__)


class Connection(Protocol):
    """What the server may do to any connection that lasts."""

    def sweep(self, now: float) -> None:
        """Drops it if it does not read, or has been silent too long."""
        ...

    def close(self, reason: str) -> None: ...


@dataclass
class Service:
    """One for the server; every peer has it."""

    version: str
    clock: Clock
    events: EventLog
    gatekeeper: Gatekeeper
    engine: Engine | None = None
    remember: Callable[[], Awaitable[None]] | None = None  # which instances run, for the next start
    snapshots: SnapshotService = None  # type: ignore[assignment]  # set before anything listens
    backups: BackupService = None  # type: ignore[assignment]
    event_table: EventTable = None  # type: ignore[assignment]
    wire_limits: WireLimits = field(default_factory=WireLimits)
    connections_max: int = limits.CONNECTIONS_MAX
    backlog: int = limits.BACKLOG  # connections that wait to be taken, at each address
    http_head_seconds: float = limits.HTTP_HEAD_SECONDS
    http_body_seconds: float = limits.HTTP_BODY_SECONDS
    in_flight_max: int = limits.CALLS_IN_FLIGHT_MAX
    result_bytes_max: int = limits.RESULT_BYTES_MAX
    slow_reader_seconds: float = limits.SLOW_READER_SECONDS
    idle_seconds: float = limits.IDLE_SECONDS
    table: dict[str, Entry] = field(default_factory=table)
    peers: set[Peer] = field(default_factory=set)
    connections: set[Connection] = field(default_factory=set)
    sweeps: list[Callable[[float], None]] = field(default_factory=list)  # what else is to be looked at each time
    closing: set[asyncio.Task[None]] = field(default_factory=set)  # connections that are giving their state back
    draining: bool = False

    def limits_for_clients(self) -> dict[str, int]:
        """What Hello tells a client it has to keep to."""
        wire = self.wire_limits
        return {
            "message": wire.message_bytes,
            "depth": wire.depth,
            "elements": wire.elements,
            "batch": wire.batch,
            "inFlight": self.in_flight_max,
            "result": self.result_bytes_max,
        }

    def instance_names(self) -> list[dict[str, Any]]:
        """The running instances, for Hello."""
        if self.engine is None:
            return []
        running = (State.RUNNING, State.STOPPED)
        return [{"instance": one.handle, "name": one.name} for one in self.engine.instances.values() if one.state in running]

    async def instances_changed(self) -> None:
        """After an instance began or ended to run: the server remembers which to start the next time."""
        if self.remember is not None:
            await self.remember()

    @property
    def full(self) -> bool:
        """No further connection is taken."""
        return len(self.connections) >= self.connections_max

    def later(self, work: Coroutine[Any, Any, None]) -> None:
        """Runs something that belongs to a closing connection; the server waits for it before it ends."""
        task = asyncio.get_running_loop().create_task(work)
        self.closing.add(task)
        task.add_done_callback(self.closing.discard)

    async def sweep_forever(self) -> None:
        while True:
            await asyncio.sleep(limits.SWEEP_SECONDS)
            now = self.clock.boot()
            for sweep in [*self.sweeps, *(connection.sweep for connection in self.connections)]:
                try:
                    sweep(now)
                except Exception:  # one connection's trouble must not let all others go unwatched for ever
                    log.exception("looking at a connection")

    async def drain(self, seconds: float) -> None:
        """Refuses new calls and waits for those that run; then every connection's state is given back."""
        self.draining = True
        for peer in self.peers:
            peer.table = {}  # which spares every call a look at `draining`
        waiting = [asyncio.create_task(peer.idle()) for peer in list(self.peers)]
        if waiting:
            _, late = await asyncio.wait(waiting, timeout=seconds)
            for task in late:
                task.cancel()
        for connection in list(self.connections):
            connection.close("the server is shutting down")
        await asyncio.gather(*(peer.close() for peer in list(self.peers)), *self.closing, return_exceptions=True)
