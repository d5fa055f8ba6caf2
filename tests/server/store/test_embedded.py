"""What only the embedded store can get wrong: restarts, checkpoints, generations, page files, freezes, failures."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest

from jetwire_protocol.errors import Err, JetError
from jetwire_server import failpoints, limits
from jetwire_server.files.local import LocalFiles
from jetwire_server.store.embedded import changes, checkpoint, contents, pages, view
from jetwire_server.store.embedded.backlog import BULK_ROWS
from jetwire_server.store.embedded.check import check_database
from jetwire_server.store.embedded.generations import Generation, Generations
from jetwire_server.store.embedded.layout import seal, tree_prefix
from jetwire_server.store.embedded.store import EmbeddedStore
from jetwire_server.store.interface import Tree, tree_id, tree_number, tree_slot
from tests.server.store import test_rules
from tests.server.store.kinds import crash, embedded
from tests.server.store.plain_journal import PlainJournal
from tests.server.store.test_rules import content, refused


@pytest.fixture
async def directory(tmp_path: Path) -> AsyncIterator[str]:
    yield str(tmp_path)
    failpoints.disarm()


async def opened(directory: str) -> tuple[EmbeddedStore, Tree]:
    store = await embedded(directory)
    return store, tree_id(await store.create_database("a.edb"), 1)


async def write(store: EmbeddedStore, tree: Tree, lazy: Any = False, **rows: Any) -> None:
    writer = await store.begin()
    for key, value in rows.items():
        if value is None:
            writer.delete(tree, key.encode())
        else:
            writer.put(tree, key.encode(), value.encode())
    await writer.commit(lazy=lazy)


# -- restarts ---------------------------------------------------------------------------------------------------
async def test_what_was_durable_survives_and_what_was_lazy_may_not(directory: str) -> None:
    store, tree = await opened(directory)
    await write(store, tree, a="durable")
    await write(store, tree, lazy=True, b="lazy")
    store = await crash(store, directory, lazy_lost=True)
    assert await content(store, tree) == {"a": "durable"}
    await write(store, tree, lazy=True, b="lazy")
    await store.flush()
    await write(store, tree, lazy=True, c="lazy")
    await store.checkpoint()  # the log is made durable before pages know of it
    store = await crash(store, directory, lazy_lost=True)
    assert await content(store, tree) == {"a": "durable", "b": "lazy", "c": "lazy"}
    await store.stop()


async def test_a_write_that_was_rolled_back_is_nothing_to_a_checkpoint(directory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its tree may have nothing left on the timeline when the round comes that has the commit."""
    monkeypatch.setattr(checkpoint, "ROUND_KEYS", 1)
    store, tree = await opened(directory)
    other = tree_id(1, 2)
    await write(store, tree, a="1")
    writer = await store.begin()
    before = writer.savepoint()
    writer.put(tree, b"b", b"2")
    writer.rollback_to(before)
    writer.put(other, b"c", b"3")
    await writer.commit()
    await store.checkpoint()
    assert not store.problems()
    await write(store, tree, d="4")
    assert await content(store, tree) == {"a": "1", "d": "4"}
    await store.stop()


@pytest.mark.parametrize("chunks_before_the_crash", range(8))
async def test_a_checkpoint_cut_anywhere_loses_and_doubles_nothing(
    directory: str, monkeypatch: pytest.MonkeyPatch, chunks_before_the_crash: int
) -> None:
    monkeypatch.setattr(checkpoint, "CHUNK_ROWS", 2)
    store, tree = await opened(directory)
    await write(store, tree, a="0", b="0", c="0", d="0", gone="0", counter="\0\0\0\0")
    await store.checkpoint()
    for i in range(1, 4):
        writer = await store.begin()
        writer.add(tree, b"counter", 0, 4, 1)
        writer.put(tree, b"abcd"[i : i + 1], b"%d" % i)
        await writer.commit()
    await write(store, tree, gone=None, fresh="1")
    expected = await content(store, tree)
    left = chunks_before_the_crash

    def run_out() -> None:
        nonlocal left
        if left == 0:
            raise OSError(5, "the machine stops here")
        left -= 1

    failpoints.arm("pages.before_commit", run_out)
    with suppress(JetError):
        await store.checkpoint()
    failpoints.disarm()
    for _ in range(2):  # recovery from a recovery too
        store = await crash(store, directory, lazy_lost=True)
        assert await content(store, tree) == expected
    await store.checkpoint()
    assert await store.scrub() == []
    await store.stop()


