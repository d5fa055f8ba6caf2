"""An instance: one log, its databases, its sessions, its parameters and limits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from enum import Enum
from typing import TYPE_CHECKING, Any, TypeVar

from jetwire_protocol.data.events import EVENTS
from jetwire_protocol.data.flags import InitGrbit, StopServiceInstanceGrbit, TermGrbit
from jetwire_protocol.data.parameters import Param
from jetwire_protocol.errors import Err, JetError, Wrn
from jetwire_server import limits
from jetwire_server.clock import Clock
from jetwire_server.engine.bits import all_bits
from jetwire_server.engine.database import Database
from jetwire_server.engine.parameters import Parameters
from jetwire_server.engine.scrubbing import Scrubbing
from jetwire_server.engine.session import Session
from jetwire_server.events import Event, EventLog, severity_of
from jetwire_server.store.interface import Store

if TYPE_CHECKING:
    from jetwire_server.engine.cursor import Cursor
    from jetwire_server.engine.engine import Engine

R = TypeVar("R")
StoreFactory = Callable[["Instance"], Store]

_TERM_BITS = int(TermGrbit.TermComplete | TermGrbit.TermAbrupt | TermGrbit.TermStopBackup | TermGrbit.TermDirty)
_STOP_BITS = int(
    StopServiceInstanceGrbit.StopServiceBackgroundUserTasks
    | StopServiceInstanceGrbit.StopServiceQuiesceCaches
    | StopServiceInstanceGrbit.StopServiceResume
)
_INIT_BITS = all_bits(InitGrbit)


class State(Enum):
    """The life of an instance, and what it answers to those who want a session meanwhile."""

    CREATED = Err.NotInitialized
    INITIALISING = Err.InitInProgress
    RUNNING = None
    STOPPED = Err.ClientRequestToStopJetService
    TERMINATING = Err.TermInProgress
    RESTORING = Err.RestoreInProgress
    ENDED = Err.InvalidInstance


_BETWEEN = (State.INITIALISING, State.TERMINATING, State.RESTORING)


class Instance:
    """Made by `Engine.create_instance`; serves sessions from `init` to `term`."""

    def __init__(self, engine: Engine, handle: int, name: str, display_name: str, clock: Clock, events: EventLog) -> None:
        self.engine = engine
        self.handle = handle
        self.name = name
        self.display_name = display_name
        self.clock = clock
        self.parameters: Parameters = Parameters(engine.parameters)
        self.state = State.CREATED
        self.store: Store
        self.databases: dict[int, Database] = {}  # attached, by slot
        self._attaching = asyncio.Lock()
        self.sessions: dict[int, Session] = {}
        self.cursors: dict[int, Cursor] = {}
        self.unused_scratch: list[Any] = []  # of closed temporary tables, to be freed
        self.snapshot_holds: set[int] = set()  # snapshot sessions from their freeze to their end
        self.backups = 0  # streaming backups under way
        self.before_end: list[Callable[[], Awaitable[None]]] = []  # what is given back before the storage is closed
        self._carried: set[asyncio.Task[Any]] = set()  # work that goes on whether or not its caller is still there
        self._in_a_hurry = False  # the server ends: nobody is waited for any more
        self.commit_default = 0
        self.log_signature = b""
        self.transactions = 0  # begun at level 0, strokes too
        self.scrubbing = Scrubbing(self)
        self._events = events

    # -- life -------------------------------------------------------------------------------------------------
    async def init(self, grbit: int = 0) -> int:
        """Recovers and opens. Databases attached at the last stop or crash are attached again. Answers a warning, or 0.

        Of the flags, ReplayIgnoreMissingDB, ReplayIgnoreLostLogs and TruncateLogsAfterRecovery do what they say; nothing here needs
        the others.
        """
        if grbit & ~_INIT_BITS:
            raise JetError(Err.InvalidGrbit)
        if self.state is not State.CREATED:
            raise JetError(self.state.value if self.state in _BETWEEN else Err.AlreadyInitialized)
        self.state = State.INITIALISING
        return await self.carry_through(self._init(grbit))

    async def _init(self, grbit: int) -> int:
        self.emit(102, name=self.name)
        try:
            self.store = self.engine.store_factory(self)
            lost = await self.store.start(
                without_missing=bool(grbit & InitGrbit.ReplayIgnoreMissingDB),
                without_lost_end=bool(grbit & InitGrbit.ReplayIgnoreLostLogs),
                truncate_log=bool(grbit & InitGrbit.TruncateLogsAfterRecovery),
            )
            await self._remove_unfinished()
        except BaseException:
            self.state = State.CREATED
            raise
        self.commit_default = self.parameters.number(Param.CommitDefault)
        self.log_signature = self.store.signature
        read_only = self.store.read_only()
        self.databases = {slot: Database(slot, path, read_only=slot in read_only) for slot, path in self.store.databases().items()}
        self.state = State.RUNNING
        self.scrubbing.start()
        self.engine.tell_left(self.name, Err.InvalidSesid)
        self.emit(105, name=self.name)
        return Wrn.CommittedLogFilesLost if lost else 0

    async def _remove_unfinished(self) -> None:
        """What a Compact was making when a crash ended it, and what it or SetDatabaseSize had attached for itself."""
        try:
            for slot in self.store.unfinished():
                await self.store.detach_database(slot, remove=True)
            for slot in self.store.borrowed():
                await self.store.detach_database(slot)
        except BaseException:
            await self.store.stop(checkpoint=False)
            raise

    async def term(self, grbit: int = 0) -> None:
        """Ends every session (rolling it back) and the instance. `TermDirty` leaves the databases for recovery."""
        if grbit & ~_TERM_BITS:
            raise JetError(Err.InvalidGrbit)
        if grbit & TermGrbit.TermComplete and grbit & TermGrbit.TermAbrupt:
            raise JetError(Err.InvalidParameter)
        if self.state is State.CREATED:
            self._gone()
            return
        if self.state not in (State.RUNNING, State.STOPPED):
            raise JetError(self.state.value or Err.NotInitialized)
        stops_backup = grbit & TermGrbit.TermStopBackup or not grbit & TermGrbit.TermComplete
        if not stops_backup and (self.snapshot_holds or self.backups):
            raise JetError(Err.BackupInProgress)
        if grbit & TermGrbit.TermComplete and any(session.level for session in self.sessions.values()):
            raise JetError(Err.TooManyActiveUsers, "sessions have transactions open")
        self.state = State.TERMINATING
        self._refuse(Err.TermInProgress)
        await self.carry_through(self._end_after_snapshots(checkpoint=not grbit & TermGrbit.TermDirty))

    async def _end_after_snapshots(self, *, checkpoint: bool) -> None:
        # An operator's wait: it ends at the snapshot's deadline at the latest.
        while self.snapshot_holds and not self._in_a_hurry:  # noqa: ASYNC110
            await asyncio.sleep(limits.TERM_LOOK_SECONDS)
        await self._end(checkpoint=checkpoint)

    async def shut_down(self) -> None:
        """Ends the instance because the server ends: at once, frozen or not."""
        self._in_a_hurry = True
        if self._carried:
            await asyncio.wait(self._carried)
        if self.state in (State.RUNNING, State.STOPPED):
            self.state = State.TERMINATING
            await self._end(checkpoint=True)
        elif self.state is not State.ENDED:
            self._gone()

    async def carry_through(self, work: Coroutine[Any, Any, R]) -> R:
        """Work that must not end half-way: a caller that is cancelled leaves at once, and it goes on by itself."""
        return await asyncio.shield(self.carry(work))

    def carry(self, work: Coroutine[Any, Any, R]) -> asyncio.Task[R]:
        """The same, not awaited."""
        task = asyncio.get_running_loop().create_task(work)
        self._carried.add(task)
        task.add_done_callback(self._carried_out)
        return task

    def _carried_out(self, task: asyncio.Task[Any]) -> None:
        """A refusal (the server ends while frozen, say) is none of our business if nobody is there to be told."""
        self._carried.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, JetError):
            task.get_loop().call_exception_handler({"message": "carried work failed", "exception": error, "task": task})

    async def _end(self, *, checkpoint: bool) -> None:
        sessions = list(self.sessions.values())
        for session in sessions:
            await self._come_what_may(session.finish(Err.TermInProgress))
        async with self._attaching:  # whoever makes, attaches or copies a database comes to an end first
            for database in list(self.databases.values()):
                if database.defragmenting is not None:
                    await self._come_what_may(database.defragmenting.stop())
            await self.scrubbing.stop()
            for give_back in self.before_end:
                await self._come_what_may(give_back())
            try:
                await self.store.stop(checkpoint=checkpoint)
            finally:
                self.emit(103, name=self.name)
                self._gone(sessions)

    async def _come_what_may(self, work: Awaitable[None]) -> None:
        """A part of the end that fails is told of, and does not keep the rest from ending, least of all the storage."""
        try:
            await work
        except Exception as error:
            asyncio.get_running_loop().call_exception_handler({"message": f"at the end of {self.name}", "exception": error})

    def _gone(self, sessions: Iterable[Session] = ()) -> None:
        self.state = State.ENDED
        self.databases.clear()
        self.engine.forget(self, sessions)

    @contextmanager
    def restoring(self) -> Iterator[None]:
        """While its files are being restored, it answers nothing; nor do sessions of the one that ran on them before."""
        if self.state is not State.CREATED:
            raise JetError(self.state.value if self.state is State.RESTORING else Err.AlreadyInitialized, self.name)
        self.state = State.RESTORING
        self.engine.tell_left(self.name, Err.RestoreInProgress)
        try:
            yield
        finally:
            if self.state is State.RESTORING:
                self.state = State.CREATED
                self.engine.tell_left(self.name, Err.NotInitialized)

    def storage_failed(self) -> None:
        """A write failed that must not: from here every call answers InstanceUnavailable. Called in any thread."""
        if self.state is not State.STOPPED:
            self._refuse(Err.InstanceUnavailable)

    def _refuse(self, refusal: Err) -> None:
        for session in list(self.sessions.values()):
            session.refusal = refusal

    def stop_service(self, grbit: int = 0) -> None:
        """From here calls answer ClientRequestToStopJetService, but for those that give things back."""
        if grbit & ~_STOP_BITS:
            raise JetError(Err.InvalidGrbit)
        if self.state not in (State.RUNNING, State.STOPPED):
            raise JetError(self.state.value or Err.NotInitialized)
        if grbit & StopServiceInstanceGrbit.StopServiceResume:
            if not grbit & ~int(StopServiceInstanceGrbit.StopServiceResume) or self.state is State.STOPPED:
                raise JetError(Err.InvalidParameter, "a whole stop cannot be taken back; a part of it must be named")
            return
        if grbit:  # background tasks and caches: the engine starts none on a session's behalf
            return
        self.state = State.STOPPED
        self._refuse(Err.ClientRequestToStopJetService)
        for session in self.sessions.values():
            session.stop_waiting()

    # -- what others ask ----------------------------------------------------------------------------------------
    def check_serving(self) -> None:
        """Refuses unless the instance runs, goes on running, and its storage is sound."""
        if self.state.value is not None:
            raise JetError(self.state.value)
        if self._in_a_hurry:
            raise JetError(Err.TermInProgress)
        if self.store.problems():
            raise JetError(Err.InstanceUnavailable, "; ".join(self.store.problems()))

    def check_not_between(self) -> None:
        """Refuses while the instance is becoming something else: the least that any call asks for."""
        if self.state in _BETWEEN:
            raise JetError(self.state.value)

    @asynccontextmanager
    async def changing_databases(self) -> AsyncIterator[None]:
        """One at a time makes, attaches, detaches or copies a database: they wait for files."""
        async with self._attaching:
            if self.state is not State.STOPPED:  # some of these give things back: they look for a stopped service themselves
                self.check_serving()
            yield

    def check_no_backup(self) -> None:
        if self.snapshot_holds or self.backups:
            raise JetError(Err.BackupInProgress)

    def session(self, sesid: int) -> Session:
        found = self.sessions.get(sesid)
        if found is None:
            raise JetError(Err.InvalidSesid, f"sesid {sesid}")
        return found

    def cursor(self, tableid: int) -> Cursor:
        found = self.cursors.get(tableid)
        if found is None:
            raise JetError(Err.InvalidTableId, f"tableid {tableid}")
        return found

    async def begin_session(self, username: str | None = None, password: str | None = None) -> Session:
        """A session of this instance. User name and password mean nothing, as in ESE."""
        self.check_serving()
        if len(self.sessions) >= self.parameters.number(Param.MaxSessions):
            raise JetError(Err.OutOfSessions)
        session = Session(self, self.engine.new_handle())
        self.sessions[session.id] = session
        self.engine.sessions[session.id] = session
        return session

    def forget_session(self, session: Session) -> None:
        self.sessions.pop(session.id, None)
        self.engine.sessions.pop(session.id, None)

    def set_parameter(self, paramid: int, value: Any) -> None:
        self.parameters.set(paramid, value, running=self.state is not State.CREATED)
        if paramid == Param.CommitDefault:
            self.commit_default = self.parameters.number(Param.CommitDefault)

    def emit(self, event_id: int, **args: Any) -> None:
        """Into the event log, unless the instance's parameters say that nobody wants to read it there."""
        name, severity = EVENTS[event_id][0], severity_of(event_id)
        quiet = severity == "information" and self.parameters.get(Param.NoInformationEvent)
        if not quiet and self.parameters.number(Param.EventLoggingLevel):
            self._events.emit(Event(event_id, name, severity, self.clock.now(), self.name, args))
