"""A test may not say that it shows what no server answered while it ran."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.server.coverage.flags import bench, play
from tests.support.bench import Bench
from tests.support.shown import not_seen, shown_by

__all__ = ["bench", "play"]


@pytest.fixture(autouse=True)
def what_is_said_is_shown(request: pytest.FixtureRequest) -> Iterator[None]:
    Bench.seen.clear()
    failed = request.session.testsfailed
    yield
    if request.session.testsfailed > failed:
        return  # it is not to be believed anyway
    missing = not_seen(shown_by(request.function))
    assert not missing, f"said to be shown, but never answered: {missing}"
