"""Never frozen past the deadline + 100 ms of being runnable, measured from outside on a real server; and that a server
which is late is caught. The whole: `python -m tests.torture --part deadlines`.
"""

from __future__ import annotations

import pytest

from tests.crash import deadlines

SAMPLE = (
    "nobody thaws",
    "server stopped past the deadline",
    "event loop asleep",
    "event loop computes",
    "orchestrator stopped",
    "orchestrator killed",
)


def test_a_freeze_ends_at_its_deadline_whoever_is_stopped_killed_or_blocked() -> None:
    result = deadlines.run(1, len(SAMPLE), deeds=SAMPLE)
    assert result.failures == []
    assert result.freezes == len(SAMPLE)


@pytest.mark.parametrize(
    ("broken", "deed"),
    [
        ("no deadline", "nobody thaws"),
        pytest.param("late", "server stopped within the lease", marks=pytest.mark.torture),
        ("a timer opens", "event loop asleep"),  # in time otherwise, but a blocked loop holds it
    ],
)
def test_control_a_server_that_is_frozen_for_longer_is_caught(broken: str, deed: str) -> None:
    [failure] = deadlines.run(1, 1, broken=broken, deeds=(deed,)).failures
    assert "frozen past the deadline" in failure
