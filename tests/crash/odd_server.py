"""A `jetwired` whose event loop can be blocked from outside, and whose freezes can be broken: for tests of deadlines.

    python -m tests.crash.odd_server serve ...      with BREAK=... and BLOCK_SECONDS=... in the environment

SIGUSR1: the event loop's thread sleeps. SIGUSR2: it computes, and shares the interpreter with the other threads.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

from jetwire_server.__main__ import main
from jetwire_server.files.gate import Gate
from jetwire_server.snapshot.sessions import Sessions

_LATE_SECONDS = 2.0  # on a busy machine most of it may be spent in the run queue


def _no_deadline() -> None:
    """Nobody looks at the clock: only a thaw opens."""
    Gate._look = lambda gate: None  # type: ignore[assignment, method-assign]
    Sessions.notice = lambda sessions: None  # type: ignore[assignment, method-assign]


def _a_timer_opens() -> None:
    """Closed is not arithmetic, but what a timer of the event loop says."""
    Gate._look = lambda gate: None  # type: ignore[assignment, method-assign]


def _a_late_gate() -> None:
    """Late, whoever looks."""
    look, notice = Gate._look, Sessions.notice

    def late(gate: Gate) -> None:
        if gate._clock.boot() >= gate._until + _LATE_SECONDS:
            look(gate)

    def later(sessions: Sessions) -> None:
        session = sessions.current
        if session is None or not session.deadline <= sessions._clock.boot() < session.deadline + _LATE_SECONDS:
            notice(sessions)

    Gate._look = late  # type: ignore[assignment, method-assign]
    Sessions.notice = later  # type: ignore[assignment, method-assign]


BREAKS: dict[str, Callable[[], None]] = {"no deadline": _no_deadline, "a timer opens": _a_timer_opens, "late": _a_late_gate}


def _compute(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


if __name__ == "__main__":
    block_seconds = float(os.environ.get("BLOCK_SECONDS", "1"))
    signal.signal(signal.SIGUSR1, lambda *_: time.sleep(block_seconds))
    signal.signal(signal.SIGUSR2, lambda *_: _compute(block_seconds))
    if broken := os.environ.get("BREAK"):
        BREAKS[broken]()
    main()
