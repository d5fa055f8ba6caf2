"""Running a coroutine up to its first wait without a task, and giving the rest to one.

Most handlers never wait: their pages are in memory. A task for each would cost more than the call itself.
"""

from __future__ import annotations

import types
from collections.abc import Coroutine, Generator
from typing import Any


class Waiting:
    """A coroutine that has begun and waits for something."""

    __slots__ = ("_coroutine", "_first")

    def __init__(self, coroutine: Coroutine[Any, Any, Any], first: Any) -> None:
        self._coroutine = coroutine
        self._first = first

    async def rest(self) -> Any:
        """What is left of it, to be run as a task."""
        return await _go_on(self._coroutine, self._first)


def begin(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """The coroutine's result if it ended without waiting, else a `Waiting`. Raises what the coroutine raises."""
    try:
        first = coroutine.send(None)
    except StopIteration as end:
        return end.value
    return Waiting(coroutine, first)


@types.coroutine
def _go_on(coroutine: Coroutine[Any, Any, Any], waited_for: Any) -> Generator[Any, Any, Any]:
    while True:
        try:
            answer = yield waited_for
        except GeneratorExit:
            coroutine.close()
            raise
        except BaseException as error:
            try:
                waited_for = coroutine.throw(error)
            except StopIteration as end:
                return end.value
        else:
            try:
                waited_for = coroutine.send(answer)
            except StopIteration as end:
                return end.value
