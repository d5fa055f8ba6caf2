"""How each store is opened, and opened again, in a test."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from jetwire_server.clock import ManualClock
from jetwire_server.files.gate import Gate
from jetwire_server.files.local import LocalFiles
from jetwire_server.redo.log import Log
from jetwire_server.redo.names import LogNames
from jetwire_server.store.embedded.store import EmbeddedStore
from jetwire_server.store.memory import MemoryStore
from tests.server.store.plain_journal import PlainJournal


class Kind(Protocol):
    crashes: bool
    loses_lazy: bool

    async def open(self, directory: str) -> Any: ...
    async def reopen(self, store: Any, directory: str) -> Any:
        """As after a restart, where the store outlives one."""
        ...


@dataclass
class Memory:
    crashes: bool = False
    loses_lazy: bool = False

    async def open(self, directory: str) -> Any:
        store = MemoryStore(ManualClock())
        await store.start()
        return store

    async def reopen(self, store: Any, directory: str) -> Any:
        return store


async def embedded(directory: str, journal: Any = None) -> EmbeddedStore:
    """On a log in memory (which can lose what was lazy), or with `journal="real"` on a real one."""
    clock = ManualClock()
    gate = Gate(clock)
    files = LocalFiles(f"{directory}/data", watch=gate.wrote)
    files.make_directory("")
    if journal == "real":
        journal = Log(files, gate, clock, names=LogNames("log"), file_kb=128)
    store = EmbeddedStore(journal or PlainJournal(), files, LocalFiles(f"{directory}/scratch"), gate, clock, circular=True)
    await store.start()
    return store


@dataclass
class Embedded:
    """Restarts cleanly, with a real log; or by a crash of which nobody is told."""

    crashes: bool
    loses_lazy: bool = False

    async def open(self, directory: str) -> Any:
        return await embedded(directory, None if self.crashes else "real")

    async def reopen(self, store: Any, directory: str) -> Any:
        if not self.crashes:
            await store.stop()
            return await embedded(directory, "real")
        return await crash(store, directory, lazy_lost=self.loses_lazy)


async def crash(store: EmbeddedStore, directory: str, *, lazy_lost: bool) -> EmbeddedStore:
    """The process ends without a word; what it had in memory is gone."""
    journal = store.journal
    assert isinstance(journal, PlainJournal)
    journal = journal.after_crash(lazy_lost=lazy_lost)
    store.gate.latch("crashed")
    await store.stop()
    return await embedded(directory, journal)


KINDS: dict[str, Kind] = {
    "memory": Memory(),
    "embedded": Embedded(crashes=False),
    "crashing": Embedded(crashes=True),
    "lossy": Embedded(crashes=True, loses_lazy=True),
}
