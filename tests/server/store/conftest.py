"""Every test here that asks for `store` runs on each kind of store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from jetwire_server.store.interface import Store
from tests.server.store.kinds import KINDS


@pytest.fixture(params=["memory", "embedded"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    made = await KINDS[request.param].open(str(tmp_path))
    yield made
    await made.stop()