async def test_commit_numbers_and_trees_go_on_after_a_restart(directory: str) -> None:
    store, tree = await opened(directory)
    slot = tree >> 48
    one = await store.begin()
    first = one.new_tree(slot)
    one.put(first, b"a", b"1")
    before = await one.commit()
    for clean in (True, False):
        if clean:
            await store.stop()
            store = await embedded(directory, store.journal)
        else:
            store = await crash(store, directory, lazy_lost=True)
        two = await store.begin()
        second = two.new_tree(slot)
        assert second > first
        two.put(second, b"a", b"1")
        after = await two.commit()
        assert after.number > before.number
        before, first = after, second
    await store.stop()


# -- databases --------------------------------------------------------------------------------------------------
async def test_databases_come_and_go_across_crashes(directory: str) -> None:
    store, tree = await opened(directory)
    other = tree_id(await store.create_database("sub/b.edb"), 1)
    await write(store, tree, a="1")
    await write(store, other, b="1")
    store = await crash(store, directory, lazy_lost=True)
    assert store.databases() == {1: "a.edb", 2: "sub/b.edb"}
    await store.detach_database(2)
    with refused(Err.InvalidDatabaseId):
        (await store.begin()).put(other, b"x", b"")
    store = await crash(store, directory, lazy_lost=True)
    assert store.databases() == {1: "a.edb"}
    os.rename(f"{directory}/data/sub/b.edb", f"{directory}/data/c.edb")  # whole without its log: it may go anywhere
    store = await crash(store, directory, lazy_lost=True)
    slot = await store.attach_database("c.edb")
    assert await content(store, tree_id(slot, 1)) == {"b": "1"}
    await write(store, tree_id(slot, 1), c="1")
    store = await crash(store, directory, lazy_lost=True)
    assert await content(store, tree_id(slot, 1)) == {"b": "1", "c": "1"}
    await store.detach_database(slot)
    slot = await store.attach_database("c.edb", read_only=True)
    with refused(Err.DatabaseFileReadOnly):
        (await store.begin()).put(tree_id(slot, 1), b"x", b"")
    store = await crash(store, directory, lazy_lost=True)
    assert await content(store, tree_id(slot, 1)) == {"b": "1", "c": "1"}
    await store.stop()


async def test_a_detached_database_moves_to_another_instance(directory: str) -> None:
    store, tree = await opened(directory)
    for i in range(5):
        await write(store, tree, a=str(i))
    os.makedirs(f"{directory}/two/data")
    with refused(Err.DatabaseDirtyShutdown):  # a copy of a database in use is not whole
        shutil.copy(f"{directory}/data/a.edb", f"{directory}/two/data/a.edb")
        second = await embedded(f"{directory}/two", PlainJournal())
        await second.attach_database("a.edb")
    await second.stop()
    await store.detach_database(1)
    shutil.move(f"{directory}/data/a.edb", f"{directory}/two/data/a.edb")
    second = await embedded(f"{directory}/two", PlainJournal())
    slot = await second.attach_database("a.edb")
    assert await content(second, tree_id(slot, 1)) == {"a": "4"}
    await write(second, tree_id(slot, 1), a="5")
    second = await crash(second, f"{directory}/two", lazy_lost=True)
    assert await content(second, tree_id(slot, 1)) == {"a": "5"}
    await second.stop()
    await store.stop()


async def test_creating_over_something(directory: str) -> None:
    store, tree = await opened(directory)
    await write(store, tree, a="1")
    with refused(Err.DatabaseDuplicate):
        await store.create_database("a.edb")
    await store.detach_database(1)
    with refused(Err.DatabaseDuplicate):
        await store.create_database("a.edb")
    slot = await store.create_database("a.edb", overwrite=True)
    assert await content(store, tree_id(slot, 1)) == {}
    store = await crash(store, directory, lazy_lost=True)
    assert await content(store, tree_id(slot, 1)) == {}
    for i in range(limits.DATABASES_PER_INSTANCE_MAX - 1):
        await store.create_database(f"{i}.edb")
    with refused(Err.TooManyAttachedDatabases):
        await store.create_database("more.edb")
    with refused(Err.TooManyAttachedDatabases):
        await store.attach_database("none.edb")
    await store.stop()


