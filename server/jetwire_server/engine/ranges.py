"""Index ranges, and what works on a range: counts, prereads, intersections."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from jetwire_protocol.data.flags import PrereadKeysGrbit, SetIndexRangeGrbit
from jetwire_protocol.errors import Err, JetError
from jetwire_server import limits
from jetwire_server.engine.place import FRESH, ON
from jetwire_server.engine.seek import Seeking
from jetwire_server.engine.values import PRIMARY, successor
from jetwire_server.store.interface import Transaction

if TYPE_CHECKING:
    from jetwire_server.engine.cursor import Cursor

_INCLUSIVE, _UPPER = int(SetIndexRangeGrbit.RangeInclusive), int(SetIndexRangeGrbit.RangeUpperLimit)
_INSTANT, _REMOVE = int(SetIndexRangeGrbit.RangeInstantDuration), int(SetIndexRangeGrbit.RangeRemove)
_FORWARD, _BACKWARD = int(PrereadKeysGrbit.PrereadForward), int(PrereadKeysGrbit.PrereadBackward)
RECORD_IN_INDEX = 1
_SAMPLE = 101  # bookmarks that tell about where the middle is


class Ranges(Seeking):
    """SetIndexRange, IndexRecordCount, the prereads."""

    async def set_index_range(self, grbit: int = 0) -> None:
        """Ends the moves in one direction at the search key. NoCurrentRecord if the cursor is not within; the range is set then too."""
        self.session.check()
        if grbit & ~(_INCLUSIVE | _UPPER | _INSTANT | _REMOVE):
            raise JetError(Err.InvalidGrbit)
        if grbit & _REMOVE:
            if self.range_low is None and self.range_high is None:
                raise JetError(Err.InvalidOperation, "no range is set")
            self._drop_range()
            return
        if self.at.maker is None:
            raise JetError(Err.NoCurrentIndex)
        key, complete = self.take_key()
        beyond = successor(key) if complete else key
        inclusive = bool(grbit & _INCLUSIVE)
        if grbit & _UPPER:
            self.range_low, self.range_high = None, beyond if inclusive else key
        else:
            self.range_low, self.range_high = key if inclusive else beyond, None
        self._chunk = []
        try:
            await self._read(self._check_within)
        finally:
            if grbit & _INSTANT:
                self._drop_range()

    async def _check_within(self, txn: Transaction) -> None:
        if self.state == FRESH:
            await self._settle(txn)
        inside = self.state == ON
        if self.range_high is not None and self.key >= self.range_high:
            inside = False
        if self.range_low is not None and self.key < self.range_low:
            inside = False
        if not inside:
            raise JetError(Err.NoCurrentRecord)

    async def index_record_count(self, most: int = 0) -> int:
        """The entries from the current one to the end of the range; at most `most`, if it is not 0. None of an empty index."""
        self.session.check()
        if most < 0:
            raise JetError(Err.InvalidParameter, f"maxRecordsToCount {most}")
        return await self._read(self._count, most)

    async def _count(self, txn: Transaction, most: int) -> int:
        if self.state == FRESH:
            await self._settle(txn)
        if self.state != ON:
            if not await txn.scan(self.at.tree, limit=1):
                return 0
            raise JetError(Err.NoCurrentRecord)
        low, high, count = self.key, self.range_high, 0
        while most == 0 or count < most:
            limit = limits.BULK_READ_ROWS if most == 0 else min(limits.BULK_READ_ROWS, most - count)
            if high is not None and low >= high:
                break
            rows = await txn.scan(self.at.tree, low, high, limit=limit)
            count += sum(self._passes(row) for _, row in rows) if self.filters else len(rows)
            if len(rows) < limit:
                break
            low = rows[-1][0] + b"\0"
            await asyncio.sleep(0)  # the pages are usually in memory, and nothing else would wait
        return count

    # -- hints ----------------------------------------------------------------------------------------------------
    def set_table_sequential(self, grbit: int = 0) -> None:
        """The cursor will move through the table: it reads further ahead."""
        self.session.check()
        self.sequential = True

    def reset_table_sequential(self, grbit: int = 0) -> None:
        self.session.check()
        self.sequential = False

    def preread_keys(self, keys: Sequence[bytes], grbit: int) -> int:
        """How many of the keys, which must be sorted, were taken as a hint."""
        self.session.check()
        if not isinstance(grbit, int) or grbit & (_FORWARD | _BACKWARD) in (0, _FORWARD | _BACKWARD):
            raise JetError(Err.InvalidGrbit, "one of PrereadForward and PrereadBackward")
        ordered = sorted(keys, reverse=bool(grbit & _BACKWARD))
        if list(keys) != ordered:
            raise JetError(Err.InvalidParameter, "the keys are not sorted")
        if any(not 0 < len(key) <= self.at.most + 1 for key in keys):
            raise JetError(Err.InvalidBufferSize, "empty, or longer than any key of this index")
        return len(keys)

    def preread_index_ranges(self, ranges: Sequence[Any], columns: Sequence[int] = (), grbit: int = 0) -> int:
        """How many of the ranges were taken as a hint."""
        self.session.check()
        if grbit & (_FORWARD | _BACKWARD) in (0, _FORWARD | _BACKWARD):
            raise JetError(Err.InvalidGrbit, "one of PrereadForward and PrereadBackward")
        if not ranges:
            raise JetError(Err.InvalidParameter, "no ranges")
        for columnid in columns:
            if columnid not in self.plan.columns:
                raise JetError(Err.ColumnNotFound, f"columnid {columnid}")
        return len(ranges)

    async def bookmarks_in_range(self, take: Callable[[list[bytes]], None]) -> None:
        """Hands on the bookmarks from the current entry to the end of the range, some at a time: for intersections."""
        await self._read(self._bookmarks, take)

    async def _bookmarks(self, txn: Transaction, take: Callable[[list[bytes]], None]) -> None:
        if self.state == FRESH:
            await self._settle(txn)
        if self.state != ON:
            return
        low, high = self.key, self.range_high
        of = self.at.bookmark_of
        while high is None or low < high:
            rows = await txn.scan(self.at.tree, low, high, limit=limits.BULK_READ_ROWS)
            take([of(key, value) for key, value in rows])
            if len(rows) < limits.BULK_READ_ROWS:
                break
            low = rows[-1][0] + b"\0"
            await asyncio.sleep(0)


class _Lowest:
    """The lowest bookmarks from `low` on, as many as may be held at once; the others, from `high` on, must wait for their turn."""

    def __init__(self, low: bytes) -> None:
        self.low = low
        self.high: bytes | None = None
        self.held: set[bytes] = set()
        self._bytes = 0

    def take(self, bookmarks: list[bytes]) -> None:
        low, high = self.low, self.high
        new = {one for one in bookmarks if low <= one and (high is None or one < high)} - self.held
        self.held |= new
        self._bytes += _weight(new)
        while self._bytes > limits.INTERSECT_BYTES_IN_MEMORY_MAX:
            some = sorted(islice(self.held, _SAMPLE))
            self.high = high = some[len(some) // 2]
            self.held = {one for one in self.held if one < high}
            self._bytes = _weight(self.held)

    async def also_in(self, cursor: Cursor) -> None:
        """Lets go of what is not in that cursor's range."""
        found: set[bytes] = set()
        await cursor.bookmarks_in_range(lambda bookmarks: found.update(self.held.intersection(bookmarks)))
        self.held = found


