"""How quick the machine is just now. These are shared: the same work costs one and a half times as much from one second to the next."""

from __future__ import annotations

import os
from statistics import median
from time import perf_counter

_LOOPS = 100_000


class Pace:
    """What a fixed piece of work took whenever `look` was called, in milliseconds, as the mean of the processors this process may use."""

    def __init__(self) -> None:
        self.looks: list[float] = []

    def look(self) -> None:
        allowed = os.sched_getaffinity(0)
        try:
            self.looks.append(sum(_on(core) for core in allowed) / len(allowed))
        finally:
            os.sched_setaffinity(0, allowed)

    def __str__(self) -> str:
        best, middle, worst = min(self.looks), median(self.looks), max(self.looks)
        return (
            f"The machine's pace: a fixed loop took {best:.1f} ms at best, {middle:.1f} in the median, {worst:.1f} at worst. "
            f"Microseconds above are those of a machine at {best / middle:.0%} of its best."
        )


def _on(core: int) -> float:
    os.sched_setaffinity(0, {core})
    return min(_loop() for _ in range(3)) * 1000


def _loop() -> float:
    began = perf_counter()
    total = 0
    for number in range(_LOOPS):
        total += number
    return perf_counter() - began