# -- trees beside the timeline ----------------------------------------------------------------------------------
async def test_what_nobody_named_is_freed_at_recovery(directory: str) -> None:
    store, _ = await opened(directory)
    named, unnamed, freed = [await store.new_unpublished(1) for _ in range(3)]
    for bulk in (named, unnamed, freed):
        await bulk.put_many((b"%05d" % i, bytes(100)) for i in range(2500))
    await freed.free()
    await store.checkpointer.save()
    one = await store.begin()
    one.adopt(named)
    await one.commit()
    store = await crash(store, directory, lazy_lost=True)
    await settled(store)
    assert await store.count(named.tree) == 2500
    view = store.files[1].view()
    assert view.noted(contents.STATISTIC) == [tree_number(named.tree)]
    assert view.noted(contents.CONDEMNED) == []
    view.close()
    await store.checkpoint()
    store = await crash(store, directory, lazy_lost=True)
    reader = await store.begin()
    assert len(await reader.scan(named.tree, limit=5000)) == 2500
    await reader.rollback()
    assert await store.scrub() == []
    await store.stop()


async def settled(store: EmbeddedStore) -> None:
    """Until the checkpoint has nothing more to do."""
    async with asyncio.timeout(10):
        while store.checkpointer.busy:  # noqa: ASYNC110
            await asyncio.sleep(0.001)


async def test_a_dropped_tree_gives_its_pages_back(directory: str) -> None:
    store, tree = await opened(directory)
    writer = await store.begin()
    for i in range(3000):
        writer.put(tree, b"%05d" % i, b"v")
    await writer.commit()
    await store.checkpoint()
    old = await store.begin()
    dropper = await store.begin()
    dropper.drop_tree(tree)
    await dropper.commit()
    store_view = store.files[1].view()
    assert store_view.noted(contents.STATISTIC) == [tree_number(tree)]
    store_view.close()
    await store.checkpoint()
    await settled(store)
    assert len(await old.scan(tree, limit=5000)) == 3000
    view = store.files[1].view()
    assert view.noted(contents.STATISTIC) == []
    view.close()
    await old.rollback()
    store = await crash(store, directory, lazy_lost=True)
    assert await content(store, tree) == {}
    await store.stop()


async def test_a_drop_is_finished_after_a_crash(directory: str) -> None:
    store, tree = await opened(directory)
    await write(store, tree, a="1")
    await store.checkpoint()
    dropper = await store.begin()
    dropper.drop_tree(tree)
    await dropper.commit()
    store = await crash(store, directory, lazy_lost=True)
    assert await content(store, tree) == {}
    assert await store.count(tree) == 0
    await store.checkpoint()
    await settled(store)
    view = store.files[1].view()
    assert view.noted(contents.STATISTIC) == []
    view.close()
    await store.stop()


# -- generations ------------------------------------------------------------------------------------------------
async def test_old_snapshots_read_on_and_cost_little(directory: str) -> None:
    store, tree = await opened(directory)
    olds = []
    for i in range(6):
        await write(store, tree, a=str(i), **{f"only{i}": "x"})
        olds.append(await store.begin())
        await store.checkpoint()
    assert len(store.generations.alive) == 7
    for i in range(100):
        await write(store, tree, other=str(i))
        if i % 20 == 0:
            await store.checkpoint()
    await store.checkpoint()
    assert store.timeline.bytes < 6 * 1000  # not a hundred versions of `other`, which no snapshot reads
    for i, old in enumerate(olds):
        assert await old.get(tree, b"a") == str(i).encode()
        assert len(await old.scan(tree)) == i + 2
        await old.rollback()
    await settled(store)
    await asyncio.sleep(0.01)
    assert len(store.generations.alive) == 1
    assert store.timeline.bytes == 0
    assert store.timeline.usage.used == 0
    await store.stop()


