"""Publishing: what the log has reported becomes visible, in the log's order, without holding the event loop.

Most commits are published at once. A very large one goes onto the timeline a slice a turn of the loop: its versions have
a number that no snapshot reaches, so nobody sees any of them until the last is there and `published` says so. What the
log reports meanwhile waits behind it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING

from jetwire_protocol.errors import JetError
from jetwire_server.redo.placed import Placed

if TYPE_CHECKING:
    from jetwire_server.store.embedded.journal import Pending, PendingCommit
    from jetwire_server.store.embedded.store import EmbeddedStore

SLICE_ROWS = 5_000
LARGE_ROWS = 2 * SLICE_ROWS
"""Rows that one turn of the loop publishes, and above how many a commit is large."""


class Publishing:
    """One store's. All on the event loop."""

    def __init__(self, store: EmbeddedStore) -> None:
        self._store = store
        self._behind: deque[tuple[Pending, Placed | JetError]] = deque()
        self.busy = False
        """Whether a large commit is on its way, so that what comes now must wait."""
        self._idle = asyncio.Event()
        self._idle.set()

    def wait(self, pending: Pending, placed: Placed | JetError) -> None:
        """Takes a report in when the ones before it are published."""
        self._behind.append((pending, placed))

    async def idle(self) -> None:
        """All that was reported so far is visible after this."""
        await self._idle.wait()

    def begin(self, pending: PendingCommit, placed: Placed) -> None:
        """Publishes a large commit."""
        self.busy = True
        self._idle.clear()
        self._turn(asyncio.get_running_loop(), self._slices(pending, placed), pending, placed)

    def _turn(self, loop: asyncio.AbstractEventLoop, slices: Iterator[int], pending: PendingCommit, placed: Placed) -> None:
        try:
            if next(slices, 0):
                loop.call_soon(self._turn, loop, slices, pending, placed)
                return
        except BaseException as error:
            pending.broken(error)
            self._go_on()
            raise
        pending.visible(placed)
        self._go_on()

    def _slices(self, pending: PendingCommit, placed: Placed) -> Iterator[int]:
        store, timeline = self._store, self._store.timeline
        published = pending.published(placed)
        if published.adopted:
            store.reach_adopted()
        for tree, own in published.writes.items():
            entries = iter(own.items())
            while some := dict(islice(entries, SLICE_ROWS)):
                before = timeline.bytes
                timeline.publish(published.number, tree, some, store.current)
                published.weight += timeline.bytes - before
                yield len(some)
        store.show(published)
        pending.transaction.release(published.number)

    def _go_on(self) -> None:
        self.busy = False
        while self._behind and not self.busy:
            pending, placed = self._behind.popleft()
            try:
                pending(placed)
            except Exception as error:  # it has been told; who comes behind it must be told too
                asyncio.get_running_loop().call_exception_handler({"message": "a commit could not be published", "exception": error})
        if not self.busy:
            self._idle.set()
