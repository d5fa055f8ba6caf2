"""Numbers that are never given twice: auto-increment values, the sequence of a table without a primary index, long value ids.

They are taken from memory, outside every transaction, so that nobody waits and a rollback gives nothing back. What may have been
given is reserved beforehand, a block at a time, by a small commit of its own; after a crash the rest of the block is lost. Nobody waits
for that commit, not for a thaw either: whatever uses a number comes behind it in the log.
"""

from __future__ import annotations

from asyncio import Event, Lock
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from jetwire_server import limits

if TYPE_CHECKING:
    from jetwire_server.engine.instance import Instance
    from jetwire_server.store.interface import Transaction, Tree

SEQUENCE, AUTO_INCREMENT, LONG_VALUE = b"S", b"A", b"L"
_PREFIX = b"C"


class Counter:
    """One sequence of numbers."""

    __slots__ = ("key", "lock", "next", "on_its_way", "reserved")

    def __init__(self, key: bytes) -> None:
        self.key = key
        self.lock = Lock()
        self.next = 0  # 0: not looked up yet
        self.reserved = 0  # numbers below this may be given
        self.on_its_way: Event | None = None  # of the last reservation: set when the log has reported it


class Counters:
    """The counters of one database."""

    def __init__(self, instance: Instance, tree: Tree) -> None:
        self._instance = instance
        self._tree = tree
        self._counters: dict[tuple[int, bytes], Counter] = {}

    def ready(self, objid: int, kind: bytes) -> int | None:
        """The next number if it needs no reservation."""
        counter = self._counters.get((objid, kind))
        if counter is None or counter.next >= counter.reserved:
            return None
        counter.next += 1
        return counter.next - 1

    async def take(self, objid: int, kind: bytes, highest: Callable[[Transaction], Awaitable[int]]) -> int:
        """The next number. `highest` finds the greatest in the data, for a counter that was never stored."""
        counter = self._counter(objid, kind)
        while counter.next >= counter.reserved:
            await self._reserve(counter, 0, highest)
        counter.next += 1
        return counter.next - 1

    async def raise_to(self, objid: int, kind: bytes, used: int, highest: Callable[[Transaction], Awaitable[int]]) -> None:
        """A number that did not come from here is used: none up to it is given any more."""
        counter = self._counter(objid, kind)
        if counter.next == 0 or used >= counter.reserved:
            await self._reserve(counter, used + 1, highest)
        counter.next = max(counter.next, used + 1)

    def forget(self, objid: int) -> None:
        """The table has gone."""
        for kind in (SEQUENCE, AUTO_INCREMENT, LONG_VALUE):
            self._counters.pop((objid, kind), None)

    def _counter(self, objid: int, kind: bytes) -> Counter:
        counter = self._counters.get((objid, kind))
        if counter is None:
            counter = self._counters[objid, kind] = Counter(_PREFIX + objid.to_bytes(6, "big") + kind)
        return counter

    async def _reserve(self, counter: Counter, least: int, highest: Callable[[Transaction], Awaitable[int]]) -> None:
        """Sees to it that the next number, which is not below `least`, may be given. One at a time, and not before the last one's commit
        has been reported, even if its caller has left: until then it holds the key."""
        async with counter.lock:
            start = max(counter.next, least)
            if counter.next and start < counter.reserved:
                return
            if counter.on_its_way is not None:
                await counter.on_its_way.wait()
            store = self._instance.store
            txn = await store.begin()
            try:
                if counter.next == 0:
                    stored = await txn.get(self._tree, counter.key)
                    first = int.from_bytes(stored, "big") if stored is not None else await highest(txn) + 1
                    start = max(start, first, 1)
                reserved = start + (limits.COUNTER_BLOCK_FROZEN if store.frozen else limits.COUNTER_BLOCK)
                txn.put(self._tree, counter.key, reserved.to_bytes(9, "big"))
                told = Event()
                if txn.commit_now(lambda answer: told.set(), lazy=True):
                    counter.on_its_way = told
                else:
                    counter.on_its_way = told
                    await self._instance.carry_through(_commit(txn, told))
            except BaseException:
                await txn.rollback()
                raise
            counter.next, counter.reserved = max(counter.next, start), reserved


async def _commit(txn: Transaction, told: Event) -> None:
    """Where the store is crowded the log does not have it at once: it must be waited for."""
    try:
        await txn.commit(lazy=True)
    finally:
        told.set()
