"""The gate: who writes holds a permit, and a freeze is a gate that gives none.

Whether the gate is closed is arithmetic: frozen, and the deadline not reached. It is judged under the gate's lock by
whoever looks, and waiters wake by themselves to look; nothing has to run for the gate to open. So neither a blocked
event loop nor a stopped process can hold a freeze past its deadline, but for the time until somebody is scheduled.
Deadlines are on the clock that goes on while the machine sleeps (`Clock.boot`).
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import Enum

from jetwire_protocol.errors import Err, JetError
from jetwire_server.clock import Clock
from jetwire_server.failpoints import hit
from jetwire_server.limits import GATE_LOOK_SECONDS
from jetwire_server.metrics import Counter, Histogram

FREEZE_SECONDS = Histogram("jetwire_freeze_seconds", "How long freezes lasted, until the thaw or the deadline.")
FREEZE_TIMEOUTS = Counter("jetwire_freeze_timeouts_total", "Freezes that ended because their deadline passed.")
DRAIN_SECONDS = Histogram("jetwire_freeze_drain_seconds", "How long a freeze waited for writers to leave.")
PERMITS_WAITED = Counter("jetwire_gate_permits_waited_total", "Permits to write that had to wait for a thaw.")
PERMIT_WAIT_SECONDS = Histogram("jetwire_gate_permit_wait_seconds", "How long those permits waited.")
BYTES_WHILE_FROZEN = Counter("jetwire_bytes_written_while_frozen_total", "Bytes written while frozen: 0, or there is a bug.")
LATCHES = Counter("jetwire_gate_latches_total", "Instances that stopped writing for good after a failed write or sync.")


class _Phase(Enum):
    OPEN = "open"
    DRAINING = "draining"
    FROZEN = "frozen"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a freeze. `held`: nothing was written from the freeze to the thaw, and the thaw came in time."""

    held: bool
    timed_out: bool = False
    held_ms: int = 0
    permits_waited: int = 0
    bytes_written: int = 0
    changes: int = 0


