"""Random sessions against a model so naive that it is plainly right: every commit is a whole copy of the data."""

from __future__ import annotations

import asyncio
import copy
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from jetwire_protocol.errors import Err, JetError
from jetwire_server.store import timeline
from jetwire_server.store.interface import Savepoint, Store, tree_id, tree_slot
from jetwire_server.store.memory import MemoryStore
from jetwire_server.store.transaction import StoreTransaction
from tests.server.store.kinds import KINDS

KEYS = st.sampled_from([b"", b"0", b"0\0", b"1", b"3", b"3\xff"])
VALUES = st.integers(0, 9).map(lambda n: n.to_bytes(4, "little") + b"v%d" % n)
BOUNDS = st.none() | KEYS
Data = dict[bytes, bytes]
REFUSED = "refused"
SHARED_ROWS = timeline.SHARED_ROWS


def summed(value: bytes, delta: int) -> bytes:
    total = (int.from_bytes(value[:4], "little") + delta) % 2**32
    return total.to_bytes(4, "little") + value[4:]


def attempted(call: Callable[[], Any]) -> tuple[Any, int]:
    """What the call answered, and the error's code or 0."""
    try:
        return call(), 0
    except JetError as error:
        return None, error.code


class Writes:
    """What one session did: writes and locks, copied whole at every save point."""

    def __init__(self) -> None:
        self.values: dict[bytes, bytes | None] = {}
        self.deltas: dict[bytes, int] = {}
        self.locks: dict[bytes, set[str]] = {}

    def on(self, data: Data) -> Data:
        out = dict(data)
        for key, value in self.values.items():
            if value is None:
                out.pop(key, None)
            else:
                out[key] = value
        for key, delta in self.deltas.items():
            if key in out:
                out[key] = summed(out[key], delta)
        return out


class Session:
    def __init__(self, real: Any, snapshot: int) -> None:
        self.real = real
        self.snapshot = snapshot
        self.own = Writes()
        self.savepoints: list[tuple[Savepoint, Writes]] = []
        self.ended = False


