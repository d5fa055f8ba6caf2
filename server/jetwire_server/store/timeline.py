"""The recent past above the pages: per tree, every key's newest versions, by the number of the commit that wrote them.

A version is a tuple `(number, value, older, by_add)`, newest first; `value` is None for a deletion. A snapshot reads the
newest version with a number at or below its own, unless the pages it looks at hold that one or a newer (their `base`).
The timeline is changed on one thread only, in log order, and never in the middle of a read.

Many new keys of one commit share a version, whose `value` is the dictionary of theirs: a bulk load makes no object a row
that the collector would have to look at, and comes and goes without a loop in Python. Such a version has nothing older,
and nothing newer: what is put on top of it is put on top of one of the key's own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from itertools import repeat
from typing import Any, Protocol

from jetwire_server import limits
from jetwire_server.store.interface import Row, Tree, tree_slot
from jetwire_server.store.sortedkeys import SortedKeys
from jetwire_server.store.writeset import Deltas, Entry, made_whole

Version = tuple[
    Any, ...
]  # number, value (or the commit's values, by key), an older Version or None, by an add; one that keys share is known by identity
SHARED_ROWS = 20  # of one commit and tree, from which on they share a version
VERSION_OVERHEAD_BYTES = 250  # measured: two bytes objects, a tuple, a dictionary slot and a place in the order


class Base(Protocol):
    """The pages below a timeline, as one generation sees them."""

    @property
    def base(self) -> int:
        """Every commit up to this number is in these pages."""
        ...

    @property
    def current(self) -> bool:
        """Whether there are no newer pages."""
        ...

    def get(self, tree: Tree, key: bytes) -> bytes | None: ...
    def newest(self, tree: Tree, key: bytes) -> tuple[int, bytes] | None:
        """The value and the number of the commit that wrote it."""
        ...

    def chunk(self, tree: Tree, low: bytes | None, high: bytes | None, reverse: bool, limit: int) -> list[Row]: ...


class NoPages:
    """What lies below the timeline of a store that lives in memory alone."""

    base = 0
    current = True

    def get(self, tree: Tree, key: bytes) -> bytes | None:
        return None

    def newest(self, tree: Tree, key: bytes) -> tuple[int, bytes] | None:
        return None

    def chunk(self, tree: Tree, low: bytes | None, high: bytes | None, reverse: bool, limit: int) -> list[Row]:
        return []


class TreeVersions:
    """One tree's part of the timeline."""

    __slots__ = ("dropped", "keys", "newest", "versions")

    def __init__(self) -> None:
        self.versions: dict[bytes, Version] = {}
        self.keys = SortedKeys(self.versions)
        self.dropped = 0  # the number of the commit that dropped the tree; 0: it lives
        self.newest = 0  # the number of the newest commit that was published here


