"""The event log: ESE's ids and names for what operators must know.

Rooms below the roof emit; whoever serves registers a listener. Nothing here does I/O.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from jetwire_protocol.data.events import EVENTS

Listener = Callable[["Event"], None]
_ERRORS = {474}  # of those whose severity ESE's list leaves open


def severity_of(event_id: int) -> str:
    return EVENTS[event_id][1] or ("error" if event_id in _ERRORS else "information")


@dataclass(frozen=True, slots=True)
class Event:
    id: int
    name: str
    severity: str
    time: float
    instance: str = ""
    args: dict[str, Any] = field(default_factory=dict)


class EventLog:
    """Passes every event on to its listeners, in order."""

    def __init__(self) -> None:
        self._listeners: list[Listener] = []

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Adds a listener; the returned function takes it away again."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def emit(self, event: Event) -> None:
        for listener in list(self._listeners):
            listener(event)
