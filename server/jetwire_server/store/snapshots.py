"""Which snapshots are in use. They only ever grow, so a dictionary in order of insertion is in order of number."""

from __future__ import annotations


class Snapshots:
    """A count per snapshot number."""

    __slots__ = ("_open",)

    def __init__(self) -> None:
        self._open: dict[int, int] = {}

    def opened(self, snapshot: int) -> None:
        self._open[snapshot] = self._open.get(snapshot, 0) + 1

    def closed(self, snapshot: int) -> None:
        left = self._open[snapshot] - 1
        if left:
            self._open[snapshot] = left
        else:
            del self._open[snapshot]

    def any_open(self) -> bool:
        return bool(self._open)

    def oldest(self, otherwise: int) -> int:
        """The oldest in use, or what is given."""
        return next(iter(self._open), otherwise)

    def all(self) -> list[int]:
        """Ascending."""
        return list(self._open)
