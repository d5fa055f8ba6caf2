"""The snapshot calls by name, for the whole server: one session at a time."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress

from jetwire_protocol.data.events import EVENTS
from jetwire_protocol.data.flags import OSSnapshotEndGrbit, OSSnapshotPrepareGrbit, OSSnapshotTruncateLogGrbit
from jetwire_protocol.errors import Err, JetError
from jetwire_server import limits
from jetwire_server.clock import Clock
from jetwire_server.events import Event, EventLog
from jetwire_server.failpoints import hit
from jetwire_server.metrics import Counter
from jetwire_server.snapshot import truncation
from jetwire_server.snapshot.answers import Frozen, Status, Verdict
from jetwire_server.snapshot.freezing import describe, fill_digests, refuse_obstacles
from jetwire_server.snapshot.memo import FreezeMemo
from jetwire_server.snapshot.participant import InstanceInfo, Participant, Stamp
from jetwire_server.snapshot.session import SnapshotSession
from jetwire_server.snapshot.states import Call, State

FORGOTTEN = Counter("jetwire_snapshots_forgotten_total", "Sessions aborted because nobody spoke of them any more.")

_LOOK_SECONDS = 1.0  # how often a session that is not frozen is looked at: it may be forgotten
_PREPARE_BITS = int(
    OSSnapshotPrepareGrbit.IncrementalSnapshot
    | OSSnapshotPrepareGrbit.CopySnapshot
    | OSSnapshotPrepareGrbit.ContinueAfterThaw
    | OSSnapshotPrepareGrbit.ExplicitPrepare
)


class SnapshotService:
    """One for the server.

    `participants` lists the initialised instances, `timeout_ms` reads parameter 82, and `settle` waits for what the
    server itself may be writing beside its instances; whoever writes there looks at `holding` first.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        events: EventLog,
        participants: Callable[[], Sequence[Participant]],
        timeout_ms: Callable[[], int],
        memo: FreezeMemo,
        settle: Callable[[], Awaitable[None]],
    ) -> None:
        self._clock = clock
        self._events = events
        self._participants = participants
        self._timeout_ms = timeout_ms
        self._memo = memo
        self._settle = settle
        self._session: SnapshotSession | None = None
        # Sessions that timed out and were pushed aside by a new Prepare: each still answers the time-out once.
        self._lingering: dict[int, SnapshotSession] = {}
        self._watch: asyncio.Task[None] | None = None
        self._background: set[asyncio.Task[None]] = set()
        self._last_id = 0

    # -- start and stop ---------------------------------------------------------------------------------------
    async def start(self) -> None:
        """A freeze that was in force when the server died was lost, since recovery writes: its snapId says so."""
        lost = await self._memo.take()
        if lost is not None:
            session = SnapshotSession(
                lost.snap_id, OSSnapshotPrepareGrbit(lost.grbit), [], state=State.TIMED_OUT, timeout_ms=lost.timeout_ms
            )
            self._session = session
            self._last_id = lost.snap_id
            self._emit(2004, session, timeoutMs=lost.timeout_ms)

    async def stop(self) -> None:
        """Stops watching. What is frozen stays frozen until its deadline or the end of the process."""
        for task in [self._watch, *self._background]:
            if task is not None:
                task.cancel()
        await asyncio.gather(*(t for t in [self._watch, *self._background] if t), return_exceptions=True)

    # -- the calls --------------------------------------------------------------------------------------------
    def prepare(self, grbit: int = 0, *, owner: object | None = None) -> int:
        """Begins a session. With an owner (a connection) it is aborted when that closes, whatever its state."""
        if grbit & ~_PREPARE_BITS:
            raise JetError(Err.InvalidParameter, "unknown bits in grbit")
        hit("snapshot.preparing")
        self._notice()
        current = self._session
        if current is not None and current.state is not State.TIMED_OUT:
            raise JetError(Err.OSSnapshotInvalidSequence, "a snapshot session is in progress", state=current.state.value)
        if current is not None:
            self._lingering[current.id] = current
            while len(self._lingering) > limits.SNAPSHOTS_TIMED_OUT_KEPT:
                del self._lingering[next(iter(self._lingering))]
        flags = OSSnapshotPrepareGrbit(grbit)
        explicit = bool(flags & OSSnapshotPrepareGrbit.ExplicitPrepare)
        session = SnapshotSession(self._new_id(), flags, [] if explicit else list(self._participants()), explicit=explicit, owner=owner)
        session.heard = self._clock.boot()
        self._session = session
        self._watch = asyncio.create_task(self._keep_watch(session), name=f"snapshot {session.id}")
        self._emit(session.prepare_event, session)
        hit("snapshot.prepared")
        return session.id

    def prepare_instance(self, snap_id: int, instance: int, grbit: int = 0) -> None:
        self._no_bits(grbit, Err.InvalidParameter)
        session = self._find(snap_id)
        session.look_up(Call.PREPARE_INSTANCE)
        chosen = next((p for p in self._participants() if p.info().handle == instance), None)
        if chosen is None:
            raise JetError(Err.InvalidInstance, f"no initialised instance {instance}")
        if obstacle := chosen.obstacle():
            raise JetError(Err.OSSnapshotNotAllowed, obstacle)
        if not session.explicit:
            session.explicit = True
            session.participants.clear()
        if chosen in session.participants:
            raise JetError(Err.OSSnapshotNotAllowed, f"instance {chosen.info().name} already belongs to the session")
        session.participants.append(chosen)
        session.step(Call.PREPARE_INSTANCE)

    async def freeze(
        self, snap_id: int, grbit: int = 0, *, lease_ms: int | None = None, max_drain_ms: int = 5_000, owner: object | None = None
    ) -> Frozen:
        """Closes the gates of the session's instances, all or none, and answers when nothing can be written any more."""
        self._no_bits(grbit, Err.InvalidParameter)
        session = self._find(snap_id)
        hit("snapshot.asked")
        lease_ms = min(self._timeout_ms(), limits.FREEZE_MS_MAX) if lease_ms is None else lease_ms
        if not 0 <= lease_ms <= limits.FREEZE_MS_MAX or max_drain_ms < 0:
            raise JetError(Err.InvalidParameter, f"leaseMs is 0 to {limits.FREEZE_MS_MAX}, maxDrainMs not negative")
        session.step(Call.FREEZE)
        session.timeout_ms = lease_ms
        session.owner = owner or session.owner
        session.holders = []
        begun: list[Participant] = []
        try:
            return await self._freeze(session, lease_ms, max_drain_ms, begun)
        except BaseException as error:
            if session.state is State.FREEZING:  # else an abort has opened them, and they may be another session's by now
                self._release(session, begun)
            for participant in begun:
                participant.freeze_over(session.id)
            try:
                await self._memo.clear(session.id)
            finally:
                if session.state is State.FREEZING:
                    session.holders = error.data.get("holders", []) if isinstance(error, JetError) else []
                    session.state = State.PREPARED if session.holders else State.FREEZE_FAILED
            code = error.code if isinstance(error, JetError) else Err.InternalError
            self._emit(2002, session, error=code)
            raise error

    async def _freeze(self, session: SnapshotSession, lease_ms: int, max_drain_ms: int, begun: list[Participant]) -> Frozen:
        began = self._clock.boot()
        for participant in session.participants:
            refuse_obstacles(session, participant)
        marker_id = secrets.token_hex(8)
        self._emit(2001, session)
        for participant in session.participants:
            begun.append(participant)
            participant.freeze_began(session.id)
        hit("snapshot.freezing")
        # Everything that has to be written for the freeze is written before the first gate closes: all of it at once,
        # since each is a file replaced and synced.
        now = self._clock.now()
        written = await asyncio.gather(
            self._memo.remember(session.id, int(session.grbit), lease_ms),
            *(p.mark(session.id, marker_id, now) for p in session.participants),
            return_exceptions=True,
        )
        for failure in filter(None, written):
            raise failure
        self._still_freezing(session)
        for participant in session.participants:
            self._emit(2001, session, participant)
        await self._settle()
        hit("snapshot.marked")
        # Looked at after every wait: an aborted session must not close a gate that may be another session's by now.
        self._still_freezing(session)
        drain_until = began + max_drain_ms / 1000
        # The lease begins when the first gate closes; every gate gets the same deadline.
        session.freeze_began = self._clock.boot()
        session.deadline = session.freeze_began + lease_ms / 1000
        hit("snapshot.draining")
        for participant in session.participants:
            await participant.gate.freeze(session.deadline, drain_until=drain_until)
            self._still_freezing(session)
        hit("snapshot.closed")
        for participant in session.participants:
            await participant.seal()
            self._still_freezing(session)
        hit("snapshot.sealed")
        if not all(p.gate.look() for p in session.participants):
            raise JetError(Err.OSSnapshotTimeOut, "the lease ended before the freeze was complete", timeoutMs=lease_ms)
        session.manifest = describe(session, marker_id, self._clock.now())
        pinned = {p.info().name: await p.pin_digests() for p in session.participants}
        self._still_freezing(session)
        session.state = State.FROZEN
        self._spawn(fill_digests(session, pinned))
        hit("snapshot.frozen")
        return Frozen(
            [p.info() for p in session.participants],
            session.manifest,
            self._clock.now() + session.deadline - self._clock.boot(),
            self._remaining_ms(session),
        )

    async def thaw(self, snap_id: int, grbit: int = 0) -> Verdict:
        self._no_bits(grbit, Err.InvalidParameter)
        session = self._find(snap_id)
        session.look_up(Call.THAW)
        hit("snapshot.thawing")
        verdict = self._release(session, session.participants)
        hit("snapshot.released")
        if not verdict.held and session.state is State.FROZEN:
            self._time_out(session)
        try:
            session.step(Call.THAW)
        except JetError:
            self._finish(session, well=False)
            await self._memo.clear(session.id)
            raise
        session.verdict = verdict
        hit("snapshot.thawed")
        # Not to be left half-way by a caller who hangs up: a session that ends with its thaw must end.
        await asyncio.shield(self._after_thaw(session, verdict))
        return verdict

    async def _after_thaw(self, session: SnapshotSession, verdict: Verdict) -> None:
        # Who waited comes first: the memo and the event table are other files on the same disk, and a sync of theirs holds up the log's.
        if verdict.commits_waited:
            with suppress(TimeoutError):
                async with asyncio.timeout(limits.THAW_COURTESY_SECONDS):
                    await asyncio.gather(*(p.let_out() for p in session.participants), return_exceptions=True)
        self._emit(2003, session, None, **verdict.to_wire())
        await self._memo.clear(session.id)
        if session.continues_after_thaw or session.over:
            return
        try:
            await self._stamp(session)
        finally:
            if not session.over:
                session.step(Call.END)
                self._finish(session, well=True)

    async def abort(self, snap_id: int, grbit: int = 0) -> None:
        self._no_bits(grbit, Err.InvalidParameter)
        await self._abort(self._find(snap_id))

    async def end(self, snap_id: int, grbit: int = 0) -> None:
        if grbit & ~int(OSSnapshotEndGrbit.AbortSnapshot):
            raise JetError(Err.InvalidGrbit, "unknown bits in grbit")
        session = self._find(snap_id)
        if grbit:
            await self._abort(session)
            return
        hit("snapshot.ending")
        froze = session.verdict is not None
        try:
            session.step(Call.END)
        finally:
            if session.over:
                self._finish(session, well=session.state is State.ENDED)
        hit("snapshot.ended")
        if froze:
            await self._stamp(session)
        hit("snapshot.stamped")

    def get_freeze_info(self, snap_id: int, grbit: int = 0) -> list[InstanceInfo]:
        self._no_bits(grbit, Err.InvalidGrbit)
        session = self._find(snap_id)
        session.look_up(Call.GET_FREEZE_INFO)
        return [p.info() for p in session.participants]

    async def truncate_log(self, snap_id: int, grbit: int = 0, instance: int | None = None) -> None:
        if grbit & ~int(OSSnapshotTruncateLogGrbit.AllDatabasesSnapshot):
            raise JetError(Err.InvalidGrbit, "unknown bits in grbit")
        session = self._find(snap_id)
        session.look_up(Call.TRUNCATE)
        if session.copy:
            raise JetError(Err.OSSnapshotInvalidSequence, "a copy snapshot truncates no log")
        chosen = [p for p in session.participants if instance is None or p.info().handle == instance]
        if instance is not None and not chosen:
            raise JetError(Err.InvalidInstance, f"instance {instance} is not part of the session")
        hit("snapshot.truncate")
        for participant in chosen:
            for event, args in await truncation.truncate(participant, all_databases=bool(grbit)):
                self._emit(event, session, participant, **args)
        session.step(Call.TRUNCATE)
        hit("snapshot.truncated")

    def renew(self, snap_id: int, lease_ms: int) -> float:
        """A new lease from now; returns the new deadline (seconds since the epoch)."""
        session = self._find(snap_id)
        session.look_up(Call.RENEW)
        if lease_ms < 0:
            raise JetError(Err.InvalidParameter, "leaseMs is not negative")
        last = session.freeze_began + limits.FREEZE_MS_MAX / 1000
        deadline = min(self._clock.boot() + lease_ms / 1000, last)
        if not all(p.gate.renew(deadline) for p in session.participants):
            self._notice()
            raise JetError(Err.OSSnapshotInvalidSequence, "the freeze is over")
        session.deadline = deadline
        return self._clock.now() + deadline - self._clock.boot()

    def status(self) -> Status:
        hit("snapshot.status")
        self._notice()
        session = self._session
        if session is None:
            return Status("none", None, [], 0, 0, 0, [], None)
        frozen = session.state is State.FROZEN
        return Status(
            "prepared" if session.state is State.FREEZE_FAILED else session.state.value,
            session.id,
            [p.info() for p in session.participants],
            int((self._clock.boot() - session.freeze_began) * 1000) if frozen else 0,
            self._remaining_ms(session) if frozen else 0,
            sum(p.commits_waiting() for p in session.participants),
            session.holders,
            session.manifest,
        )

    @property
    def holding(self) -> bool:
        """Whether a freeze is coming or in force: nobody begins to write a file of the server's own."""
        self._notice()
        return self._session is not None and self._session.state in (State.FREEZING, State.FROZEN)

    async def connection_closed(self, owner: object) -> None:
        """A session bound to a connection is aborted with it; any other outlives it, up to its deadline."""
        session = self._session
        if session is not None and session.owner is owner and not session.over and owner is not None:
            await self._abort(session)

    # -- within -----------------------------------------------------------------------------------------------
    def _find(self, snap_id: int) -> SnapshotSession:
        self._notice()
        if self._session is not None and self._session.id == snap_id:
            self._session.heard = self._clock.boot()
            return self._session
        if snap_id in self._lingering:
            return self._lingering[snap_id]
        raise JetError(Err.OSSnapshotInvalidSnapId, f"no snapshot session {snap_id}")

    def _new_id(self) -> int:
        """Never given twice, not even across restarts: the old server's ids are older than this one's clock."""
        self._last_id = max(self._last_id + 1, int(self._clock.now() * 1000))
        return self._last_id

    @staticmethod
    def _no_bits(grbit: int, code: Err) -> None:
        if grbit:
            raise JetError(code, "grbit is reserved and must be 0")

    @staticmethod
    def _still_freezing(session: SnapshotSession) -> None:
        if session.state is not State.FREEZING:
            raise JetError(Err.OSSnapshotInvalidSequence, "the session was aborted while it froze")

    def _release(self, session: SnapshotSession, participants: Sequence[Participant]) -> Verdict:
        """Opens every gate. Each says whether it was closed all the time and how much was written meanwhile."""
        waited = sum(p.commits_waiting() for p in participants)
        outcomes = [p.gate.thaw() for p in participants]
        held_ms = min((o.held_ms for o in outcomes), default=int((self._clock.boot() - session.freeze_began) * 1000))
        return Verdict(all(o.held for o in outcomes), held_ms, waited, sum(o.bytes_written for o in outcomes))

    def _remaining_ms(self, session: SnapshotSession) -> int:
        return max(0, int((session.deadline - self._clock.boot()) * 1000))

    def _notice(self) -> None:
        """What time has done to the session: its freeze is over, or nobody knows of it any more."""
        session = self._session
        if session is None:
            return
        if session.state is State.FROZEN and self._clock.boot() >= session.deadline:
            self._time_out(session)
        elif session.forgotten(self._clock.boot()):
            FORGOTTEN.value += 1
            session.step(Call.ABORT)
            self._finish(session, well=False, reason="forgotten")

    def _time_out(self, session: SnapshotSession) -> None:
        session.state = State.TIMED_OUT
        self._emit(2004, session, timeoutMs=session.timeout_ms)
        for participant in session.participants:
            participant.gate.thaw()
            participant.freeze_over(session.id)
        session.participants = []
        self._spawn(self._memo.clear(session.id))

    async def _keep_watch(self, session: SnapshotSession) -> None:
        while self._session is session and session.state is not State.TIMED_OUT:
            # The loop's timers stand still while the machine sleeps; deadlines do not.
            left = max(0.001, session.deadline - self._clock.boot())  # less than the loop can tell apart would spin
            await asyncio.sleep(min(left, limits.GATE_LOOK_SECONDS) if session.state is State.FROZEN else _LOOK_SECONDS)
            self._notice()

    async def _abort(self, session: SnapshotSession) -> None:
        session.look_up(Call.ABORT)
        self._release(session, session.participants)
        session.step(Call.ABORT)
        self._finish(session, well=False)
        await self._memo.clear(session.id)

    def _finish(self, session: SnapshotSession, *, well: bool, **why: str) -> None:
        for participant in session.participants:
            participant.freeze_over(session.id)
        if well:
            self._emit(2006, session)
        else:
            self._emit(2007, session, None, **why)
        self._lingering.pop(session.id, None)
        if self._session is not session:
            return  # one that timed out long ago: the watch is another's
        self._session = None
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None

    async def _stamp(self, session: SnapshotSession) -> None:
        """A full snapshot that ended well is what an incremental one continues; a copy leaves no trace."""
        if session.copy or session.manifest is None:
            return
        for participant, row in zip(session.participants, session.manifest.instances, strict=True):
            await participant.stamp(
                Stamp(session.id, session.kind, session.manifest.time, row.log.position, tuple(d.name for d in row.databases))
            )

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    def _emit(self, event_id: int, session: SnapshotSession, participant: Participant | None = None, **args: object) -> None:
        name, severity, _ = EVENTS[event_id]
        instance = participant.info().name if participant else ""
        self._events.emit(Event(event_id, name, severity or "information", self._clock.now(), instance, {"snapId": session.id, **args}))
