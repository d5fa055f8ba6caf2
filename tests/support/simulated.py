"""An event loop in simulated time: its timers move a `ManualClock`, its threads are timers too, and a seed repeats it."""

from __future__ import annotations

import asyncio
import random
import selectors
from collections.abc import Callable, Coroutine
from typing import Any

from jetwire_server.clock import ManualClock


class _NoWaiting(selectors.DefaultSelector):
    """Instead of waiting, moves the clock."""

    clock: ManualClock

    def select(self, timeout: float | None = None) -> Any:
        assert timeout is not None, "everybody waits for something that will not come"
        if timeout > 0:
            self.clock.advance(timeout)
        return []


class SimulatedLoop(asyncio.SelectorEventLoop):
    """`time()` is the clock's; what is given to a thread runs later, at a time that chance decides."""

    def __init__(self, clock: ManualClock, chance: random.Random, thread_seconds: float = 0.02) -> None:
        selector = _NoWaiting()
        selector.clock = clock
        self._manual = clock
        self._chance = chance
        self._thread_seconds = thread_seconds
        super().__init__(selector)

    def time(self) -> float:
        return self._manual.boot()

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        future: asyncio.Future[Any] = self.create_future()

        def work() -> None:
            try:
                result = func(*args)
            except Exception as error:
                if not future.done():
                    future.set_exception(error)
            else:
                if not future.done():  # cancelled: as with a thread, the work is done all the same
                    future.set_result(result)

        self.call_later(self._chance.random() * self._thread_seconds, work)
        return future


def run(clock: ManualClock, chance: random.Random, work: Coroutine[Any, Any, None]) -> None:
    """Runs `work` to its end in simulated time, and ends what it left running."""
    loop = SimulatedLoop(clock, chance)
    try:
        loop.run_until_complete(work)
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        if left:
            loop.run_until_complete(asyncio.wait(left))
    finally:
        loop.close()
