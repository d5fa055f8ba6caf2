"""What a crash may leave: the states a workload went through, in the order of its commits.

The promise in terms of this list: after a crash the content is one of the states, not half of one; not older than the
last one that was acknowledged as durable, and not newer than the last one that was handed over.
"""

from __future__ import annotations

from dataclasses import dataclass, field

Rows = dict[bytes, bytes]
Trees = dict[int, Rows]


@dataclass(frozen=True)
class State:
    """Which databases are attached, which lie whole beside them, and what is in the trees of each."""

    attached: dict[str, Trees] = field(default_factory=dict)
    detached: dict[str, Trees] = field(default_factory=dict)

    def written(self, rows: dict[tuple[str, int, bytes], bytes | None]) -> State:
        """After a commit of these rows; None deletes."""
        attached = dict(self.attached)
        fresh: set[str | tuple[str, int]] = set()  # what has been copied
        for (path, number, key), value in rows.items():
            if path not in fresh:
                fresh.add(path)
                attached[path] = dict(attached[path])
            if (path, number) not in fresh:
                fresh.add((path, number))
                attached[path][number] = dict(attached[path].get(number, {}))
            if value is None:
                attached[path][number].pop(key, None)
            else:
                attached[path][number][key] = value
        return State(attached, self.detached)

    def without_tree(self, path: str, number: int) -> State:
        trees = {name: rows for name, rows in self.attached[path].items() if name != number}
        return State({**self.attached, path: trees}, self.detached)

    def created(self, path: str) -> State:
        return State({**self.attached, path: {}}, self.forgotten(path).detached)

    def forgotten(self, path: str) -> State:
        """A detached database that is being overwritten may be anything."""
        return State(self.attached, {name: trees for name, trees in self.detached.items() if name != path})

    def moved_out(self, path: str) -> State:
        attached = {name: trees for name, trees in self.attached.items() if name != path}
        return State(attached, {**self.detached, path: self.attached[path]})

    def moved_in(self, path: str) -> State:
        return State({**self.attached, path: self.detached[path]}, self.forgotten(path).detached)


class History:
    """All states so far, and how far they were acknowledged."""

    def __init__(self) -> None:
        self.states = [State()]
        self.acknowledged = 0
        self.trees: dict[str, set[int]] = {}  # every tree there ever was, by database

    @property
    def last(self) -> State:
        return self.states[-1]

    def hand_over(self, state: State) -> int:
        """A step that is about to be asked for; answers its number."""
        self.states.append(state)
        for path, trees in state.attached.items():
            self.trees.setdefault(path, {1, 2}).update(trees)
        return len(self.states) - 1

    def acknowledge(self, number: int) -> None:
        self.acknowledged = max(self.acknowledged, number)

    def candidates(self, content: dict[str, Trees], low: int, high: int) -> list[int]:
        """The states from `low` to `high` that have this content."""
        return [n for n in range(high, low - 1, -1) if same(self.states[n].attached, content)]

    def beside(self, number: int, high: int) -> State:
        """The state, without detached databases that a later step up to `high` overwrites: their files change before the log says so."""
        gone = set[str]()
        for later in self.states[number + 1 : high + 1]:
            gone |= self.states[number].detached.keys() - later.detached.keys() - later.attached.keys()
        state = self.states[number]
        for path in gone:
            state = state.forgotten(path)
        return state

    def verdict(self, content: dict[str, Trees], low: int, high: int) -> str:
        """What is wrong with a content that is none of the candidates."""
        for number in range(low - 1, -1, -1):
            if same(self.states[number].attached, content):
                return f"acknowledged commits are lost: state {number}, {low} was acknowledged"
        return (
            f"half a commit: no state has this content (expected one of {low} to {high}); {difference(self.states[low].attached, content)}"
        )


def same(expected: dict[str, Trees], found: dict[str, Trees]) -> bool:
    """Empty trees and absent ones are the same."""
    return expected.keys() == found.keys() and all(_rows(expected[path]) == _rows(found[path]) for path in expected)


def _rows(trees: Trees) -> Trees:
    return {number: rows for number, rows in trees.items() if rows}


def difference(expected: dict[str, Trees], found: dict[str, Trees]) -> str:
    """Against the oldest allowed state, for a reader of the failure."""
    if expected.keys() != found.keys():
        return f"databases {sorted(found)} instead of {sorted(expected)}"
    told = []
    for path, trees in expected.items():
        for number in {*trees, *found[path]}:
            before, after = trees.get(number, {}), found[path].get(number, {})
            keys = [key for key in {*before, *after} if before.get(key) != after.get(key)]
            told += [f"{path}/{number}/{key!r}: {_short(before.get(key))} -> {_short(after.get(key))}" for key in sorted(keys)[:4]]
    return "; ".join(told[:12])


def _short(value: bytes | None) -> str:
    return "nothing" if value is None else f"{value[:8].hex()} ({len(value)} bytes)"