async def test_the_limit_of_generations_holds(directory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "GENERATIONS_MAX", 3)
    store, tree = await opened(directory)
    olds = []
    for i in range(6):
        await write(store, tree, a=str(i), **{f"only{i}": "x"})
        olds.append(await store.begin())
        await store.checkpoint()
    assert len(store.generations.alive) == 3
    for i, old in enumerate(olds):
        assert await old.get(tree, b"a") == str(i).encode()
    for old in olds:
        await old.rollback()
    assert len(await content(store, tree)) == 7
    await write(store, tree, a="6")
    await store.checkpoint()
    assert store.timeline.bytes == 0
    await store.stop()


async def test_back_pressure_bounds_the_timeline(directory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "VERSION_BYTES_CHECKPOINT", 200_000)
    monkeypatch.setattr(limits, "VERSION_BYTES_SLOW", 500_000)
    store, tree = await opened(directory)
    most = 0
    for i in range(100):
        writer = await store.begin()
        for j in range(200):
            writer.put(tree, b"%05d" % (i * 200 + j), bytes(200))
        await writer.commit()
        most = max(most, store.timeline.bytes)
    assert most < 1_000_000
    assert await store.count(tree) == 20_000
    await store.stop()


@pytest.mark.parametrize(("rows", "least", "most"), [(2 * BULK_ROWS, 0, 3_000_000), (50, 7_000_000, 10_000_000)])
async def test_large_commits_wait_for_the_checkpoint_sooner(
    directory: str, monkeypatch: pytest.MonkeyPatch, rows: int, least: int, most: int
) -> None:
    """So that a bulk load leaves the memory to others, and dictionaries stay small enough to grow in a few milliseconds."""
    monkeypatch.setattr(limits, "VERSION_BYTES_CHECKPOINT", 1 << 30)
    monkeypatch.setattr(limits, "VERSION_BYTES_BULK", 2_000_000)
    store, tree = await opened(directory)
    peak = 0
    for base in range(0, 20_000, rows):
        writer = await store.begin()
        for i in range(base, base + rows):
            writer.put(tree, b"%05d" % i, bytes(200))
        await writer.commit(lazy=True)
        peak = max(peak, store.timeline.bytes)
    assert least < peak < most
    assert await store.count(tree) == 20_000
    await store.stop()


@pytest.mark.parametrize(
    ("bulk", "least", "most"),
    [(limits.VERSION_BYTES_BULK, 0, 6 << 20), (1 << 30, 8 << 20, 1 << 30)],
    ids=["as it is", "a load that waits for nothing is noticed"],
)
async def test_a_bulk_load_grows_no_large_dictionary(
    directory: str, monkeypatch: pytest.MonkeyPatch, bulk: int, least: int, most: int
) -> None:
    """A dictionary grows by a copy of all its keys on the loop's thread, in memory that the machine may have to find first."""
    monkeypatch.setattr(limits, "VERSION_BYTES_BULK", bulk)
    monkeypatch.setattr(limits, "VERSION_BYTES_CHECKPOINT", 1 << 30)
    store, tree = await opened(directory)
    peak = 0
    for base in range(0, 180_000, 10_000):
        writer = await store.begin()
        for i in range(base, base + 10_000):
            writer.put(tree, b"%010d" % i, b"a value of forty bytes, as in an index..")
            if i % 500 == 499:
                await asyncio.sleep(0)
        await writer.commit(lazy=True)
        found = store.timeline.trees.get(tree)
        peak = max(peak, sys.getsizeof(found.versions) if found is not None else 0)
    assert least <= peak <= most
    await store.stop()


@pytest.mark.parametrize(
    ("owner", "name", "broken"),
    [(Generations, "old_snapshots", lambda _: []), (Generation, "newest", lambda *_: (0, b""))],
    ids=["versions trimmed under old snapshots", "newest pages not asked for conflicts"],
)
async def test_a_store_that_forgets_old_snapshots_is_noticed(
    directory: str, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, broken: Any
) -> None:
    monkeypatch.setattr(owner, name, broken)
    store, tree = await opened(directory)
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        await test_rules.test_no_update_is_lost_across_a_newer_commit(store, tree, checkpointed=True)
    await store.stop(checkpoint=False)


