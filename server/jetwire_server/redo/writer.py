"""The log's one writing thread: it takes everything that waits, writes it in one, syncs once, reports it together.

A batch with a durable record in it is reported after its sync, a purely lazy one after its write. Reports run on the
event loop in log order, one wake-up a batch. After a failed write or sync nothing is tried again: every waiter and
every later append is an error, and the gate is latched.

Handing a record to a thread and hearing back costs two wake-ups, on a fast disk as much as the sync itself. So a record
whose owner says that it is `alone` is written and synced where it is: on the event loop's thread, if nothing else is
under way and the disk has been quick of late. It is reported like any other, in the loop's next turn.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue

from jetwire_protocol.errors import Err, JetError
from jetwire_server.files.gate import Gate
from jetwire_server.limits import (
    LOG_ALONE_BYTES_MAX,
    LOG_ALONE_SYNC_SECONDS_MAX,
    LOG_BATCH_BYTES_MAX,
    LOG_LAZY_SYNC_SECONDS_MAX,
    LOG_RECORD_BYTES_MAX,
    LOG_SEAL_SECONDS,
)
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

_Item = tuple[int, bytes, bool, Report]  # kind, payload, durable, whom to tell
_Results = list[Placed] | JetError

_QUICK_SYNCS = 16  # so many in a row before the event loop's thread syncs itself


class LogWriter:
    """Group commit. Every method is for the event loop's thread."""

    def __init__(self, tail: Tail, gate: Gate, loop: asyncio.AbstractEventLoop) -> None:
        self._tail = tail
        self._gate = gate
        self._loop = loop
        self._queue: SimpleQueue[list[_Item]] = SimpleQueue()
        self._gathered: list[_Item] = []  # in this turn of the loop
        self._gathered_bytes = 0
        self._under_way = 0  # taken and not reported yet
        self._told: deque[tuple[list[_Item], _Results]] = deque()  # written, on its way back to the loop
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)  # half the price of `call_soon_threadsafe`
        loop.add_reader(self._bell, self._hear)
        self._quick_syncs = 0
        self._written_here = False  # on the loop's thread, since the writer's last turn
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

    def append(self, kind: int, payload: bytes, durable: bool, report: Report, alone: bool = False) -> None:
        """Takes a record, in the order of the calls; `report` is called on the loop, in that order too, never at once."""
        if self._failure is not None:
            raise JetError(Err.InstanceUnavailable, self._failure.detail)
        if len(payload) > LOG_RECORD_BYTES_MAX:
            raise JetError(Err.LogBufferTooSmall, f"a log record of {len(payload)} bytes; {LOG_RECORD_BYTES_MAX} at most")
        item = (kind, payload, durable, report)
        if alone and durable and self._quick_syncs >= _QUICK_SYNCS and not self._under_way and len(payload) <= LOG_ALONE_BYTES_MAX:
            placed = self._write_here(kind, payload)
            if placed is not None:
                self._under_way = 1
                self._loop.call_soon(self._deliver, [item], placed)
                return
        self._under_way += 1
        self._gathered.append(item)
        self._gathered_bytes += len(payload)
        if len(self._gathered) == 1:
            self._loop.call_soon(self._hand_over)
        elif self._gathered_bytes > LOG_BATCH_BYTES_MAX:
            self._hand_over()

    def _hand_over(self) -> None:
        """What came in one turn of the loop goes to the thread together: it is woken once, and syncs once."""
        if self._gathered:
            gathered, self._gathered, self._gathered_bytes = self._gathered, [], 0
            self._queue.put(gathered)

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
            if self._bell >= 0:
                self._loop.remove_reader(self._bell)
                os.close(self._bell)
                self._bell = -1

    async def _request(self, kind: int) -> Placed:
        future: asyncio.Future[Placed] = self._loop.create_future()
        if kind != _STOP and self._failure is not None:
            raise JetError(Err.InstanceUnavailable, self._failure.detail)
        self._under_way += 1
        self._gathered.append((kind, b"", True, resolver(future)))
        self._hand_over()
        return await future

    def _write_here(self, kind: int, payload: bytes) -> list[Placed] | JetError | None:
        """Writes and syncs one record on this thread; None, and nothing done, if it would have to wait for anything."""
        tail = self._tail
        if self._sealed or not self._using_tail.acquire(blocking=False):  # sealed: the writer sleeps, and must seal again
            return None
        try:
            with self._gate.try_permit("log") as allowed:
                if not allowed or not tail.has_room(len(payload)):
                    return None
                self._written_here = True
                try:
                    placed = tail.add(kind, payload)
                    tail.write()
                    self._sync()
                except (JetError, OSError) as error:
                    return self._fail(error)
        except JetError:
            return None  # latched: the writer will say so in its turn
        finally:
            self._using_tail.release()
        return [placed]

    def _hear(self) -> None:
        os.eventfd_read(self._bell)
        told = self._told
        while told:
            self._deliver(*told.popleft())

    def _deliver(self, batch: list[_Item], results: _Results) -> None:
        self._under_way -= len(batch)
        each: Sequence[Placed | JetError]
        if isinstance(results, JetError):
            each = [results] * len(batch)
        else:
            each = results
            self._end = results[-1].end
        for item, result in zip(batch, each, strict=True):
            try:
                item[3](result)
            except Exception as error:
                self._loop.call_exception_handler({"message": "a report of the log failed", "exception": error})

    # -- the thread -------------------------------------------------------------------------------------------
    def _run(self) -> None:
        stopped = False
        while not stopped:
            batch = self._take()
            stopped = bool(batch) and batch[-1][0] == _STOP
            began = time.perf_counter()
            try:
                if self._failure is not None:
                    raise JetError(Err.InstanceUnavailable, self._failure.detail)
                with self._gate.permit("log"), self._using_tail:
                    results: _Results = self._batch(batch) if batch else self._idle()
            except (JetError, OSError) as error:
                results = self._fail(error)
            if batch:
                BATCH_RECORDS.observe(len(batch))
                BATCH_SECONDS.observe(time.perf_counter() - began)
                self._told.append((batch, results))
                os.eventfd_write(self._bell, 1)  # as late as may be: from here on the loop wants the interpreter
            if self._tail.due and not stopped:
                self._prepare()
        self._tail.close()

    def _prepare(self) -> None:
        try:
            with self._gate.permit("log"), self._using_tail:
                self._tail.prepare()
        except (JetError, OSError) as error:
            self._fail(error)

    def _take(self) -> list[_Item]:
        """What waits, up to the size of a batch; nothing when the time has come to sync or to seal."""
        queue = self._queue
        try:
            batch = queue.get(timeout=self._patience())
        except Empty:
            return []
        size = sum([len(item[1]) for item in batch])
        while size < LOG_BATCH_BYTES_MAX and batch[-1][0] != _STOP and not queue.empty():
            more = queue.get_nowait()  # this thread alone takes
            batch += more
            size += sum([len(item[1]) for item in more])
        return batch

    def _patience(self) -> float | None:
        if self._failure is not None or self._sealed:
            return None
        if self._lazy_since is not None:
            return max(0.0, self._lazy_since + LOG_LAZY_SYNC_SECONDS_MAX - time.monotonic())
        return LOG_SEAL_SECONDS

    def _batch(self, batch: list[_Item]) -> list[Placed]:
        self._written_here = False
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
            self._sync()

    def _sync(self) -> None:
        began = time.perf_counter()
        self._tail.sync()
        quick = time.perf_counter() - began < LOG_ALONE_SYNC_SECONDS_MAX
        self._quick_syncs = self._quick_syncs + 1 if quick else 0
        self._lazy_since = None

    def _idle(self) -> list[Placed]:
        if self._written_here:
            self._written_here = False  # not idle: have patience once more
        elif self._lazy_since is not None:
            self._sync_all()
        elif not self._sealed:
            self._tail.seal()
            self._sealed = True
        return []

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
