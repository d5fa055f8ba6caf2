"""Named places where a test makes the server fail, stall or die.

A risky line calls `hit("redo.before_sync")`. Normally that is one dictionary look-up in an empty dictionary. A test
arms a place with a function; a child process arms places from the environment variable `JETWIRE_FAILPOINTS`
(`name=kill`, `name=kill:3` for the third hit, `name=error`; `name=pause:0.5` says so on stderr and sleeps, once, in
whatever runs there; `name=stop` says so and stops the process until somebody continues it; `name=slow:0.1` sleeps every
time), which the tests alone set.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from functools import partial

_armed: dict[str, Callable[[], None]] = {}


def hit(name: str) -> None:
    if _armed:
        action = _armed.get(name)
        if action is not None:
            action()


def arm(name: str, action: Callable[[], None]) -> None:
    _armed[name] = action


def disarm(name: str | None = None) -> None:
    if name is None:
        _armed.clear()
    else:
        _armed.pop(name, None)


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _fail() -> None:
    raise OSError(5, "failpoint")


def _pause(name: str, seconds: float) -> None:
    os.write(2, f"failpoint {name}\n".encode())
    time.sleep(seconds)


def _stop(name: str) -> None:
    os.write(2, f"failpoint {name}\n".encode())
    os.kill(os.getpid(), signal.SIGSTOP)


def _slow(seconds: float) -> None:
    time.sleep(seconds)


def _after(count: int, action: Callable[[], None]) -> Callable[[], None]:
    left = count

    def countdown() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            action()

    return countdown


def arm_from_environment(text: str) -> None:
    """Arms every `name=action[:count]` of a comma-separated list."""
    for item in filter(None, text.split(",")):
        name, _, what = item.partition("=")
        verb, _, count = what.partition(":")
        if verb == "pause":
            arm(name, _after(1, partial(_pause, name, float(count))))
            continue
        if verb == "slow":
            arm(name, partial(_slow, float(count)))
            continue
        actions: dict[str, Callable[[], None]] = {"kill": _kill, "error": _fail, "stop": partial(_stop, name)}
        arm(name, _after(int(count or 1), actions[verb]))
