"""A model of the ISAM, written apart from the engine and simple enough to be believed.

Every commit is a whole copy of the table. A session reads the copy that was newest when it began, with its own writes
laid over it. An index is not kept: it is sorted from the rows whenever somebody asks. A cursor is a place between or on
entries. Nothing here is fast, nothing is cached, nothing waits.

What it knows comes from the documentation of the calls; where that is silent, from how ESE's engine behaves. A call
that ESE refuses raises `Refused` with the error; a warning is kept in `Session.warning`.

Columns and tables are fixed by `Shape`; a row is a dict of its values, with None for NULL. `order` below is the only
place that knows how values sort, and it sorts integers and short lower-case words, whose order nobody doubts.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from jetwire_protocol.errors import Err, Wrn

Row = dict[str, Any]
Rows = dict[int, Row]
Sortable = tuple[Any, ...]

LEVELS_MAX = 7
FIRST, LAST = -(1 << 31), (1 << 31) - 1


class Refused(Exception):
    """The answer to a call is this error."""

    def __init__(self, code: Err) -> None:
        super().__init__(code.name)
        self.code = code


def order(value: int | str | None, descending: bool) -> Sortable:
    """How one value sorts in an index: NULL first, or last where the segment is descending."""
    if value is None:
        return (2,) if descending else (0,)
    if not descending:
        return (1, value)
    if isinstance(value, int):
        return (1, -value)
    return (1, *(-ord(letter) for letter in value), 1)


# -- what is stored ---------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class IndexShape:
    """An index by its segments: (column, descending). `skip_nulls`: a row with any NULL there has no entry."""

    name: str
    segments: tuple[tuple[str, bool], ...]
    unique: bool = False
    skip_nulls: bool = False

    def values(self, row: Row) -> tuple[Any, ...] | None:
        """The row's key values, or None if the row is not in this index."""
        values = tuple(row[column] for column, _ in self.segments)
        return None if self.skip_nulls and None in values else values

    def sortable(self, values: tuple[Any, ...]) -> tuple[Sortable, ...]:
        return tuple(order(v, descending) for v, (_, descending) in zip(values, self.segments, strict=False))


@dataclass(frozen=True)
class Shape:
    """A table: its integer primary key (never NULL), its columns, and what some of them do."""

    key: str
    columns: tuple[str, ...]
    indexes: tuple[IndexShape, ...]  # the first is the primary
    escrow: str | None = None
    autoincrement: str | None = None
    defaults: dict[str, Any] = field(default_factory=dict)

    def index(self, name: str | None) -> IndexShape:
        return next(i for i in self.indexes if name is None or i.name == name)


@dataclass(frozen=True, order=True)
class Entry:
    """One entry of an index: its sortable key, and the primary key of its row."""

    key: tuple[Sortable, ...]
    pk: int


class Lock(Enum):
    WRITE = "write"
    ADD = "add"  # an escrow update: admits other adds


Resource = tuple[Any, ...]  # ("row", pk) or ("entry", index, key)


@dataclass
class Own:
    """What an open transaction did: whole rows (None: deleted), escrow deltas, locks."""

    rows: dict[int, Row | None] = field(default_factory=dict)
    deltas: dict[int, int] = field(default_factory=dict)
    locks: dict[Resource, Lock] = field(default_factory=dict)


