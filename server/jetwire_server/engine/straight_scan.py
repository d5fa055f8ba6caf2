"""The straight road of a scan: so many whole records from a key on, up to another one if need be, in one plain call.

As `straight` it takes ordinary cases only, and gives an answer or leaves it to the general road. What it leaves behind, the
cursor's place too, is what SetCurrentIndex, MakeKey, Seek(SeekGE), SetIndexRange and GetRecords would have left.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from jetwire_server import limits
from jetwire_server.engine.cursor import Cursor
from jetwire_server.engine.values import PRIMARY, successor

KeyPart = tuple[Any, int]  # a value and MakeKey's grbit; the first of a key has NewKey


class Scanned(NamedTuple):
    """Records as JSON, to be joined by commas."""

    records: list[bytes]
    exact: bool  # the first of them has the key
    more: bool


def scan_from(cursor: Cursor, start: Iterable[KeyPart], stop: Iterable[KeyPart], limit: int, int64_strings: bool) -> Scanned | None:
    """At most `limit` records of the primary index from `start` to `stop` (included; empty: to the end), all columns.

    None if there are none, too. The search key is gone then, nothing else has happened.
    """
    at = cursor.at
    if at.kind != PRIMARY or cursor.filters or not 0 < limit <= limits.STRAIGHT_ROWS_MAX or not cursor.ordinary:
        return None
    session, codec = cursor.session, cursor.plan.codec
    low, _ = _key(cursor, start)
    high = None
    if stop:
        last, complete = _key(cursor, stop)
        high = successor(last) if complete else last
        if high <= low:
            return None
    entries, from_pages = session.instance.store.newest_rows(at.tree, low, high, limit + 1)
    if not entries:
        return None
    rows = [row for _, row in entries]
    more = len(entries) > limit
    if more:
        rows.pop()
    if cursor.plan.has_long and any(map(codec.references, rows)):
        return None
    told = codec.view(int64_strings=int64_strings).to_json_runs(rows)
    if sum(map(len, told)) > limits.RECORDS_BYTES:
        return None
    session.count_reads(len(entries), from_pages)
    session.warning = 0
    cursor.cancel_update()
    cursor.range_low, cursor.range_high = None, high
    cursor._chunk = []
    if more:
        cursor._put_on(*entries[limit])
    else:
        cursor._run_out(True)
    return Scanned(told, entries[0][0] == low, more)


def _key(cursor: Cursor, parts: Iterable[KeyPart]) -> tuple[bytes, bool]:
    for value, grbit in parts:
        cursor.make_key(value, grbit)
    return cursor.take_key()
