"""Counters, gauges and histograms, declared once, shown as Prometheus text.

A metric is a module-level object of the room that owns the fact; a hot path adds to a plain attribute.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator

_registry: dict[str, Metric] = {}


class Metric:
    """What all kinds share: a name, a help text and a place in the registry."""

    kind = "untyped"

    def __init__(self, name: str, help_text: str) -> None:
        assert name not in _registry, f"metric {name} declared twice"
        self.name = name
        self.help = help_text
        _registry[name] = self

    def lines(self) -> Iterator[str]:
        raise NotImplementedError


class Counter(Metric):
    """Only grows. `counter.value += 1` is the whole cost."""

    kind = "counter"

    def __init__(self, name: str, help_text: str) -> None:
        super().__init__(name, help_text)
        self.value: float = 0

    def lines(self) -> Iterator[str]:
        yield f"{self.name} {self.value:g}"


class Gauge(Metric):
    """A number that goes up and down: set, or read from a function when asked."""

    kind = "gauge"

    def __init__(self, name: str, help_text: str, read: Callable[[], float] | None = None) -> None:
        super().__init__(name, help_text)
        self.value: float = 0
        self._read = read

    def lines(self) -> Iterator[str]:
        yield f"{self.name} {self._read() if self._read else self.value:g}"


class Histogram(Metric):
    """Counts of observations in buckets, with their sum."""

    kind = "histogram"
    SECONDS = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 60.0)

    def __init__(self, name: str, help_text: str, bounds: tuple[float, ...] = SECONDS) -> None:
        super().__init__(name, help_text)
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def lines(self) -> Iterator[str]:
        total = 0
        for bound, count in zip(self.bounds, self.counts, strict=False):
            total += count
            yield f'{self.name}_bucket{{le="{bound:g}"}} {total}'
        total += self.counts[-1]
        yield f'{self.name}_bucket{{le="+Inf"}} {total}'
        yield f"{self.name}_sum {self.sum:g}"
        yield f"{self.name}_count {total}"


def render() -> str:
    """All metrics in Prometheus' text format."""
    out: list[str] = []
    for metric in _registry.values():
        out += [f"# HELP {metric.name} {metric.help}", f"# TYPE {metric.name} {metric.kind}", *metric.lines()]
    return "\n".join(out) + "\n"
