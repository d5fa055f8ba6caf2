"""What must come of any interleaving, worked out from the rules alone: snapshot isolation as ESE has it.

- A session sees what was committed when it began, and its own changes.
- Whoever changes a record first has it: another's change of it is a write conflict at once, also where the first one
  committed meanwhile. An insert answers duplicate instead.
- Escrow updates stand in the way of all but each other.
- A refused session rolls back and is out of it.

It knows nothing of stores or engines: a handful of dictionaries, so that it can be believed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from jetwire_protocol.errors import Err
from tests.support.interleaving import Case, Content, Outcome

Key = tuple[str, int]  # ("record", its key) or ("unique", a value)
ADD, CHANGE = "add", "change"


@dataclass
class Sess:
    snapshot: int
    changes: dict[Key, Any] = field(default_factory=dict)  # None: deleted
    adds: dict[Key, int] = field(default_factory=dict)


@dataclass
class Committed:
    number: int
    kind: str
    key: Key
    value: Any


class Rules:
    """`beside`: what is added stands in a column of its own, so that replacing a record leaves it."""

    def __init__(self, start: Content, *, beside: bool) -> None:
        self.beside = beside
        self.history = [Committed(0, CHANGE, ("record", k), v) for k, v in start.items()]
        self.number = 0
        self.running: dict[int, Sess] = {}

    def seen(self, key: Key, session: Sess) -> Any:
        """(what was put, what was added), or None."""
        put, added = None, 0
        for one in self.history:
            if one.key == key and one.number <= session.snapshot:
                put, added = self._after(put, added, one.kind, one.value)
        if key in session.changes:
            put, added = self._after(put, added, CHANGE, session.changes[key])
        if key in session.adds:
            put, added = self._after(put, added, ADD, session.adds[key])
        return None if put is None else put + added

    def _after(self, put: Any, added: int, kind: str, value: Any) -> tuple[Any, int]:
        if kind == ADD:
            return put, added + value
        if value is None:
            return None, 0
        return value, added if self.beside and put is not None else 0

    def taken(self, key: Key, me: int, kind: str) -> bool:
        """By somebody's uncommitted change, or one committed since this session began."""
        others = [s for n, s in self.running.items() if n != me]
        uncommitted = any(key in s.changes or (kind == CHANGE and key in s.adds) for s in others)
        newer = [one for one in self.history if one.key == key and one.number > self.running[me].snapshot]
        return uncommitted or any(kind == CHANGE or one.kind == CHANGE for one in newer)

    def step(self, me: int, step: tuple[Any, ...]) -> Any:
        """What the step answers; an `Err` if it is refused."""
        what, *args = step
        session = self.running[me]
        if what in ("commit", "rollback"):
            del self.running[me]
            if what == "commit" and (session.changes or session.adds):
                self.number += 1
                self.history += [Committed(self.number, CHANGE, k, v) for k, v in session.changes.items()]
                self.history += [Committed(self.number, ADD, k, v) for k, v in session.adds.items()]
            return None
        if what == "scan":
            return [k for k in self.keys() if self.seen(("record", k), session) is not None]
        key = ("record", args[0])
        there = self.seen(key, session)
        if what == "get":
            return there
        if what in ("insert", "unique"):
            wanted = [key, ("unique", args[1])] if what == "unique" else [key]
            if any(self.seen(k, session) is not None or self.taken(k, me, CHANGE) for k in wanted):
                return Err.KeyDuplicate
            session.changes.update(dict.fromkeys(wanted, args[1]))
            return None
        if what == "upsert" and there is None:
            return None
        if self.taken(key, me, ADD if what == "add" else CHANGE):
            return Err.WriteConflict
        if what == "add":
            session.adds[key] = session.adds.get(key, 0) + args[1]
        else:
            session.changes[key] = None if what == "delete" else args[1]
        return None

    def keys(self) -> list[int]:
        found = {one.key[1] for one in self.history} | {k[1] for s in self.running.values() for k in s.changes}
        return sorted(found)

    def content(self) -> Content:
        reader = Sess(self.number)
        records = sorted({one.key[1] for one in self.history if one.key[0] == "record"})
        return {k: v for k in records if (v := self.seen(("record", k), reader)) is not None}


def what_must_come(case: Case, order: tuple[int, ...], *, beside: bool) -> Outcome:
    """The one outcome that the rules allow."""
    count = len(case.sessions)
    rules = Rules(case.start, beside=beside)
    out = Outcome(order, [[] for _ in range(count)], [None] * count, [None] * count, {})
    place = [-1] * count
    for me in order:
        place[me] += 1
        if not place[me]:
            rules.running[me] = Sess(rules.number)
        elif out.refusals[me] is None:
            step = case.sessions[me][place[me] - 1]
            answer = rules.step(me, step)
            if isinstance(answer, Err):
                out.refusals[me], out.refused_at[me] = answer, place[me] - 1
                rules.step(me, ("rollback",))
            elif step[0] in ("get", "scan"):
                out.reads[me].append(answer)
    out.content = rules.content()
    return out
