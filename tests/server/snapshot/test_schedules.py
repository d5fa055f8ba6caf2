"""Snapshot sessions on real gates in simulated time: thousands of random schedules, each repeatable by its seed.

In every schedule there are writers that take permits, some callers that know no manners, slow and failing marks and
seals, a loop that is blocked now and then (the clock jumps), cancelled calls, connections that close, a restart.
What must hold is said at `World`; the controls break the gate and must be caught.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine

import pytest

from jetwire_protocol.data.flags import OSSnapshotPrepareGrbit as P
from jetwire_protocol.errors import Err, JetError
from jetwire_server.clock import ManualClock
from jetwire_server.events import EventLog
from jetwire_server.files.gate import Gate
from jetwire_server.files.memory import MemoryFiles
from jetwire_server.snapshot.memo import FreezeMemo
from jetwire_server.snapshot.service import SnapshotService
from jetwire_server.snapshot.sessions import Sessions
from jetwire_server.snapshot.states import OVER, TABLE, Call, State
from tests.support.participants import FakeInstance
from tests.support.simulated import run

SCHEDULES = 200
STEPS = 25
LEASES_MS = (0, 1, 40, 200, 1_000)
GRBITS = (0, P.ContinueAfterThaw, P.CopySnapshot, P.CopySnapshot | P.ContinueAfterThaw)
LATE_SECONDS = 0.1
CALL_SECONDS = 6.0  # at most: a freeze waits five for writers to leave

# What a call may answer where the table lets it through: the reasons that lie outside the session.
OUTSIDE = {
    Call.FREEZE: {Err.OSSnapshotNotAllowed, Err.OSSnapshotInvalidSequence, Err.OSSnapshotTimeOut, Err.DiskIO},
    Call.RENEW: {Err.OSSnapshotInvalidSequence},
    Call.THAW: {Err.OSSnapshotTimeOut},
    Call.TRUNCATE: {Err.OSSnapshotInvalidSequence},  # a copy
}


class Member(FakeInstance):
    """An instance whose marks and seals take their time, and fail at times; it notes when it was written to."""

    def __init__(self, handle: int, clock: ManualClock, chance: random.Random) -> None:
        super().__init__(handle, clock)
        self.clock = clock
        self.chance = chance
        self.written: list[float] = []

    def write(self) -> None:
        self.gate.wrote(100)
        self.written.append(self.clock.boot())

    async def _slowly(self, failing: float) -> None:
        if self.chance.random() < 0.4:
            await asyncio.sleep(self.chance.random() * 0.05)
        if self.chance.random() < failing:
            raise JetError(Err.DiskIO, "by chance")

    async def mark(self, snap_id: int, marker_id: str, time: float, *, logs_only: bool) -> None:
        async with self.gate.permit("snapshot marker"):
            await self._slowly(0.05)
            self.write()

    async def seal(self) -> None:
        await self._slowly(0.05)


class World:
    """One schedule. The rules:

    - a gate is open as soon as its deadline has passed, and who waited at it is let in within 100 ms of being runnable;
    - a verdict `held` is given only if no instance was written to between the answers of Freeze and Thaw;
    - a call answers what the table says for the session's state, or one of the reasons outside the session;
    - when all is over every gate is open, the state is none or timedOut, and a new Prepare and Freeze work.
    """

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.clock = ManualClock()
        self.members = [Member(n, self.clock, self.chance) for n in (1, 2)]
        self.files = MemoryFiles()
        self.service = self._new_service()
        self.snaps: list[int] = []
        self.answered: dict[int, float] = {}  # when Freeze answered
        self.deadlines: dict[int, float] = {}
        self.verdicts: Counter[str] = Counter()
        self.runnable = 0.0  # when the loop last came back from being blocked
        self.tasks: set[asyncio.Task[None]] = set()
        self.calls = 0  # freezes and aborts under way beside the schedule

    def _new_service(self) -> SnapshotService:
        async def settle() -> None:
            await asyncio.sleep(0)

        return SnapshotService(
            clock=self.clock,
            events=EventLog(),
            participants=lambda: self.members,
            timeout_ms=lambda: 500,
            memo=FreezeMemo(self.files),
            settle=settle,
        )

    # -- the schedule -----------------------------------------------------------------------------------------
    async def live(self) -> None:
        for member in self.members:
            for _ in range(2):
                self._begin(self._writer(member))
        for _ in range(STEPS):
            await self._step()
            self._look()
        await self._end()

    async def _step(self) -> None:
        snap = self.chance.choice(self.snaps) if self.snaps and self.chance.random() < 0.3 else (self.snaps or [77])[-1]
        what = self.chance.random()
        if what < 0.20:
            await self._call(snap, Call.THAW, lambda: self._thaw(snap))
        elif what < 0.28:
            self._prepare()
        elif what < 0.52:
            self._prepare()
            self._later(self.snaps[-1] if self.snaps else 77, Call.FREEZE)
        elif what < 0.60:
            self._later(snap, Call.ABORT)
        elif what < 0.66:
            await self._call(snap, Call.END, lambda: self.service.end(snap))
        elif what < 0.72:
            await self._call(snap, Call.RENEW, lambda: self._renew(snap))
        elif what < 0.76:
            await self._call(snap, Call.TRUNCATE, lambda: self.service.truncate_log(snap, 1))
        elif what < 0.80 and self.tasks:
            self.chance.choice(sorted(self.tasks, key=lambda t: t.get_name())).cancel()
        elif what < 0.84:
            self.clock.advance(self.chance.choice((0.05, 0.3, 2.0)))  # the loop is blocked, or the process stopped
            self.runnable = self.clock.boot()
        elif what < 0.87:
            self.chance.choice(self.members).write()  # whoever this is, it has no permit
        elif what < 0.90:
            await self.service.connection_closed("connection")
        await asyncio.sleep(self.chance.choice((0, 0, 0.001, 0.02, 0.1)))

    def _begin(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work, name=f"{len(self.tasks):03}")
        self.tasks.add(task)

        def done(task: asyncio.Task[None]) -> None:
            self.tasks.discard(task)
            if not task.cancelled() and (error := task.exception()) is not None:
                self.failure = error

        task.add_done_callback(done)

    failure: BaseException | None = None

    async def _writer(self, member: Member) -> None:
        while True:
            async with member.gate.permit("writer"):
                member.write()
                await asyncio.sleep(self.chance.choice((0, 0.001, 0.01)))
            await asyncio.sleep(0.005)

    def _later(self, snap: int, call: Call) -> None:
        works: dict[Call, Callable[[int], Awaitable[None]]] = {Call.FREEZE: self._freeze, Call.ABORT: self.service.abort}
        work = works[call]
        self._begin(self._beside(snap, call, work))

    async def _beside(self, snap: int, call: Call, work: Callable[[int], Awaitable[None]]) -> None:
        self.calls += 1
        try:
            await self._call(snap, call, lambda: work(snap))
        finally:
            self.calls -= 1

    def _state(self, snap: int) -> State:
        try:
            return self.service.sessions.find(snap).state
        except JetError:
            return State.ENDED

    async def _call(self, snap: int, call: Call, work: Callable[[], Awaitable[None]]) -> None:
        expected = TABLE[self._state(snap), call].error
        allowed = {expected} if expected else {None, *OUTSIDE.get(call, set())}
        answered: Err | None = None
        try:
            await work()
        except JetError as error:
            answered = Err(error.code)
        assert answered in allowed, f"{call} of {snap} answered {answered}, allowed {allowed}"

    def _prepare(self) -> None:
        busy = self.service.sessions.current is not None and self.service.status().state not in ("none", "timedOut")
        grbit = int(self.chance.choice(GRBITS))
        if not busy:
            self.snaps.append(self.service.prepare(grbit))
            return
        with pytest.raises(JetError) as caught:
            self.service.prepare(grbit)
        assert caught.value.code == Err.OSSnapshotInvalidSequence

    async def _freeze(self, snap: int) -> None:
        lease_ms = self.chance.choice(LEASES_MS)
        frozen = await self.service.freeze(
            snap,
            lease_ms=lease_ms,
            max_drain_ms=self.chance.choice((0, 1, 50, 5_000)),
            owner="connection" if self.chance.random() < 0.3 else None,
        )
        self.answered[snap] = self.clock.boot()
        self.deadlines[snap] = frozen.deadline - self.clock.now() + self.clock.boot()

    def _renewed(self, snap: int) -> float:
        return self.service.renew(snap, self.chance.choice((10, 300)))

    async def _renew(self, snap: int) -> None:
        self.deadlines[snap] = self._renewed(snap) - self.clock.now() + self.clock.boot()

    async def _thaw(self, snap: int) -> None:
        began, asked = self.answered.get(snap), self.clock.boot()
        try:
            verdict = await self.service.thaw(snap)
        except JetError as error:
            self.verdicts["lost" if error.code == Err.OSSnapshotTimeOut else "none"] += 1
            raise
        assert verdict.held
        assert began is not None
        self.verdicts["held"] += 1
        assert asked < self.deadlines[snap] + 1e-6, "held past its deadline"
        for member in self.members:
            inside = [when for when in member.written if began < when < asked]
            assert not inside, f"held, but written to at {inside}, frozen from {began} to {asked}"

    # -- the rules --------------------------------------------------------------------------------------------
    def _look(self) -> None:
        if self.failure is not None:
            raise self.failure
        newest = max(self.deadlines.values(), default=0.0)
        session = self.service.sessions.current
        if session is None or session.state not in (State.FREEZING, State.FROZEN):
            assert not any(m.gate.look() for m in self.members), "frozen for nobody"
        elif session.state is State.FROZEN and self.clock.boot() > newest + 0.001:
            assert not any(m.gate.look() for m in self.members), "frozen past the deadline"

    async def _end(self) -> None:
        """Everybody has left: the deadline alone must open the gates."""
        async with asyncio.timeout(CALL_SECONDS):  # a freeze that is on its way comes to an end by itself
            while self.calls:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        last = max([self.clock.boot(), self.service.sessions.current.deadline if self.service.sessions.current else 0.0, self.runnable])
        await asyncio.sleep(last + LATE_SECONDS - self.clock.boot())
        for member in self.members:
            assert not member.gate.look()
            async with asyncio.timeout(LATE_SECONDS):
                async with member.gate.permit("the last one"):
                    pass
        for snap in self.snaps:
            state = self._state(snap)
            if state not in OVER:
                await self.service.abort(snap)
            for call in (self.service.thaw, self.service.end):
                with pytest.raises(JetError) as caught:
                    await call(snap)
                assert caught.value.code == Err.OSSnapshotInvalidSnapId
        assert self.service.status().state in ("none", "timedOut")
        for task in list(self.tasks):
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        self._look()
        await asyncio.sleep(0.1)
        for member in self.members:
            member.chance = random.Random(1)
            member.chance.random = lambda: 0.99  # type: ignore[method-assign]  # no more chance: nothing fails now
        snap = self.service.prepare()
        await self.service.freeze(snap, lease_ms=1_000)
        if self.chance.random() < 0.3:
            await self._restart(snap)
        else:
            assert (await self.service.thaw(snap)).held
            assert not self.files.exists("freeze.memo"), "after a restart it would be taken for a lost freeze"

    async def _restart(self, snap: int) -> None:
        """The server dies while frozen: a new one on the same files knows that this freeze was lost."""
        self.service = self._new_service()
        await self.service.sessions.start()
        with pytest.raises(JetError) as caught:
            await self.service.thaw(snap)
        assert caught.value.code == Err.OSSnapshotTimeOut


def play(seeds: range) -> Counter[str]:
    verdicts: Counter[str] = Counter()
    for seed in seeds:
        world = World(seed)
        try:
            run(world.clock, world.chance, world.live())
        except BaseException as error:
            error.add_note(f"schedule {seed}")
            raise
        verdicts += world.verdicts
    return verdicts


def test_random_schedules_keep_the_rules() -> None:
    verdicts = play(range(SCHEDULES))
    assert verdicts["held"] > SCHEDULES / 10, verdicts  # or the schedules try nothing
    assert verdicts["lost"] > SCHEDULES / 20, verdicts


def deadlines_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both of them: the gate's own arithmetic, and the service, which would open the gate of a session that timed out."""
    monkeypatch.setattr(Gate, "_look", lambda gate: None)
    monkeypatch.setattr(Gate, "_patience", lambda gate: 0.05)  # or the waiters spin, and simulated time stands still
    monkeypatch.setattr(Sessions, "notice", lambda sessions: None)
    monkeypatch.setattr(Sessions, "_keep_watch", lambda sessions, session: asyncio.sleep(0))


def nothing_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Gate, "wrote", lambda gate, size: None)


def test_control_a_gate_that_ignores_its_deadline_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    deadlines_are_ignored(monkeypatch)
    with pytest.raises(AssertionError, match="past the deadline"):
        play(range(50))


def test_control_a_gate_that_does_not_count_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing_is_counted(monkeypatch)
    with pytest.raises(AssertionError, match="held, but written to"):
        play(range(100, 50 * SCHEDULES))  # the first that notices is soon after
