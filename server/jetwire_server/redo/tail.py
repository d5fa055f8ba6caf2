"""The end of the log, where records are appended and generations roll. Used by one thread at a time."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import suppress

from jetwire_protocol.errors import JetError
from jetwire_server.clock import Clock
from jetwire_server.failpoints import hit
from jetwire_server.files.interface import File, Files
from jetwire_server.metrics import Counter
from jetwire_server.redo.generation import DATA_START, NO_RECORD, GenerationHeader, blank, finished
from jetwire_server.redo.names import LogNames
from jetwire_server.redo.placed import Placed
from jetwire_server.redo.position import Position
from jetwire_server.redo.records import HEADER_BYTES, UNSYNCED_MAX, Kind, frame

ROLLS = Counter("jetwire_log_generations_total", "Log generations begun.")
BYTES = Counter("jetwire_log_bytes_total", "Bytes of log records written.")
SYNCS = Counter("jetwire_log_syncs_total", "Syncs of the log.")


class Tail:
    """Frames records into a buffer, writes it in one, syncs when told. Any error leaves it unusable: latch."""

    def __init__(
        self, files: Files, names: LogNames, clock: Clock, file_bytes: int, header: GenerationHeader, file: File, offset: int, chain: int
    ) -> None:
        self._files = files
        self._names = names
        self._clock = clock
        self._new_file_bytes = file_bytes
        self._header = header
        self._tag = header.tag
        self._file = file
        self._offset = offset  # where the next record begins
        self._chain = chain
        self._parts: list[bytes] = []  # framed, not yet written
        self._parts_at = offset
        self._appended = self._synced = 0  # bytes, counted from the start of this run
        self._making: Generator[None, bool | None, File] | None = None  # the next file
        self._prepared: File | None = None
        self._prepare_failed = False

    @property
    def end(self) -> Position:
        return Position.at(self._header.number, self._offset)

    @property
    def header(self) -> GenerationHeader:
        return self._header

    # -- records ----------------------------------------------------------------------------------------------
    def add(self, kind: int, payload: bytes) -> Placed:
        """Frames a record; `write` writes it, but for what a roll had to write before."""
        generation, offset = self._header.number, self._offset
        head, covered, self._chain = frame(self._tag, self._chain, min(self._appended - self._synced, UNSYNCED_MAX), kind, payload)
        self._parts.append(head)
        self._parts.append(covered)
        size = HEADER_BYTES + len(payload)
        self._offset += size
        self._appended += size
        if self._offset >= self._header.file_bytes:
            self._spill()
        return Placed(generation, offset, self._header.number, self._offset)

    def write(self) -> None:
        if self._parts:
            data = b"".join(self._parts)
            hit("redo.before_write")
            self._file.write(self._parts_at, data)
            hit("redo.after_write")
            BYTES.value += len(data)
            self._parts.clear()
            self._parts_at = self._offset

    def sync(self) -> None:
        """Makes durable what is written."""
        hit("redo.before_sync")
        self._file.sync()
        hit("redo.after_sync")
        SYNCS.value += 1
        self._synced = self._appended

    def seal(self) -> None:
        """Writes down that all before is durable; needs no sync itself."""
        self.add(Kind.SEAL, b"")
        self.write()

    # -- generations ------------------------------------------------------------------------------------------
    def roll(self, incarnation: int | None = None) -> None:
        """Ends this generation early and begins the next."""
        self.write()
        self._roll(self._offset, DATA_START, incarnation)
        self._synced = self._appended

    @property
    def due(self) -> bool:
        """Whether it is time to make the next file."""
        begun = self._making is not None or self._prepared is not None or self._prepare_failed
        return self._offset > self._header.file_bytes >> 1 and not begun

    @property
    def making(self) -> bool:
        """Whether the next file is begun and not yet done."""
        return self._making is not None

    def prepare(self) -> None:
        """Makes a piece of the next file, beside whatever else is done here; a failure is met again, and then told, at the roll."""
        try:
            self._making = self._making or self._begin_making()
            next(self._making)
        except StopIteration as end:
            self._prepared, self._making = end.value, None
        except (JetError, OSError):
            self._prepare_failed, self._making = True, None

    @property
    def full(self) -> bool:
        """Whether no record may begin here: a crash has come between a file's last record, which ended with it, and the roll."""
        return self._offset >= self._header.file_bytes

    def has_room(self, size: int) -> bool:
        """Whether a payload of this size costs no more than its own write: no roll, no file to prepare first."""
        return self._offset + HEADER_BYTES + size < self._header.file_bytes and not self.due

    def close(self) -> None:
        with suppress(JetError, OSError):
            self._file.close()
            if self._making is not None:
                self._making.close()
            if self._prepared is not None:
                self._prepared.close()

    def _spill(self) -> None:
        """Fills this generation's file, and as many more as the buffer fills."""
        data = b"".join(self._parts)
        at = self._parts_at
        while at + len(data) >= self._header.file_bytes:
            room = self._header.file_bytes - at
            hit("redo.before_write")
            self._file.write(at, data[:room])
            hit("redo.after_write")
            BYTES.value += room
            data = data[room:]
            first = DATA_START + len(data)
            self._roll(self._header.file_bytes, first if first < self._new_file_bytes else NO_RECORD, None)
            self._synced = self._appended - len(data)
            at = DATA_START
        self._parts = [data] if data else []
        self._parts_at = at
        self._offset = at + len(data)

    def _roll(self, previous_end: int, first_record: int, incarnation: int | None) -> None:
        old = self._header
        hit("redo.roll.before_sync")
        self._file.sync()
        if self._prepared is None:
            making, self._making = self._making or self._begin_making(), None
            self._prepared = finished(making, at_once=True)
        header = GenerationHeader(
            signature=old.signature,
            base=old.base,
            number=old.number + 1,
            file_bytes=self._new_file_bytes,
            created=self._clock.now(),
            previous_created=old.created,
            previous_tag=self._tag,
            previous_end=previous_end,
            first_record=first_record,
            chain=self._chain,
            incarnation=old.incarnation if incarnation is None else incarnation,
        )
        file, self._prepared, self._prepare_failed = self._prepared, None, False
        assert file is not None
        file.write(0, header.encode())
        file.sync()
        hit("redo.roll.after_header")
        # Two syncs: were the second rename durable without the first, the full generation would have no name.
        self._files.rename(self._names.current, self._names.archived(old.number))
        self._files.sync_directory(self._names.directory)
        hit("redo.roll.between_renames")
        self._files.rename(self._names.prepared, self._names.current)
        self._files.sync_directory(self._names.directory)
        hit("redo.roll.done")
        self._file.forget()  # only a recovery or a backup reads it; and the next file's zeros go where its pages were, which are warm
        self._file.close()
        self._file, self._header, self._tag = file, header, header.tag
        self._offset = self._parts_at = DATA_START
        ROLLS.value += 1

    def _begin_making(self) -> Generator[None, bool | None, File]:
        hit("redo.roll.prepare")
        return blank(self._files, self._names.prepared, self._new_file_bytes, self._names.directory)
