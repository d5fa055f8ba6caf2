"""The snapshot calls by name, for the whole server: one session at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

from jetwire_protocol.data.flags import OSSnapshotEndGrbit, OSSnapshotPrepareGrbit, OSSnapshotTruncateLogGrbit
from jetwire_protocol.errors import Err, JetError
from jetwire_server import limits
from jetwire_server.clock import Clock
from jetwire_server.events import EventLog
from jetwire_server.failpoints import hit
from jetwire_server.snapshot import truncation
from jetwire_server.snapshot.answers import Frozen, Status, Verdict
from jetwire_server.snapshot.freezing import Freezing, open_gates
from jetwire_server.snapshot.memo import FreezeMemo
from jetwire_server.snapshot.participant import InstanceInfo, Participant, Stamp
from jetwire_server.snapshot.session import SnapshotSession
from jetwire_server.snapshot.sessions import Sessions
from jetwire_server.snapshot.states import Call, State

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
        self._participants = participants
        self._timeout_ms = timeout_ms
        self._memo = memo
        self.sessions = Sessions(clock, events, memo)
        self._freezing = Freezing(clock, self.sessions, memo, settle)

    # -- the calls --------------------------------------------------------------------------------------------
    def prepare(self, grbit: int = 0, *, owner: object | None = None) -> int:
        """Begins a session. With an owner (a connection) it is aborted when that closes, whatever its state."""
        if grbit & ~_PREPARE_BITS:
            raise JetError(Err.InvalidParameter, "unknown bits in grbit")
        hit("snapshot.preparing")
        session = self.sessions.begin(OSSnapshotPrepareGrbit(grbit), self._participants(), owner)
        hit("snapshot.prepared")
        return session.id

    def prepare_instance(self, snap_id: int, instance: int, grbit: int = 0) -> None:
        self._no_bits(grbit, Err.InvalidParameter)
        session = self.sessions.find(snap_id)
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
        session = self.sessions.find(snap_id)
        hit("snapshot.asked")
        lease_ms = min(self._timeout_ms(), limits.FREEZE_MS_MAX) if lease_ms is None else lease_ms
        if not 0 <= lease_ms <= limits.FREEZE_MS_MAX or max_drain_ms < 0:
            raise JetError(Err.InvalidParameter, f"leaseMs is 0 to {limits.FREEZE_MS_MAX}, maxDrainMs not negative")
        session.step(Call.FREEZE)
        session.timeout_ms = lease_ms
        session.owner = owner or session.owner
        session.holders = []
        manifest = await self._freezing.freeze(session, max_drain_ms)
        return Frozen(
            [p.info() for p in session.participants],
            manifest,
            self._clock.now() + session.deadline - self._clock.boot(),
            self._remaining_ms(session),
        )

    async def thaw(self, snap_id: int, grbit: int = 0) -> Verdict:
        self._no_bits(grbit, Err.InvalidParameter)
        session = self.sessions.find(snap_id)
        session.look_up(Call.THAW)
        hit("snapshot.thawing")
        verdict = open_gates(session, session.participants, self._clock.boot())
        hit("snapshot.released")
        if not verdict.held and session.state is State.FROZEN:
            self.sessions.time_out(session)
        try:
            session.step(Call.THAW)
        except JetError:
            self.sessions.finish(session, well=False)
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
        self.sessions.emit(2003, session, None, **verdict.to_wire())
        await self._memo.clear(session.id)
        if session.continues_after_thaw or session.over:
            return
        try:
            await self._stamp(session)
        finally:
            if not session.over:
                session.step(Call.END)
                self.sessions.finish(session, well=True)

    async def abort(self, snap_id: int, grbit: int = 0) -> None:
        self._no_bits(grbit, Err.InvalidParameter)
        await self._abort(self.sessions.find(snap_id))

    async def end(self, snap_id: int, grbit: int = 0) -> None:
        if grbit & ~int(OSSnapshotEndGrbit.AbortSnapshot):
            raise JetError(Err.InvalidGrbit, "unknown bits in grbit")
        session = self.sessions.find(snap_id)
        if grbit:
            await self._abort(session)
            return
        hit("snapshot.ending")
        froze = session.verdict is not None
        try:
            session.step(Call.END)
        finally:
            if session.over:
                self.sessions.finish(session, well=session.state is State.ENDED)
        hit("snapshot.ended")
        if froze:
            await self._stamp(session)
        hit("snapshot.stamped")

    def get_freeze_info(self, snap_id: int, grbit: int = 0) -> list[InstanceInfo]:
        self._no_bits(grbit, Err.InvalidGrbit)
        session = self.sessions.find(snap_id)
        session.look_up(Call.GET_FREEZE_INFO)
        return [p.info() for p in session.participants]

    async def truncate_log(self, snap_id: int, grbit: int = 0, instance: int | None = None) -> None:
        if grbit & ~int(OSSnapshotTruncateLogGrbit.AllDatabasesSnapshot):
            raise JetError(Err.InvalidGrbit, "unknown bits in grbit")
        session = self.sessions.find(snap_id)
        session.look_up(Call.TRUNCATE)
        if session.copy:
            raise JetError(Err.OSSnapshotInvalidSequence, "a copy snapshot truncates no log")
        chosen = [p for p in session.participants if instance is None or p.info().handle == instance]
        if instance is not None and not chosen:
            raise JetError(Err.InvalidInstance, f"instance {instance} is not part of the session")
        hit("snapshot.truncate")
        for participant in chosen:
            for event, args in await truncation.truncate(participant, all_databases=bool(grbit)):
                self.sessions.emit(event, session, participant, **args)
        session.step(Call.TRUNCATE)
        hit("snapshot.truncated")

    def renew(self, snap_id: int, lease_ms: int) -> float:
        """A new lease from now; returns the new deadline (seconds since the epoch)."""
        session = self.sessions.find(snap_id)
        session.look_up(Call.RENEW)
        if lease_ms < 0:
            raise JetError(Err.InvalidParameter, "leaseMs is not negative")
        last = session.freeze_began + limits.FREEZE_MS_MAX / 1000
        deadline = min(self._clock.boot() + lease_ms / 1000, last)
        if not all(p.gate.renew(deadline) for p in session.participants):
            self.sessions.notice()
            raise JetError(Err.OSSnapshotInvalidSequence, "the freeze is over")
        session.deadline = deadline
        return self._clock.now() + deadline - self._clock.boot()

    def status(self) -> Status:
        hit("snapshot.status")
        self.sessions.notice()
        session = self.sessions.current
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
        self.sessions.notice()
        return self.sessions.current is not None and self.sessions.current.state in (State.FREEZING, State.FROZEN)

    async def connection_closed(self, owner: object) -> None:
        """A session bound to a connection is aborted with it; any other outlives it, up to its deadline."""
        session = self.sessions.current
        if session is not None and session.owner is owner and not session.over and owner is not None:
            await self._abort(session)

    # -- within -----------------------------------------------------------------------------------------------
    @staticmethod
    def _no_bits(grbit: int, code: Err) -> None:
        if grbit:
            raise JetError(code, "grbit is reserved and must be 0")

    def _remaining_ms(self, session: SnapshotSession) -> int:
        return max(0, int((session.deadline - self._clock.boot()) * 1000))

    async def _abort(self, session: SnapshotSession) -> None:
        session.look_up(Call.ABORT)
        open_gates(session, session.participants, self._clock.boot())
        session.step(Call.ABORT)
        self.sessions.finish(session, well=False)
        await self._memo.clear(session.id)

    async def _stamp(self, session: SnapshotSession) -> None:
        """A full snapshot that ended well is what an incremental one continues; a copy leaves no trace."""
        if session.copy or session.manifest is None:
            return
        for participant, row in zip(session.participants, session.manifest.instances, strict=True):
            await participant.stamp(
                Stamp(session.id, session.kind, session.manifest.time, row.log.position, tuple(d.name for d in row.databases))
            )
