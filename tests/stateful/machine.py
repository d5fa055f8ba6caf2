"""A state machine that does the same to the model and to the engine, and compares every answer."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
from hypothesis import note
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from jetwire_protocol.data.flags import (
    MakeKeyGrbit,
    MoveGrbit,
    RetrieveColumnGrbit,
    SeekGrbit,
    SetCurrentIndexGrbit,
    SetIndexRangeGrbit,
)
from jetwire_protocol.errors import Err, JetError, Wrn
from jetwire_server.engine.cursor import Cursor
from jetwire_server.engine.session import Session
from jetwire_server.engine.whole_records import Wanted, records_from
from tests.stateful.engines import SHAPE, TABLE, Rig
from tests.support import model
from tests.support.model import FIRST, LAST, Model, Prep, Refused

KEYS = st.integers(-1, 4)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "id": KEYS,
    "a": st.none() | st.integers(0, 2),
    "b": st.none() | st.sampled_from(["a", "ab", "b"]),
    "u": st.none() | st.integers(-1, 2),
    "esc": st.integers(-2, 2),
}
NEW_ROW = st.fixed_dictionaries({"id": KEYS}, optional={name: VALUES[name] for name in ("a", "b", "u", "esc")})
CHANGES = st.fixed_dictionaries({}, optional={name: VALUES[name] for name in ("id", "a", "b", "u")})
NUMBER = st.integers(0, 11)
RELATIONS = {r: int(SeekGrbit[f"Seek{r}"]) for r in ("EQ", "GE", "GT", "LE", "LT")}
EDGES = {"exact": 0, "start": int(MakeKeyGrbit.FullColumnStartLimit), "end": int(MakeKeyGrbit.FullColumnEndLimit)}
SET_RANGE = int(SeekGrbit.SetIndexRange)
NEW_KEY, COPY = int(MakeKeyGrbit.NewKey), int(RetrieveColumnGrbit.RetrieveCopy)
CURSORS_MAX = 8

Answer = tuple[str, Any]


class Pair:
    """One cursor, twice."""

    def __init__(self, modelled: model.Cursor, real: Cursor, owner: Sessions) -> None:
        self.model = modelled
        self.real = real
        self.owner = owner


class Sessions:
    """One session, twice."""

    def __init__(self, number: int, modelled: model.Session, real: Session, dbid: int) -> None:
        self.number = number
        self.model = modelled
        self.real = real
        self.dbid = dbid


class EngineMachine(RuleBasedStateMachine):
    """Two or three sessions with several cursors each, in any order of calls."""

    kind = "memory"

    @initialize(sessions=st.integers(2, 3), seeds=st.lists(NEW_ROW, max_size=4, unique_by=lambda row: row["id"]))
    def start(self, sessions: int, seeds: list[model.Row]) -> None:
        self.rig = Rig(self.kind)
        self.model = Model(SHAPE)
        self.bookmarks: dict[int, bytes] = {}
        self.open_sessions(sessions)
        for row in seeds:
            self.put_row(self.pairs[0], row)

    def open_sessions(self, count: int) -> None:
        self.sessions: list[Sessions] = []
        self.pairs: list[Pair] = []
        for number in range(count):
            real, dbid = self.rig.begin_session()
            both = Sessions(number, self.model.begin_session(), real, dbid)
            self.sessions.append(both)
            for _ in range(2):
                self.open_cursor_of(both)

    def open_cursor_of(self, both: Sessions) -> None:
        real = self.rig.run(both.real.open_table(both.dbid, TABLE))
        self.pairs.append(Pair(model.Cursor(both.model), real, both))

    def teardown(self) -> None:
        if not hasattr(self, "rig"):
            return
        try:
            if hasattr(self, "sessions"):
                self.leave_all()
                self.compare_content()
        finally:
            self.rig.close()

    # -- both at once -------------------------------------------------------------------------------------------
    def answer_of_model(self, session: model.Session, call: Callable[[], Any]) -> Answer:
        session.warning = 0
        try:
            value = call()
        except Refused as refused:
            return refused.code.name, None
        return Wrn(session.warning).name if session.warning else "ok", value

    def answer_of_engine(self, session: Session, call: Coroutine[Any, Any, Any]) -> Answer:
        session.take_warning()
        try:
            value = self.rig.run(call)
        except JetError as error:
            return Err(error.code).name, None
        warning = session.take_warning()
        return Wrn(warning).name if warning else "ok", value

    def both(
        self, pair: Pair | Sessions, what: str, expected: Callable[[], Any], real: Coroutine[Any, Any, Any], *, values: bool = False
    ) -> Answer:
        """The same call on both; the answers must be the same."""
        owner = pair.owner if isinstance(pair, Pair) else pair
        theirs = self.answer_of_engine(owner.real, real)
        mine = self.answer_of_model(owner.model, expected)
        if not what.startswith("get "):
            note(f"session {owner.number} {self.name(pair)}{what} -> {theirs}")
        assert theirs[0] == mine[0], f"session {owner.number}: {what}: the engine answered {theirs}, the model {mine}"
        if values:
            assert theirs[1] == mine[1], f"session {owner.number}: {what}: the engine answered {theirs}, the model {mine}"
        return theirs

    def name(self, pair: Pair | Sessions) -> str:
        return f"cursor {pair.real.id} " if isinstance(pair, Pair) else ""

    def pick(self, number: int) -> Pair:
        return self.pairs[number % len(self.pairs)]

    # -- sessions -----------------------------------------------------------------------------------------------
    @rule(number=NUMBER)
    def begin(self, number: int) -> None:
        both = self.sessions[number % len(self.sessions)]
        self.both(both, "begin", both.model.begin_transaction, both.real.begin_transaction())

    @rule(number=NUMBER, lazy=st.booleans())
    def commit(self, number: int, lazy: bool) -> None:
        both = self.sessions[number % len(self.sessions)]
        if both.model.level == 1:
            self.cancel_locked(both)
        self.both(both, "commit", both.model.commit_transaction, both.real.commit_transaction(1 if lazy else 0))

    @rule(number=NUMBER)
    def rollback(self, number: int) -> None:
        both = self.sessions[number % len(self.sessions)]
        self.both(both, "rollback", both.model.rollback, both.real.rollback())
        self.forget_closed(both)

    @rule(number=NUMBER, row=NEW_ROW)
    def undo_an_inner_level(self, number: int, row: model.Row) -> None:
        """Writes in a level of their own, rolled back while the levels around it go on."""
        both = self.pick(number).owner
        if both.model.level <= 5:
            self.begin(both.number)
            self.begin(both.number)
            self.put_row(next(pair for pair in self.pairs if pair.owner is both), row)
            self.rollback(both.number)
            self.compare_index(both.number, "pk", False)

    def cancel_locked(self, both: Sessions) -> None:
        """An update prepared under a lock that ends with the transaction: ESE leaves open what it may still do."""
        for pair in self.pairs:
            if pair.owner is both and pair.model.update is not None and pair.model.update.pk is not None:
                self.prepare(pair, Prep.CANCEL)

    def forget_closed(self, both: Sessions) -> None:
        """Cursors opened in the level that was rolled back are closed, and only they."""
        for pair in [p for p in self.pairs if p.owner is both]:
            alive = pair.real.id in both.real.cursors
            assert alive is not pair.model.closed, "the engine and the model close different cursors"
            if not alive:
                self.pairs.remove(pair)
        if not any(p.owner is both for p in self.pairs):
            self.open_cursor_of(both)

    @precondition(lambda self: len(self.pairs) < CURSORS_MAX)
    @rule(number=NUMBER)
    def open_cursor(self, number: int) -> None:
        self.open_cursor_of(self.sessions[number % len(self.sessions)])

    @precondition(lambda self: len(self.pairs) > 4)
    @rule(number=NUMBER)
    def close_cursor(self, number: int) -> None:
        pair = self.pick(number)
        if sum(p.owner is pair.owner for p in self.pairs) > 1:
            pair.real.close()
            pair.model.close()
            self.pairs.remove(pair)

    # -- moving -------------------------------------------------------------------------------------------------
    @rule(number=NUMBER, rows=st.sampled_from([FIRST, LAST, 0, 1, -1, 1, -1, 2, -2, 5]), key_ne=st.booleans())
    def move(self, number: int, rows: int, key_ne: bool) -> None:
        pair = self.pick(number)
        key_ne = key_ne and abs(rows) == 1 and self.on_live_entry(pair)
        grbit = int(MoveGrbit.MoveKeyNE) if key_ne else 0
        self.both(pair, f"move {rows} {grbit}", lambda: pair.model.move(rows, key_ne), pair.real.move(rows, grbit))
        self.look(pair)

    @rule(number=NUMBER, forward=st.booleans())
    def walk(self, number: int, forward: bool) -> None:
        """From where it is to the end of the index, or of the range."""
        self.walk_on(self.pick(number), forward)

    def walk_on(self, pair: Pair, forward: bool) -> None:
        step = 1 if forward else -1
        while self.both(pair, f"move {step}", lambda: pair.model.move(step), pair.real.move(step))[0] == "ok":
            self.look(pair)
        self.both(pair, f"move {-step}", lambda: pair.model.move(-step), pair.real.move(-step))
        self.look(pair)

    @rule(number=NUMBER, values=st.data(), relation=st.sampled_from(["EQ", "GE", "LE"]), upper=st.booleans(), inclusive=st.booleans())
    def walk_a_range(self, number: int, values: st.DataObject, relation: str, upper: bool, inclusive: bool) -> None:
        """What applications do: search for one end, set the other as the limit, and walk there."""
        pair = self.pick(number)
        self.make_key(pair, values, "exact")
        self.both(pair, f"seek {relation}", lambda: pair.model.seek(relation, True), pair.real.seek(RELATIONS[relation] | SET_RANGE))
        if relation != "EQ":
            self.set_range_of(pair, values, "exact", upper, inclusive, instant=False)
        self.walk_on(pair, upper)

    @rule(number=NUMBER, count=st.integers(1, 4), forward=st.booleans(), moves=st.integers(0, 2))
    def page(self, number: int, count: int, forward: bool, moves: int) -> None:
        """Some moves, a page of records, and a move on from there."""
        pair = self.pick(number)
        for rows in [FIRST if forward else LAST, 1 if forward else -1][:moves]:
            self.move(number, rows, False)
        expected = lambda: pair.model.records(count, forward)  # noqa: E731
        self.both(pair, f"records {count} {forward}", expected, self.page_of(pair, count, forward), values=True)
        self.look(pair)
        step = 1 if forward else -1
        self.both(pair, f"move {step}", lambda: pair.model.move(step), pair.real.move(step))
        self.look(pair)

    async def page_of(self, pair: Pair, count: int, forward: bool) -> tuple[list[int], bool]:
        told, more = await records_from(pair.real, count, Wanted(), forward=forward)
        return [msgspec.json.decode(record)["id"] for record in told], more

    def on_live_entry(self, pair: Pair) -> bool:
        """MoveKeyNE from an entry that is gone is left open."""
        return pair.model.at is model.At.ON and pair.model.entry in pair.owner.model.entries(pair.model.index)

    @rule(
        number=NUMBER,
        values=st.data(),
        relation=st.sampled_from(sorted(RELATIONS)),
        edge=st.sampled_from(sorted(EDGES)),
        ranged=st.booleans(),
    )
    def seek(self, number: int, values: st.DataObject, relation: str, edge: str, ranged: bool) -> None:
        pair = self.pick(number)
        self.make_key(pair, values, edge)
        grbit = RELATIONS[relation] | (SET_RANGE if ranged else 0)
        self.both(pair, f"seek {relation} {ranged}", lambda: pair.model.seek(relation, ranged), pair.real.seek(grbit))
        self.look(pair)

    def make_key(self, pair: Pair, values: st.DataObject, edge: str) -> None:
        """A whole key, or the first segments of one with a wildcard."""
        segments = [column for column, _ in pair.model.index.segments]
        if edge != "exact":
            segments = segments[: values.draw(st.integers(1, len(segments)))]
        if edge == "start" and len(segments) == len(pair.model.index.segments):
            edge = "exact"  # there is nothing left to stand for
        key = tuple(values.draw(VALUES[column]) for column in segments)
        note(f"key {key} {edge}")
        pair.model.make_key(key, edge)
        for place, value in enumerate(key):
            last = place == len(key) - 1
            pair.real.make_key(value, (NEW_KEY if place == 0 else 0) | (EDGES[edge] if last else 0))

    @rule(number=NUMBER)
    def seek_without_a_key(self, number: int) -> None:
        pair = self.pick(number)
        if pair.model.key is None and pair.model.update is None:
            self.both(pair, "seek", lambda: pair.model.seek("EQ"), pair.real.seek(RELATIONS["EQ"]))

    @rule(
        number=NUMBER,
        values=st.data(),
        edge=st.sampled_from(sorted(EDGES)),
        upper=st.booleans(),
        inclusive=st.booleans(),
        instant=st.booleans(),
    )
    def set_range(self, number: int, values: st.DataObject, edge: str, upper: bool, inclusive: bool, instant: bool) -> None:
        self.set_range_of(self.pick(number), values, edge, upper, inclusive, instant)

    def set_range_of(self, pair: Pair, values: st.DataObject, edge: str, upper: bool, inclusive: bool, instant: bool) -> None:
        self.make_key(pair, values, edge)
        grbit = upper * SetIndexRangeGrbit.RangeUpperLimit | inclusive * SetIndexRangeGrbit.RangeInclusive
        grbit |= instant * SetIndexRangeGrbit.RangeInstantDuration
        self.both(
            pair, f"range {grbit}", lambda: pair.model.set_index_range(upper, inclusive, instant), pair.real.set_index_range(int(grbit))
        )

    @rule(number=NUMBER)
    def remove_range(self, number: int) -> None:
        pair = self.pick(number)
        self.both(pair, "remove range", pair.model.remove_range, pair.real.set_index_range(int(SetIndexRangeGrbit.RangeRemove)))

    @rule(number=NUMBER, name=st.sampled_from([i.name for i in SHAPE.indexes]), no_move=st.booleans())
    def set_index(self, number: int, name: str, no_move: bool) -> None:
        pair = self.pick(number)
        grbit = int(SetCurrentIndexGrbit.NoMove if no_move else SetCurrentIndexGrbit.MoveFirst)
        call = pair.real.set_current_index(name, grbit)
        answer = self.both(pair, f"index {name} {no_move}", lambda: pair.model.set_current_index(name, no_move), call)
        if answer[0] != "ok":  # index and place are undefined then
            self.both(pair, f"index {name}", lambda: pair.model.set_current_index(name), pair.real.set_current_index(name))
        self.look(pair)

    @precondition(lambda self: self.bookmarks)
    @rule(number=NUMBER, which=NUMBER)
    def goto_bookmark(self, number: int, which: int) -> None:
        pair = self.pick(number)
        pk = sorted(self.bookmarks)[which % len(self.bookmarks)]
        self.both(pair, f"goto {pk}", lambda: pair.model.goto_bookmark(pk), pair.real.goto_bookmark(self.bookmarks[pk]))
        self.look(pair)

    # -- reading ------------------------------------------------------------------------------------------------
    @rule(number=NUMBER)
    def read(self, number: int) -> None:
        self.look(self.pick(number))

    def look(self, pair: Pair) -> None:
        """The record under the cursor, whole, and its bookmark."""
        for column in SHAPE.columns:
            expected = lambda column=column: pair.model.retrieve(column)  # noqa: E731
            answer = self.both(pair, f"get {column}", expected, self.retrieve(pair, column), values=True)
            if answer[0] not in ("ok", "ColumnNull"):
                return
        answer = self.both(pair, "bookmark", pair.model.get_bookmark, pair.real.get_bookmark())
        self.know_bookmark(pair.model.get_bookmark(), answer[1])

    async def retrieve(self, pair: Pair, column: str, grbit: int = 0) -> Any:
        return (await pair.real.retrieve_column(self.rig.columnids[column], grbit)).value

    def know_bookmark(self, pk: int, bookmark: bytes) -> None:
        """One bookmark for one record, always; and they sort as the records do."""
        assert self.bookmarks.setdefault(pk, bookmark) == bookmark
        assert sorted(self.bookmarks.values()) == [b for _, b in sorted(self.bookmarks.items())]

    # -- updating -----------------------------------------------------------------------------------------------
    def prepare(self, pair: Pair, prep: Prep) -> Answer:
        """The engine first: which auto-increment number it gives is its affair."""
        owner = pair.owner
        theirs = self.answer_of_engine(owner.real, pair.real.prepare_update(prep.value))
        number = None
        if theirs[0] == "ok" and prep in (Prep.INSERT, Prep.INSERT_COPY):
            number = self.rig.run(self.retrieve(pair, "auto", COPY))
        mine = self.answer_of_model(owner.model, lambda: pair.model.prepare_update(prep, number))
        note(f"session {owner.number} {self.name(pair)}prepare {prep.name} -> {theirs}")
        assert theirs[0] == mine[0], f"prepare {prep.name}: the engine answered {theirs}, the model {mine}"
        return theirs

    @rule(number=NUMBER, prep=st.sampled_from(list(Prep)))
    def prepare_update(self, number: int, prep: Prep) -> None:
        self.prepare(self.pick(number), prep)

    def set_columns(self, pair: Pair, changes: model.Row) -> None:
        for column, value in changes.items():
            real = pair.real.set_column(self.rig.columnids[column], value)
            expected = lambda column=column, value=value: pair.model.set_column(column, value)  # noqa: E731
            self.both(pair, f"set {column} {value!r}", expected, real)

    @rule(number=NUMBER, changes=CHANGES)
    def set_some(self, number: int, changes: model.Row) -> None:
        self.set_columns(self.pick(number), changes)

    @rule(number=NUMBER)
    def update(self, number: int) -> None:
        self.finish(self.pick(number))

    def finish(self, pair: Pair) -> None:
        if pair.model.replaces_a_rewritten_record:
            self.prepare(pair, Prep.CANCEL)
            return
        answer = self.both(pair, "update", pair.model.update_record, self.updated(pair))
        if answer[0] == "ok":
            self.look(pair)

    async def updated(self, pair: Pair) -> None:
        """Update answers the record's bookmark, and must answer the one we know."""
        bookmark = await pair.real.update()
        assert pair.model.update is not None, "the model has nothing prepared"
        self.know_bookmark(pair.model.update.row["id"], bookmark)

    def put_row(self, pair: Pair, row: model.Row) -> None:
        if self.prepare(pair, Prep.INSERT)[0] == "ok":
            self.set_columns(pair, row)
            self.finish(pair)

    @rule(number=NUMBER, row=NEW_ROW)
    def insert(self, number: int, row: model.Row) -> None:
        self.put_row(self.pick(number), row)

    @rule(number=NUMBER, changes=CHANGES, prep=st.sampled_from([Prep.REPLACE, Prep.REPLACE_NO_LOCK, Prep.INSERT_COPY]))
    def change(self, number: int, changes: model.Row, prep: Prep) -> None:
        """A whole update of the current record."""
        pair = self.pick(number)
        if self.prepare(pair, prep)[0] == "ok":
            self.set_columns(pair, changes)
            self.look(pair)
            for column in SHAPE.columns:
                expected = lambda column=column: pair.model.retrieve(column, copied=True)  # noqa: E731
                self.both(pair, f"copy of {column}", expected, self.retrieve(pair, column, COPY), values=True)
            self.finish(pair)

    @rule(number=NUMBER)
    def delete(self, number: int) -> None:
        pair = self.pick(number)
        self.both(pair, "delete", pair.model.delete, pair.real.delete())
        self.look(pair)

    @rule(number=NUMBER, delta=st.integers(-3, 3))
    def escrow(self, number: int, delta: int) -> None:
        pair = self.pick(number)
        self.both(pair, f"add {delta}", lambda: pair.model.escrow_update(delta), self.added(pair, delta))
        if pair.model.update is None:
            self.look(pair)

    async def added(self, pair: Pair, delta: int) -> int:
        return await pair.real.escrow_update(self.rig.columnids["esc"], delta)

    # -- everything ---------------------------------------------------------------------------------------------
    @rule(number=NUMBER, name=st.sampled_from([i.name for i in SHAPE.indexes]), backward=st.booleans())
    def compare_index(self, number: int, name: str, backward: bool) -> None:
        """All rows as one session sees them, along one index."""
        both = self.sessions[number % len(self.sessions)]
        index = SHAPE.index(name)
        expected = [both.model.rows()[entry.pk] for entry in both.model.entries(index)]
        assert self.rig.run(self.read_index(both, name, backward)) == (expected[::-1] if backward else expected), f"index {name}"

    async def read_index(self, both: Sessions, name: str, backward: bool) -> list[model.Row]:
        cursor = await both.real.open_table(both.dbid, TABLE)
        await cursor.set_current_index(name)
        rows = []
        step = LAST if backward else FIRST
        try:
            while True:
                await cursor.move(step)
                rows.append({c: (await cursor.retrieve_column(i)).value for c, i in self.rig.columnids.items()})
                step = -1 if backward else 1
        except JetError as error:
            if error.code != Err.NoCurrentRecord:
                raise AssertionError(f"index {name} cannot be read: {error}") from error
        finally:
            cursor.close()
        return rows

    def compare_content(self) -> None:
        for index in SHAPE.indexes:
            self.compare_index(0, index.name, False)
            self.compare_index(0, index.name, True)

    def leave_all(self) -> None:
        """Every transaction is rolled back."""
        for both in self.sessions:
            while both.model.level:
                self.rollback(both.number)


class EmbeddedMachine(EngineMachine):
    """The same on files, with checkpoints and restarts between the steps."""

    kind = "embedded"

    @rule()
    def checkpoint(self) -> None:
        self.rig.checkpoint()

    @rule(dirty=st.booleans())
    def restart(self, dirty: bool) -> None:
        self.leave_all()
        count = len(self.sessions)
        self.model.sessions.clear()
        self.rig.restart(dirty)
        self.open_sessions(count)
        self.compare_content()
