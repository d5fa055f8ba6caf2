"""Which snapshot sessions there are: the one in force, those that timed out before it, and what time does to them."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence

from jetwire_protocol.data.events import EVENTS
from jetwire_protocol.data.flags import OSSnapshotPrepareGrbit
from jetwire_protocol.errors import Err, JetError
from jetwire_server import limits
from jetwire_server.clock import Clock
from jetwire_server.events import Event, EventLog
from jetwire_server.metrics import Counter
from jetwire_server.snapshot.memo import FreezeMemo
from jetwire_server.snapshot.participant import Participant
from jetwire_server.snapshot.session import SnapshotSession
from jetwire_server.snapshot.states import Call, State

FORGOTTEN = Counter("jetwire_snapshots_forgotten_total", "Sessions aborted because nobody spoke of them any more.")

_LOOK_SECONDS = 1.0  # how often a session that is not frozen is looked at: it may be forgotten


class Sessions:
    """One session at a time, as `current`. Whoever looks at it calls `notice` first."""

    def __init__(self, clock: Clock, events: EventLog, memo: FreezeMemo) -> None:
        self.current: SnapshotSession | None = None
        self._clock = clock
        self._events = events
        self._memo = memo
        # Sessions that timed out and were pushed aside by a new one: each still answers the time-out once.
        self._lingering: dict[int, SnapshotSession] = {}
        self._watch: asyncio.Task[None] | None = None
        self._background: set[asyncio.Task[None]] = set()
        self._last_id = 0

    # -- begin and end ----------------------------------------------------------------------------------------
    async def start(self) -> None:
        """A freeze that was in force when the server died was lost, since recovery writes: its snapId says so."""
        lost = await self._memo.take()
        if lost is not None:
            self._last_id = lost.snap_id
            flags = OSSnapshotPrepareGrbit(lost.grbit)
            self.current = SnapshotSession(lost.snap_id, flags, [], state=State.TIMED_OUT, timeout_ms=lost.timeout_ms)
            self.emit(2004, self.current, timeoutMs=lost.timeout_ms)

    async def stop(self) -> None:
        """Stops watching. What is frozen stays frozen until its deadline or the end of the process."""
        tasks = [task for task in (self._watch, *self._background) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def begin(self, flags: OSSnapshotPrepareGrbit, participants: Sequence[Participant], owner: object | None) -> SnapshotSession:
        self.notice()
        timed_out = self.current
        if timed_out is not None:
            if timed_out.state is not State.TIMED_OUT:
                raise JetError(Err.OSSnapshotInvalidSequence, "a snapshot session is in progress", state=timed_out.state.value)
            self._lingering[timed_out.id] = timed_out
            while len(self._lingering) > limits.SNAPSHOTS_TIMED_OUT_KEPT:
                del self._lingering[next(iter(self._lingering))]
        explicit = bool(flags & OSSnapshotPrepareGrbit.ExplicitPrepare)
        session = SnapshotSession(self._new_id(), flags, [] if explicit else list(participants), explicit=explicit, owner=owner)
        session.heard = self._clock.boot()
        self.current = session
        self._watch = asyncio.create_task(self._keep_watch(session), name=f"snapshot {session.id}")
        self.emit(session.prepare_event, session)
        return session

    def _new_id(self) -> int:
        """Never given twice, not even across restarts: the old server's ids are older than this one's clock."""
        self._last_id = max(self._last_id + 1, int(self._clock.now() * 1000))
        return self._last_id

    def find(self, snap_id: int) -> SnapshotSession:
        self.notice()
        if self.current is not None and self.current.id == snap_id:
            self.current.heard = self._clock.boot()
            return self.current
        if snap_id in self._lingering:
            return self._lingering[snap_id]
        raise JetError(Err.OSSnapshotInvalidSnapId, f"no snapshot session {snap_id}")

    def finish(self, session: SnapshotSession, *, well: bool, **why: str) -> None:
        """The session is over: its instances are free, and its snapId is dead."""
        for participant in session.participants:
            participant.freeze_over(session.id)
        self.emit(2006 if well else 2007, session, None, **why)
        self._lingering.pop(session.id, None)
        if self.current is not session:
            return  # one that timed out long ago: the watch is another's
        self.current = None
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None

    # -- what time does ---------------------------------------------------------------------------------------
    def notice(self) -> None:
        """The current session's freeze may be over by now, or nobody may know of it any more."""
        session = self.current
        if session is None:
            return
        if session.state is State.FROZEN and self._clock.boot() >= session.deadline:
            self.time_out(session)
        elif session.forgotten(self._clock.boot()):
            FORGOTTEN.value += 1
            session.step(Call.ABORT)
            self.finish(session, well=False, reason="forgotten")

    def time_out(self, session: SnapshotSession) -> None:
        session.state = State.TIMED_OUT
        self.emit(2004, session, timeoutMs=session.timeout_ms)
        for participant in session.participants:
            participant.gate.thaw()
            participant.freeze_over(session.id)
        session.participants = []
        self.beside(self._memo.clear(session.id))

    async def _keep_watch(self, session: SnapshotSession) -> None:
        while self.current is session and session.state is not State.TIMED_OUT:
            # The loop's timers stand still while the machine sleeps; deadlines do not.
            left = max(0.001, session.deadline - self._clock.boot())  # less than the loop can tell apart would spin
            await asyncio.sleep(min(left, limits.GATE_LOOK_SECONDS) if session.state is State.FROZEN else _LOOK_SECONDS)
            self.notice()

    # -- beside them ------------------------------------------------------------------------------------------
    def beside(self, work: Coroutine[None, None, None]) -> None:
        """Work of a session that nobody waits for."""
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    def emit(self, event_id: int, session: SnapshotSession, participant: Participant | None = None, **args: object) -> None:
        name, severity, _ = EVENTS[event_id]
        instance = participant.info().name if participant else ""
        self._events.emit(Event(event_id, name, severity or "information", self._clock.now(), instance, {"snapId": session.id, **args}))
