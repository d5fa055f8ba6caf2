"""A very large commit is published a slice a turn of the loop, and nobody sees part of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jetwire_server.store.embedded import journal
from jetwire_server.store.embedded.publishing import LARGE_ROWS, SLICE_ROWS
from jetwire_server.store.embedded.store import EmbeddedStore
from jetwire_server.store.interface import Commit, Tree, tree_id
from tests.server.store.kill_child import open_store

ROWS = SLICE_ROWS * 6


async def opened(directory: Path) -> tuple[EmbeddedStore, Tree]:
    store = await open_store(str(directory))
    return store, tree_id(await store.create_database("a.edb"), 1)


async def large(store: EmbeddedStore, tree: Tree, value: bytes) -> Commit:
    writer = await store.begin()
    for i in range(ROWS):
        writer.put(tree, b"%06d" % i, value)
    return await writer.commit()


async def seen_meanwhile(store: EmbeddedStore, tree: Tree, work: asyncio.Task[Commit]) -> list[tuple[int, bytes | None, bytes | None]]:
    """How many rows, the first and the last, as a new transaction sees them in every turn of the loop."""
    seen = []
    while not work.done():
        reader = await store.begin()
        rows = await reader.scan(tree, limit=ROWS)
        assert store.newest(tree, b"000000")[0] == (rows[0][1] if rows else None)
        assert await reader.get(tree, b"000000") == (rows[0][1] if rows else None)
        seen.append((len(rows), rows[0][1] if rows else None, rows[-1][1] if rows else None))
        await reader.rollback()
        await asyncio.sleep(0)
    return seen


async def test_nobody_sees_a_part(tmp_path: Path) -> None:
    store, tree = await opened(tmp_path)
    for value, before in ((b"1", (0, None, None)), (b"2", (ROWS, b"1", b"1"))):
        seen = await seen_meanwhile(store, tree, asyncio.create_task(large(store, tree, value)))
        assert set(seen) <= {before, (ROWS, value, value)}
        assert seen.count(before) > ROWS // SLICE_ROWS // 2, "the loop went round meanwhile"
    await store.stop()


@pytest.mark.plain
async def test_the_control_sees_a_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Were the number told before the last slice, readers would see parts."""
    store, tree = await opened(tmp_path)
    publish = store.timeline.publish

    def too_early(*slice_of_it: Any) -> list[bytes]:
        store.published = store.next_number - 1
        return publish(*slice_of_it)

    monkeypatch.setattr(store.timeline, "publish", too_early)
    seen = await seen_meanwhile(store, tree, asyncio.create_task(large(store, tree, b"1")))
    assert any(0 < count < ROWS for count, _, _ in seen)
    store.gate.latch("seen enough")
    await store.stop()


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110  (it lasts a few turns of the loop)
        await asyncio.sleep(0)


async def test_what_comes_behind_it_stays_behind_it(tmp_path: Path) -> None:
    store, tree = await opened(tmp_path)

    async def small(name: bytes) -> None:
        writer = await store.begin()
        writer.put(tree, name, b"x")
        await writer.commit()
        reader = await store.begin()
        assert len(await reader.scan(tree, b"0", b"9", limit=ROWS)) == ROWS, "the large one is there before"
        await reader.rollback()

    number = store.next_number
    work = asyncio.create_task(large(store, tree, b"1"))
    await until(lambda: store.next_number > number)
    await asyncio.gather(small(b"a"), small(b"b"), small(b"c"), work)
    await store.stop()
    store = await open_store(str(tmp_path))
    assert await store.count(tree) == ROWS + 3
    await store.stop()


@pytest.mark.plain
async def test_one_that_cannot_be_published_leaves_nobody_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, tree = await opened(tmp_path)
    publish = store.timeline.publish

    def fail(number: int, *rest: Any) -> list[bytes]:
        if number == bad:
            raise MemoryError("no more")
        return publish(number, *rest)

    async def small(name: bytes) -> Commit:
        writer = await store.begin()
        writer.put(tree, name, b"x")
        return await writer.commit()

    monkeypatch.setattr(store.timeline, "publish", fail)
    number = store.next_number
    bad = number + 1
    work = asyncio.create_task(large(store, tree, b"1"))
    await until(lambda: store.next_number > number)
    answers = await asyncio.gather(work, *[small(b"%d" % i) for i in range(5)], return_exceptions=True)
    assert isinstance(answers[0], Commit)
    assert [isinstance(answer, Exception) for answer in answers[1:]] == [True, False, False, False, False]
    assert store.problems(), "what is logged and cannot be shown ends the instance"
    assert not store.publishing.busy
    await store.stop()


async def test_flush_and_stop_wait_for_it(tmp_path: Path) -> None:
    store, tree = await opened(tmp_path)
    work = asyncio.create_task(large(store, tree, b"1"))
    await until(lambda: store.publishing.busy)
    answer = await store.flush()
    assert answer.number == store.published == store.next_number - 1
    work = asyncio.create_task(large(store, tree, b"2"))
    await until(lambda: store.publishing.busy)
    await store.stop()
    assert (await work).rows == ROWS
    store = await open_store(str(tmp_path))
    reader = await store.begin()
    assert {value for _, value in await reader.scan(tree, limit=ROWS)} == {b"2"}
    await store.stop()


@pytest.mark.plain
async def test_a_commit_that_is_not_large_is_published_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, tree = await opened(tmp_path)
    monkeypatch.setattr(journal, "LARGE_ROWS", 3)
    for rows, long_way in ((3, False), (4, True)):
        went: list[int] = []
        begin = store.publishing.begin
        monkeypatch.setattr(
            store.publishing, "begin", lambda pending, placed, go=begin, went=went: (went.append(pending.number), go(pending, placed))
        )
        writer = await store.begin()
        for i in range(rows):
            writer.put(tree, b"%d" % i, b"x")
        await writer.commit()
        assert bool(went) is long_way
    assert LARGE_ROWS == 2 * SLICE_ROWS
    await store.stop()
