"""Stretches of a table's primary index as JSON, kept while nothing in them changes: what was scanned once is handed on as it is.

Looking up and formatting a row costs about a microsecond, nearly all of it waiting for memory; a slice of what was formatted before
costs a twentieth. A stretch begins at a key that somebody asked for, ends where the next one begins or after so many rows, and is
thrown away when a change to any key in it becomes visible (`store.watch`). It says what a transaction would see that begins now, so
only scans outside a transaction use it.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection
from typing import NamedTuple
from weakref import WeakSet

from jetwire_server import limits
from jetwire_server.metrics import Gauge
from jetwire_server.store.interface import Row

BYTES = Gauge("jetwire_scan_cache_bytes", "Rows kept as JSON for scans.")

RowsFrom = Callable[[bytes, bytes | None, int], list[Row]]  # low, high (not included) and limit to rows
Tell = Callable[[list[bytes]], list[bytes] | None]  # rows to JSON objects; None if that cannot be done here

_STRETCH_BYTES = 300  # what one weighs beside its JSON
_ROW_BYTES = 120  # and for each row


class Stretch:
    """The rows of `low <= key < end`; without an end, to the end of the index."""

    __slots__ = ("end", "json", "keys", "starts", "used", "weight")

    def __init__(self, end: bytes | None, keys: list[bytes], told: list[bytes]) -> None:
        self.end = end
        self.keys = keys
        self.used = False  # since it was built, or the cache was last full
        self.json = b",".join(told)
        self.starts = [0]  # where each row begins, and where one more would
        for one in told:
            self.starts.append(self.starts[-1] + len(one) + 1)
        self.weight = _STRETCH_BYTES + len(self.json) + sum(map(len, keys)) + _ROW_BYTES * len(keys)


class Found(NamedTuple):
    records: list[bytes]  # to be joined by commas
    rows: int
    first: bytes | None  # the first row's key
    next: bytes | None  # the key of the first row that is not among them


class ScanCache:
    """One table's. `written` must be called before a change is visible to whoever reads next."""

    __slots__ = ("__weakref__", "_built", "_lows", "_pause", "_served", "_stretches", "_weight")

    def __init__(self) -> None:
        _ALL.add(self)
        self._lows: list[bytes] = []
        self._stretches: list[Stretch] = []
        self._weight = 0
        self._built = self._served = 0  # stretches since it began anew
        self._pause = 0  # scans that do without, because too few found anything here

    def __del__(self) -> None:
        BYTES.value -= self._weight

    # -- the store's calls ------------------------------------------------------------------------------------
    def written(self, keys: Collection[bytes]) -> None:
        """These keys have new values, or have gone."""
        lows = self._lows
        if not lows:
            return
        if len(keys) > limits.SCAN_CACHE_CHANGES_MAX:
            self.forget()
            return
        for key in keys:
            place = bisect_right(lows, key) - 1
            if place >= 0:
                end = self._stretches[place].end
                if end is None or key < end:
                    self._weigh(-self._stretches.pop(place).weight)
                    del lows[place]

    def forget(self) -> None:
        """All of it: nobody tells of changes any more, or there were too many."""
        self._weigh(-self._weight)
        self._lows, self._stretches = [], []

    # -- scans ------------------------------------------------------------------------------------------------
    def scan(self, low: bytes, high: bytes | None, limit: int, rows_from: RowsFrom, tell: Tell) -> Found | None:
        """At most `limit` rows of `low <= key < high`. None: to be read without this."""
        if self._pause:
            self._pause -= 1
            return None
        records: list[bytes] = []
        left = limit
        first = None
        while True:
            place = bisect_right(self._lows, low)
            stretch = self._stretches[place - 1] if place else None
            if stretch is None or (stretch.end is not None and low >= stretch.end):
                stretch = self._build(place, low, rows_from, tell)
                if stretch is None:
                    return None
            else:
                stretch.used = True
                self._served += 1
            keys, end = stretch.keys, stretch.end
            count = len(keys)
            begin = 0 if not count or keys[0] >= low else bisect_left(keys, low)
            last = high is not None and (end is None or high <= end)
            stop = bisect_left(keys, high, begin) if last else count  # type: ignore[type-var]
            if begin < stop:
                if not left:
                    return Found(records, limit, first, keys[begin])
                if first is None:
                    first = keys[begin]
                cut = min(stop, begin + left)
                left -= cut - begin
                starts = stretch.starts
                records.append(stretch.json if cut - begin == count else stretch.json[starts[begin] : starts[cut] - 1])
                if cut < stop:
                    return Found(records, limit, first, keys[cut])
            if last or end is None:
                return Found(records, limit - left, first, None)
            low = end

    def _build(self, place: int, low: bytes, rows_from: RowsFrom, tell: Tell) -> Stretch | None:
        """Reads what lies between two stretches, or the first part of it."""
        if BYTES.value > limits.SCAN_CACHE_BYTES:
            max(_ALL, key=_weight_of).make_room()
            if self._pause:
                return None
            place = bisect_right(self._lows, low)
        end = self._lows[place] if place < len(self._lows) else None
        rows = rows_from(low, end, limits.SCAN_CACHE_STRETCH_ROWS + 1)
        if len(rows) > limits.SCAN_CACHE_STRETCH_ROWS:
            end = rows.pop()[0]
        told = tell([row for _, row in rows])
        if told is None:
            return None
        stretch = Stretch(end, [key for key, _ in rows], told)
        self._lows.insert(place, low)
        self._stretches.insert(place, stretch)
        self._weigh(stretch.weight)
        self._built += 1
        return stretch

    def make_room(self) -> None:
        """Keeps what was used. If little was, the table is too large for this, or too busy: building costs more than reading."""
        kept = [(low, stretch) for low, stretch in zip(self._lows, self._stretches, strict=True) if stretch.used]
        if 2 * sum(stretch.weight for _, stretch in kept) > self._weight:
            del kept[::2]
        useful = self._served > 2 * self._built
        self._built = self._served = 0
        self.forget()
        if not useful:
            self._pause = limits.SCAN_CACHE_PAUSE_SCANS
            return
        for low, stretch in kept:
            stretch.used = False
            self._lows.append(low)
            self._stretches.append(stretch)
            self._weigh(stretch.weight)

    def _weigh(self, weight: int) -> None:
        self._weight += weight
        BYTES.value += weight


_ALL: WeakSet[ScanCache] = WeakSet()  # they share their room


def _weight_of(cache: ScanCache) -> int:
    return cache._weight
