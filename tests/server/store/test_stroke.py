"""Strokes: what they may write beside transactions, and on top of what is on its way to the log. No update is ever lost."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable

import pytest

from jetwire_protocol.errors import Err, JetError
from jetwire_server import limits
from jetwire_server.clock import SystemClock
from jetwire_server.files.gate import Gate
from jetwire_server.files.memory import MemoryFiles
from jetwire_server.redo.log import Log
from jetwire_server.store.embedded.published import Published
from jetwire_server.store.embedded.publishing import LARGE_ROWS
from jetwire_server.store.embedded.store import EmbeddedStore
from jetwire_server.store.embedded.stroke import Stroke
from jetwire_server.store.interface import Commit, Tree, tree_slot
from jetwire_server.store.transaction import StoreTransaction

KEY = b"k"


class Rig:
    """A store whose gate is frozen, so that commits stay on their way until the test lets them go."""

    def __init__(self, root: str) -> None:
        self.clock, self.files = SystemClock(), MemoryFiles(real_root=root)
        self.answers: list[Commit | JetError] = []
        self.tree = Tree(0)
        self.open()

    def open(self) -> None:
        self.gate = Gate(self.clock)
        self.store = EmbeddedStore(Log(self.files, self.gate, self.clock, file_kb=64), self.files, MemoryFiles(), self.gate, self.clock)

    async def start(self) -> None:
        await self.store.start()
        slot = await self.store.create_database("a.edb")
        txn = self.store.begin_now()
        self.tree = txn.new_tree(slot)
        txn.insert(self.tree, KEY, b"0")
        await txn.commit()
        await self.gate.freeze(self.clock.boot() + 30, drain_until=self.clock.boot() + 30)

    def put(self, value: bytes, how: str = "stroke") -> Stroke | StoreTransaction:
        """A put of its own, handed to the log."""
        if how == "stroke":
            return self.commit(self.stroke(value))
        txn = self.store.begin_now()
        txn.put(self.tree, KEY, value)
        assert txn.commit_now(self.answers.append)
        return txn

    def stroke(self, value: bytes) -> Stroke:
        stroke = self.store.stroke()
        stroke.put(self.tree, KEY, value)
        return stroke

    def commit(self, stroke: Stroke) -> Stroke:
        assert stroke.commit(self.tree, self.answers.append)
        return stroke

    def append(self, what: bytes) -> Stroke:
        """Goes on top of what is on its way."""
        stroke = self.store.stroke()
        now = stroke.value(self.tree, KEY)
        assert now is not None
        stroke.put(self.tree, KEY, now + what)
        return self.commit(stroke)

    def watch_publishing(self, look: Callable[[], None]) -> None:
        """`look` is called before each commit becomes visible."""
        publish = self.store.publish

        def looked_at(published: Published) -> None:
            look()
            publish(published)

        self.store.publish = looked_at  # type: ignore[method-assign]

    async def let_go(self) -> None:
        self.gate.thaw()
        await self.store.flush()
        await asyncio.sleep(0)

    def value(self) -> bytes | None:
        return self.store.newest(self.tree, KEY)[0]


@pytest.fixture
async def rig(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Rig]:
    made = Rig(str(tmp_path_factory.mktemp("pages")))
    await made.start()
    yield made
    made.gate.thaw()
    await made.store.stop()


@pytest.fixture(params=["stroke", "transaction"])
def how(request: pytest.FixtureRequest) -> str:
    """What lies below."""
    return str(request.param)


async def test_both_are_published_in_their_order(rig: Rig, how: str) -> None:
    rig.put(b"1", how)
    rig.append(b"2")
    rig.append(b"3")
    assert rig.value() == b"0", "nobody sees what is on its way"
    assert not rig.answers
    await rig.let_go()
    assert rig.value() == b"123"
    numbers = [answer.number for answer in rig.answers if isinstance(answer, Commit)]
    assert len(numbers) == 3
    assert numbers == sorted(numbers)
    assert rig.store.locks_held() == 0
    assert rig.store.timeline.usage.used == rig.store.timeline.bytes, "nothing is charged that is not there"


async def test_the_last_of_a_long_row_does_not_keep_the_others_in_memory(rig: Rig, how: str) -> None:
    """On a record that is always being written, the row never ends."""
    rig.put(b"1", how)
    for _ in range(10):
        last = rig.append(b"2")
    await rig.let_go()
    await rig.store.checkpoint()
    gc.collect()
    assert [one for one in gc.get_objects() if type(one) is Stroke and one.store is rig.store] == [last]


async def test_nobody_else_gets_the_key_meanwhile_or_with_an_old_snapshot(rig: Rig, how: str) -> None:
    old = rig.store.begin_now()
    rig.put(b"1", how)
    rig.append(b"2")
    for txn in (rig.store.begin_now(), old):
        assert code_of(txn.put, rig.tree, KEY, b"x") == Err.WriteConflict
        txn.lock(rig.tree, b"another")
        assert code_of(txn.lock, rig.tree, KEY, shared=True) == Err.WriteConflict
        txn.rollback_now()
    old = rig.store.begin_now()
    await rig.let_go()
    assert code_of(old.put, rig.tree, KEY, b"x") == Err.WriteConflict
    old.rollback_now()


async def test_what_is_there_on_its_way_cannot_be_inserted(rig: Rig, how: str) -> None:
    """Nor by one that has looked at it: what is published would not tell it."""
    if how == "stroke":
        first = rig.store.stroke()
        first.insert(rig.tree, b"new", b"1")
        rig.commit(first)
    else:
        txn = rig.store.begin_now()
        txn.insert(rig.tree, b"new", b"1")
        assert txn.commit_now(rig.answers.append)
    second = rig.store.stroke()
    assert code_of(second.insert, rig.tree, b"new", b"2") == Err.KeyDuplicate
    assert second.value(rig.tree, b"new") == b"1"
    assert code_of(second.insert, rig.tree, b"new", b"2") == Err.KeyDuplicate


async def test_one_that_is_not_handed_over_just_goes_away(rig: Rig, how: str) -> None:
    first = rig.put(b"1", how)
    second = rig.store.stroke()
    assert second.value(rig.tree, KEY) == b"1"
    second.put(rig.tree, KEY, b"2")
    assert rig.store.key_locks.holder(rig.tree, KEY) is first
    rig.append(b"3")
    await rig.let_go()
    assert rig.value() == b"13"
    assert rig.store.locks_held() == 0


@pytest.mark.plain
async def test_the_first_to_end_does_not_let_go_of_what_the_second_holds(rig: Rig, how: str) -> None:
    """Both hold as many keys as they have written, which is when a transaction's letting go takes the short way."""
    first, second = rig.put(b"1", how), rig.append(b"2")
    holder = rig.store.key_locks.holder
    rig.watch_publishing(lambda: seen.append(holder(rig.tree, KEY)))
    seen: list[object] = []
    assert holder(rig.tree, KEY) is second is not first
    await rig.let_go()
    assert seen == [second, second], "before the first is published, and between the two"
    await rig.let_go()
    assert rig.store.locks_held() == 0