class Model:
    """One table, its commits and its sessions."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.commits: list[Rows] = [{}]
        self.changed: dict[Resource, list[tuple[int, Lock]]] = {}  # which commits touched it, and how
        self.sessions: list[Session] = []
        self.numbers_given = 0  # the highest auto-increment value seen

    def begin_session(self) -> Session:
        session = Session(self)
        self.sessions.append(session)
        return session

    def entries(self, rows: Rows, index: IndexShape) -> list[Entry]:
        """The whole index, sorted."""
        found = ((index.values(row), pk) for pk, row in rows.items())
        return sorted(Entry(index.sortable(values), pk) for values, pk in found if values is not None)

    def unique_keys(self, row: Row | None) -> set[Resource]:
        if row is None:
            return set()
        keyed = ((i, i.values(row)) for i in self.shape.indexes[1:] if i.unique)
        return {("entry", i.name, values) for i, values in keyed if values is not None}

    def publish(self, own: Own) -> None:
        if not own.rows and not own.deltas:
            return
        old = self.commits[-1]
        new = dict(old)
        number = len(self.commits)

        def touch(resource: Resource, how: Lock) -> None:
            self.changed.setdefault(resource, []).append((number, how))

        for pk, row in own.rows.items():
            touch(("row", pk), Lock.WRITE)
            for resource in self.unique_keys(old.get(pk)) ^ self.unique_keys(row):
                touch(resource, Lock.WRITE)
            if row is None:
                new.pop(pk, None)
            else:
                new[pk] = row
        for pk, delta in own.deltas.items():
            touch(("row", pk), Lock.ADD)
            new[pk] = self.added(new[pk], delta)
        self.commits.append(new)

    def added(self, row: Row, delta: int) -> Row:
        assert self.shape.escrow is not None
        total = (row[self.shape.escrow] + delta + (1 << 31)) % (1 << 32) - (1 << 31)
        return row | {self.shape.escrow: total}


# -- sessions ---------------------------------------------------------------------------------------------------------
class Session:
    """Its transaction, level by level. Outside one, every call is a transaction of its own."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.snapshot: int | None = None
        self.own = Own()
        self.saved: list[Own] = []  # what was done when each level began
        self.cursors: list[Cursor] = []
        self.warning = 0

    @property
    def level(self) -> int:
        return len(self.saved)

    def begin_transaction(self) -> None:
        if self.level == LEVELS_MAX:
            raise Refused(Err.TransTooDeep)
        if self.level == 0:
            self.snapshot = len(self.model.commits) - 1
        self.saved.append(copy.deepcopy(self.own))

    def commit_transaction(self) -> None:
        if self.level == 0:
            raise Refused(Err.NotInTransaction)
        self.saved.pop()
        for cursor in self.cursors:
            cursor.level_opened = min(cursor.level_opened, self.level)
            cursor.level_moved = min(cursor.level_moved, self.level)
            cursor.level_index = min(cursor.level_index, self.level)
            if cursor.update is not None:
                cursor.update.level = min(cursor.update.level, self.level)
        if self.level == 0:
            self.model.publish(self.own)
            self._end()

    def rollback(self) -> None:
        """Undoes the level's writes and locks, closes cursors opened in it, cancels updates prepared in it.

        A cursor that was moved in it (a bookmark on the primary index is no move) is before the first entry afterwards, and back
        on the primary index, if another was chosen in it.
        """
        if self.level == 0:
            raise Refused(Err.NotInTransaction)
        level = self.level
        for cursor in list(self.cursors):
            if cursor.level_opened >= level:
                cursor.close()
                continue
            if cursor.update is not None and cursor.update.level >= level:
                cursor.update = None
            cursor.level_undone(level)
        self.own = self.saved.pop()
        if self.level == 0:
            self._end()

    def _end(self) -> None:
        self.snapshot = None
        self.own = Own()

    @contextmanager
    def work(self) -> Iterator[None]:
        """One call: whole or not at all; a transaction of its own where none is open."""
        alone = self.level == 0
        if alone:
            self.snapshot = len(self.model.commits) - 1
        before = copy.deepcopy(self.own)
        try:
            yield
            if alone:
                self.model.publish(self.own)
        except Refused:
            self.own = before
            raise
        finally:
            if alone:
                self._end()

    # -- reading ------------------------------------------------------------------------------------------------
    def rows(self) -> Rows:
        """The table as this session sees it now."""
        rows = dict(self.model.commits[-1 if self.snapshot is None else self.snapshot])
        for pk, row in self.own.rows.items():
            if row is None:
                rows.pop(pk, None)
            else:
                rows[pk] = row
        for pk, delta in self.own.deltas.items():
            rows[pk] = self.model.added(rows[pk], delta)
        return rows

    def entries(self, index: IndexShape) -> list[Entry]:
        return self.model.entries(self.rows(), index)

    # -- writing ------------------------------------------------------------------------------------------------
    def clashes(self, resource: Resource, how: Lock) -> bool:
        """First writer wins: somebody else holds it, or committed it after this transaction began."""
        assert self.snapshot is not None
        for other in self.model.sessions:
            held = other.own.locks.get(resource)
            if other is not self and held is not None and not (held is how is Lock.ADD):
                return True
        newer = [(n, kind) for n, kind in self.model.changed.get(resource, []) if n > self.snapshot]
        return any(not (kind is how is Lock.ADD) for _, kind in newer)

    def lock(self, resource: Resource, how: Lock, otherwise: Err) -> None:
        if self.clashes(resource, how):
            raise Refused(otherwise)
        if self.own.locks.get(resource) is not Lock.WRITE:
            self.own.locks[resource] = how

    def insert(self, row: Row) -> None:
        """A clash with a row or a unique key, seen or not yet seen, is a duplicate; never a conflict."""
        pk = row[self.model.shape.key]
        if pk is None:
            raise Refused(Err.NullInvalid)
        rows = self.rows()
        if pk in rows:
            raise Refused(Err.KeyDuplicate)
        self.lock(("row", pk), Lock.WRITE, Err.KeyDuplicate)
        self._take_unique(rows, None, row)
        self.own.rows[pk] = row

    def replace(self, pk: int, row: Row) -> None:
        self.lock(("row", pk), Lock.WRITE, Err.WriteConflict)
        rows = self.rows()
        self._take_unique(rows, rows[pk], row)
        self.own.deltas.pop(pk, None)
        self.own.rows[pk] = row

    def delete(self, pk: int) -> None:
        self.lock(("row", pk), Lock.WRITE, Err.WriteConflict)
        for resource in self.model.unique_keys(self.rows()[pk]):
            self.own.locks[resource] = Lock.WRITE
        self.own.deltas.pop(pk, None)
        self.own.rows[pk] = None

    def _take_unique(self, rows: Rows, old: Row | None, new: Row) -> None:
        mine = self.model.unique_keys(old)
        wanted = self.model.unique_keys(new)
        others = [row for pk, row in rows.items() if pk != new[self.model.shape.key]]
        taken = {resource for row in others for resource in self.model.unique_keys(row)}
        for resource in sorted(wanted - mine):
            if resource in taken:
                raise Refused(Err.KeyDuplicate)
            self.lock(resource, Lock.WRITE, Err.KeyDuplicate)
        for resource in mine - wanted:
            self.own.locks[resource] = Lock.WRITE

    def add(self, pk: int, delta: int) -> int:
        """Escrow: answers what the column held before in the database, adds of all sessions counted."""
        escrow = self.model.shape.escrow
        assert escrow is not None
        self.lock(("row", pk), Lock.ADD, Err.WriteConflict)
        mine = self.own.rows.get(pk)
        if mine is not None:
            before = mine[escrow]
            self.own.rows[pk] = self.model.added(mine, delta)
            return int(before)
        stored = self.model.commits[-1][pk]
        for session in self.model.sessions:
            stored = self.model.added(stored, session.own.deltas.get(pk, 0))
        self.own.deltas[pk] = self.own.deltas.get(pk, 0) + delta
        return int(stored[escrow])


