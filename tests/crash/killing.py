"""kill -9 in a loop: a process works on a store, is killed at a random time or at a named place, and is started again.

Every start first recovers, and compares everything with what was acknowledged and what was begun; kills while it does
that are part of it. The process is forked from one that has loaded everything, so a cycle costs little.
`python -m tests.crash.killing --seed 1 --cycles 100` prints what happened as JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import select
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import jetwire_server
from jetwire_protocol.errors import JetError
from jetwire_server import failpoints
from tests.crash.rig import abandon, faults, settle
from tests.crash.worker import Expectation, Worker, open_store, verify

WORK_SECONDS_MAX = 0.12
START_SECONDS_MAX = 20.0
VERIFIED, BROKEN = b"V", b"X"
ROOMS = ("redo", "files", "store")
_HIT = re.compile(r'\bhit\("([a-z_.]+)"\)')


def failpoint_names() -> list[str]:
    """Every risky line of the ground floors that has a name."""
    root = Path(jetwire_server.__file__).parent
    sources = [path for room in ROOMS for path in sorted((root / room).rglob("*.py")) if path.name != "memory.py"]
    return sorted({name for path in sources for name in _HIT.findall(path.read_text())} - {"files.read"})


@dataclass
class Result:
    cycles: int = 0
    killed: int = 0
    killed_while_recovering: int = 0
    ended_cleanly: int = 0
    acknowledged: int = 0
    places: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)


class Killer:
    """One directory's life. The parent is single-threaded, so that forking it is safe."""

    def __init__(self, directory: str, seed: int, *, lying: bool = False) -> None:
        self._directory = directory
        self._rng = Random(f"kill/{seed}")
        self._lying = lying
        self._expectation = Expectation(seed)
        self._names = failpoint_names()
        self.result = Result()

    def cycle(self) -> None:
        rng, result = self._rng, self.result
        clean = rng.random() < 0.08
        place = rng.choice(self._names) if not clean and rng.random() < 0.55 else ""
        armed = f"{place}=kill:{rng.choice((1, 1, 2, 3, 8, 25))}" if place else ""
        early = not place and rng.random() < 0.3
        seconds = rng.uniform(0, 0.02) if early else rng.uniform(0, WORK_SECONDS_MAX)
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reading)
            self._child(writing, armed, seconds if clean else None)
        os.close(writing)
        data, by_us = self._watch(child, reading, early, seconds + (1.0 if clean else 0.0))
        os.close(reading)
        _, status = os.waitpid(child, 0)
        result.cycles += 1
        self._judge(data, status, by_us, place)

    def _watch(self, child: int, reading: int, early: bool, seconds: float) -> tuple[bytes, bool]:
        """What the child said, until it ended or its time came."""
        data = b""
        by_us = False
        deadline = time.monotonic() + (seconds if early else START_SECONDS_MAX)
        verified = early
        while True:
            left = deadline - time.monotonic()
            if left <= 0 and not by_us:
                os.kill(child, signal.SIGKILL)
                by_us = True
            ready = select.select([reading], [], [], None if by_us else max(left, 0))[0]
            if ready:
                part = os.read(reading, 1 << 16)
                if not part:
                    return data, by_us
                data += part
                if not verified and data[:1] == VERIFIED:
                    verified = True
                    deadline = time.monotonic() + seconds

    def _judge(self, data: bytes, status: int, by_us: bool, place: str) -> None:
        result, expectation = self.result, self._expectation
        where = f"cycle {result.cycles}, {place or 'random time'}"
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
            result.killed += 1
            if place and not by_us:
                result.places[place] += 1
        elif status == 0:
            result.ended_cleanly += 1
        elif data[:1] != BROKEN:
            result.failures.append(f"{where}: the process ended with status {status}")
        if data[:1] == BROKEN:
            result.failures.append(f"{where}: {data[1:].decode()}")
            return
        if data[:1] != VERIFIED:
            result.killed_while_recovering += 1
            return
        size = int.from_bytes(data[1:3], "little")
        expectation.advance(json.loads(data[3 : 3 + size]))
        result.acknowledged += expectation.take(data[3 + size :])

    # -- the child ----------------------------------------------------------------------------------------------
    def _child(self, writing: int, armed: str, stop_after: float | None) -> None:
        """Never returns. What it finds is the first thing it says."""
        code = 1
        try:
            failpoints.arm_from_environment(armed)
            asyncio.run(self._work(writing, stop_after))
            code = 0
        except BaseException as error:
            print(f"worker: {error!r}", file=sys.stderr)
        finally:
            os._exit(code)

    async def _work(self, writing: int, stop_after: float | None) -> None:
        store = open_store(self._directory)
        try:
            await store.start()
            await settle(store)
            counts = await verify(store, self._expectation)
            found = faults(store)
            assert not found, f"check finds {found[:3]}"
        except (AssertionError, JetError) as error:
            os.write(writing, BROKEN + str(error).encode())
            raise
        said = json.dumps(counts).encode()
        os.write(writing, VERIFIED + len(said).to_bytes(2, "little") + said)
        worker = Worker(store, self._expectation.seed, counts, lambda message: os.write(writing, message), lying=self._lying)
        await worker.prepare()
        if stop_after is None:
            await worker.run()
            return
        try:
            async with asyncio.timeout(stop_after):
                await worker.run()
        except TimeoutError:
            await store.stop()
        except BaseException:
            await abandon(store)
            raise


def run(seed: int, *, cycles: int, seconds: float = 1e9, lying: bool = False, failures_max: int = 5) -> Result:
    until = time.monotonic() + seconds
    with tempfile.TemporaryDirectory(prefix="jetwire-kill-") as directory:
        killer = Killer(directory + "/data", seed, lying=lying)
        while killer.result.cycles < cycles and time.monotonic() < until and len(killer.result.failures) < failures_max:
            killer.cycle()
            if killer.result.failures and not lying:
                break  # the directory is not what is expected any more
        return killer.result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cycles", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=1e9)
    parser.add_argument("--lying", action="store_true", help="the control: acknowledge before committing")
    options = parser.parse_args()
    result = run(options.seed, cycles=options.cycles, seconds=options.seconds, lying=options.lying)
    print(json.dumps(vars(result)))


if __name__ == "__main__":
    main()
