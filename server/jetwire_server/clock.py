"""Time as a constructor argument, so that an hour of deadlines runs in a millisecond in tests."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    def now(self) -> float:
        """Seconds since the epoch: for stamps that people read."""
        ...

    def boot(self) -> float:
        """Seconds that never jump and go on while the machine sleeps: for deadlines."""
        ...


class SystemClock:
    """The machine's clocks."""

    now = staticmethod(time.time)

    def boot(self) -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME)


class ManualClock:
    """A clock that a test moves."""

    def __init__(self, start: float = 1_700_000_000.0) -> None:
        self._start = start
        self._passed = 0.0

    def now(self) -> float:
        return self._start + self._passed

    def boot(self) -> float:
        return self._passed

    def advance(self, seconds: float) -> None:
        self._passed += seconds