@pytest.mark.plain
@pytest.mark.parametrize("first", ["lock", "shared lock", "both", "sum"])
async def test_nor_does_a_transaction_that_had_the_key_before_it_wrote_it(rig: Rig, first: str) -> None:
    """As after PrepareUpdate, GetLock or an escrow update: it is remembered that the lock is older than the write."""
    if first == "sum":
        rig.gate.thaw()
        txn = rig.store.begin_now()
        txn.put(rig.tree, KEY, bytes(8))
        await txn.commit()
        await rig.gate.freeze(rig.clock.boot() + 30, drain_until=rig.clock.boot() + 30)
    txn = rig.store.begin_now()
    if first == "sum":
        txn.add(rig.tree, KEY, 0, 8, 1)
    if first in ("shared lock", "both"):
        txn.lock(rig.tree, KEY, shared=True)
    if first in ("lock", "both"):
        txn.lock(rig.tree, KEY)
    txn.put(rig.tree, KEY, b"1")
    txn.lock(rig.tree, b"another")
    assert txn.commit_now(rig.answers.append)
    second = rig.append(b"2")
    rig.watch_publishing(lambda: seen.append(rig.store.key_locks.holder(rig.tree, KEY)))
    seen: list[object] = []
    await rig.let_go()
    assert seen == [second, second], "before the first is published, and between the two"
    assert [type(answer) for answer in rig.answers] == [Commit, Commit]
    assert rig.value() == b"12"
    assert rig.store.locks_held() == 0


