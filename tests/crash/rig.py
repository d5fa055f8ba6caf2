"""A store on a log in memory and page files on a (memory-backed) disk; opened, read whole, checked and closed again."""

from __future__ import annotations

import asyncio
import os
import tempfile
from contextlib import suppress
from pathlib import Path

from jetwire_protocol.errors import JetError
from jetwire_server.clock import ManualClock
from jetwire_server.files.gate import Gate
from jetwire_server.files.interface import Files
from jetwire_server.files.local import LocalFiles
from jetwire_server.redo.log import Log
from jetwire_server.store.embedded.check import check_file
from jetwire_server.store.embedded.store import EmbeddedStore
from jetwire_server.store.interface import Tree, tree_id
from tests.crash.history import Trees

LOG_KB = 64  # the smallest there is: the log rolls often
SETTLE_SECONDS = 20.0
DUMP_ROWS = 1_000_000


def fast_directory(prefix: str) -> tempfile.TemporaryDirectory[str]:
    """In memory where the system has that: what is simulated here needs no disk."""
    return tempfile.TemporaryDirectory(prefix=prefix, dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None)


def make_store(log_files: Files, pages: Path | str, *, circular: bool = True, page_files: Files | None = None) -> EmbeddedStore:
    clock = ManualClock()
    gate = Gate(clock)
    log = Log(log_files, gate, clock, file_kb=LOG_KB)
    files = page_files or LocalFiles(pages)
    return EmbeddedStore(log, files, LocalFiles(f"{pages}-scratch"), gate, clock, circular=circular)


async def started(log_files: Files, pages: Path | str, *, circular: bool = True) -> EmbeddedStore:
    """Recovered; who cannot be is closed again, and raises."""
    store = make_store(log_files, pages, circular=circular)
    try:
        await store.start()
    except BaseException:
        await abandon(store)
        raise
    return store


async def abandon(store: EmbeddedStore) -> None:
    """As if its process had been killed: it writes nothing any more."""
    store.gate.latch("killed")
    with suppress(JetError):
        await store.stop(checkpoint=False)


async def settle(store: EmbeddedStore) -> None:
    """Until what nobody names is freed; new readers see it gone, as after the next checkpoint."""
    if store.checkpointer.busy:
        async with asyncio.timeout(SETTLE_SECONDS):
            while (running := store.checkpointer._running) is not None and not running.done():
                await asyncio.shield(running)
        store.generations.advance(store.current.base, store.files)


async def dump(store: EmbeddedStore, trees: dict[str, set[int]], *, reverse: bool = False) -> dict[str, Trees]:
    """All rows of all attached databases, of every tree that there ever was."""
    reader = await store.begin(read_only=True)
    try:
        out: dict[str, Trees] = {}
        for slot, path in store.databases().items():
            out[path] = {}
            for number in trees.get(path, {1, 2}):
                rows = await reader.scan(tree_id(slot, number), reverse=reverse, limit=DUMP_ROWS)
                if rows:
                    out[path][number] = dict(rows)
        return out
    finally:
        await reader.rollback()


def faults(store: EmbeddedStore) -> list[str]:
    """What `check` finds in the page files."""
    return [str(fault) for file in store.files.values() for fault in check_file(file) if fault is not None]


def tree_of(store: EmbeddedStore, path: str, number: int) -> Tree:
    slot = next(slot for slot, its in store.databases().items() if its == path)
    return tree_id(slot, number)
