"""The order of calls: those that name the same session run in the order they came, others overtake them.

A lane exists for a session only while one of its calls waits for something, so the usual call, which ends at once, costs
one look into an empty dictionary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence


class Turn:
    """A call's place in the lanes of the sessions it names."""

    __slots__ = ("ahead", "counts", "run", "sessions")

    def __init__(self, sessions: Sequence[int], run: Callable[[], None], counts: bool = True) -> None:
        self.sessions = sessions  # each once
        self.run = run
        self.counts = counts  # against the connection's calls in flight
        self.ahead = 0  # lanes in which another is before it


class Lanes:
    """The calls of one connection that wait or are waited for, by session."""

    def __init__(self) -> None:
        self._lanes: dict[int, list[Turn]] = {}  # short ones: a connection has few calls in flight

    def free(self, sessions: Sequence[int]) -> bool:
        """Whether a call that names these sessions may run at once."""
        lanes = self._lanes
        return not lanes or not any(session in lanes for session in sessions)

    def enter(self, turn: Turn) -> None:
        """Takes a place in each lane. If it is not the first in all of them, it is run when it becomes so."""
        lanes = self._lanes
        for session in turn.sessions:
            lane = lanes.get(session)
            if lane is None:
                lanes[session] = [turn]
            else:
                turn.ahead += 1
                lane.append(turn)

    def leave(self, turn: Turn) -> None:
        """A call ended: whoever is now first in all its lanes runs."""
        ready: list[Turn] = []
        for session in turn.sessions:
            lane = self._lanes[session]
            assert lane[0] is turn, "a call left before its turn"
            if len(lane) == 1:
                del self._lanes[session]
            else:
                del lane[0]
                lane[0].ahead -= 1
                if lane[0].ahead == 0:
                    ready.append(lane[0])
        for next_turn in ready:
            next_turn.run()

    def clear(self) -> None:
        """Forgets everything that waits; nothing of it runs any more."""
        self._lanes.clear()
