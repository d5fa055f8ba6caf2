"""How far along an index an entry is, without counting all that come before it.

A short index is counted. Of a longer one every so many-th key is remembered, with how many entries were found from it to the next:
a position then costs the reading of a few stretches, and is an estimate where the index has changed since, as ESE's are. Whoever reads
a stretch corrects what is remembered of it, so nothing is counted whole a second time without need. Each call also looks at stretches
that nobody asked for, each as far as can be from those before, and goes on to the neighbours of one that has changed much: of what was
deleted, the n-th part of the index in one piece, all is seen within some n calls.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections import OrderedDict

from jetwire_server import limits
from jetwire_server.store.interface import Row, Transaction, Tree

_ENTRIES = 1_000  # from a milestone to the next
_MILESTONES_MAX = 5_000  # of one index: in a longer one they stand further apart
_LOOKS = 2  # at stretches that nobody asked for, a call
_FAR = 0.6180339887498949  # steps of the golden ratio, round and round, keep as far as can be from all steps before


class Milestones:
    """Of one index."""

    def __init__(self, apart: int) -> None:
        self._apart = apart
        self._lock = asyncio.Lock()  # whoever looks also corrects what is remembered
        self._keys: list[bytes] = []  # the first one is empty: the index's beginning
        self._counts: list[int] = []
        self._turn = 0.0

    @classmethod
    async def along(cls, txn: Transaction, tree: Tree) -> Milestones:
        """Reads the index once."""
        made = cls(_ENTRIES)
        low = b""
        while True:
            rows = await txn.scan(tree, low, limit=made._apart)
            made._keys.append(low)
            made._counts.append(len(rows))
            if len(rows) < made._apart:
                return made
            low = rows[-1][0] + b"\0"
            if len(made._keys) > _MILESTONES_MAX:
                made._thin_out()
            await asyncio.sleep(0)

    async def position(self, txn: Transaction, tree: Tree, key: bytes) -> tuple[int, int]:
        """About how many entries come before the key, and about how many there are."""
        async with self._lock:
            await self._look_around(txn, tree)
            number = bisect_right(self._keys, key) - 1
            number, rows = await self._read(txn, tree, number, key)
            before = sum(self._counts[:number]) + sum(1 for found, _ in rows if found < key)
            last = len(self._keys) - 1
            if number != last:
                await self._read(txn, tree, last, None)  # what grows at its end is seen to
            return before, sum(self._counts)

    async def at(self, txn: Transaction, tree: Tree, part: int, of: int) -> Row | None:
        """The entry at about that share of the index, or its very first or last; None if there is none."""
        if not part or part >= of:
            ends = await txn.scan(tree, reverse=bool(part), limit=1)
            return ends[0] if ends else None
        async with self._lock:
            await self._look_around(txn, tree)
            await self._read(txn, tree, len(self._keys) - 1, None)
            total = sum(self._counts)
            wanted = min(part * total // max(of, 1), total - 1)
            number = 0
            while number < len(self._counts) - 1 and wanted >= self._counts[number]:
                wanted -= self._counts[number]
                number += 1
            rows = (await self._read(txn, tree, number, self._keys[number]))[1]
            if rows:
                return rows[min(max(wanted, 0), len(rows) - 1)]
            found = await txn.scan(tree, self._keys[min(number, len(self._keys) - 1)], limit=1) or await txn.scan(
                tree, reverse=True, limit=1
            )
            return found[0] if found else None

    async def _look_around(self, txn: Transaction, tree: Tree) -> None:
        for _ in range(_LOOKS):
            self._turn = (self._turn + _FAR) % 1.0
            number = int(self._turn * len(self._keys))
            behind = len(self._keys) - number - 1  # counted from the end: a stretch that is read may become several
            if await self._much_changed(txn, tree, number):
                while behind and await self._much_changed(txn, tree, len(self._keys) - behind):
                    behind -= 1
                while number and await self._much_changed(txn, tree, number - 1):
                    number -= 1

    async def _much_changed(self, txn: Transaction, tree: Tree, number: int) -> bool:
        """Reads a stretch; whether it has a tenth more or less than was remembered."""
        remembered, milestones = self._counts[number], len(self._keys)
        await self._read(txn, tree, number, None)
        found = sum(self._counts[number : number + 1 + len(self._keys) - milestones])
        await asyncio.sleep(0)
        return 10 * abs(found - remembered) > max(remembered, self._apart)

    async def _read(self, txn: Transaction, tree: Tree, number: int, key: bytes | None) -> tuple[int, list[Row]]:
        """The entries from one milestone to the next, and its number, once it was seen that they are not too many.

        Where they are, more milestones are set; the stretch that is answered is then the one with the key, or the last.
        """
        high = self._keys[number + 1] if number + 1 < len(self._keys) else None
        low, kept = self._keys[number], []
        keys, counts = [], []
        while True:
            rows = await txn.scan(tree, low, high, limit=2 * self._apart)
            keys.append(low)
            counts.append(len(rows))
            if key is None or low <= key:
                kept, place = rows, len(keys) - 1
            if len(rows) < 2 * self._apart or rows[-1][0] + b"\0" == high:
                break
            low = rows[-1][0] + b"\0"
        self._keys[number : number + 1] = keys
        self._counts[number : number + 1] = counts
        return number + place, kept

    def _thin_out(self) -> None:
        """Every second milestone goes."""
        self._apart *= 2
        pairs = range(0, len(self._keys), 2)
        self._counts = [sum(self._counts[i : i + 2]) for i in pairs]
        self._keys = [self._keys[i] for i in pairs]


class MilestoneBook:
    """Those of one database's indexes: of the ones that were asked about last."""

    def __init__(self) -> None:
        self._of: OrderedDict[Tree, Milestones] = OrderedDict()

    async def of(self, txn: Transaction, tree: Tree) -> Milestones:
        """The index's milestones; a short one is read anew each time, and so counted exactly."""
        short = len(await txn.scan(tree, limit=limits.COUNTED_ENTRIES_MAX)) < limits.COUNTED_ENTRIES_MAX
        known = None if short else self._of.pop(tree, None)
        if known is None:
            known = await Milestones.along(txn, tree)
        if not short:
            self._of[tree] = known
            if len(self._of) > limits.MILESTONE_INDEXES_MAX:
                self._of.popitem(last=False)
        return known