class Usage:
    """Bytes held by write sets and versions; one for a store, shared by its transactions.

    At `limit` writes are refused; from `due` on versions are moved to the pages, from `slow` on commits wait for that.
    With large commits `bulk` is due, and they wait while more than that is there: a small timeline is quicker, and
    a dictionary grows by a copy in fresh memory: 5 MiB of it, for 70,000 keys, cost 4 ms, and 17 where the machine has to
    find the memory first.
    """

    __slots__ = ("bulk", "due", "limit", "slow", "used")

    def __init__(self, limit: int) -> None:
        self.used = 0
        self.limit = limit
        self.slow = min(limits.VERSION_BYTES_SLOW, limit // 3)
        self.due = min(limits.VERSION_BYTES_CHECKPOINT, limit // 12)
        self.bulk = min(limits.VERSION_BYTES_BULK, limit // 4)


def value_in(version: Version, key: bytes) -> bytes | None:
    """What a version of this key says; None: a deletion."""
    value = version[1]
    found: bytes | None = value[key] if type(value) is dict else value
    return found


class Timeline:
    """All trees' versions, and what they weigh."""

    def __init__(self, usage: Usage) -> None:
        self.trees: dict[Tree, TreeVersions] = {}
        self.usage = usage
        self.bytes = 0

    def tree(self, tree: Tree) -> TreeVersions:
        found = self.trees.get(tree)
        if found is None:
            found = self.trees[tree] = TreeVersions()
        return found

    def publish(self, number: int, tree: Tree, entries: dict[bytes, Entry], pages: Base) -> list[bytes]:
        """Puts one commit's writes to a tree on top; returns the keys that had a version before.

        From here on `entries` belongs to the timeline: nobody changes it.
        """
        versions_of_tree = self.trees.get(tree) or self.tree(tree)
        versions_of_tree.newest = number
        versions = versions_of_tree.versions
        if len(entries) >= SHARED_ROWS and set(map(type, entries.values())) == {bytes}:
            entries = self._share(number, versions_of_tree, entries)
            if not entries:
                return []
        weight = VERSION_OVERHEAD_BYTES * len(entries)
        ordered = versions_of_tree.keys.ordered
        fresh: list[bytes] = []
        again: list[bytes] = []
        for key, entry in entries.items():
            older = versions.get(key)
            if older is not None:
                again.append(key)
                if type(older[1]) is dict:
                    older = (older[0], older[1][key], None, False)  # the others' values must not live as long as this one
            elif ordered:
                fresh.append(key)
            if type(entry) is bytes:
                weight += len(key) + len(entry)
                versions[key] = (number, entry, older, False)
            elif entry is None:
                weight += len(key)
                versions[key] = (number, None, older, False)
            else:
                assert isinstance(entry, Deltas)
                value = made_whole(self.newest(tree, key, pages), entry)
                weight += len(key) + (len(value) if value is not None else 0)
                versions[key] = (number, value, older, True)
        if fresh:
            versions_of_tree.keys.added(fresh)
        self.bytes += weight
        self.usage.used += weight
        return again

    def _share(self, number: int, found: TreeVersions, entries: dict[bytes, Any]) -> dict[bytes, Any]:
        """Values: those of new keys share a version; answers the others, which are to be put on top of what is there."""
        version: Version = (number, entries, None, False)
        had = [*map(found.versions.setdefault, entries, repeat(version))]
        others: dict[bytes, Any] = {}
        new: dict[bytes, Any] = entries
        if had.count(version) < len(had):
            others = {key: entries[key] for key, older in zip(entries, had, strict=True) if older is not version}
            new = {key: value for key, value in entries.items() if key not in others}
        if found.keys.ordered:
            found.keys.added(list(new))
        weight = VERSION_OVERHEAD_BYTES * len(new) + sum(map(len, new)) + sum(map(len, new.values()))
        self.bytes += weight
        self.usage.used += weight
        return others

    def newest(self, tree: Tree, key: bytes, pages: Base) -> bytes | None:
        """The newest published value, above the pages or in them."""
        found = self.trees.get(tree)
        if found is not None:
            if found.dropped:
                return None
            version = found.versions.get(key)
            if version is not None and version[0] > pages.base:
                return value_in(version, key)
        return pages.get(tree, key)

    def trim(self, tree: Tree, keys: Sequence[bytes], floor: int | None, snapshots: Sequence[int]) -> list[bytes]:
        """Lets go of versions that nobody can ask for; returns the keys of which older versions are still kept.

        Versions above `floor` stay (the pages lack them); `floor` None means that there are no pages, so the newest
        stays. Below, a version stays if one of `snapshots` (ascending) reads it. A version made by `add` stays with its
        past while there is any older snapshot: that snapshot may add too, and must learn that only adds came since. So does
        a deletion: the pages cannot say that a key came and went since.
        """
        found = self.trees.get(tree)
        if found is None:
            return []
        versions = found.versions
        pages_have = -1 if floor is None else floor
        freed = gone = 0
        kept: list[bytes] = []
        shared = shared_by_all(versions, keys)
        if shared is not None and shared[0] <= pages_have:
            if snapshots and shared[0] <= snapshots[-1]:
                return list(keys)
            rows: Any = shared[1]
            gone = len(keys)
            freed = VERSION_OVERHEAD_BYTES * gone + sum(map(len, keys)) + sum(map(len, map(rows.__getitem__, keys)))
            deque(map(versions.__delitem__, keys), 0)
            keys = ()
        for key in keys:
            chain = versions.get(key)
            if chain is None:
                continue
            if chain[3] and snapshots and snapshots[0] < chain[0]:
                kept.append(key)
                continue
            if chain[0] <= pages_have and (
                not snapshots or (chain[1] is not None and chain[2] is None and chain[0] > snapshots[-1])
            ):  # all of it
                del versions[key]
                gone += 1
                freed += _weight(key, chain)
                continue
            trimmed = _needed(chain, chain[0] - 1 if floor is None else floor, snapshots)
            if chain[1] is None and snapshots and snapshots[0] < chain[0] and (trimmed is None or trimmed[0] < chain[0]):
                trimmed = (chain[0], None, trimmed, False)
            if trimmed is not None and floor is None and trimmed[1] is None and trimmed[2] is None:
                if not snapshots or snapshots[0] >= trimmed[0]:
                    trimmed = None  # a deletion that everybody sees, of nothing
                else:
                    kept.append(key)
            elif trimmed is not None and (trimmed[2] is not None or (floor is not None and trimmed[0] <= floor)):
                kept.append(key)
            freed += _weight(key, chain) - _weight(key, trimmed)
            if trimmed is None:
                del versions[key]
                gone += 1
            else:
                versions[key] = trimmed
        if gone:
            if versions:
                found.keys.removed(gone)
            else:
                found.keys.forget()
                if not found.dropped:
                    del self.trees[tree]
        self.bytes -= freed
        self.usage.used -= freed
        return kept

    def forget(self, tree: Tree) -> None:
        """Lets go of a whole tree, its dropping included."""
        found = self.trees.pop(tree, None)
        if found is not None:
            freed = sum(_weight(key, chain) for key, chain in found.versions.items())
            self.bytes -= freed
            self.usage.used -= freed

    def leave(self, slot: int) -> None:
        """Lets go of a database that went: its pages have everything, and the next one in its slot has trees of the same numbers."""
        for tree in [tree for tree in self.trees if tree_slot(tree) == slot]:
            self.forget(tree)


def _walk(chain: Version | None) -> Iterator[Version]:
    while chain is not None:
        yield chain
        chain = chain[2]


def _weight(key: bytes, chain: Version | None) -> int:
    weight, each = 0, VERSION_OVERHEAD_BYTES + len(key)
    while chain is not None:
        value = chain[1] if type(chain[1]) is not dict else chain[1][key]  # `value_in`
        weight += each if value is None else each + len(value)
        chain = chain[2]
    return weight


def shared_by_all(versions: dict[bytes, Version], keys: Sequence[bytes]) -> Version | None:
    """The version that all these keys share, if they do."""
    if not keys:
        return None
    first = versions.get(keys[0])
    if first is None or type(first[1]) is not dict:
        return None
    return first if [*map(versions.get, keys)].count(first) == len(keys) else None


def _needed(chain: Version, floor: int, snapshots: Sequence[int]) -> Version | None:
    """The chain without the versions at or below `floor` that no snapshot reads."""
    keep: list[Version] = []
    newer = None
    for version in _walk(chain):
        number = version[0]
        if number > floor or any(number <= s and (newer is None or s < newer) for s in snapshots):
            keep.append(version)
        newer = number
    out: Version | None = None
    for number, value, _, by_add in reversed(keep):
        out = (number, value, out, by_add)
    return out
