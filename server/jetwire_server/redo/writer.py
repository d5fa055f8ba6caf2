"""The log's one writing thread: it takes everything that waits, writes it in one, syncs once, reports it together.

A batch with a durable record in it is reported after its sync, a purely lazy one after its write. Reports run on the
event loop in log order, one wake-up a batch. After a failed write or sync nothing is tried again: every waiter and
every later append is an error, and the gate is latched.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import NamedTuple

from jetwire_protocol.errors import Err, JetError
from jetwire_server.files.gate import Gate
from jetwire_server.limits import LOG_BATCH_BYTES_MAX, LOG_LAZY_SYNC_SECONDS_MAX, LOG_RECORD_BYTES_MAX, LOG_SEAL_SECONDS
from jetwire_server.metrics import Histogram
from jetwire_server.redo.position import Position
from jetwire_server.redo.tail import Placed, Tail

BATCH_RECORDS = Histogram("jetwire_log_batch_records", "Records a batch of the log writer.", (1, 2, 4, 8, 16, 32, 64, 128, 256, 1024))
BATCH_SECONDS = Histogram("jetwire_log_batch_seconds", "How long the log writer took for a batch, its sync included.")

Report = Callable[[Placed | JetError], None]

# What is in the queue besides records: requests with a kind no record has.
_FLUSH = 0
_ROLL = -1
_STOP = -2


class _Item(NamedTuple):
    kind: int
    payload: bytes
    durable: bool
    report: Report


class LogWriter:
    """Group commit. Every method is for the event loop's thread."""

    def __init__(self, tail: Tail, gate: Gate, loop: asyncio.AbstractEventLoop) -> None:
        self._tail = tail
        self._gate = gate
        self._loop = loop
        self._queue: SimpleQueue[_Item] = SimpleQueue()
        self._using_tail = threading.Lock()  # the writer's, but `settle` borrows the tail while the gate keeps the writer out
        self._failure: JetError | None = None
        self._lazy_since: float | None = None  # since when something written is not synced
        self._sealed = False
        self._end = tail.end
        self._thread = threading.Thread(target=self._run, name="jetwire-log", daemon=True)
        self._thread.start()

    @property
    def end(self) -> Position:
        """Where the log ended when the last batch was reported."""
        return self._end

    @property
    def failure(self) -> JetError | None:
        """Why nothing is written any more, or None."""
        return self._failure

    def append(self, kind: int, payload: bytes, durable: bool, report: Report) -> None:
        """Takes a record, in the order of the calls; `report` is called on the loop, in that order too."""
        if self._failure is not None:
            raise JetError(Err.InstanceUnavailable, self._failure.detail)
        if len(payload) > LOG_RECORD_BYTES_MAX:
            raise JetError(Err.LogBufferTooSmall, f"a log record of {len(payload)} bytes; {LOG_RECORD_BYTES_MAX} at most")
        self._queue.put(_Item(kind, payload, durable, report))

    async def flush(self) -> Position:
        """Everything appended so far is durable after this."""
        return (await self._request(_FLUSH)).end

    async def roll(self) -> Position:
        """Ends the current generation and begins the next; answers where."""
        return (await self._request(_ROLL)).end

    async def settle(self) -> None:
        """For a freeze, once its gate is closed: makes what is written durable, and writes nothing."""
        await asyncio.to_thread(self._settle)

    async def close(self) -> None:
        """Writes and syncs what waits, seals the log and ends the thread."""
        try:
            await self._request(_STOP)
        finally:
            await asyncio.to_thread(self._thread.join)

    async def _request(self, kind: int) -> Placed:
        future: asyncio.Future[Placed] = self._loop.create_future()
        if kind != _STOP and self._failure is not None:
            raise JetError(Err.InstanceUnavailable, self._failure.detail)
        self._queue.put(_Item(kind, b"", True, resolver(future)))
        return await future

    def _deliver(self, batch: list[_Item], results: list[Placed] | JetError) -> None:
        each: Sequence[Placed | JetError]
        if isinstance(results, JetError):
            each = [results] * len(batch)
        else:
            each = results
            self._end = results[-1].end
        for item, result in zip(batch, each, strict=True):
            try:
                item.report(result)
            except Exception as error:
                self._loop.call_exception_handler({"message": "a report of the log failed", "exception": error})

    # -- the thread -------------------------------------------------------------------------------------------
    def _run(self) -> None:
        stopped = False
        while not stopped:
            batch = self._take()
            stopped = bool(batch) and batch[-1].kind == _STOP
            began = time.perf_counter()
            results: list[Placed] | JetError
            try:
                if self._failure is not None:
                    raise JetError(Err.InstanceUnavailable, self._failure.detail)
                with self._gate.permit("log"), self._using_tail:
                    results = self._batch(batch) if batch else self._idle()
                    self._tell(batch, results)
                    self._tail.prepare_if_due()
            except (JetError, OSError) as error:
                self._tell(batch, self._fail(error))
            if batch:
                BATCH_RECORDS.observe(len(batch))
                BATCH_SECONDS.observe(time.perf_counter() - began)
        self._tail.close()

    def _take(self) -> list[_Item]:
        """What waits, up to the size of a batch; nothing when the time has come to sync or to seal."""
        queue = self._queue
        try:
            item = queue.get(timeout=self._patience())
        except Empty:
            return []
        batch, size = [item], len(item.payload)
        while size < LOG_BATCH_BYTES_MAX and item.kind != _STOP and not queue.empty():
            item = queue.get_nowait()  # this thread alone takes
            batch.append(item)
            size += len(item.payload)
        return batch

    def _patience(self) -> float | None:
        if self._failure is not None or self._sealed:
            return None
        if self._lazy_since is not None:
            return max(0.0, self._lazy_since + LOG_LAZY_SYNC_SECONDS_MAX - time.monotonic())
        return LOG_SEAL_SECONDS

    def _batch(self, batch: list[_Item]) -> list[Placed]:
        tail, durable = self._tail, False
        add, results = tail.add, []
        for kind, payload, its_durable, _ in batch:
            durable = durable or its_durable
            if kind > 0:
                results.append(add(kind, payload))
                self._sealed = False
                if self._lazy_since is None:
                    self._lazy_since = time.monotonic()
                continue
            if kind == _ROLL:
                tail.roll()
                self._lazy_since = None
            elif kind == _STOP:
                self._sync_all()
                self._idle()
                durable = False
            end = tail.end
            results.append(Placed(end.generation, end.offset, end.generation, end.offset))
        tail.write()
        if durable or (self._lazy_since is not None and time.monotonic() - self._lazy_since >= LOG_LAZY_SYNC_SECONDS_MAX):
            self._sync_all()
        return results

    def _sync_all(self) -> None:
        self._tail.write()
        if self._lazy_since is not None:
            self._tail.sync()
            self._lazy_since = None

    def _idle(self) -> list[Placed]:
        if self._lazy_since is not None:
            self._sync_all()
        elif not self._sealed:
            self._tail.seal()
            self._sealed = True
        return []

    def _tell(self, batch: list[_Item], results: list[Placed] | JetError) -> None:
        if batch:
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self._loop.call_soon_threadsafe(self._deliver, batch, results)

    def _fail(self, error: JetError | OSError) -> JetError:
        """For ever. Who waited learns what happened, who comes later that the instance is gone."""
        if self._failure is None:
            code = getattr(error, "code", Err.DiskIO)
            detail = f"the log could not be written, restart the instance to recover it: {error}"
            code = {Err.DiskFull: Err.LogDiskFull, Err.InstanceUnavailable: Err.InstanceUnavailable}.get(code, Err.LogWriteFail)
            self._failure = JetError(code, detail)
            self._gate.latch(detail)
            return self._failure
        return JetError(Err.InstanceUnavailable, self._failure.detail)

    def _settle(self) -> None:
        with self._using_tail:
            if self._failure is not None:
                raise JetError(Err.InstanceUnavailable, self._failure.detail)
            try:
                self._tail.sync()
            except (JetError, OSError) as error:
                raise self._fail(error) from error
            self._lazy_since = None


def resolver(future: asyncio.Future[Placed]) -> Report:
    """A report that resolves a future, which may have been cancelled meanwhile."""

    def report(result: Placed | JetError) -> None:
        if future.done():
            return
        if isinstance(result, JetError):
            future.set_exception(result)
        else:
            future.set_result(result)

    return report