class Permit:
    """The right to write, from `with gate.permit("log"):` in a thread or `async with` on the event loop."""

    __slots__ = ("_gate", "who")

    def __init__(self, gate: Gate, who: str) -> None:
        self._gate = gate
        self.who = who

    def __enter__(self) -> Permit:
        self._gate._enter(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._gate._leave(self)

    async def __aenter__(self) -> Permit:
        await self._gate._enter_async(self)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._gate._leave(self)


class Gate:
    """One instance's gate. Every method may be called from any thread."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._sleepers: set[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = set()
        self._holders: set[Permit] = set()
        self.latched: str | None = None
        """Why the gate was latched, or None. To be read; `latch` sets it."""
        self._phase = _Phase.OPEN
        self._turn = 0  # which freeze: a late riser must not take the next one for its own
        self._until = 0.0  # while draining the end of patience, while frozen the deadline
        self._deadline = 0.0
        self._began = 0.0
        self._stuck: tuple[str, ...] = ()
        self._permits_waited = self._bytes = self._changes = 0
        self._lost: Verdict | None = None
        self._told_of_latch: list[Callable[[], None]] = []

    # -- writers ----------------------------------------------------------------------------------------------
    def permit(self, who: str) -> Permit:
        """A permit to enter: waits while the gate is closed, `InstanceUnavailable` once it is latched.

        `who` is what a refused freeze names. Hold it for one batch, never while waiting for something else.
        """
        return Permit(self, who)

    @contextmanager
    def try_permit(self, who: str) -> Iterator[bool]:
        """`with gate.try_permit("checkpoint") as allowed:` - never waits; False while the gate is closed."""
        permit = Permit(self, who)
        with self._lock:
            allowed = self._admit(permit)
        try:
            yield allowed
        finally:
            if allowed:
                self._leave(permit)

    @property
    def closing(self) -> bool:
        """Somebody wants to freeze, or has: a holder that can still turn back leaves now. One cheap look, no lock."""
        return self._phase is not _Phase.OPEN and self._clock.boot() < self._until

    def wrote(self, size: int) -> None:
        """Told of every write, before it is done (0: a change of names or lengths). Counts it if frozen."""
        if self._phase is _Phase.FROZEN:
            with self._lock:
                self._look()
                if self._phase is _Phase.FROZEN:
                    self._bytes += size
                    self._changes += 1
                    BYTES_WHILE_FROZEN.value += size

    def latch(self, reason: str) -> None:
        """For ever: nobody writes again, and every permit, waiting ones too, is `InstanceUnavailable`.

        After a failed write or sync; and for an instance that ends while frozen, so that it writes nothing on its way out.
        """
        with self._lock:
            if self.latched is not None:
                return
            self.latched = reason
            LATCHES.value += 1
            self._wake()
        for call in self._told_of_latch:
            call()

    def when_latched(self, call: Callable[[], None]) -> None:
        """Calls once it is latched, in whatever thread that happens; it must not wait."""
        self._told_of_latch.append(call)

    # -- who freezes ------------------------------------------------------------------------------------------
    async def freeze(self, deadline: float, *, drain_until: float) -> None:
        """Closes the gate until `deadline`, once all holders have left; both times are on `Clock.boot`.

        If some still hold at `drain_until` the gate is open again and the answer is `OSSnapshotNotAllowed`, with
        their names in `data["holders"]`. Cancelled, it leaves the gate open.
        """
        with self._lock:
            self._refuse_latched()
            self._look()
            if self._phase is not _Phase.OPEN:
                raise JetError(Err.OSSnapshotInvalidSequence, "frozen already")
            self._turn += 1
            turn = self._turn
            self._phase, self._began = _Phase.DRAINING, self._clock.boot()
            self._deadline, self._until = deadline, min(drain_until, deadline)
            self._stuck, self._lost = (), None
            self._permits_waited = self._bytes = self._changes = 0
        try:
            hit("gate.draining")
            while not await self._drained(turn):
                pass
        except BaseException:
            with self._lock:
                if self._turn == turn and self._phase is not _Phase.OPEN:
                    self._open()
            raise

    def thaw(self) -> Verdict:
        """Opens the gate and says what became of the freeze. A freeze that timed out answers so once."""
        with self._lock:
            self._look()
            if self._phase is _Phase.FROZEN:
                self._lost = self._verdict(self._clock.boot(), timed_out=False)
            if self._phase is not _Phase.OPEN:
                self._open()
            verdict, self._lost = self._lost or Verdict(held=False), None
            return verdict

    def renew(self, deadline: float) -> bool:
        """A new deadline for the freeze that holds; False if none does (any more)."""
        with self._lock:
            self._look()
            if self._phase is not _Phase.FROZEN:
                return False
            self._deadline = self._until = deadline
            self._wake()
            return True

    def look(self) -> bool:
        """Whether it is frozen now. Whoever looks first after the deadline opens the gate and wakes the waiters."""
        with self._lock:
            self._look()
            return self._phase is _Phase.FROZEN

    def holders(self) -> list[str]:
        """Who holds permits now."""
        with self._lock:
            return sorted(permit.who for permit in self._holders)

    # -- entering and leaving ---------------------------------------------------------------------------------
    def _enter(self, permit: Permit) -> None:
        with self._lock:
            if self._admit(permit):
                return
            since = self._note_wait()
            while not self._admit(permit):
                self._changed.wait(self._patience())
        PERMIT_WAIT_SECONDS.observe(self._clock.boot() - since)

    async def _enter_async(self, permit: Permit) -> None:
        with self._lock:
            if self._admit(permit):
                return
            since = self._note_wait()
        while not await self._admitted(permit):
            pass
        PERMIT_WAIT_SECONDS.observe(self._clock.boot() - since)

    async def _admitted(self, permit: Permit) -> bool:
        with self._lock:
            if self._admit(permit):
                return True
            sleeper, patience = self._new_sleeper(), self._patience()
        await self._sleep(sleeper, patience)
        return False

    def _leave(self, permit: Permit) -> None:
        with self._lock:
            self._look()  # first: who leaves after the end of patience was too late, and is named
            self._holders.discard(permit)
            if self._phase is _Phase.DRAINING:
                self._freeze_if_drained()

    # -- under the lock ---------------------------------------------------------------------------------------
    def _refuse_latched(self) -> None:
        if self.latched is not None:
            raise JetError(Err.InstanceUnavailable, self.latched)

    def _admit(self, permit: Permit) -> bool:
        self._refuse_latched()
        if self._phase is not _Phase.OPEN and self._closed():
            return False
        self._holders.add(permit)
        return True

    def _closed(self) -> bool:
        self._look()
        return self._phase is not _Phase.OPEN

    def _look(self) -> None:
        if self._phase is not _Phase.OPEN and self._clock.boot() >= self._until:
            if self._phase is _Phase.FROZEN:
                self._lost = self._verdict(self._until, timed_out=True)
                FREEZE_TIMEOUTS.value += 1
            else:
                self._stuck = tuple(sorted(permit.who for permit in self._holders))
            self._open()

    def _freeze_if_drained(self) -> None:
        if not self._holders:
            now = self._clock.boot()
            DRAIN_SECONDS.observe(now - self._began)
            self._phase, self._began, self._until = _Phase.FROZEN, now, self._deadline
            self._wake()

    def _open(self) -> None:
        self._phase = _Phase.OPEN
        self._wake()

    def _verdict(self, ended: float, *, timed_out: bool) -> Verdict:
        seconds = max(0.0, ended - self._began)
        FREEZE_SECONDS.observe(seconds)
        return Verdict(
            held=not timed_out and self._changes == 0,
            timed_out=timed_out,
            held_ms=int(seconds * 1000),
            permits_waited=self._permits_waited,
            bytes_written=self._bytes,
            changes=self._changes,
        )

    # -- waiting ----------------------------------------------------------------------------------------------
    def _note_wait(self) -> float:
        self._permits_waited += 1
        PERMITS_WAITED.value += 1
        return self._clock.boot()

    def _patience(self) -> float:
        """Never long: the timers of threads and loops stand still while the machine sleeps, the deadline does not."""
        return min(max(self._until - self._clock.boot(), 0.0), GATE_LOOK_SECONDS)

    async def _drained(self, turn: int) -> bool:
        with self._lock:
            self._refuse_latched()
            if self._turn == turn and self._phase is _Phase.DRAINING:
                self._freeze_if_drained()
            self._look()
            if self._turn == turn and self._lost is not None:
                raise JetError(Err.OSSnapshotTimeOut, "the deadline passed before anybody knew of the freeze")
            if self._turn != turn or self._phase is _Phase.OPEN:
                holders = list(self._stuck)
                raise JetError(Err.OSSnapshotNotAllowed, f"still writing: {', '.join(holders) or 'nobody'}", holders=holders)
            if self._phase is _Phase.FROZEN:
                return True
            sleeper, patience = self._new_sleeper(), self._patience()
        await self._sleep(sleeper, patience)
        return False

    def _new_sleeper(self) -> tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]:
        loop = asyncio.get_running_loop()
        sleeper = (loop, loop.create_future())
        self._sleepers.add(sleeper)
        return sleeper

    async def _sleep(self, sleeper: tuple[asyncio.AbstractEventLoop, asyncio.Future[None]], seconds: float) -> None:
        try:
            await asyncio.wait({sleeper[1]}, timeout=seconds)
        finally:
            with self._lock:
                self._sleepers.discard(sleeper)

    def _wake(self) -> None:
        self._changed.notify_all()
        for loop, future in self._sleepers:
            with suppress(RuntimeError):  # a loop that was closed has nobody left to wake
                loop.call_soon_threadsafe(_finish, future)
        self._sleepers.clear()


def _finish(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
