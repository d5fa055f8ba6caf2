"""The straight road of a scan: so many whole records from a key on, up to another one if need be, in one plain call.

As `straight` it takes ordinary cases only, and gives an answer or leaves it to the general road. What it leaves behind, the
cursor's place too, is what SetCurrentIndex, MakeKey, Seek(SeekGE), SetIndexRange and GetRecords would have left.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from jetwire_server import limits
from jetwire_server.engine.cursor import Cursor
from jetwire_server.engine.place import ON
from jetwire_server.engine.scan_cache import ScanCache
from jetwire_server.engine.values import PRIMARY, successor
from jetwire_server.store.interface import Row, Store, Tree

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
    if at.kind != PRIMARY or cursor.filters or int64_strings or not 0 < limit <= limits.STRAIGHT_ROWS_MAX or not cursor.ordinary:
        return None
    low, _ = _key(cursor, start)
    high = None
    if stop:
        last, complete = _key(cursor, stop)
        high = successor(last) if complete else last
        if high <= low:
            return None
    return _scan(cursor, low, high, limit)


def _scan(cursor: Cursor, low: bytes, high: bytes | None, limit: int) -> Scanned | None:
    session, tree = cursor.session, cursor.at.tree
    codec, has_long = cursor.plan.codec, cursor.plan.has_long
    store: Store = session.instance.store
    from_pages = 0

    def rows_from(low: bytes, high: bytes | None, limit: int) -> list[Row]:
        nonlocal from_pages
        rows, of_pages = store.newest_rows(tree, low, high, limit)
        from_pages += of_pages
        return rows

    def tell(rows: list[bytes]) -> list[bytes] | None:
        return None if has_long and any(map(codec.references, rows)) else list(map(codec.to_json, rows))

    found = _cache_of(cursor, store, tree).scan(low, high, limit, rows_from, tell)
    if found is not None:
        records, count, first, following = found
    else:
        entries = rows_from(low, high, limit + 1)
        rows = [row for _, row in entries]
        following = entries[limit][0] if len(entries) > limit else None
        if following is not None:
            rows.pop()
        if has_long and any(map(codec.references, rows)):
            return None
        records, count = codec.view().to_json_runs(rows), len(rows)
        first = entries[0][0] if entries else None
    if first is None or sum(map(len, records)) > limits.RECORDS_BYTES:
        return None
    session.count_reads(count, from_pages)
    session.warning = 0
    cursor.cancel_update()
    cursor.range_low, cursor.range_high = None, high
    if following is None:
        cursor._run_out(True)
    else:
        cursor._put_at(ON, following)
        cursor.bookmark = following
    return Scanned(records, first == low, following is not None)


def _cache_of(cursor: Cursor, store: Store, tree: Tree) -> ScanCache:
    """The cache of the table as it is described now; the store tells it of changes."""
    compiled = cursor.plan.table.compiled
    cache: ScanCache | None = compiled.get("scans")
    if cache is None:
        cache = compiled["scans"] = ScanCache()
    if store.watcher_of(tree) is not cache:
        cache.forget()
        store.watch(tree, cache)
    return cache


def _key(cursor: Cursor, parts: Iterable[KeyPart]) -> tuple[bytes, bool]:
    for value, grbit in parts:
        cursor.make_key(value, grbit)
    return cursor.take_key()