def _weight(bookmarks: set[bytes]) -> int:
    """Bytes of memory, about."""
    return 100 * len(bookmarks) + sum(map(len, bookmarks))


async def intersect_indexes(cursors: Sequence[tuple[Cursor, int]], grbit: int = 0) -> list[bytes]:
    """The bookmarks of the records that are in the ranges of all these cursors, on different secondary indexes of one table."""
    if grbit:
        raise JetError(Err.InvalidGrbit)
    if not 1 <= len(cursors) <= limits.INTERSECT_INDEXES_MAX:
        raise JetError(Err.InvalidParameter, f"1 to {limits.INTERSECT_INDEXES_MAX} ranges")
    first = cursors[0][0]
    seen = set()
    for cursor, bits in cursors:
        if bits != RECORD_IN_INDEX:
            raise JetError(Err.InvalidGrbit, "RecordInIndex is the one way to intersect")
        same = cursor.session is first.session and cursor.table.objid == first.table.objid and cursor.dbid == first.dbid
        if not same or cursor.at.kind == PRIMARY or cursor.at.name.lower() in seen:
            raise JetError(Err.InvalidParameter, "each range is on a secondary index of its own of the same table")
        seen.add(cursor.at.name.lower())
    common: list[bytes] = []
    most = first.session.instance.engine.answer_bytes_max
    low: bytes | None = b""
    while low is not None:
        lowest = _Lowest(low)
        await first.bookmarks_in_range(lowest.take)
        for cursor, _ in cursors[1:]:
            await lowest.also_in(cursor)
        common += sorted(lowest.held)
        if sum(map(len, common)) > most:
            raise JetError(Err.OutOfMemory, f"more bookmarks than an answer can have, which are {most} bytes: take smaller ranges")
        low = lowest.high
    return common
