"""The straight road of a scan: from a key on, so many whole records, in one plain call.

As `straight` it takes ordinary cases only and does all or nothing. What it leaves behind, the cursor's place too, is what MakeKey,
Seek(SeekGE) and GetRecords would have left.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from jetwire_server import limits
from jetwire_server.engine.cursor import Cursor
from jetwire_server.engine.straight import is_whole
from jetwire_server.engine.values import PRIMARY


class Scanned(NamedTuple):
    """Records as JSON, to be joined by commas."""

    records: list[bytes]
    exact: bool  # the first of them has the key
    more: bool


def scan_from(cursor: Cursor, key: Sequence[Any], limit: int, int64_strings: bool) -> Scanned | None:
    """At most `limit` records of the primary index from this key on, all columns. None if there are none, too."""
    at = cursor.at
    if at.kind != PRIMARY or cursor.filters or not 0 < limit <= limits.STRAIGHT_ROWS_MAX or not cursor.ordinary or not is_whole(at, key):
        return None
    assert at.maker is not None
    session, codec = cursor.session, cursor.plan.codec
    bookmark = at.maker.key(key)
    entries, from_pages = session.instance.store.newest_rows(at.tree, bookmark, limit + 1)
    if not entries:
        return None
    found = len(entries)
    rows = [row for _, row in entries]
    more = found > limit
    if more:
        rows.pop()
    if cursor.plan.has_long and any(map(codec.references, rows)):
        return None
    told = codec.view(int64_strings=int64_strings).to_json_runs(rows)
    if sum(map(len, told)) > limits.RECORDS_BYTES:
        return None
    session.count_reads(found, from_pages)
    session.warning = 0
    cursor.cancel_update()
    cursor.search.reset()
    cursor._drop_range()
    cursor._chunk = []
    if more:
        cursor._put_on(*entries[limit])
    else:
        cursor._run_out(True)
    return Scanned(told, entries[0][0] == bookmark, more)