# -- freezing and failing -----------------------------------------------------------------------------------------
async def test_a_frozen_store_writes_no_page(directory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store, tree = await opened(directory)
    await write(store, tree, a="1")
    await store.gate.freeze(store.clock.boot() + 60, drain_until=store.clock.boot() + 1)
    before = Path(f"{directory}/data/a.edb").read_bytes()
    saving = asyncio.create_task(store.checkpoint())
    await asyncio.sleep(0.05)
    assert not saving.done()
    assert Path(f"{directory}/data/a.edb").read_bytes() == before
    assert store.gate.thaw().held
    await saving
    assert Path(f"{directory}/data/a.edb").read_bytes() != before
    await store.stop()


async def test_a_chunk_turns_back_for_a_freeze(directory: str) -> None:
    store, tree = await opened(directory)
    await write(store, tree, a="1")
    loop = asyncio.get_running_loop()
    freezing: list[asyncio.Future[None]] = []

    def freeze_now() -> None:
        failpoints.disarm()
        boot = store.clock.boot()
        future = asyncio.run_coroutine_threadsafe(store.gate.freeze(boot + 60, drain_until=boot + 1), loop)
        freezing.append(asyncio.wrap_future(future, loop=loop))
        while not store.gate.closing:
            pass

    failpoints.arm("pages.before_commit", freeze_now)
    turned_back = checkpoint.CHUNKS_TURNED_BACK.value
    saving = asyncio.create_task(store.checkpoint())
    async with asyncio.timeout(5):
        while not freezing:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        await freezing[0]
    assert store.gate.look()
    assert not saving.done()
    assert store.gate.thaw().held
    await saving
    assert checkpoint.CHUNKS_TURNED_BACK.value == turned_back + 1
    assert await content(store, tree) == {"a": "1"}
    await store.stop()


async def test_after_a_failed_page_write_nothing_is_acknowledged(directory: str) -> None:
    store, tree = await opened(directory)
    await write(store, tree, a="1")
    half = await store.begin()
    half.put(tree, b"b", b"1")

    def fail() -> None:
        raise OSError(5, "Input/output error")

    failpoints.arm("pages.before_commit", fail)
    with refused(Err.InstanceUnavailable):
        await store.checkpoint()
    failpoints.disarm()
    assert store.problems()
    for call in (half.commit(), store.begin(), store.flush(), store.create_database("b.edb"), store.new_unpublished(1)):
        with refused(Err.InstanceUnavailable):
            await call
    store = await crash(store, directory, lazy_lost=True)
    assert await content(store, tree) == {"a": "1"}
    await store.stop()


async def test_a_cancelled_commit_is_whole_or_nothing(directory: str) -> None:
    store, tree = await opened(directory)
    writer = await store.begin()
    writer.put(tree, b"a", b"1")
    task = asyncio.create_task(writer.commit())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await store.flush()
    assert store.key_locks.trees == {}
    assert await content(store, tree) == {"a": "1"}
    await store.stop()


# -- bad files --------------------------------------------------------------------------------------------------
def snapshot_of(directory: str) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in Path(directory).rglob("*") if path.is_file() and not path.name.endswith("-lock")}


def cut(path: str) -> None:
    os.truncate(path, 100_000)


def newer(path: str) -> None:
    rewrite_head(path, format=99)


def foreign(path: str) -> None:
    rewrite_head(path, signature=b"x" * 16)


def rewrite_head(path: str, **what: Any) -> None:
    def other(head: list[Any]) -> list[Any]:
        return [what.get(name, value) for name, value in zip(contents.Head.__struct_fields__, head, strict=True)]

    change_head(path, other)


def change_head(path: str, change: Callable[[list[Any]], list[Any]]) -> None:
    """Its fields as they stand in the file."""
    import lmdb

    env = lmdb.open(path, subdir=False, lib_version=1, map_size=1 << 40)
    with env.begin(write=True) as txn:
        head = msgspec.msgpack.decode(bytes(txn.get(contents.HEAD) or b"")[8:-4])
        txn.put(contents.HEAD, seal(contents.HEAD, 0, msgspec.msgpack.encode(change(head))))
    env.close()


