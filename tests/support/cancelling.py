"""Cancelling work where it waits for the n-th time."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator
from typing import Any


class _CutShort:
    def __init__(self, work: Coroutine[Any, Any, Any], at: int) -> None:
        self._work = work
        self._at = at

    def __await__(self) -> Generator[Any, Any, Any]:
        """Hands on what the work waits for, and asks for the task's end when it does so for the n-th time."""
        waits = 0
        answer: Any = None
        error: BaseException | None = None
        while True:
            try:
                waiting = self._work.send(answer) if error is None else self._work.throw(error)
            except StopIteration as done:
                return done.value
            waits += 1
            if waits == self._at:
                task = asyncio.current_task()
                assert task is not None
                task.cancel()
            answer = error = None
            try:
                answer = yield waiting
            except BaseException as raised:
                error = raised


async def cut_short(work: Coroutine[Any, Any, Any], at: int) -> bool:
    """Runs it in a task of its own that is cancelled when it waits for the `at`-th time; False if it never did so often."""

    async def run() -> None:
        await _CutShort(work, at)

    try:
        await asyncio.get_running_loop().create_task(run())
    except asyncio.CancelledError:
        return True
    return False