async def test_nobody_goes_on_top_of_what_the_log_has_not_got(rig: Rig) -> None:
    txn = rig.store.begin_now()
    txn.put(rig.tree, KEY, b"1")
    assert code_of(rig.store.stroke().value, rig.tree, KEY) == Err.WriteConflict, "it may still roll back"
    txn.rollback_now()
    assert rig.store.stroke().value(rig.tree, KEY) == b"0", "nobody holds it"
    relief = asyncio.Event()

    async def wait_for_relief(rows: int = 0) -> None:
        await relief.wait()

    txn = rig.store.begin_now()
    txn.put(rig.tree, KEY, b"1")
    rig.store.timeline.usage.slow = -1
    rig.store.relief = wait_for_relief
    committing = asyncio.create_task(txn.commit())
    await asyncio.sleep(0)
    assert code_of(rig.store.stroke().value, rig.tree, KEY) == Err.WriteConflict, "its record may come behind the other's"
    rig.store.timeline.usage.slow = 1 << 30
    relief.set()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    rig.append(b"2")
    await rig.let_go()
    await committing
    assert rig.value() == b"12"


async def test_deletions_and_sums_have_no_successor(rig: Rig, how: str) -> None:
    if how == "stroke":
        stroke = rig.store.stroke()
        stroke.delete(rig.tree, KEY)
        rig.commit(stroke)
    else:
        txn = rig.store.begin_now()
        txn.delete(rig.tree, KEY)
        assert txn.commit_now(rig.answers.append)
    assert code_of(rig.store.stroke().value, rig.tree, KEY) == Err.WriteConflict
    await rig.let_go()
    assert rig.store.stroke().value(rig.tree, KEY) is None
    sums = rig.store.begin_now()
    sums.put(rig.tree, b"sum", bytes(8))
    await sums.commit()
    sums = rig.store.begin_now()
    sums.add(rig.tree, b"sum", 0, 8, 1)
    for wish in (rig.store.stroke().value, rig.store.stroke().delete):
        assert code_of(wish, rig.tree, b"sum") == Err.WriteConflict, "adders share the key"
    sums.rollback_now()


@pytest.mark.parametrize("held", ["written", "locked", "shared", "on its way"])
async def test_a_key_that_another_session_holds_is_a_conflict(rig: Rig, held: str) -> None:
    txn = rig.store.begin_now()
    if held in ("written", "on its way"):
        txn.put(rig.tree, KEY, b"1")
    else:
        txn.lock(rig.tree, KEY, shared=held == "shared")
    if held == "on its way":
        assert txn.commit_now(rig.answers.append)
    stroke = rig.store.stroke()
    assert code_of(stroke.put, rig.tree, KEY, b"2") == Err.WriteConflict
    assert code_of(stroke.delete, rig.tree, KEY) == Err.WriteConflict
    assert code_of(stroke.insert, rig.tree, KEY, b"2") == Err.KeyDuplicate
    stroke.put(rig.tree, b"another", b"2")
    rig.commit(stroke)
    txn.rollback_now()
    await rig.let_go()
    assert rig.store.locks_held() == 0


async def test_inserting_what_is_there(rig: Rig) -> None:
    """On the timeline, in the pages, by this stroke; and what this stroke has deleted may be inserted again."""
    rig.gate.thaw()
    for place in ("timeline", "pages"):
        if place == "pages":
            await rig.store.checkpoint()
            assert rig.store.stroke().value(rig.tree, KEY) == b"0"
        stroke = rig.store.stroke()
        assert code_of(stroke.insert, rig.tree, KEY, b"1") == Err.KeyDuplicate
        stroke.insert(rig.tree, b"new", b"1")
        assert code_of(stroke.insert, rig.tree, b"new", b"2") == Err.KeyDuplicate
        stroke.delete(rig.tree, KEY)
        stroke.insert(rig.tree, KEY, b"again")
        assert code_of(stroke.insert, rig.tree, KEY, b"and again") == Err.KeyDuplicate
    rig.commit(stroke)
    await rig.store.flush()
    assert rig.value() == b"again"
    assert rig.store.newest(rig.tree, b"new")[0] == b"1"
    assert code_of(rig.store.stroke().put, rig.tree, bytes(limits.TREE_KEY_BYTES_MAX + 1), b"") == Err.KeyTooBig