@pytest.mark.parametrize(
    ("harm", "code", "hint"),
    [
        (os.remove, Err.AttachedDatabaseMismatch, "missing"),
        (cut, Err.DatabaseCorrupted, "truncated"),
        (lambda path: Path(path).write_bytes(b""), Err.DatabaseCorrupted, "empty"),
        (lambda path: Path(path).write_bytes(b"garbage " * 5000), Err.DatabaseCorrupted, "no database"),
        (newer, Err.InvalidDatabaseVersion, "newer"),
        (foreign, Err.AttachedDatabaseMismatch, "put the right file back"),
    ],
)
async def test_bad_page_files_are_named_and_nothing_is_changed(directory: str, harm: Any, code: int, hint: str) -> None:
    store, tree = await opened(directory)
    writer = await store.begin()
    for i in range(5000):
        writer.put(tree, b"%05d" % i, bytes(100))
    await writer.commit()
    await store.checkpoint()
    await write(store, tree, a="1")
    journal = store.journal
    assert isinstance(journal, PlainJournal)
    store.gate.latch("stopped")
    await store.stop()
    harm(f"{directory}/data/a.edb")
    before = snapshot_of(directory)
    with pytest.raises(JetError) as caught:
        await embedded(directory, journal.after_crash(lazy_lost=False))
    assert caught.value.code == code
    assert hint in caught.value.detail
    assert "a.edb" in caught.value.detail
    assert snapshot_of(directory) == before


# -- what older servers wrote -----------------------------------------------------------------------------------------
@pytest.mark.parametrize("lost_end", [False, True])
@pytest.mark.parametrize("stopped", [False, True])
async def test_a_page_file_whose_head_lacks_what_came_later_is_opened(directory: str, stopped: bool, lost_end: bool) -> None:
    """`ahead` was added to the head; who looks at it is a start without the end of the log."""
    store, tree = await opened(directory)
    await write(store, tree, a="1")
    await store.checkpoint()
    await write(store, tree, b="2")
    journal = store.journal
    assert isinstance(journal, PlainJournal)
    if not stopped:
        store.gate.latch("crashed")
    await store.stop()
    path = f"{directory}/data/a.edb"
    change_head(path, lambda head: head[:-1])
    assert [fault for fault in check_database(LocalFiles(f"{directory}/data"), "a.edb") if fault] == []
    journal = journal.after_crash(lazy_lost=False)
    journal.end_was_lost = lost_end
    store = await embedded(directory, journal)
    assert await content(store, tree) == {"a": "1", "b": "2"}
    await write(store, tree, c="3")
    await store.checkpoint()
    slot = tree_slot(tree)
    await store.detach_database(slot)
    change_head(path, lambda head: head[:-1])
    assert await store.attach_database("a.edb") == slot
    assert await content(store, tree) == {"a": "1", "b": "2", "c": "3"}
    await store.stop()
    change_head(path, lambda head: head[:-3])  # control: `state` was always there
    with pytest.raises(msgspec.ValidationError):
        await embedded(directory, journal.after_crash(lazy_lost=False))


def test_a_log_record_that_lacks_what_came_later_is_understood() -> None:
    """`remove` was added to the record of a database that goes, `borrowed` to those that come and to the checkpoint file."""
    assert changes.decode(msgspec.msgpack.encode([3, 1, "a.edb", b"", 5, True])) == changes.AttachRecord(1, "a.edb", b"", 5, True)
    attached = [(1, "a.edb", b"", True)]
    assert msgspec.msgpack.decode(msgspec.msgpack.encode([attached, 7]), type=contents.CheckpointFile) == contents.CheckpointFile(
        attached, 7
    )
    assert changes.decode(msgspec.msgpack.encode([4, 1])) == changes.DetachRecord(1, remove=False)
    with pytest.raises(msgspec.ValidationError):  # control: the slot was always there
        changes.decode(msgspec.msgpack.encode([4]))


# -- damage -------------------------------------------------------------------------------------------------------
async def damaged_store(directory: str, harm: Any) -> tuple[EmbeddedStore, Tree]:
    store, tree = await opened(directory)
    writer = await store.begin()
    for i in range(500):
        writer.put(tree, b"%05d" % i, b"value-of-%05d" % i)
    await writer.commit()
    await store.stop()
    harm(f"{directory}/data/a.edb", tree)
    return await embedded(directory, store.journal), tree


