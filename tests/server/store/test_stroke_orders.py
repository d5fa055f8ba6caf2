"""Strokes and transactions in any order: each commit still finds what it has read when it is published, and nothing stays behind.

Freezes keep commits on their way while others go on top of them; those of a few rows count as large, and are published a row a turn.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from jetwire_protocol.errors import JetError
from jetwire_server import failpoints
from jetwire_server.store.claims import Claims
from jetwire_server.store.embedded import journal, publishing
from jetwire_server.store.embedded.published import Published
from jetwire_server.store.embedded.stroke import Stroke
from jetwire_server.store.interface import Commit
from jetwire_server.store.locks import Sharing
from jetwire_server.store.transaction import StoreTransaction
from jetwire_server.store.writeset import made_whole
from tests.server.store.test_stroke import Rig

pytestmark = pytest.mark.plain

KEYS = [b"%d" % number for number in range(5)]  # few, so that they meet
STEPS = 400

Rows = dict[bytes, bytes | None]


class Writer:
    """A transaction or a stroke, and what it has seen of the keys that it writes."""

    def __init__(self, on: StoreTransaction | Stroke) -> None:
        self.on = on
        self.seen: Rows = {}
        self.writes: dict[bytes, Any] = {}  # as they were handed over
        self.changes_schema = False


def applied(rows: Rows, writes: dict[bytes, Any]) -> Rows:
    return rows | {key: entry if entry is None or type(entry) is bytes else made_whole(rows[key], entry) for key, entry in writes.items()}


class Play:
    """One run."""

    def __init__(self, rig: Rig, seed: int) -> None:
        self.rig, self.store, self.tree = rig, rig.store, rig.tree
        self.random = random.Random(seed)
        self.rows: Rows = dict.fromkeys(KEYS)
        self.open: list[Writer] = []
        self.handed: dict[int, Writer] = {}
        self.schema: Writer | None = None  # who holds it alone
        self.lost: list[str] = []
        self.values = 0
        self._show = rig.store.show
        rig.store.show = self.show  # type: ignore[method-assign]

    def show(self, published: Published) -> None:
        writer = self.handed.get(published.number)
        self._show(published)
        if writer is None:
            return
        if self.schema not in (None, writer):
            self.lost.append(f"{published.number} came while another changed the schema")
        for key in writer.writes:
            if key in writer.seen and writer.seen[key] != self.rows[key]:
                self.lost.append(f"{published.number} had seen {key!r} as {writer.seen[key]!r}, it is {self.rows[key]!r}")
        self.rows = applied(self.rows, writer.writes)
        if writer is self.schema:
            self.schema = None

    def value(self) -> bytes:
        self.values += 1
        return self.values.to_bytes(8, "little")

    # -- strokes ----------------------------------------------------------------------------------------------
    def stroke(self) -> None:
        one = self.store.stroke()
        writer = Writer(one)
        for key in self.random.sample(KEYS, self.random.choice((1, 1, 1, 2, 3))):
            how = self.random.choice(("replace", "replace", "replace", "put", "insert", "delete"))
            if how == "replace":
                writer.seen[key] = now = one.value(self.tree, key)
                if now is None:
                    return
                one.put(self.tree, key, self.value())
                continue
            writer.seen[key] = self.store.newest(self.tree, key)[0]
            if how == "insert":
                writer.seen[key] = None
                one.insert(self.tree, key, self.value())
            elif how == "put":
                one.put(self.tree, key, self.value())
            else:
                one.delete(self.tree, key)
        if one.commit(self.tree, self.rig.answers.append, lazy=self.random.random() < 0.3):
            writer.writes = dict(one.writes[self.tree])
            self.handed[one.number] = writer

    # -- transactions -----------------------------------------------------------------------------------------
    def begin(self) -> None:
        if len(self.open) < 3:
            self.open.append(Writer(self.store.begin_now()))

    def at_once(self) -> None:
        """A transaction with nothing beside it."""
        self.open.append(Writer(self.store.begin_now()))
        for _ in range(self.random.randint(1, 4)):
            with suppress(JetError):
                self.work(-1)
        self.end(-1)

    def work(self, which: int | None = None) -> None:
        if not self.open:
            return
        writer = self.random.choice(self.open) if which is None else self.open[which]
        txn, key = writer.on, self.random.choice(KEYS)
        assert isinstance(txn, StoreTransaction)
        how = self.random.choice(("lock", "lock", "shared", "shared", "put", "put", "put", "insert", "delete", "add", "undone"))
        if self.random.random() < 0.03:
            how = "schema"
        if how == "schema":
            txn.lock_schema(self.tree, exclusive=True)
            self.schema, writer.changes_schema = writer, True
        elif how in ("lock", "shared"):
            txn.lock(self.tree, key, shared=how == "shared")
        elif how == "undone":
            mark = txn.savepoint()
            with suppress(JetError):
                txn.put(self.tree, key, self.value())
            txn.rollback_to(mark)
            txn.forget(mark)
        else:
            txn.lock_schema(self.tree)
            if how == "add":
                txn.add(self.tree, key, 0, 8, 1)
                return
            {"put": txn.put, "insert": txn.insert}.get(how, lambda tree, key, _: txn.delete(tree, key))(self.tree, key, self.value())
            writer.seen[key] = txn.visible(self.tree, key)

    def end(self, which: int | None = None) -> None:
        if not self.open:
            return
        writer = self.open.pop(self.random.randrange(len(self.open)) if which is None else which)
        txn = writer.on
        assert isinstance(txn, StoreTransaction)
        if txn.changed and self.random.random() < 0.8:
            number, writer.writes = self.store.next_number, dict(txn.writes[self.tree])
            if txn.commit_now(self.rig.answers.append, lazy=self.random.random() < 0.3):
                self.handed[number] = writer
                return
        txn.rollback_now()
        if self.schema is writer:
            self.schema = None

    # -- the rest ---------------------------------------------------------------------------------------------
    async def freeze(self) -> None:
        if self.store.frozen:
            self.rig.gate.thaw()
        else:
            now = self.rig.clock.boot()
            await self.rig.gate.freeze(now + 30, drain_until=now + 30)

    async def checkpoint(self) -> None:
        if not self.store.frozen:
            await self.store.checkpoint()

    async def play(self) -> None:
        plain: list[Callable[[], None]] = [self.stroke] * 6 + [self.at_once] * 6 + [self.begin, self.work, self.work, self.end]
        try:
            for _ in range(STEPS):
                await self.step(plain)
                assert not self.lost
                assert {key: self.store.newest(self.tree, key)[0] for key in KEYS} == self.rows
        except JetError:
            if not self.store.problems():
                raise
        for writer in self.open:
            assert isinstance(writer.on, StoreTransaction)
            writer.on.rollback_now()

    async def step(self, plain: list[Callable[[], None]]) -> None:
        step = self.random.random()
        if step < 0.04:
            await self.freeze()
        elif step < 0.05:
            await self.checkpoint()
        elif step < 0.15:
            await asyncio.sleep(0.001 if step < 0.07 else 0)
        else:
            with suppress(JetError):
                self.random.choice(plain)()

    def check_nothing_stays(self) -> None:
        assert not self.lost
        assert len(self.rig.answers) == len(self.handed)
        assert self.store.locks_held() == 0
        assert not self.store.schema_locks._shared
        assert not self.store.schema_locks._exclusive
        assert self.store.timeline.usage.used == self.store.timeline.bytes


@pytest.fixture(autouse=True)
def _few_rows_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publishing, "SLICE_ROWS", 1)
    monkeypatch.setattr(journal, "LARGE_ROWS", 2)


async def played(directory: Path, seed: int, fails: str = "") -> Play:
    rig = Rig(str(directory))
    await rig.start()
    rig.gate.thaw()
    play = Play(rig, seed)
    if fails:
        failpoints.arm(fails, failing_in(play.random.randint(0, 5)))
    await play.play()
    return play


def failing_in(times: int) -> Callable[[], None]:
    left = iter(range(times))

    def fail() -> None:
        if next(left, None) is None:
            raise OSError(5, "failpoint")

    return fail


async def recovered(play: Play) -> Rows:
    rig = play.rig
    await rig.store.stop(checkpoint=False)
    play.check_nothing_stays()
    rig.open()
    await rig.store.start()
    rows = {key: rig.store.newest(rig.tree, key)[0] for key in KEYS}
    await rig.store.stop()
    return rows


@pytest.mark.parametrize("seed", range(40))
async def test_nothing_is_lost_and_nothing_stays(tmp_path: Path, seed: int) -> None:
    play = await played(tmp_path, seed)
    await play.rig.let_go()
    play.check_nothing_stays()
    play.rig.gate.latch("a crash")
    assert await recovered(play) == play.rows


@pytest.mark.parametrize("seed", range(100, 110))
async def test_when_it_ends_in_the_middle_nothing_stays(tmp_path: Path, seed: int) -> None:
    play = await played(tmp_path, seed)
    play.rig.gate.latch("a crash")
    play.rig.gate.thaw()
    assert await recovered(play) == play.rows, "the gate let nothing more into the log"


@pytest.mark.parametrize("where", ["redo.before_write", "redo.after_write", "redo.before_sync", "redo.after_sync"])
@pytest.mark.parametrize("seed", range(200, 206))
async def test_when_the_log_fails_nothing_stays_and_what_was_told_is_recovered(tmp_path: Path, seed: int, where: str) -> None:
    """And with it some of what was on its way, in its order."""
    try:
        play = await played(tmp_path, seed, where)
        play.rig.gate.thaw()
        for _ in range(1000):
            if len(play.rig.answers) == len(play.handed):
                break
            await asyncio.sleep(0.001)
    finally:
        failpoints.disarm()
    assert play.store.problems(), "it failed"
    told = max((answer.number for answer in play.rig.answers if isinstance(answer, Commit)), default=0)
    rows = play.rows
    may_be = [rows]
    for number, writer in sorted(play.handed.items()):
        if number > told:
            rows = applied(rows, writer.writes)
            may_be.append(rows)
    assert await recovered(play) in may_be


async def test_the_control_loses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Were a stroke to take a key over without a word to whoever held it, his end would free it for others."""

    def lets_all_go(claims: Claims, down_to: int) -> None:
        """As it was, but for what made it fail."""
        tables = claims._locks.trees
        for tree, key, before in reversed(claims._held[down_to:]):
            holder = tables[tree][key]
            if before is not None:
                tables[tree][key] = before
            elif isinstance(holder, Sharing) and len(holder.owners) > 1:
                holder.owners.discard(claims)
            else:
                del tables[tree][key]
                if not tables[tree]:
                    del tables[tree]
        del claims._held[down_to:]

    monkeypatch.setattr(Claims, "release_keys", lets_all_go)
    for seed in range(300):  # most need a few; what is under way beside them counts too
        directory = tmp_path / str(seed)
        directory.mkdir()
        try:
            play = await played(directory, seed)
            await play.store.stop()  # each takes a terabyte of addresses
        except (AssertionError, KeyError):
            return
    pytest.fail("nothing was lost")
