"""The keys of a dictionary in order, sorted only when somebody scans.

Point reads and writes pay nothing but a list append; the first scan after a burst of writes merges the burst. Keys that
left the dictionary stay in the order until half of it is stale: whoever reads a run skips what the dictionary lacks.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Any

from sortedcontainers import SortedList


class SortedKeys:
    """An order over `members`, which its owner changes and reports here."""

    __slots__ = ("_members", "_order", "_pending", "_stale")

    def __init__(self, members: Mapping[bytes, Any]) -> None:
        self._members = members
        self._order: SortedList | None = None  # None: nobody has asked for order since the last rebuild
        self._pending: list[bytes] = []
        self._stale = 0

    @property
    def ordered(self) -> bool:
        """Whether there is an order to keep, so that `added` and `removed` matter."""
        return self._order is not None

    def added(self, keys: list[bytes]) -> None:
        """Keys that were not members before are members now."""
        if self._order is not None:
            self._pending += keys

    def removed(self, count: int) -> None:
        """So many members have gone."""
        self._stale += count
        if self._order is not None and self._stale * 2 > len(self._order) + len(self._pending):
            self.forget()

    def forget(self) -> None:
        """Everything may have changed: the next scan sorts anew."""
        self._order = None
        self._pending = []
        self._stale = 0

    def run(self, low: bytes | None, high: bytes | None, reverse: bool, limit: int) -> list[bytes]:
        """At most `limit` members with `low <= key < high`, in the direction of the scan."""
        order = self._order
        if order is None:
            order = self._order = SortedList(self._members)
        elif self._pending:
            order.update(self._pending)
            self._pending = []
        walk = order.irange(low, high, (True, False), reverse)
        if not self._stale:
            return list(islice(walk, limit))
        members = self._members
        out: list[bytes] = []
        last = None
        for key in walk:  # a key that left and came back may be in the order twice
            if key != last and key in members:
                out.append(key)
                if len(out) == limit:
                    break
                last = key
        return out
