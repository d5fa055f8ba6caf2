"""One freeze, from the first look at who stands in its way to the last closed gate; or undone, as if it had not been."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence

from msgspec.structs import replace

from jetwire_protocol.errors import Err, JetError
from jetwire_server.clock import Clock
from jetwire_server.failpoints import hit
from jetwire_server.snapshot.answers import Verdict
from jetwire_server.snapshot.manifest import DatabaseRow, FileRow, InstanceRow, LogRow, Manifest
from jetwire_server.snapshot.memo import FreezeMemo
from jetwire_server.snapshot.participant import Participant, Pinned
from jetwire_server.snapshot.session import SnapshotSession
from jetwire_server.snapshot.sessions import Sessions
from jetwire_server.snapshot.states import State


class Freezing:
    """Closes the gates of a session's instances, all or none. `settle` waits for what the server itself may be writing."""

    def __init__(self, clock: Clock, sessions: Sessions, memo: FreezeMemo, settle: Callable[[], Awaitable[None]]) -> None:
        self._clock = clock
        self._sessions = sessions
        self._memo = memo
        self._settle = settle

    async def freeze(self, session: SnapshotSession, max_drain_ms: int) -> Manifest:
        """Answers when nothing can be written any more. The session is freezing, and its `timeout_ms` says how long it may hold."""
        begun: list[Participant] = []
        pinned: dict[str, Pinned] = {}
        try:
            session.manifest = await self._close_gates(session, max_drain_ms, begun, pinned)
        except BaseException as error:
            for state in pinned.values():
                state.close()
            if session.state is State.FREEZING:  # else an abort has opened them, and they may be another session's by now
                open_gates(session, begun, self._clock.boot())
            for participant in begun:
                participant.freeze_over(session.id)
            try:
                await self._memo.clear(session.id)
            finally:
                if session.state is State.FREEZING:
                    session.holders = error.data.get("holders", []) if isinstance(error, JetError) else []
                    session.state = State.PREPARED if session.holders else State.FREEZE_FAILED
            code = error.code if isinstance(error, JetError) else Err.InternalError
            self._sessions.emit(2002, session, error=code)
            raise error
        session.state = State.FROZEN
        self._sessions.beside(_fill_digests(session, pinned))
        hit("snapshot.frozen")
        return session.manifest

    async def _close_gates(
        self, session: SnapshotSession, max_drain_ms: int, begun: list[Participant], pinned: dict[str, Pinned]
    ) -> Manifest:
        """The steps in order. `begun` and `pinned` say how far it came, for whoever must undo it."""
        began = self._clock.boot()
        for participant in session.participants:
            _refuse_obstacles(session, participant)
        marker_id = secrets.token_hex(8)
        self._sessions.emit(2001, session)
        for participant in session.participants:
            begun.append(participant)
            participant.freeze_began(session.id)
        hit("snapshot.freezing")
        # Everything that has to be written for the freeze is written before the first gate closes: all of it at once,
        # since each is a file replaced and synced.
        now = self._clock.now()
        written = await asyncio.gather(
            self._memo.remember(session.id, int(session.grbit), session.timeout_ms),
            *(p.mark(session.id, marker_id, now, logs_only=session.incremental) for p in session.participants),
            return_exceptions=True,
        )
        for failure in filter(None, written):
            raise failure
        _still_freezing(session)
        for participant in session.participants:
            self._sessions.emit(2001, session, participant)
        await self._settle()
        hit("snapshot.marked")
        # Looked at after every wait: an aborted session must not close a gate that may be another session's by now.
        _still_freezing(session)
        drain_until = began + max_drain_ms / 1000
        # The lease begins when the first gate closes; every gate gets the same deadline.
        session.freeze_began = self._clock.boot()
        session.deadline = session.freeze_began + session.timeout_ms / 1000
        hit("snapshot.draining")
        for participant in session.participants:
            await participant.gate.freeze(session.deadline, drain_until=drain_until)
            _still_freezing(session)
        hit("snapshot.closed")
        for participant in session.participants:
            await participant.seal()
            _still_freezing(session)
        hit("snapshot.sealed")
        if not all(p.gate.look() for p in session.participants):
            raise JetError(Err.OSSnapshotTimeOut, "the lease ended before the freeze was complete", timeoutMs=session.timeout_ms)
        manifest = _describe(session, marker_id, self._clock.now())
        for participant in session.participants:
            pinned[participant.info().name] = await participant.pin()
            _still_freezing(session)
        return manifest


def open_gates(session: SnapshotSession, participants: Sequence[Participant], now: float) -> Verdict:
    """Opens every gate. Each says whether it was closed all the time and how much was written meanwhile."""
    waited = sum(p.commits_waiting() for p in participants)
    outcomes = [p.gate.thaw() for p in participants]
    held_ms = min((o.held_ms for o in outcomes), default=int((now - session.freeze_began) * 1000))
    return Verdict(all(o.held for o in outcomes), held_ms, waited, sum(o.bytes_written for o in outcomes))


def _still_freezing(session: SnapshotSession) -> None:
    if session.state is not State.FREEZING:
        raise JetError(Err.OSSnapshotInvalidSequence, "the session was aborted while it froze")


def _refuse_obstacles(session: SnapshotSession, participant: Participant) -> None:
    if obstacle := participant.obstacle():
        raise JetError(Err.OSSnapshotNotAllowed, obstacle)
    if session.incremental:
        if participant.circular_logging():
            raise JetError(Err.InvalidBackup, "an incremental snapshot needs logs that circular logging removes")
        if participant.last_full() is None:
            raise JetError(Err.MissingFullBackup, f"no full snapshot of every database of {participant.info().name} yet")


def _describe(session: SnapshotSession, marker_id: str, now: float) -> Manifest:
    """What is O(files): at once, while nothing moves."""
    rows: list[InstanceRow] = []
    for participant in session.participants:
        log = participant.log_range()
        info = participant.info()
        rows.append(
            InstanceRow(
                info.name,
                tuple(FileRow(f.path, f.size) for f in participant.files(logs_only=session.incremental)),
                LogRow(log.low, log.high, log.position),
                tuple(DatabaseRow(name) for name in info.databases),
            )
        )
    return Manifest(session.id, marker_id, now, tuple(rows))


async def _fill_digests(session: SnapshotSession, pinned: Mapping[str, Pinned]) -> None:
    """What is O(data): from snapshots that were pinned while frozen, whatever happens since."""
    found = {}
    try:
        for name, state in pinned.items():
            found[name] = tuple(DatabaseRow(d.name, d.tables, d.records, d.digest) for d in await state.digests())
    finally:
        for state in pinned.values():
            state.close()
    manifest = session.manifest
    assert manifest is not None
    session.manifest = replace(manifest, instances=tuple(replace(row, databases=found[row.name]) for row in manifest.instances))
