"""Every test here runs on each store."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from jetwire_server.clock import ManualClock
from jetwire_server.store.interface import Store
from jetwire_server.store.memory import MemoryStore


@pytest.fixture(params=["memory"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    made = MemoryStore(ManualClock())
    await made.start()
    yield made
    await made.stop()
