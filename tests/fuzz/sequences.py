"""Random sequences of all methods on one connection with several sessions, admin's and snapshots' among them, on a whole server.

    python -m tests.fuzz.sequences --seconds 300 [--seed N]      # N: that one sequence again, and no other

A sequence is a seed. What must hold is said at `Sequence`; the first that breaks it stops the run and is named.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import random
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

import psutil

from jetwire_protocol.data.codes import NAMES
from jetwire_protocol.declarations import METHODS
from jetwire_protocol.errors import Err, JetError
from jetwire_protocol.jsonrpc import INTERNAL_ERROR
from jetwire_server.clock import SystemClock
from jetwire_server.events import EventLog
from jetwire_server.files.local import LocalFiles
from jetwire_server.hosting import Hosting
from jetwire_server.rpc.answers import PENDING
from jetwire_server.rpc.peer import IN_FLIGHT
from tests.fuzz.drawing import Call, Caller
from tests.support.bench import Bench, Line
from tests.support.declared import misfits, misfits_of_notification

CALLS = 120
SESSIONS = 3
BURST = (1, 1, 1, 2, 4, 8)  # calls that are sent together
PATIENCE_SECONDS = 0.02  # how long a burst is waited for before the next is sent: a freeze may hold a commit
HANG_SECONDS = 20.0
WARM = 30  # sequences before memory is looked at
GROWTH_BYTES_MAX = 64 << 20


class Sequence:
    """One sequence of calls. The rules:

    - every call is answered once, by JSON-RPC as the declarations have it, never by an internal error, never with a traceback;
    - nothing is logged that nobody expected;
    - whoever else is connected is answered meanwhile;
    - once an operator has thawed what is frozen, nothing waits for ever, and the connection closes leaving nothing behind;
    - the server ends, and starts again on what is there.
    """

    def __init__(self, seed: int, calls: int = CALLS) -> None:
        self.chance = random.Random(seed)
        self.calls = calls
        self.waiting: dict[int, Call] = {}
        self.sent: list[str] = []
        self.answers: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.unexpected: list[str] = []

    async def play(self, directory: Path) -> Counter[str]:
        with logged() as unexpected:
            self.unexpected = unexpected
            async with Bench(directory) as bench:
                await self._play(bench)
            assert not unexpected, "\n".join(unexpected)
            hosting = Hosting(LocalFiles(directory), SystemClock(), EventLog())
            async with asyncio.timeout(HANG_SECONDS):
                await hosting.start()
                await hosting.stop()
            assert not unexpected, "\n".join(unexpected)
        return self.answers

    async def _play(self, bench: Bench) -> None:
        line = Line(bench, "fuzz")
        homes = [(await bench.world(line)).kept for _ in range(SESSIONS)]
        self.peer = line.peer
        self.peer.send = self._told  # from here on answers come here
        caller = Caller(self.chance, homes, bench.instance)
        self.caller = caller
        while len(self.sent) < self.calls:
            ending = len(self.sent) > self.calls * 0.8
            burst = [caller.call(ending=ending) for _ in range(self.chance.choice(BURST))]
            self._send(burst)
            await self._settle()
            self._others_are_answered(bench)
            assert not self.wrong, self._story(self.wrong[0])
        await self._end(bench)

    # -- out and in -----------------------------------------------------------------------------------------------
    def _send(self, burst: list[Call]) -> None:
        """Sends them together, one by one or as a JSON-RPC batch."""
        messages = []
        for call in burst:
            number = len(self.sent)
            self.sent.append(f"{number} {call.method} {json.dumps(call.params)}")
            self.waiting[number] = call
            messages.append({"jsonrpc": "2.0", "id": number, "method": call.method, "params": call.params})
        for message in [messages] if self.chance.random() < 0.2 else messages:
            answer = self.peer.receive(json.dumps(message).encode())
            if isinstance(answer, bytes):
                self._told(answer)
            elif answer is not PENDING:
                self.wrong.append(f"no answer to {message}")

    def _told(self, data: bytes) -> None:
        """An answer, a batch of them, or a notification. Called by the server: what is wrong is kept, not raised."""
        if b"Traceback" in data:
            self.wrong.append(f"a traceback: {data[:500]!r}")
        read = json.loads(data)
        for one in read if isinstance(read, list) else [read]:
            if "method" in one:
                self.wrong += misfits_of_notification(one["method"], one["params"])
            else:
                self._answered(one)

    def _answered(self, one: dict[str, Any]) -> None:
        if one["id"] not in self.waiting:
            self.wrong.append(f"nobody waits for {one}")
            return
        call = self.waiting.pop(one["id"])
        if ("result" in one) == ("error" in one) or one["jsonrpc"] != "2.0":
            self.wrong.append(f"no JSON-RPC: {one}")
        elif "result" in one:
            self.answers[call.method] += 1
            self.caller.told(call, one["result"])
            self.wrong += misfits(call.method, one["result"])
        else:
            code = one["error"]["code"]
            self.answers[f"{call.method} {NAMES.get(code, code)}"] += 1
            if code == INTERNAL_ERROR:
                self.wrong.append(f"an internal error: {call.method} {call.params}")

    # -- the rules ------------------------------------------------------------------------------------------------
    async def _settle(self) -> None:
        """Lets what was sent run; what waits for a thaw goes on waiting."""
        until = time.monotonic() + PATIENCE_SECONDS
        while self.waiting and time.monotonic() < until:
            await asyncio.sleep(0)
            if self.waiting:
                await asyncio.sleep(0.0005)

    def _others_are_answered(self, bench: Bench) -> None:
        for method in ("Ping", "SnapshotStatus", "GetInstanceInfo"):
            answer = bench.line.peer.receive(json.dumps({"jsonrpc": "2.0", "id": 1, "method": method}).encode())
            assert isinstance(answer, bytes), self._story(f"another connection's {method} waits")
            told = json.loads(answer)
            assert "result" in told or told["error"]["code"] in STOPPED, self._story(f"another connection is told {told}")

    async def _end(self, bench: Bench) -> None:
        until = time.monotonic() + HANG_SECONDS
        while self.waiting and time.monotonic() < until:
            snapshots = bench.service.snapshots
            now = snapshots.status()
            if now.snap_id is not None:
                with suppress(JetError):
                    await snapshots.abort(now.snap_id)
            await asyncio.sleep(0.005)
        assert not self.waiting, self._story(f"never answered: {self.waiting}")
        assert not self.wrong, self._story(self.wrong[0])
        async with asyncio.timeout(HANG_SECONDS):
            await self.peer.idle()
            await self.peer.close()
        for instance in bench.hosting.engine.instances.values():
            left = [session for session in instance.sessions.values() if session.owner is self.peer]
            assert not left, self._story(f"sessions outlive their connection: {left}")
            owned = [cursor for cursor in instance.cursors.values() if cursor.session.owner is self.peer]
            assert not owned, self._story(f"cursors outlive their connection: {owned}")
        assert (self.peer.in_flight, IN_FLIGHT.value) == (0, 0), self._story("calls are counted that have ended")

    def _story(self, what: str) -> str:
        return "\n".join([what, "after", *self.sent[-40:], *self.unexpected])


STOPPED = {int(code) for code in (Err.ClientRequestToStopJetService, Err.NotInitialized, Err.InvalidInstance, Err.TermInProgress)}


@contextmanager
def logged() -> Iterator[list[str]]:
    """What is logged as an error meanwhile: the server's unexpected failures, and asyncio's complaints."""
    told: list[str] = []

    class Keeper(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            told.append(self.format(record))

    keeper = Keeper(logging.ERROR)
    loggers = [logging.getLogger(name) for name in ("jetwire_server", "asyncio")]
    for logger in loggers:
        logger.addHandler(keeper)
    try:
        yield told
    finally:
        for logger in loggers:
            logger.removeHandler(keeper)


def play(seed: int, directory: Path, calls: int = CALLS) -> Counter[str]:
    """One sequence in a directory of its own, which is gone afterwards."""
    try:
        return asyncio.run(Sequence(seed, calls).play(directory / str(seed)))
    except BaseException as error:
        error.add_note(f"sequence {seed}")
        raise
    finally:
        shutil.rmtree(directory / str(seed), ignore_errors=True)


def run(seeds: Iterator[int], directory: Path, seconds: float) -> Counter[str]:
    """Sequences for so long; memory must not grow with them."""
    answers: Counter[str] = Counter()
    process, warm = psutil.Process(), 0
    until = time.monotonic() + seconds
    for number, seed in enumerate(seeds):
        answers += play(seed, directory)
        answers["sequences"] += 1
        if number == WARM:
            warm = process.memory_info().rss
        if warm:
            grown = process.memory_info().rss - warm
            assert grown < GROWTH_BYTES_MAX, f"{grown >> 20} MiB more after {number - WARM} sequences"
        if time.monotonic() > until:
            break
    return answers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--first", type=int, default=random.SystemRandom().randrange(1 << 40))
    parser.add_argument("--seed", type=int)
    asked = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="jetwire-sequences-"))
    try:
        answers = run(iter([asked.seed]) if asked.seed is not None else count(asked.first), directory, asked.seconds)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    never = [name for name in METHODS if not any(told.split()[0] == name for told in answers)]
    refused = [name for name in METHODS if name not in answers and name not in never]
    sequences = answers.pop("sequences")
    print(f"{sequences} sequences, {answers.total()} answers; never called: {never}; never successful: {refused}")


if __name__ == "__main__":
    main()
