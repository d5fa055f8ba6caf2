"""How each store is opened, and opened again, in a test."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from jetwire_server.clock import ManualClock
from jetwire_server.store.memory import MemoryStore


class Kind(Protocol):
    async def open(self, directory: str) -> Any: ...
    async def reopen(self, store: Any, directory: str) -> Any:
        """As after a restart, where the store outlives one."""
        ...


@dataclass
class Memory:
    async def open(self, directory: str) -> Any:
        store = MemoryStore(ManualClock())
        await store.start()
        return store

    async def reopen(self, store: Any, directory: str) -> Any:
        return store


KINDS: dict[str, Kind] = {"memory": Memory()}
