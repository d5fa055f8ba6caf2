"""Which commits may go the short way: those that nothing else happens beside."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from jetwire_server.redo import writer
from jetwire_server.store.embedded.alone import CALM_COMMITS, LOOK_EVERY, Alone
from jetwire_server.store.embedded.store import EmbeddedStore
from jetwire_server.store.interface import Tree, tree_id
from tests.server.store.kill_child import open_store


def test_calm_is_found_out_and_looked_at_again() -> None:
    alone = Alone()
    for _ in range(CALM_COMMITS):
        assert not alone
        alone.ended(alone.begun, last=True)
    went = [bool(alone) for _ in range(LOOK_EVERY * 3)]
    assert went.count(False) == 3
    alone.ended(alone.begun, last=False)  # another commit came meanwhile
    assert not any(bool(alone) for _ in range(LOOK_EVERY))
    for _ in range(CALM_COMMITS):
        alone.ended(alone.begun, last=True)
    assert any(bool(alone) for _ in range(2))
    begun = alone.begun
    alone.begun += 1  # somebody began to read meanwhile
    alone.ended(begun, last=True)
    assert not any(bool(alone) for _ in range(LOOK_EVERY))


async def commit(store: EmbeddedStore, tree: Tree, name: str) -> None:
    transaction = await store.begin()
    transaction.put(tree, name.encode(), b"x")
    await transaction.commit()


@pytest.mark.parametrize("others", ["none", "readers", "committers"])
async def test_only_the_lonely_go_the_short_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, others: str) -> None:
    monkeypatch.setattr(writer, "LOG_ALONE_SYNC_SECONDS_MAX", 1.0)  # a busy machine is not what is tested
    here: list[int] = []
    write_here = writer.LogWriter._write_here
    monkeypatch.setattr(writer.LogWriter, "_write_here", lambda self, kind, payload: (here.append(1), write_here(self, kind, payload))[1])
    store = await open_store(str(tmp_path))
    tree = tree_id(await store.create_database("a.edb"), 1)
    done = False

    async def other() -> None:
        while not done:
            if others == "readers":
                reader = await store.begin()
                await reader.rollback()
                await asyncio.sleep(0)
            else:
                await commit(store, tree, "other")

    beside = asyncio.create_task(other()) if others != "none" else None
    for number in range(100):
        await commit(store, tree, f"{number}")
    done = True
    if beside is not None:
        await beside
    assert len(here) > 60 if others == "none" else len(here) < 10
    await store.stop()
