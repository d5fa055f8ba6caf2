"""What is published and not in the pages yet, and when it is time for a checkpoint."""

from __future__ import annotations

import gc
from collections import deque
from collections.abc import Callable

from jetwire_server.store.embedded.published import Published
from jetwire_server.store.timeline import VERSION_OVERHEAD_BYTES, Timeline

BULK_ROWS = 200  # a commit that brings so many is one of a bulk load
_BULK_BYTES = BULK_ROWS * VERSION_OVERHEAD_BYTES
COLLECT_BYTES = 4 << 20  # of versions: about 10,000 small ones


class Backlog:
    """One store's, oldest first. `due` is called when a checkpoint should begin; with True, and hurry."""

    __slots__ = ("_due", "_timeline", "_uncollected", "bytes", "waiting")

    def __init__(self, timeline: Timeline, due: Callable[[bool], None]) -> None:
        self.waiting: deque[Published] = deque()
        self.bytes = 0
        self._uncollected = 0  # bytes of versions since the collector looked at the youngest objects
        self._timeline = timeline
        self._due = due

    def note(self, published: Published) -> None:
        """This one is published."""
        weight = published.weight
        self.waiting.append(published)
        self.bytes += weight
        self._uncollected += weight
        if self._uncollected > COLLECT_BYTES:
            # The collector counts what is made less what goes. Where versions come and go at one pace it waits until all of
            # them are its youngest, and then looks at them in one go: for a tenth of a second.
            self._uncollected = 0
            gc.collect(0)
        usage = self._timeline.usage
        if weight >= _BULK_BYTES and self.bytes > usage.bulk:
            self._due(True)
        elif self.bytes > usage.due:
            self._due(False)

    def saved(self) -> None:
        """The oldest is in the pages."""
        self.bytes -= self.waiting.popleft().weight

    def crowded(self, rows: int) -> bool:
        """Whether a commit of so many rows should wait for relief: those of bulk loads sooner than others."""
        timeline = self._timeline
        return timeline.bytes > timeline.usage.slow or (rows >= BULK_ROWS and self.bytes > timeline.usage.bulk)