class StoreModel(RuleBasedStateMachine):
    """Sessions begin, read, write, lock, go back to save points, commit and roll back, in any order."""

    kind = "memory"
    sessions = Bundle("sessions")

    @initialize(rows=st.sampled_from([1, 2, SHARED_ROWS]))
    def open(self, rows: int) -> None:
        timeline.SHARED_ROWS = rows  # of a commit, from which on they share a version: here commits are small
        self.loop = asyncio.new_event_loop()
        self.directory = tempfile.mkdtemp()
        self.store: Store = self.run(KINDS[self.kind].open(self.directory))
        self.tree = tree_id(self.run(self.store.create_database("a.edb")), 1)
        self.states: list[Data] = [{}]  # by commit, in order
        self.history: dict[bytes, list[tuple[int, str]]] = {}  # per key: which commit changed it, and how
        self.live: list[Session] = []
        self.durable = 0  # states up to here survive everything
        self.background: list[asyncio.Task[None]] = []

    def run(self, coroutine: Any) -> Any:
        return self.loop.run_until_complete(coroutine)

    def teardown(self) -> None:
        timeline.SHARED_ROWS = SHARED_ROWS
        if hasattr(self, "store"):
            self.settle()
            for session in self.live:
                if not session.ended:
                    self.run(session.real.rollback())
            assert self.store.key_locks.trees == {}  # type: ignore[attr-defined]
            self.run(self.store.stop())
            self.loop.close()
            shutil.rmtree(self.directory)

    # -- what the model expects -------------------------------------------------------------------------------
    def outcome(self, session: Session, key: bytes, lock: str) -> tuple[bool, bool]:
        """(must conflict, may conflict)"""
        compatible = {"X": set(), "S": {"S"}, "A": {"A"}}[lock]
        for other in self.live:
            if other is not session and not other.ended and other.own.locks.get(key, set()) - compatible:
                return True, True
        own = session.own.locks.get(key, set())
        if "X" in own or (lock == "A" and "A" in own):
            return False, False
        newer = [how for number, how in self.history.get(key, []) if number > session.snapshot]
        if lock == "A":
            newer = [how for how in newer if how != "A"]
        if not newer:
            return False, False
        if key not in self.states[-1] and key not in self.states[session.snapshot]:
            return False, True  # made and gone again since: nothing is lost either way
        return True, True

    def attempt(self, session: Session, key: bytes, lock: str, code: int, call: Callable[[], Any]) -> Any:
        """The answer, or REFUSED where the model allows a conflict."""
        must, may = self.outcome(session, key, lock)
        answer, refused = attempted(call)
        if refused:
            assert may, "a conflict out of nothing"
            assert refused == code
            return REFUSED
        assert not must, "a conflict was missed"
        session.own.locks.setdefault(key, set()).add(lock)
        return answer

    # -- rules ------------------------------------------------------------------------------------------------
    @rule(target=sessions)
    def begin(self) -> Any:
        if len([s for s in self.live if not s.ended]) >= 5:
            return multiple()
        session = Session(self.run(self.store.begin()), len(self.states) - 1)
        self.live.append(session)
        return session

    @rule(session=sessions, key=KEYS, value=VALUES)
    def put(self, session: Session, key: bytes, value: bytes) -> None:
        if session.ended:
            return
        answer = self.attempt(session, key, "X", Err.WriteConflict, lambda: session.real.put(self.tree, key, value))
        if answer is None:
            session.own.values[key] = value
            session.own.deltas.pop(key, None)

    @rule(session=sessions, key=KEYS)
    def delete(self, session: Session, key: bytes) -> None:
        if session.ended:
            return
        answer = self.attempt(session, key, "X", Err.WriteConflict, lambda: session.real.delete(self.tree, key))
        if answer is None:
            session.own.values[key] = None
            session.own.deltas.pop(key, None)

    @rule(session=sessions, key=KEYS, value=VALUES)
    def insert(self, session: Session, key: bytes, value: bytes) -> None:
        if session.ended:
            return
        if key in session.own.on(self.states[session.snapshot]):
            assert attempted(lambda: session.real.insert(self.tree, key, value))[1] == Err.KeyDuplicate
            return
        answer = self.attempt(session, key, "X", Err.KeyDuplicate, lambda: session.real.insert(self.tree, key, value))
        if answer is None:
            session.own.values[key] = value

    @rule(session=sessions, key=KEYS, delta=st.integers(-5, 5))
    def add(self, session: Session, key: bytes, delta: int) -> None:
        if session.ended:
            return
        seen = session.own.on(self.states[session.snapshot]).get(key)
        if seen is None:
            assert attempted(lambda: session.real.add(self.tree, key, 0, 4, delta))[1] in (Err.RecordNotFound, Err.WriteConflict)
            return
        answer = self.attempt(session, key, "A", Err.WriteConflict, lambda: session.real.add(self.tree, key, 0, 4, delta))
        if answer is REFUSED:
            return
        assert answer == int.from_bytes(seen[:4], "little", signed=True)
        own = session.own
        if own.values.get(key) is not None:
            own.values[key] = summed(own.values[key], delta)  # type: ignore[arg-type]
        else:
            own.deltas[key] = own.deltas.get(key, 0) + delta

    @rule(session=sessions, key=KEYS, shared=st.booleans())
    def lock(self, session: Session, key: bytes, shared: bool) -> None:
        if session.ended:
            return
        self.attempt(session, key, "S" if shared else "X", Err.WriteConflict, lambda: session.real.lock(self.tree, key, shared=shared))

    @rule(session=sessions)
    def savepoint(self, session: Session) -> None:
        if not session.ended:
            session.savepoints.append((session.real.savepoint(), copy.deepcopy(session.own)))

    @rule(session=sessions, back=st.integers(0, 3))
    def rollback_to(self, session: Session, back: int) -> None:
        if session.ended or not session.savepoints:
            return
        at = max(0, len(session.savepoints) - 1 - back)
        point, own = session.savepoints[at]
        del session.savepoints[at + 1 :]
        session.real.rollback_to(point)
        session.own = copy.deepcopy(own)

    @rule(session=sessions, low=BOUNDS, high=BOUNDS, reverse=st.booleans(), limit=st.integers(1, 12))
    def scan(self, session: Session, low: bytes | None, high: bytes | None, reverse: bool, limit: int) -> None:
        if session.ended:
            return
        expected = sorted(
            (
                (key, value)
                for key, value in session.own.on(self.states[session.snapshot]).items()
                if (low is None or key >= low) and (high is None or key < high)
            ),
            reverse=reverse,
        )[:limit]
        assert self.run(session.real.scan(self.tree, low, high, reverse=reverse, limit=limit)) == expected

    @rule(session=sessions, key=KEYS)
    def get(self, session: Session, key: bytes) -> None:
        if not session.ended:
            assert self.run(session.real.get(self.tree, key)) == session.own.on(self.states[session.snapshot]).get(key)

    @rule(session=consumes(sessions), lazy=st.booleans())
    def commit(self, session: Session, lazy: bool) -> None:
        if session.ended:
            return
        session.ended = True
        own = session.own
        if own.values or own.deltas:
            number = len(self.states)
            self.states.append(own.on(self.states[-1]))
            for key in own.values:
                self.history.setdefault(key, []).append((number, "X"))
            if not lazy:
                self.durable = number
            for key in own.deltas:
                self.history.setdefault(key, []).append((number, "A"))
        assert bool(self.run(session.real.commit(lazy=lazy)).number) == bool(own.values or own.deltas)

    @rule(key=KEYS, value=st.none() | VALUES)
    def write_and_commit(self, key: bytes, value: bytes | None) -> None:
        """What another session does between two steps of one."""
        session = Session(self.run(self.store.begin()), len(self.states) - 1)
        self.live.append(session)
        if value is None:
            self.delete(session, key)
        else:
            self.put(session, key, value)
        self.commit(session, lazy=False)

    @rule(session=consumes(sessions))
    def rollback(self, session: Session) -> None:
        if not session.ended:
            session.ended = True
            self.run(session.real.rollback())

    @rule()
    def checkpoint(self) -> None:
        self.run(self.store.checkpoint())

    @rule(turns=st.integers(0, 4))
    def checkpoint_begins(self, turns: int) -> None:
        """A checkpoint that goes on beside the steps to come."""
        self.background.append(self.loop.create_task(self.store.checkpoint()))
        for _ in range(turns):
            self.run(asyncio.sleep(0))

    @rule(rows=st.dictionaries(KEYS, VALUES, min_size=1))
    def adopt_a_tree(self, rows: Data) -> None:
        """A tree built beside everything, seen by whoever begins after it was named and by nobody before."""
        before = self.run(self.store.begin())
        bulk = self.run(self.store.new_unpublished(tree_slot(self.tree)))
        self.run(bulk.put_many(rows.items()))
        one = self.run(self.store.begin())
        tree = one.adopt(bulk)
        one.put(tree, b"last", b"own")
        self.run(one.commit())
        after = self.run(self.store.begin())
        assert dict(self.run(after.scan(tree))) == rows | {b"last": b"own"}
        assert self.run(before.scan(tree)) == []
        for reader in (before, after):
            self.run(reader.rollback())
        self.states.append(dict(self.states[-1]))
        self.durable = len(self.states) - 1

    def settle(self) -> None:
        for task in self.background:
            self.run(task)
        self.background = []

    @rule()
    def restart(self) -> None:
        if not KINDS[self.kind].crashes:
            self.settle()  # else it is cut wherever it is
        for session in self.live:
            if not session.ended:
                session.ended = True
                self.run(session.real.rollback())
        self.store = self.run(KINDS[self.kind].reopen(self.store, self.directory))
        if KINDS[self.kind].crashes:
            for task in self.background:
                with suppress(JetError):
                    self.run(task)
            self.background = []
        if KINDS[self.kind].loses_lazy:
            self.forget_lost()

    def forget_lost(self) -> None:
        """Of what was lazy the end may be lost, and nothing but the end: what is left is a state there was."""
        reader = self.run(self.store.begin())
        found = dict(self.run(reader.scan(self.tree)))
        self.run(reader.rollback())
        last = next(i for i in reversed(range(self.durable, len(self.states))) if self.states[i] == found)
        del self.states[last + 1 :]
        for changes in self.history.values():
            changes[:] = [change for change in changes if change[0] <= last]
        self.durable = last

    @invariant()
    def newest_is_right(self) -> None:
        if not hasattr(self, "store"):
            return
        reader = self.run(self.store.begin())
        assert dict(self.run(reader.scan(self.tree))) == self.states[-1]
        self.run(reader.rollback())


