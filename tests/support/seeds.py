"""Random tests run by hand: `python -m THE_TEST FIRST LAST` tries those seeds and names the ones that fail."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from typing import Any

from jetwire_protocol.errors import JetError


def try_seeds(run: Callable[[int], Coroutine[Any, Any, None]]) -> None:
    for seed in range(int(sys.argv[1]), int(sys.argv[2])):
        try:
            asyncio.run(run(seed))
        except (AssertionError, JetError) as error:
            print(seed, type(error).__name__, str(error)[:300])
