"""One snapshot session: its state, its instances, its deadline."""

from __future__ import annotations

from dataclasses import dataclass, field

from jetwire_protocol.data.flags import OSSnapshotPrepareGrbit as Grbit
from jetwire_protocol.errors import JetError
from jetwire_server import limits
from jetwire_server.snapshot.answers import Verdict
from jetwire_server.snapshot.manifest import Manifest
from jetwire_server.snapshot.participant import Participant
from jetwire_server.snapshot.states import OVER, Call, Cell, State, cell

# The event that each kind of Prepare logs, by (incremental, copy).
_KINDS: dict[tuple[bool, bool], tuple[str, int]] = {
    (False, False): ("full", 2005),
    (True, False): ("incremental", 2008),
    (False, True): ("copy", 2009),
    (True, True): ("differential", 2010),
}

# How long a session may be in a state with nobody speaking of it. While freezing and frozen the lease is what counts.
_PATIENCE_SECONDS = {
    State.PREPARED: limits.SNAPSHOT_PREPARED_SECONDS,
    State.FREEZE_FAILED: limits.SNAPSHOT_PREPARED_SECONDS,
    State.THAWED: limits.SNAPSHOT_THAWED_SECONDS,
    State.TRUNCATED: limits.SNAPSHOT_THAWED_SECONDS,
}


@dataclass(eq=False)
class SnapshotSession:
    """What a `snapId` stands for. `state` moves only by `step`, which obeys the table."""

    id: int
    grbit: Grbit
    participants: list[Participant]
    explicit: bool = False  # the list was made by PrepareInstance
    state: State = State.PREPARED
    owner: object | None = None  # the connection that asked for `bind`
    heard: float = 0.0  # when somebody last spoke of it
    freeze_began: float = 0.0
    deadline: float = 0.0
    timeout_ms: int = 0
    manifest: Manifest | None = None
    verdict: Verdict | None = None
    holders: list[str] = field(default_factory=list)

    @property
    def kind(self) -> str:
        return _KINDS[self.incremental, self.copy][0]

    @property
    def prepare_event(self) -> int:
        return _KINDS[self.incremental, self.copy][1]

    @property
    def incremental(self) -> bool:
        return bool(self.grbit & Grbit.IncrementalSnapshot)

    @property
    def copy(self) -> bool:
        return bool(self.grbit & Grbit.CopySnapshot)

    @property
    def continues_after_thaw(self) -> bool:
        return bool(self.grbit & Grbit.ContinueAfterThaw)

    @property
    def over(self) -> bool:
        return self.state in OVER

    def forgotten(self, now: float) -> bool:
        """Whether nobody has spoken of it for so long that it may block others no longer."""
        patience = _PATIENCE_SECONDS.get(self.state)
        return patience is not None and now - self.heard >= patience

    def look_up(self, call: Call) -> Cell:
        """The cell of this state and call; an error that changes nothing is raised here."""
        found = cell(self.state, call)
        if found.error is not None and found.next is None:
            raise JetError(found.error, f"{call.value} while the session is {self.state.value}", state=self.state.value)
        return found

    def step(self, call: Call) -> None:
        """Makes the call's move, and raises the error of a cell that has both."""
        found = self.look_up(call)
        assert found.next is not None
        self.state = found.next
        if found.error is not None:
            raise JetError(found.error, "the freeze ended at its deadline, before this call", timeoutMs=self.timeout_ms)