# -- places -----------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class SearchKey:
    """Values for the first segments of an index, and which entries with these values it stands for.

    `exact`: those whose whole key it is. `start` and `end`: it sorts before, or after, all that begin with it.
    """

    index: IndexShape
    values: tuple[Any, ...]
    edge: str = "exact"

    def compare(self, entry: Entry) -> int:
        """Below zero: the entry comes before this key."""
        mine = self.index.sortable(self.values)
        theirs = entry.key[: len(mine)]
        if theirs != mine:
            return -1 if theirs < mine else 1
        if self.edge == "start":
            return 1
        if self.edge == "end":
            return -1
        return 0 if len(self.values) == len(self.index.segments) else 1

    def before(self, inclusive: bool) -> Callable[[Entry], bool]:
        """Which entries come before a cut at this key; `inclusive` puts equal ones before it."""
        return lambda entry: self.compare(entry) < (1 if inclusive else 0)


class At(Enum):
    FRESH = "on the first entry, as soon as anybody looks"
    BEFORE = "before the first entry"
    ON = "on an entry, which may be gone"
    BETWEEN = "between two entries"
    AFTER = "after the last entry"


@dataclass
class Range:
    """The limit of one direction: which entries come before the cut."""

    forward: bool
    before: Callable[[Entry], bool]

    def inside(self, entry: Entry) -> bool:
        return self.before(entry) is self.forward


