"""Whether commits come one at a time, with nobody beside them: then the log may write one where it stands.

A commit written on the event loop's thread saves two wake-ups of threads, but whoever else wants the loop meanwhile
waits for the disk. So this is found out by looking: if for several commits in a row nothing began and nothing else was
committed while the log had them, the next ones may go the short way; now and then one takes the long way again, to look.
"""

from __future__ import annotations

CALM_COMMITS = 8
LOOK_EVERY = 16


class Alone:
    """One store's look-out. `begun` is counted up by whoever begins a transaction."""

    __slots__ = ("_calm", "_turn", "begun")

    def __init__(self) -> None:
        self.begun = 0
        self._calm = 0
        self._turn = 0

    def __bool__(self) -> bool:
        """Asked once for every durable commit: may it go the short way?"""
        if self._calm < CALM_COMMITS:
            return False
        self._turn = (self._turn + 1) % LOOK_EVERY
        return self._turn != 0

    def ended(self, begun: int, *, last: bool) -> None:
        """A commit was reported. `begun`: the count when it was handed over; `last`: no other was handed over since."""
        if last and begun == self.begun:
            self._calm += 1
        else:
            self._calm = 0
