"""Which snapshots are in use. They only ever grow, so a dictionary in order of insertion is in order of number."""

from __future__ import annotations


class Snapshots:
    """A count per snapshot number. The newest has its own: nearly all come and go there."""

    __slots__ = ("_newest", "_of_newest", "_older")

    def __init__(self) -> None:
        self._newest = -1
        self._of_newest = 0
        self._older: dict[int, int] = {}

    def opened(self, snapshot: int) -> None:
        if snapshot != self._newest:
            if self._of_newest:
                self._older[self._newest] = self._of_newest
            self._newest, self._of_newest = snapshot, 0
        self._of_newest += 1

    def closed(self, snapshot: int) -> None:
        if snapshot == self._newest:
            self._of_newest -= 1
            return
        left = self._older[snapshot] - 1
        if left:
            self._older[snapshot] = left
        else:
            del self._older[snapshot]

    def any_open(self) -> bool:
        return self._of_newest > 0 or bool(self._older)

    def oldest(self, otherwise: int) -> int:
        """The oldest in use, or what is given."""
        for snapshot in self._older:
            return snapshot
        return self._newest if self._of_newest else otherwise

    def all(self) -> list[int]:
        """Ascending."""
        return [*self._older, self._newest] if self._of_newest else [*self._older]