def flip_value(path: str, _: Tree) -> None:
    data = bytearray(Path(path).read_bytes())
    at = data.find(b"value-of-00123")
    while at >= 0:
        data[at] ^= 1
        at = data.find(b"value-of-00123", at)
    Path(path).write_bytes(bytes(data))


def lose_a_row(path: str, tree: Tree) -> None:
    import lmdb

    env = lmdb.open(path, subdir=False, lib_version=1, map_size=1 << 40)
    with env.begin(write=True) as txn:
        assert txn.delete(tree_prefix(tree_number(tree)) + b"00123")
    env.close()


def bring_back_an_old_row(path: str, tree: Tree) -> None:
    import lmdb

    env = lmdb.open(path, subdir=False, lib_version=1, map_size=1 << 40)
    full = tree_prefix(tree_number(tree)) + b"00123"
    with env.begin(write=True) as txn:
        txn.put(full, seal(full, 1, b"a row of another time"))
    env.close()


async def test_a_damaged_value_is_never_returned(directory: str) -> None:
    store, tree = await damaged_store(directory, flip_value)
    reader = await store.begin()
    assert await reader.get(tree, b"00122") == b"value-of-00122"
    for call in (reader.get(tree, b"00123"), reader.scan(tree), reader.scan(tree, reverse=True)):
        with pytest.raises(JetError) as caught:
            await call
        assert caught.value.code == Err.ReadVerifyFailure
        assert caught.value.data == {"path": "a.edb", "tree": 1, "key": b"00123"}
    await reader.rollback()
    faults = await store.scrub()
    assert [(f.path, f.tree, f.key) for f in faults if f.key] == [("a.edb", 1, b"00123")]
    await store.stop()


@pytest.mark.parametrize(
    ("harm", "what"), [(lose_a_row, "499 rows can be reached, 500 were written"), (bring_back_an_old_row, "not those that were written")]
)
async def test_rows_that_vanished_or_came_back_are_missed(directory: str, harm: Any, what: str) -> None:
    store, _ = await damaged_store(directory, harm)
    [fault] = await store.scrub()
    assert (fault.path, fault.tree) == ("a.edb", 1)
    assert what in str(fault)
    await store.stop()


def flip_in_the_statistic(place: int) -> Any:
    def harm(path: str, tree: Tree) -> None:
        import lmdb

        key = contents.STATISTIC + tree_prefix(tree_number(tree))
        with lmdb.open(path, subdir=False, lib_version=1, map_size=1 << 40) as env, env.begin(write=True) as txn:
            sealed = bytearray(txn.get(key) or b"")
            sealed[place] ^= 1
            txn.put(key, bytes(sealed))

    return harm


@pytest.mark.parametrize("place", [0, 8, 10, -5, -1])  # number, the list's head, the count, the digest, the checksum
async def test_a_damaged_statistic_is_reported_and_never_used(directory: str, place: int) -> None:
    """The rows can be read and written; how many they are, nobody says until the tree is made anew."""
    store, tree = await damaged_store(directory, flip_in_the_statistic(place))
    for _ in range(2):
        with pytest.raises(JetError) as caught:
            await store.count(tree)
        assert caught.value.code == Err.ReadVerifyFailure
        assert [(fault.tree, fault.what) for fault in await store.scrub()] == [(0, "the checksum does not match")]
        await write(store, tree, more="1")
        await store.checkpoint()
        assert len(await content(store, tree)) == 501
        await store.stop()
        store = await embedded(directory, store.journal)
    dropper = await store.begin()
    dropper.drop_tree(tree)
    await dropper.commit()
    await store.checkpoint()
    await settled(store)
    assert await store.scrub() == []
    await store.stop()