async def test_the_schema_is_shared_with_writers_and_with_nobody_who_changes_it(rig: Rig) -> None:
    ddl = rig.store.begin_now()
    ddl.lock_schema(rig.tree, exclusive=True)
    assert not rig.stroke(b"1").commit(rig.tree, rig.answers.append), "somebody changes the schema"
    ddl.rollback_now()
    rig.put(b"1")
    ddl = rig.store.begin_now()
    with pytest.raises(JetError):
        ddl.lock_schema(rig.tree, exclusive=True)
    ddl.rollback_now()
    before = rig.store.begin_now()
    await rig.let_go()
    with pytest.raises(JetError):
        before.lock_schema(rig.tree, exclusive=True)  # what it builds would miss the row
    before.rollback_now()
    ddl = rig.store.begin_now()
    ddl.lock_schema(rig.tree, exclusive=True)
    ddl.rollback_now()


@pytest.mark.parametrize("why", ["slow", "full", "large"])
async def test_what_would_have_to_wait_is_not_taken(rig: Rig, why: str) -> None:
    stroke, usage = rig.stroke(b"1"), rig.store.timeline.usage
    if why == "slow":
        usage.slow = -1
    elif why == "full":
        usage.limit = usage.used - 1
    else:
        for number in range(LARGE_ROWS):
            stroke.put(rig.tree, b"%d" % number, b"")
    assert not stroke.commit(rig.tree, rig.answers.append)
    assert rig.store.locks_held() == 0
    ddl = rig.store.begin_now()
    ddl.lock_schema(rig.tree, exclusive=True)
    ddl.rollback_now()
    assert not rig.answers


async def test_a_log_that_takes_nothing_leaves_nothing_locked(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise JetError(Err.LogBufferTooSmall)

    stroke = rig.stroke(b"1")
    with monkeypatch.context() as patch:
        patch.setattr(rig.store.journal, "append", refuse)
        assert code_of(stroke.commit, rig.tree, rig.answers.append) == Err.LogBufferTooSmall
    assert rig.store.locks_held() == 0
    ddl = rig.store.begin_now()
    ddl.lock_schema(rig.tree, exclusive=True)
    ddl.rollback_now()


async def test_a_database_that_is_gone(rig: Rig) -> None:
    rig.gate.thaw()
    await rig.store.detach_database(tree_slot(rig.tree))
    stroke = rig.store.stroke()
    for wish in (stroke.put, stroke.insert):
        assert code_of(wish, rig.tree, KEY, b"1") == Err.InvalidDatabaseId
    assert code_of(stroke.delete, rig.tree, KEY) == Err.InvalidDatabaseId


async def test_a_database_that_goes_while_one_is_on_its_way(rig: Rig, how: str) -> None:
    rig.put(b"1", how)
    rig.append(b"2")
    going = asyncio.create_task(rig.store.detach_database(tree_slot(rig.tree)))
    await asyncio.sleep(0)
    assert code_of(rig.store.stroke().put, rig.tree, KEY, b"3") == Err.InvalidDatabaseId
    rig.gate.thaw()
    await going
    assert [type(answer) for answer in rig.answers] == [Commit, Commit]
    assert rig.store.locks_held() == 0
    assert await rig.store.attach_database("a.edb") == tree_slot(rig.tree)
    assert rig.value() == b"12"


async def test_after_a_failure_of_the_log_neither_is_there(rig: Rig, how: str) -> None:
    rig.put(b"1", how)
    rig.append(b"2")
    rig.gate.latch("a test")
    rig.gate.thaw()
    for _ in range(100):
        if len(rig.answers) == 2:
            break
        await asyncio.sleep(0.01)
    assert [type(answer) for answer in rig.answers] == [JetError, JetError]
    assert rig.store.locks_held() == 0
    assert rig.store.timeline.usage.used == rig.store.timeline.bytes
    with pytest.raises(JetError) as error:
        rig.store.stroke()
    assert error.value.code == Err.InstanceUnavailable


async def test_it_survives_a_crash(rig: Rig) -> None:
    rig.gate.thaw()
    stroke = rig.stroke(b"1")
    stroke.put(rig.tree, b"second", b"2")
    rig.commit(stroke)
    await rig.store.flush()
    rig.gate.latch("a crash")
    await rig.store.stop(checkpoint=False)
    rig.open()
    await rig.store.start()
    assert [rig.store.newest(rig.tree, key)[0] for key in (KEY, b"second")] == [b"1", b"2"]


def code_of(call: Callable[..., object], *args: object, **kwargs: object) -> int:
    """The error that a call ends with."""
    with pytest.raises(JetError) as error:
        call(*args, **kwargs)
    return error.value.code