StoreModel.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck))


CONTROL = settings(
    StoreModel.TestCase.settings, max_examples=1000, database=None, derandomize=True, phases=[Phase.generate], report_multiple_bugs=False
)


@pytest.mark.plain
def test_the_model_notices_a_store_that_loses_updates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StoreTransaction, "check_unchanged", lambda *_: None)
    with pytest.raises(AssertionError):
        run_state_machine_as_test(StoreModel, settings=CONTROL)


def test_the_model_notices_a_store_without_snapshots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MemoryStore, "begin", begin_of_the_future)
    with pytest.raises(AssertionError):
        run_state_machine_as_test(StoreModel, settings=CONTROL)


async def begin_of_the_future(store: MemoryStore) -> StoreTransaction:
    transaction = await BEGIN(store)
    transaction.snapshot = 1 << 60
    store._snapshots.opened(1 << 60)
    return transaction


BEGIN = MemoryStore.begin


class TestMemory(StoreModel.TestCase):  # type: ignore[valid-type,misc]
    pass


class EmbeddedModel(StoreModel):
    kind = "embedded"


class CrashingModel(StoreModel):
    kind = "crashing"


class LossyModel(StoreModel):
    kind = "lossy"


class TestLossy(LossyModel.TestCase):  # type: ignore[valid-type,misc]
    settings = settings(StoreModel.TestCase.settings, max_examples=40)


class TestEmbedded(EmbeddedModel.TestCase):  # type: ignore[valid-type,misc]
    settings = settings(StoreModel.TestCase.settings, max_examples=40)


class TestCrashing(CrashingModel.TestCase):  # type: ignore[valid-type,misc]
    settings = settings(StoreModel.TestCase.settings, max_examples=40)
