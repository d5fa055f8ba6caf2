"""The log of one instance: open, read back, append, truncate, close."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import closing, contextmanager

from jetwire_protocol.errors import Err, JetError
from jetwire_server.clock import Clock
from jetwire_server.files.gate import Gate
from jetwire_server.files.interface import File, Files
from jetwire_server.limits import LOG_FILE_KB_DEFAULT, LOG_FILE_KB_MAX, LOG_FILE_KB_MIN, LOG_KEPT_BYTES_MAX
from jetwire_server.redo.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from jetwire_server.redo.generation import DATA_START, SIGNATURE_BYTES, GenerationHeader, blank, finished
from jetwire_server.redo.names import LogNames
from jetwire_server.redo.placed import Placed
from jetwire_server.redo.position import Position
from jetwire_server.redo.reader import End, LogFile, LogReader, discover
from jetwire_server.redo.records import Record
from jetwire_server.redo.tail import Tail
from jetwire_server.redo.writer import Append, LogWriter, Report, resolver


class Log:
    """The truth of an instance: every change is here, in order, before the pages know of it.

    A log is read first and written afterwards. `open` looks at all of it and changes nothing: damage, a foreign or a
    newer file, a gap are errors that name the file. Then `records` plays it back, and `begin` cuts what a crash left
    half written and starts the writer; from here on `append` and `write` take records.

        log = Log(files, gate, clock)
        if not log.open(start):              # False: there has never been a log here
            log.create(os.urandom(16), incarnation=1)
        for record in log.records(start): ...
        log.begin()                          # on the event loop
        placed = await log.write(Kind.COMMIT, payload)
        await log.close()

    `open`, `create`, `records`, `begin`, `truncate_before` and `save_checkpoint` block; the last two change files, so
    who calls them while the instance runs holds a permit of the gate.
    """

    def __init__(
        self, files: Files, gate: Gate, clock: Clock, *, names: LogNames | None = None, file_kb: int = LOG_FILE_KB_DEFAULT
    ) -> None:
        if not LOG_FILE_KB_MIN <= file_kb <= LOG_FILE_KB_MAX:
            raise JetError(Err.InvalidParameter, f"a log file has {LOG_FILE_KB_MIN} to {LOG_FILE_KB_MAX} KB, not {file_kb}")
        self._files = files
        self._gate = gate
        self._clock = clock
        self._file_bytes = file_kb * 1024
        self.names = names or LogNames()
        self._generations: list[LogFile] = []
        self._end: End | None = None  # as it was found; None again once it is written
        self._position: Position | None = None
        self._writer: LogWriter | None = None
        self._pins: list[Position] = []
        self.incarnation = 0
        self._kept: tuple[Position | None, deque[list[Record]]] | None = None  # what `open` has read, and from where
        self.append: Append = self._refuse
        """Takes a record. `report` (the last) is called on the event loop, in log order, with its place or the error."""

    # -- reading ----------------------------------------------------------------------------------------------
    def open(self, start: Position | None = None, *, signature: bytes | None = None, end_is_lost: bool = False) -> bool:
        """Checks the whole log from `start` on (None: from its oldest file). False if there has never been one.

        `end_is_lost`: where the current file is gone, the log ends with the last full one.
        """
        since = start.generation if start else 0
        self._generations = discover(self._files, self.names, since=since, signature=signature, end_is_lost=end_is_lost)
        if not self._generations:
            return False
        reader = LogReader(self._files, self._generations)
        small = sum(one.header.file_bytes for one in self._generations) <= LOG_KEPT_BYTES_MAX
        kept: deque[list[Record]] = deque()
        for batch in reader.batches(start):
            if small:
                kept.append(batch)
        self._kept = (start, kept) if small else None
        assert reader.end is not None
        self._end, self._position = reader.end, reader.end.position
        self.incarnation = self._generations[-1].header.incarnation
        return True

    def records(self, start: Position | None = None) -> Iterator[Record]:
        """The records from `start` on, in order. What `open` has just read and checked is not read again."""
        kept, self._kept = self._kept, None
        if kept is None or kept[0] != start:
            yield from LogReader(self._files, self._generations).records(start)
            return
        batches = kept[1]
        while batches:
            yield from batches.popleft()

    def create(self, signature: bytes, *, incarnation: int, body: bytes = b"") -> None:
        """A new, empty log, and its checkpoint, which holds `body`. A crash in between leaves none, or all of it."""
        assert len(signature) == SIGNATURE_BYTES
        if discover(self._files, self.names):
            raise JetError(Err.LogFilePathInUse, f"there is a log already: {self.names.current}", path=self.names.current)
        if self.names.directory:
            self._files.make_directory(self.names.directory)
        now = self._clock.now()
        header = GenerationHeader(signature, self.names.base, 1, self._file_bytes, now, 0.0, 0, 0, DATA_START, 0, incarnation)
        self._install(header, Checkpoint(signature, Position.at(1, DATA_START), incarnation, now, body))
        self.open()

    @property
    def signature(self) -> bytes:
        return self._generations[-1].header.signature

    @property
    def end_was_lost(self) -> bool:
        """Whether the log was opened without its current file."""
        last = self._generations[-1]
        return last.path == self.names.archived(last.number)

    @property
    def end(self) -> Position:
        """Where the log ends: as it was found, and once it is written, as it was last reported."""
        if self._writer is not None:
            return self._writer.end
        assert self._position is not None
        return self._position

    # -- writing ----------------------------------------------------------------------------------------------
    def begin(self, *, incarnation: int | None = None) -> None:
        """Cuts a torn tail and starts the writer; a higher incarnation (after a restore) or a full file begins a new generation."""
        assert self._end is not None
        assert self._writer is None
        self._kept = None
        loop = asyncio.get_running_loop()
        if incarnation is not None and incarnation < self.incarnation:
            raise JetError(Err.InvalidLogSequence, f"incarnation {incarnation} is older than the log's {self.incarnation}")
        raised = incarnation is not None and incarnation > self.incarnation
        tail = self._cut(self._end, incarnation or self.incarnation)
        self._end = None
        try:
            if tail.full or raised:
                tail.roll(incarnation)
        except BaseException:
            tail.close()
            raise
        self.incarnation = tail.header.incarnation
        self._writer = LogWriter(tail, self._gate, loop)
        self.append = self._writer.append  # every commit comes this way: nothing stands between

    async def write(self, kind: int, payload: bytes, *, durable: bool = True) -> Placed:
        """`append`, awaited. Cancelling the wait does not take the record back."""
        future: asyncio.Future[Placed] = asyncio.get_running_loop().create_future()
        self.append(kind, payload, durable, resolver(future))
        return await future

    async def flush(self) -> Position:
        """Everything appended so far is durable after this; answers where it ends."""
        return await self._running().flush()

    async def roll(self) -> Position:
        """Ends the current generation, so that a backup can take it whole; answers where the next begins."""
        return await self._running().roll()

    async def settle(self) -> None:
        """For a freeze whose gate is closed: makes what is written durable, writes nothing."""
        await self._running().settle()

    async def close(self) -> None:
        """Writes what waits and ends. With a latched gate (an end while frozen) it writes nothing and is an error."""
        writer, self._writer, self.append = self._writer, None, self._refuse
        if writer is not None:
            try:
                await writer.stop()
            finally:
                await writer.join()
                self._position = writer.end

    def failure(self) -> JetError | None:
        """Why nothing is written any more, or None."""
        return self._writer.failure if self._writer else None

    # -- housekeeping -----------------------------------------------------------------------------------------
    def generations(self) -> list[int]:
        """The generations on disk, the current one last."""
        names = self._files.list(self.names.directory)
        return [*sorted(n for name in names if (n := self.names.number(name)) is not None), self.end.generation]

    def truncate_before(self, position: Position) -> list[int]:
        """Removes the full generations that lie wholly before `position` and all pins, oldest first."""
        first_kept = min([position, *self._pins]).generation
        gone = [n for n in self.generations()[:-1] if n < first_kept]
        for number in gone:
            self._files.remove(self.names.archived(number))
        if gone:
            self._files.sync_directory(self.names.directory)
        return gone

    @contextmanager
    def pin(self, position: Position) -> Iterator[None]:
        """While this is held no truncation removes the log from `position` on: a backup is reading it."""
        self._pins.append(position)
        try:
            yield
        finally:
            self._pins.remove(position)

    def checkpoint(self) -> Checkpoint | None:
        return load_checkpoint(self._files, self.names)

    def save_checkpoint(self, position: Position, body: bytes = b"") -> None:
        """All before `position` is in the pages: recovery may start there."""
        save_checkpoint(self._files, self.names, Checkpoint(self.signature, position, self.incarnation, self._clock.now(), body))

    # -- the tail ---------------------------------------------------------------------------------------------
    def _running(self) -> LogWriter:
        if self._writer is None:
            raise JetError(Err.InstanceUnavailable, "the log is not being written")
        return self._writer

    def _refuse(self, kind: int, payload: bytes, durable: bool, report: Report) -> None:
        self._running()

    def _cut(self, end: End, incarnation: int) -> Tail:
        """Makes `end` the end on disk too, so that nothing beyond can ever be mistaken for a record.

        A file that begins anew there has the new incarnation at once: who is killed now would not know any more that it was to be one.
        """
        last = self._generations[-1]
        self._files.sync_directory(self.names.directory)  # who was killed in a roll did not: the next file takes the same name
        if last.path == self.names.prepared:  # first of all: what comes next would take the prepared file for a spare one
            with closing(self._files.open(last.path)) as file:
                file.sync()  # who was killed while the log was made may have written its header only
            self._install_prepared(last.number)
        if end.generation < last.number or self.end_was_lost:  # the torn record began in an earlier generation: those after it begin anew
            header = self._after_cut(end, incarnation)
            self._install(header)
            return self._tail(header, DATA_START, end.chain)
        return self._tail(last.header, end.offset, end.chain, clear=True)

    def _after_cut(self, end: End, incarnation: int) -> GenerationHeader:
        before = next(one for one in self._generations if one.number == end.generation)
        return GenerationHeader(
            signature=before.header.signature,
            base=before.header.base,
            number=before.number + 1,
            file_bytes=self._file_bytes,
            created=self._clock.now(),
            previous_created=before.header.created,
            previous_tag=before.tag,
            previous_end=end.offset,
            first_record=DATA_START,
            chain=end.chain,
            incarnation=incarnation,
        )

    def _tail(self, header: GenerationHeader, offset: int, chain: int, *, clear: bool = False) -> Tail:
        file = self._files.open(self.names.current)
        try:
            if clear:
                _clear(file, offset, header.file_bytes)
            file.sync()  # what was read may have been in memory only
        except BaseException:
            file.close()
            raise
        return Tail(self._files, self.names, self._clock, self._file_bytes, header, file, offset, chain)

    def _install(self, header: GenerationHeader, checkpoint: Checkpoint | None = None) -> None:
        """A new current generation. Its file is whole and durable before anything else goes away."""
        file = finished(blank(self._files, self.names.prepared, header.file_bytes, self.names.directory))
        try:
            file.write(0, header.encode())
            file.sync()
        finally:
            file.close()
        if checkpoint is not None:
            save_checkpoint(self._files, self.names, checkpoint)
        self._install_prepared(header.number)

    def _install_prepared(self, number: int) -> None:
        directory = self.names.directory
        later = [n for name in self._files.list(directory) if (n := self.names.number(name)) is not None and n >= number]
        if later:
            if self._files.exists(self.names.current):
                self._files.remove(self.names.current)  # from here on the prepared file counts as the current one
                self._files.sync_directory(directory)
            for superseded in sorted(later, reverse=True):
                self._files.remove(self.names.archived(superseded))
            self._files.sync_directory(directory)
        self._files.rename(self.names.prepared, self.names.current)
        self._files.sync_directory(directory)


def _clear(file: File, offset: int, file_bytes: int) -> None:
    """Zeroes what is not zero beyond `offset`."""
    rest = file.read(offset, file_bytes - offset).rstrip(b"\0")
    if rest:
        file.write(offset, bytes(len(rest)))
