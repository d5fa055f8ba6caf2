"""The log's one writing thread: it takes everything that waits, writes it in one, syncs once, reports it together.

A batch with a durable record in it is reported after its sync, a purely lazy one after its write. Reports run on the
event loop in log order, one wake-up a batch. After a failed write or sync nothing is tried again: every waiter and
every later append is an error, and the gate is latched.

Handing records to a thread and hearing back costs two wake-ups, and while both threads run, the interpreter changes hands
at every turn: on a fast disk more than the sync itself. So while syncs are quick, and nothing else is under way, what was
gathered is written and synced where it is, on the event loop's thread. How long a sync takes is measured there too: the
thread's own measurements would hold its waits for the interpreter.

Records are gathered while turns of the loop bring more of them, so that connections that commit at the same time share a sync.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import TypeVar

from jetwire_protocol.errors import Err, JetError
from jetwire_server.files.gate import Gate
from jetwire_server.limits import (
    LOG_BATCH_BYTES_MAX,
    LOG_GATHER_RECORDS,
    LOG_GATHER_TURNS,
    LOG_HERE_BYTES_MAX,
    LOG_HERE_SECONDS_A_RECORD,
    LOG_HERE_SYNC_SECONDS,
    LOG_LAZY_SYNC_SECONDS_MAX,
    LOG_RECORD_BYTES_MAX,
    LOG_SEAL_SECONDS,
)
from jetwire_server.metrics import Histogram
from jetwire_server.redo.placed import Placed
from jetwire_server.redo.position import Position
from jetwire_server.redo.records import HEADER_BYTES
from jetwire_server.redo.tail import Tail

BATCH_RECORDS = Histogram("jetwire_log_batch_records", "Records a batch of the log writer.", (1, 2, 4, 8, 16, 32, 64, 128, 256, 1024))
BATCH_SECONDS = Histogram("jetwire_log_batch_seconds", "How long the log writer took for a batch, its sync included.")

T = TypeVar("T")
Report = Callable[[Placed | JetError], None]
Append = Callable[[int, bytes, bool, Report], None]

# What is in the queue besides records: requests with a kind no record has.
_FLUSH = 0
_ROLL = -1
_STOP = -2

_Item = tuple[int, bytes, bool, Report]  # kind, payload, durable, whom to tell
_Results = list[Placed] | JetError

_LOOK_EVERY = 32  # while syncs are slow, one batch of so many is synced on the event loop's thread, to see whether they still are


class LogWriter:
    """Group commit. Every method is for the event loop's thread."""

    def __init__(self, tail: Tail, gate: Gate, loop: asyncio.AbstractEventLoop) -> None:
        self._tail = tail
        self._gate = gate
        self._loop = loop
        self._queue: SimpleQueue[list[_Item]] = SimpleQueue()
        self._gathered: list[_Item] = []  # not handed over yet
        self._gathered_bytes = 0
        self._gathered_before = 0  # how many they were a turn of the loop ago
        self._turns = 0  # that these were gathered in
        self._last_batch = 0  # how many records were gathered the last time
        self._under_way = 0  # taken and not reported yet
        self._told: deque[tuple[list[_Item], _Results]] = deque()  # written, on its way back to the loop
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)  # half the price of `call_soon_threadsafe`
        loop.add_reader(self._bell, self._hear)
        self._sync_seconds = deque((0.0,), 3)  # what the last syncs on the loop's thread took: a late one says nothing about the disk
        self._detours = 0  # batches that went to the writer because that is too long
        self._written_here = False  # on the loop's thread, since the writer's last turn
        self._using_tail = threading.Lock()  # the writer's, but `settle` borrows the tail while the gate keeps the writer out
        self._failure: JetError | None = None
        self._lazy_since: float | None = None  # since when something written is not synced
        self._sealed = False
        self._end = tail.end
        self._syncer = threading.Thread(target=self._run, name="jetwire-log", daemon=True)
        self._syncer.start()

    @property
    def end(self) -> Position:
        """Where the log ended when the last batch was reported."""
        return self._end

    @property
    def failure(self) -> JetError | None:
        """Why nothing is written any more, or None."""
        return self._failure

    def append(self, kind: int, payload: bytes, durable: bool, report: Report) -> None:
        """Takes a record, in the order of the calls; `report` is called on the loop, in that order too, never at once."""
        if self._failure is not None:
            raise JetError(Err.InstanceUnavailable, self._failure.detail)
        if len(payload) > LOG_RECORD_BYTES_MAX:
            raise JetError(Err.LogBufferTooSmall, f"a log record of {len(payload)} bytes; {LOG_RECORD_BYTES_MAX} at most")
        self._under_way += 1
        gathered = self._gathered
        gathered.append((kind, payload, durable, report))
        self._gathered_bytes += len(payload)
        if len(gathered) == 1:
            self._gathered_before = self._turns = 0
            self._loop.call_soon(self._turn_over)
        elif self._gathered_bytes > LOG_BATCH_BYTES_MAX:
            self._hand_over()

    def _turn_over(self) -> None:
        """A turn of the loop is over. While each brings more, and there is company, the next one is waited for."""
        gathered = self._gathered
        count = len(gathered)
        if not count:
            return
        if (count > 1 or self._last_batch > 1) and self._gathered_before < count < LOG_GATHER_RECORDS and self._turns < LOG_GATHER_TURNS:
            self._gathered_before = count
            self._turns += 1
            self._loop.call_soon(self._turn_over)
            return
        self._last_batch = count
        if self._under_way == count and self._gathered_bytes <= LOG_HERE_BYTES_MAX and self._is_quick(gathered):
            results = self._write_here(gathered, self._gathered_bytes)
            if results is not None:
                self._gathered, self._gathered_bytes = [], 0
                self._deliver(gathered, results)
                return
        self._hand_over()

    def _is_quick(self, batch: list[_Item]) -> bool:
        """Whether syncing these on the loop's thread holds it up for less than handing them over would cost. Lazy ones need no sync."""
        if not any(item[2] for item in batch):
            return False
        if min(self._sync_seconds) <= LOG_HERE_SYNC_SECONDS + len(batch) * LOG_HERE_SECONDS_A_RECORD:
            return True
        self._detours += 1
        return self._detours % _LOOK_EVERY == 0

    def _hand_over(self) -> None:
        """What was gathered goes to the thread together: it is woken once, and syncs once."""
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

    async def stop(self) -> None:
        """Writes and syncs what waits, and seals the log."""
        await self._request(_STOP)

    async def join(self) -> None:
        """Once `stop` has ended, well or not: the thread has, too."""
        await asyncio.to_thread(self._syncer.join)
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

    def _write_here(self, batch: list[_Item], size: int) -> _Results | None:
        """Writes and syncs records on this thread; None, and nothing done, if it would have to wait for anything."""
        tail = self._tail
        if not self._using_tail.acquire(blocking=False):
            return None
        try:
            if self._sealed:
                return None  # the writer sleeps, and must seal again
            with self._gate.try_permit("log") as allowed:
                if not allowed or not tail.has_room(size + HEADER_BYTES * len(batch)):
                    return None
                self._written_here = True
                try:
                    results = [tail.add(kind, payload) for kind, payload, _, _ in batch]
                    tail.write()
                    began = time.perf_counter()
                    tail.sync()
                    self._sync_seconds.append(time.perf_counter() - began)
                    self._lazy_since = None
                except Exception as error:  # whatever it was, nothing may follow half a record
                    return self._fail(error)
        except JetError:
            return None  # latched: the writer will say so in its turn
        finally:
            self._using_tail.release()
        BATCH_RECORDS.observe(len(batch))
        return results

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
            if self._tail.making and self._queue.empty() and self._failure is None and self._patience() != 0:
                self._prepare()
                continue
            batch = self._take()
            stopped = bool(batch) and batch[-1][0] == _STOP
            began = time.perf_counter()
            try:
                if self._failure is not None:
                    raise JetError(Err.InstanceUnavailable, self._failure.detail)
                with self._gate.permit("log"), self._using_tail:
                    results: _Results = self._batch(batch) if batch else self._idle()
            except Exception as error:
                results = self._fail(error)
            if batch:
                BATCH_RECORDS.observe(len(batch))
                BATCH_SECONDS.observe(time.perf_counter() - began)
                self._told.append((batch, results))
                os.eventfd_write(self._bell, 1)  # as late as may be: from here on the loop wants the interpreter
            if (self._tail.due or self._tail.making) and not stopped:
                self._prepare()
        self._tail.close()

    def _prepare(self) -> None:
        """A piece of the next file. It is nobody's yet: the loop's thread may use the tail meanwhile."""
        try:
            with self._gate.permit("log"):
                self._tail.prepare()
        except Exception as error:
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
        since = self._lazy_since  # once: the loop's thread may have synced meanwhile
        return LOG_SEAL_SECONDS if since is None else max(0.0, since + LOG_LAZY_SYNC_SECONDS_MAX - time.monotonic())

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
            self._tail.sync()
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

    def _fail(self, error: Exception) -> JetError:
        """For ever. Who waited learns what happened, who comes later that the instance is gone."""
        if self._failure is None:
            code = getattr(error, "code", Err.DiskIO)
            detail = f"the log could not be written, restart the instance to recover it: {str(error) or type(error).__name__}"
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
            except Exception as error:
                raise self._fail(error) from error
            self._lazy_since = None


def resolver(future: asyncio.Future[T]) -> Callable[[T | JetError], None]:
    """A report that resolves a future, which may have been cancelled meanwhile."""

    def report(result: T | JetError) -> None:
        if future.done():
            return
        if isinstance(result, JetError):
            future.set_exception(result)
        else:
            future.set_result(result)

    return report