class Prep(Enum):
    INSERT = 0
    REPLACE = 2
    CANCEL = 3
    REPLACE_NO_LOCK = 4
    INSERT_COPY = 5


@dataclass
class Update:
    prep: Prep
    row: Row
    level: int
    pk: int | None = None  # of the record that is replaced
    seen: Row | None = None  # the record as it was, where another session could change it unseen


class Cursor:
    """A place in an index of the table, a search key being made, a range, and an update being prepared."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.shape = session.model.shape
        self.index = self.shape.indexes[0]
        self.at = At.FRESH
        self.entry: Entry | None = None
        self.cut: Callable[[Entry], bool] | None = None
        self.range: Range | None = None
        self.key: SearchKey | None = None
        self.update: Update | None = None
        self.level_opened = session.level
        self.level_moved = session.level
        self.level_index = 0
        session.cursors.append(self)

    def close(self) -> None:
        self.session.cursors.remove(self)

    def level_undone(self, level: int) -> None:
        if self.level_index >= level:
            self._choose(self.shape.indexes[0])
            self.range = self.key = None
            self._put(At.BEFORE)
        if self.level_moved >= level:
            self.level_moved = level - 1
            self._put(At.BEFORE)

    def _choose(self, index: IndexShape) -> None:
        if index is not self.index:
            self.index = index
            self.level_index = 0 if index is self.shape.indexes[0] else self.session.level

    @property
    def closed(self) -> bool:
        return self not in self.session.cursors

    # -- where it is --------------------------------------------------------------------------------------------
    def _put(self, at: At, entry: Entry | None = None, cut: Callable[[Entry], bool] | None = None) -> None:
        self.at, self.entry, self.cut = at, entry, cut

    def _settle(self) -> list[Entry]:
        """All entries as seen now; a fresh cursor goes onto the first."""
        entries = self.session.entries(self.index)
        if self.at is At.FRESH and entries:
            self._put(At.ON, entries[0])
        return entries

    def _pk(self) -> int:
        """The primary key of the current record, which must be there."""
        self._settle()
        if self.at is not At.ON:
            raise Refused(Err.NoCurrentRecord)
        assert self.entry is not None
        if self.entry.pk not in self.session.rows():
            raise Refused(Err.RecordDeleted)
        return self.entry.pk

    def _navigates(self, *, range_too: bool) -> None:
        """What navigation takes away: a prepared update, and a range unless it moves relative to its place."""
        self.update = None
        if range_too:
            self.range = None

    # -- moving -------------------------------------------------------------------------------------------------
    def move(self, rows: int, key_ne: bool = False) -> None:
        self._navigates(range_too=rows in (FIRST, LAST))
        if rows:
            self.level_moved = self.session.level
        with self.session.work():
            if rows in (FIRST, LAST):
                entries = self.session.entries(self.index)
                self._put(At.BEFORE if rows == FIRST else At.AFTER)
                if not entries:
                    raise Refused(Err.NoCurrentRecord)
                self._put(At.ON, entries[0 if rows == FIRST else -1])
            elif rows == 0:
                entries = self._settle()
                if self.at is not At.ON:
                    raise Refused(Err.NoCurrentRecord)
                if self.entry not in entries:
                    raise Refused(Err.RecordDeleted)
            else:
                for _ in range(abs(rows)):
                    self._step(rows > 0, key_ne)

    def _step(self, forward: bool, key_ne: bool) -> None:
        entries = self._settle()
        if not forward:
            entries = entries[::-1]
        target = next((e for e in entries if self._lies_ahead(e, forward, key_ne)), None)
        limit = self.range if self.range is not None and self.range.forward is forward else None
        if target is not None and (limit is None or limit.inside(target)):
            self._put(At.ON, target)
            return
        self._run_out(forward)
        raise Refused(Err.NoCurrentRecord)

    def _run_out(self, forward: bool) -> None:
        """Past the last entry; in a range, to where its next one would be."""
        if self.range is not None and self.range.forward is forward:
            self._put(At.BETWEEN, cut=self.range.before)
        else:
            self._put(At.AFTER if forward else At.BEFORE)

    def records(self, count: int, forward: bool) -> tuple[list[int], bool]:
        """The primary keys of the records from here on, this one included, and whether there are more: the cursor is on the next."""
        self._navigates(range_too=False)
        self.level_moved = self.session.level
        entries = self._settle()
        ahead = [e for e in (entries if forward else entries[::-1]) if self._lies_from_here(e, forward)]
        if self.range is not None and self.range.forward is forward:
            ahead = [e for e in ahead if self.range.inside(e)]
        more = len(ahead) > count
        if more:
            self._put(At.ON, ahead[count])
        else:
            self._run_out(forward)
        return [e.pk for e in ahead[:count]], more

    def _lies_from_here(self, entry: Entry, forward: bool) -> bool:
        return (self.at is At.ON and entry == self.entry) or self._lies_ahead(entry, forward, False)

    def _lies_ahead(self, entry: Entry, forward: bool, key_ne: bool) -> bool:
        if self.at is At.ON:
            assert self.entry is not None
            if key_ne and entry.key == self.entry.key:
                return False
            return entry > self.entry if forward else entry < self.entry
        if self.at is At.BETWEEN:
            assert self.cut is not None
            return self.cut(entry) is not forward
        return self.at is (At.BEFORE if forward else At.AFTER)

    # -- seeking ------------------------------------------------------------------------------------------------
    def make_key(self, values: tuple[Any, ...], edge: str = "exact") -> None:
        self.key = SearchKey(self.index, values, edge)

    def _take_key(self) -> SearchKey:
        if self.key is None:
            raise Refused(Err.KeyNotMade)
        key, self.key = self.key, None
        return key

    def seek(self, relation: str, set_range: bool = False) -> None:
        """`relation` is EQ, GE, GT, LE or LT. A search that finds nothing leaves the cursor where the entry would be."""
        key = self._take_key()
        self._navigates(range_too=True)
        self.level_moved = self.session.level
        with self.session.work():
            entries = self.session.entries(self.index)
            forward = relation in ("EQ", "GE", "GT")
            equal_is_before = relation in ("GT", "LE")
            before = key.before(equal_is_before)
            found = [e for e in entries if before(e) is not forward]
            target = (found[0] if forward else found[-1]) if found else None
            matches = target is not None and key.compare(target) == 0
            if target is None or (relation == "EQ" and not matches):
                self._put(At.BETWEEN, cut=before)
                raise Refused(Err.RecordNotFound)
            if relation == "LE" and matches:  # of several equal entries, the one nearest to the start
                target = next(e for e in entries if key.compare(e) == 0)
            self._put(At.ON, target)
            if relation in ("GE", "LE") and not matches:
                self.session.warning = Wrn.SeekNotEqual
            if relation == "EQ" and set_range:
                self.range = Range(True, key.before(True))

    def set_index_range(self, upper: bool, inclusive: bool, instant: bool = False) -> None:
        key = self._take_key()
        self.range = Range(upper, key.before(inclusive if upper else not inclusive))
        limit = self.range
        if instant:
            self.range = None
        self._settle()
        if self.at is not At.ON or self.entry is None or not limit.inside(self.entry):
            raise Refused(Err.NoCurrentRecord)

    def remove_range(self) -> None:
        if self.range is None:
            raise Refused(Err.InvalidOperation)
        self.range = None

    def goto_bookmark(self, pk: int) -> None:
        self._navigates(range_too=True)
        self.key = None
        with self.session.work():
            row = self.session.rows().get(pk)
            if row is None:
                raise Refused(Err.RecordDeleted)
            values = self.index.values(row)
            if values is None:
                raise Refused(Err.NoCurrentRecord)
            self._put(At.ON, Entry(self.index.sortable(values), pk))
            if self.index is not self.shape.indexes[0]:
                self.level_moved = self.session.level

    def get_bookmark(self) -> int:
        return self._pk()

    def set_current_index(self, name: str | None, no_move: bool = False) -> None:
        """Without `no_move` the cursor is fresh on the new index; with it, on the same record."""
        self._navigates(range_too=True)
        self.key = None
        target = self.shape.index(name)
        if no_move:
            pk = self._pk()
            values = target.values(self.session.rows()[pk])
            if values is None:
                raise Refused(Err.NoCurrentRecord)
            self._choose(target)
            self._put(At.ON, Entry(target.sortable(values), pk))
            if target is not self.shape.indexes[0]:
                self.level_moved = self.session.level
        else:
            self._choose(target)
            self._put(At.FRESH)
            with self.session.work():
                self._settle()

    # -- reading ------------------------------------------------------------------------------------------------
    def retrieve(self, column: str, copied: bool = False) -> Any:
        row = self.update.row if copied and self.update is not None else self.session.rows()[self._pk()]
        if row[column] is None:
            self.session.warning = Wrn.ColumnNull
        return row[column]

    # -- updating -----------------------------------------------------------------------------------------------
    def prepare_update(self, prep: Prep, number: int | None = None) -> None:
        """`number` is the auto-increment value the engine gave: which one is its affair, once only is ours."""
        if prep is Prep.CANCEL:
            if self.update is None:
                raise Refused(Err.UpdateNotPrepared)
            self.update = None
            return
        if self.update is not None:
            raise Refused(Err.AlreadyPrepared)
        level = self.session.level
        blank = dict.fromkeys(self.shape.columns) | self.shape.defaults
        if prep is Prep.INSERT:
            self.update = Update(prep, blank | self._numbered(number), level)
            return
        pk = self._pk()
        row = self.session.rows()[pk]
        if prep is Prep.INSERT_COPY:
            self.update = Update(prep, row | self._numbered(number) | self._escrow_default(), level)
            return
        locked = prep is Prep.REPLACE and level > 0
        if locked:
            self.session.lock(("row", pk), Lock.WRITE, Err.WriteConflict)
        self.update = Update(prep, row, level, pk, None if locked else row)

    def _numbered(self, number: int | None) -> Row:
        column = self.shape.autoincrement
        if column is None:
            return {}
        assert number is not None
        assert number > self.session.model.numbers_given, "an auto-increment value was given twice"
        self.session.model.numbers_given = number
        return {column: number}

    def _escrow_default(self) -> Row:
        """A copy begins its own sum."""
        column = self.shape.escrow
        return {} if column is None else {column: self.shape.defaults[column]}

    def set_column(self, column: str, value: Any) -> None:
        if self.update is None:
            raise Refused(Err.UpdateNotPrepared)
        self.update.row = self.update.row | {column: value}

    @property
    def replaces_a_rewritten_record(self) -> bool:
        """Somebody wrote the record again since this update was prepared, just as it was: conflict or not is left open."""
        update = self.update
        if update is None or update.seen is None:
            return False
        now = self.session.rows().get(update.seen[self.shape.key])
        return now == update.seen and now is not update.seen

    def update_record(self) -> int:
        """Answers the record's primary key. Inserting does not move the cursor; failing leaves the update prepared."""
        update = self.update
        if update is None:
            raise Refused(Err.UpdateNotPrepared)
        with self.session.work():
            if update.pk is None:
                self.session.insert(update.row)
            else:
                current = self.session.rows().get(update.pk)
                if current is None:
                    raise Refused(Err.RecordDeleted)
                if update.seen is not None and current != update.seen:
                    raise Refused(Err.WriteConflict)
                self.session.lock(("row", update.pk), Lock.WRITE, Err.WriteConflict)
                if update.row[self.shape.key] != update.pk:
                    raise Refused(Err.RecordPrimaryChanged)
                self.session.replace(update.pk, update.row)
        self.update = None
        return int(update.row[self.shape.key])

    def delete(self) -> None:
        """The cursor stays where the record was: the next one is the one after it."""
        self.update = None
        with self.session.work():
            self.session.delete(self._pk())

    def escrow_update(self, delta: int) -> int:
        if self.session.level == 0:
            raise Refused(Err.NotInTransaction)
        if self.update is not None:
            raise Refused(Err.AlreadyPrepared)
        with self.session.work():
            return self.session.add(self._pk(), delta)
