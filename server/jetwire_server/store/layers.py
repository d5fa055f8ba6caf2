"""A scan through pages, timeline and own writes, laid over each other a stretch at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jetwire_server.store.interface import Row, Tree
from jetwire_server.store.timeline import value_in
from jetwire_server.store.writeset import Deltas, made_whole

if TYPE_CHECKING:
    from jetwire_server.store.transaction import StoreTransaction


def scan_layers(transaction: StoreTransaction, tree: Tree, low: bytes | None, high: bytes | None, reverse: bool, limit: int) -> list[Row]:
    """At most `limit` rows as the transaction sees them."""
    out: list[Row] = []
    nearest = max if reverse else min
    found = transaction.versions_of(tree)
    adopted = transaction.adopted.get(tree)
    while True:
        want = max(limit - len(out), 8)
        if adopted is None:
            rows = transaction.pages.chunk(tree, low, high, reverse, want)
            transaction.from_pages += len(rows)
        else:
            rows = adopted.chunk(low, high, reverse, want)
        # Beyond the last of these nothing is known of the pages yet: what lies there above them would be taken in vain.
        least, most = low, high
        if len(rows) == want:
            least, most = (rows[-1][0], high) if reverse else (low, rows[-1][0] + b"\0")
        above = found.keys.run(least, most, reverse, want) if found is not None else []
        mine = transaction.own_keys(tree, least, most, reverse, want)
        # A layer that filled its stretch may go on: beyond the nearest such end nothing is known yet.
        ends = [layer[-1] for layer in (above, mine) if len(layer) == want]
        if len(rows) >= want:
            ends.append(rows[-1][0])
        end = nearest(ends) if ends else None
        if not above and not mine:
            out += rows
        elif not rows and not mine:
            out += _versions_alone(transaction, tree, above)
        else:
            merged = dict(rows)
            _lay_versions(transaction, tree, above, merged)
            _lay_own(transaction, tree, mine, merged)
            inside = merged.items() if end is None else [row for row in merged.items() if (row[0] >= end if reverse else row[0] <= end)]
            out += sorted(inside, reverse=reverse)
        if end is None or len(out) >= limit:
            return out[:limit]
        if reverse:
            high = end
        else:
            low = end + b"\0"


def _versions_alone(transaction: StoreTransaction, tree: Tree, keys: list[bytes]) -> list[Row]:
    """What the snapshot sees of these keys where the pages have nothing."""
    found = transaction.versions_of(tree)
    assert found is not None
    versions, snapshot, base = found.versions, transaction.snapshot, transaction.pages.base
    newest: list[Any] = [
        (key, value)
        for key in keys
        if base < (version := versions[key])[0] <= snapshot
        and (value := version[1] if type(version[1]) is not dict else version[1][key]) is not None  # `value_in`
    ]
    if len(newest) == len(keys):  # nearly always so
        return newest
    merged: dict[bytes, bytes] = {}
    _lay_versions(transaction, tree, keys, merged)
    return list(merged.items())  # in the order of the keys


def _lay_versions(transaction: StoreTransaction, tree: Tree, keys: list[bytes], merged: dict[bytes, bytes]) -> None:
    snapshot, base = transaction.snapshot, transaction.pages.base
    found = transaction.versions_of(tree)
    if found is None:
        return
    versions = found.versions
    for key in keys:
        version = versions[key]
        while version[0] > snapshot and version[2] is not None:
            version = version[2]
        if not base < version[0] <= snapshot:
            continue  # the pages have what this snapshot sees
        value = value_in(version, key)
        if value is not None:
            merged[key] = value
        else:
            merged.pop(key, None)


def _lay_own(transaction: StoreTransaction, tree: Tree, keys: list[bytes], merged: dict[bytes, bytes]) -> None:
    for key in keys:
        entry = transaction.writes[tree][key]
        value = made_whole(transaction.visible(tree, key), entry) if isinstance(entry, Deltas) else entry
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = value
