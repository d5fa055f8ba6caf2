"""Every test here that asks for `store` runs on each kind of store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from jetwire_server.store import timeline
from jetwire_server.store.interface import Store
from tests.server.store.kinds import KINDS


@pytest.fixture(params=["memory", "embedded", "embedded-shared"])
async def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Store]:
    kind, _, shared = request.param.partition("-")
    if shared:  # the rows of a small commit share a version too
        monkeypatch.setattr(timeline, "SHARED_ROWS", 1)
    made = await KINDS[kind].open(str(tmp_path))
    yield made
    await made.stop()