@pytest.mark.plain
async def test_the_control_a_statistic_that_nobody_verifies_is_used(directory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(view, "intact", lambda *_: True)
    store, tree = await damaged_store(directory, flip_in_the_statistic(11))
    assert await store.count(tree) not in (500, 0)
    await store.stop()


async def test_a_whole_store_has_no_faults(directory: str) -> None:
    store, _ = await damaged_store(directory, lambda *_: None)
    assert await store.scrub() == []
    await store.stop()


async def test_databases_come_beside_checkpoints_and_each_other(directory: str) -> None:
    store, tree = await opened(directory)
    for i in range(5):
        await write(store, tree, a=str(i))
    saving = asyncio.create_task(store.checkpoint())
    made = await asyncio.gather(
        *[store.create_database(f"{i}.edb") for i in range(3)], store.create_database("0.edb"), return_exceptions=True
    )
    assert sorted(made[:3]) == [2, 3, 4]  # type: ignore[type-var]
    assert isinstance(made[3], JetError)
    await saving
    await write(store, tree_id(3, 1), b="1")
    await asyncio.gather(store.checkpoint(), store.detach_database(3), return_exceptions=True)
    store = await crash(store, directory, lazy_lost=True)
    assert sorted(store.databases()) == [1, 2, 4]
    slot = await store.attach_database("1.edb")
    assert await content(store, tree_id(slot, 1)) == {"b": "1"}
    await store.stop()


async def test_pages_that_know_more_than_the_log_are_refused(directory: str) -> None:
    store, tree = await opened(directory)
    for i in range(5):
        await write(store, tree, a=str(i))
    journal = store.journal
    assert isinstance(journal, PlainJournal)
    early = journal.after_crash(lazy_lost=False)
    early.log = early.log[:3]
    await store.checkpoint()
    store.gate.latch("stopped")
    await store.stop()
    before = snapshot_of(directory)
    with pytest.raises(JetError) as caught:
        await embedded(directory, early)
    assert caught.value.code == Err.RequiredLogFilesMissing
    assert snapshot_of(directory) == before


async def test_a_stop_while_frozen_writes_nothing(directory: str) -> None:
    store, tree = await opened(directory)
    await write(store, tree, a="1")
    await store.gate.freeze(store.clock.boot() + 60, drain_until=store.clock.boot() + 1)
    before = snapshot_of(directory)
    async with asyncio.timeout(5):
        await store.stop()
    assert snapshot_of(directory) == before
    store = await embedded(directory, store.journal.after_crash(lazy_lost=True))  # type: ignore[attr-defined]
    assert await content(store, tree) == {"a": "1"}
    await store.stop()


async def test_a_commit_that_waits_for_relief_does_not_come_behind_a_stop(directory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would be in the log, and the databases marked as if nothing were to come."""
    monkeypatch.setattr(limits, "VERSION_BYTES_SLOW", 100_000)
    store, tree = await opened(directory)
    store.checkpointer.paused = True  # so that the timeline stays full until the stop
    for i in range(5):
        await write(store, tree, **{f"{i}.{j}": "x" * 200 for j in range(50)})
    late = asyncio.create_task(write(store, tree, late="1"))
    await asyncio.sleep(0.01)
    assert not late.done(), "it waits for relief"
    store.checkpointer.paused = False
    await store.stop()
    with refused(Err.TermInProgress):
        await late
    file = pages.PageFile.open(store.attached.page_files, "a.edb", read_only=True)
    assert (file.head.state, file.head.number) == (contents.DETACHED, store.published)
    file.close()


async def test_a_commit_to_a_database_that_went_is_refused(directory: str) -> None:
    store, tree = await opened(directory)
    late = await store.begin()
    late.put(tree, b"a", b"1")
    await store.detach_database(1)
    with refused(Err.InvalidDatabaseId):
        await late.commit()
    assert store.key_locks.trees == {}
    await store.stop()


async def test_a_copy_made_under_load_is_whole(directory: str) -> None:
    store, tree = await opened(directory)
    writer = await store.begin()
    for i in range(20_000):
        writer.put(tree, b"%05d" % i, bytes(100))
    await writer.commit()
    await store.checkpoint()

    async def load() -> None:
        while True:
            await write(store, tree, **{str(i): "x" for i in range(200)})
            await store.checkpoint()

    loading = asyncio.create_task(load())
    descriptor = os.open(f"{directory}/data/copy.edb", os.O_CREAT | os.O_WRONLY)
    await store.copy_database(1, descriptor)
    os.close(descriptor)
    loading.cancel()
    await asyncio.wait({loading})
    assert [fault for fault in check_database(store.attached.page_files, "copy.edb") if fault] == []
    copy = pages.PageFile.open(store.attached.page_files, "copy.edb", read_only=True)
    assert copy.head.signature == store.files[1].head.signature
    copy.close()
    await store.stop()
