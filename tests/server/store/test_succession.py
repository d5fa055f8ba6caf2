"""A transaction that goes on top of a commit on its way to the log: never without the first, and no update lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from jetwire_protocol.errors import Err, JetError
from jetwire_server.clock import SystemClock
from jetwire_server.files.gate import Gate
from jetwire_server.files.memory import MemoryFiles
from jetwire_server.redo.log import Log
from jetwire_server.store.embedded.store import EmbeddedStore
from jetwire_server.store.interface import Commit, Tree
from jetwire_server.store.transaction import StoreTransaction

KEY = b"k"


class Rig:
    """A store whose gate is frozen, so that commits stay on their way until the test lets them go."""

    def __init__(self, root: str) -> None:
        self.clock, self.files = SystemClock(), MemoryFiles(real_root=root)
        self.gate = Gate(self.clock)
        self.store = EmbeddedStore(Log(self.files, self.gate, self.clock, file_kb=64), self.files, MemoryFiles(), self.gate, self.clock)
        self.answers: list[Commit | JetError] = []
        self.tree = Tree(0)

    async def start(self) -> None:
        await self.store.start()
        slot = await self.store.create_database("a.edb")
        txn = self.store.begin_now()
        self.tree = txn.new_tree(slot)
        txn.insert(self.tree, KEY, b"0")
        await txn.commit()
        await self.gate.freeze(self.clock.boot() + 30, drain_until=self.clock.boot() + 30)

    def put(self, value: bytes) -> StoreTransaction:
        """A put of its own, handed to the log."""
        txn = self.store.begin_now()
        txn.put(self.tree, KEY, value)
        assert txn.commit_now(self.answers.append)
        return txn

    def append(self, what: bytes) -> StoreTransaction:
        """Goes on top of what is on its way."""
        txn = self.store.begin_now()
        now = txn.succeed(self.tree, KEY)
        assert now is not None
        txn.put(self.tree, KEY, now + what)
        assert txn.commit_now(self.answers.append)
        return txn

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


async def test_both_are_published_in_their_order(rig: Rig) -> None:
    rig.put(b"1")
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


async def test_nobody_else_gets_the_key_meanwhile_or_with_an_old_snapshot(rig: Rig) -> None:
    old = rig.store.begin_now()
    rig.put(b"1")
    rig.append(b"2")
    for txn in (rig.store.begin_now(), old):
        with pytest.raises(JetError) as error:
            txn.put(rig.tree, KEY, b"x")
        assert error.value.code == Err.WriteConflict
    await rig.let_go()
    with pytest.raises(JetError) as error:
        old.put(rig.tree, KEY, b"x")
    assert error.value.code == Err.WriteConflict
    old.rollback_now()


async def test_rolled_back_it_gives_the_key_back(rig: Rig) -> None:
    first = rig.put(b"1")
    second = rig.store.begin_now()
    assert second.succeed(rig.tree, KEY) == b"1"
    second.put(rig.tree, KEY, b"2")
    second.rollback_now()
    assert rig.store.key_locks.holder(rig.tree, KEY) is first
    other = rig.store.begin_now()
    with pytest.raises(JetError):
        other.put(rig.tree, KEY, b"x")
    other.rollback_now()
    rig.append(b"3")
    await rig.let_go()
    assert rig.value() == b"13"
    assert rig.store.locks_held() == 0


async def test_the_first_to_end_does_not_let_go_of_what_the_second_holds(rig: Rig) -> None:
    """Both hold as many keys as they have written, which is when letting go takes the short way."""
    first, second = rig.put(b"1"), rig.append(b"2")
    first.release(0)
    assert rig.store.key_locks.holder(rig.tree, KEY) is second
    await rig.let_go()
    assert rig.store.locks_held() == 0


async def test_nobody_goes_on_top_of_what_the_log_has_not_got(rig: Rig) -> None:
    txn = rig.store.begin_now()
    txn.put(rig.tree, KEY, b"1")
    other = rig.store.begin_now()
    assert other.succeed(rig.tree, KEY) is None, "it may still roll back"
    txn.rollback_now()
    assert other.succeed(rig.tree, KEY) is None, "nobody holds it"
    relief = asyncio.Event()

    async def wait_for_relief() -> None:
        await relief.wait()

    txn = rig.store.begin_now()
    txn.put(rig.tree, KEY, b"1")
    rig.store.timeline.usage.slow = -1
    rig.store.checkpointer.relief = wait_for_relief  # type: ignore[method-assign]
    committing = asyncio.create_task(txn.commit())
    await asyncio.sleep(0)
    assert other.succeed(rig.tree, KEY) is None, "its record may come behind the other's"
    rig.store.timeline.usage.slow = 1 << 30
    relief.set()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert other.succeed(rig.tree, KEY) == b"1"
    other.put(rig.tree, KEY, b"12")
    assert other.commit_now(rig.answers.append)
    await rig.let_go()
    await committing
    assert rig.value() == b"12"


async def test_deletions_and_sums_have_no_successor(rig: Rig) -> None:
    txn = rig.store.begin_now()
    txn.delete(rig.tree, KEY)
    assert txn.commit_now(rig.answers.append)
    other = rig.store.begin_now()
    assert other.succeed(rig.tree, KEY) is None
    other.rollback_now()
    await rig.let_go()


async def test_after_a_failure_of_the_log_neither_is_there(rig: Rig) -> None:
    rig.put(b"1")
    rig.append(b"2")
    rig.gate.latch("a test")
    rig.gate.thaw()
    for _ in range(100):
        if len(rig.answers) == 2:
            break
        await asyncio.sleep(0.01)
    assert [type(answer) for answer in rig.answers] == [JetError, JetError]
    assert rig.store.locks_held() == 0
