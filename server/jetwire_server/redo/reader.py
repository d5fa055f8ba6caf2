"""Reading the log back: what is believed after a crash, and what is refused.

Nothing here changes a file. A record that is not good ends the log only if it can be the torn end of what was being
written when the machine stopped: in the last generation, with nothing good beyond it that was written after it had
become durable. Anywhere else it is damage, and the log is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from jetwire_protocol.errors import Err, JetError
from jetwire_server.files.interface import Files
from jetwire_server.redo.generation import DATA_START, NO_RECORD, GenerationHeader, read_header
from jetwire_server.redo.names import LogNames
from jetwire_server.redo.position import Position
from jetwire_server.redo.records import PIECE_RECORDS, Kind, Record, parse, was_durable

_REPAIR = "restore the file, or the instance from its last backup; nothing was changed"


@dataclass(frozen=True, slots=True)
class LogFile:
    """One generation on disk. `tag` marks its records."""

    path: str
    header: GenerationHeader
    tag: int

    @property
    def number(self) -> int:
        return self.header.number


@dataclass(frozen=True, slots=True)
class End:
    """Where the log ends. `torn`: bytes beyond it must be cleared before anything is appended."""

    generation: int
    offset: int
    chain: int
    torn: bool

    @property
    def position(self) -> Position:
        return Position.at(self.generation, self.offset)


def discover(files: Files, names: LogNames, *, since: int = 0, signature: bytes | None = None, end_is_lost: bool = False) -> list[LogFile]:
    """The generations from `since` on, in order and linked to each other; [] where no log was ever made.

    A roll that a crash interrupted is seen as done: the prepared file, if its header is valid, is the current one. Where the end is
    lost and nobody minds, the log ends with the last full generation.
    """
    numbers = sorted(n for name in files.list(names.directory) if (n := names.number(name)) is not None)
    current = _current(files, names)
    if current is None:
        if not numbers and not files.exists(names.checkpoint) and not since:
            return []
        if not end_is_lost or not numbers:
            code = Err.RequiredLogFilesMissing if end_is_lost else Err.MissingLogFile
            raise JetError(code, f"{names.current} is missing: {_REPAIR}", path=names.current)
        current = _open(files, names.archived(numbers[-1]))
    last = current.number
    if last < since:
        detail = f"{current.path} is generation {last}, but the log goes on at least to generation {since}: {_REPAIR}"
        code = Err.RequiredLogFilesMissing if end_is_lost else Err.CommittedLogFilesMissing
        raise JetError(code, detail, generation=since, path=current.path)
    if current.path == names.current and numbers and numbers[-1] >= last:
        path = names.archived(numbers[-1])
        detail = f"{path} is later than {names.current}, which is generation {last}: {_REPAIR}"
        raise JetError(Err.LogGenerationMismatch, detail, path=path)
    first = max(since, 1) if since else (numbers[0] if numbers else last)
    found = [_open(files, names.archived(n)) for n in range(min(first, last), last)] + [current]
    for log_file in found:
        _belongs(log_file, names, signature or current.header.signature)
    for before, after in pairwise(found):
        _linked(before, after)
    return found


def _current(files: Files, names: LogNames) -> LogFile | None:
    if files.exists(names.current):
        return _open(files, names.current)
    if not files.exists(names.prepared):
        return None
    try:
        return _open(files, names.prepared)
    except JetError as error:
        if error.code in (Err.LogFileCorrupt, Err.MissingPreviousLogFile):
            return None  # prepared ahead, not yet taken into use
        raise


def _open(files: Files, path: str) -> LogFile:
    if not files.exists(path):
        raise JetError(Err.MissingPreviousLogFile, f"{path} is missing: {_REPAIR}", path=path)
    file = files.open(path, read_only=True)
    try:
        header = read_header(file)
    finally:
        file.close()
    return LogFile(path, header, header.tag)


def _belongs(log_file: LogFile, names: LogNames, signature: bytes) -> None:
    header, path = log_file.header, log_file.path
    if header.signature != signature:
        raise JetError(Err.BadLogSignature, f"{path} belongs to another instance: move it away, then {_REPAIR}", path=path)
    if header.base != names.base or path not in (names.archived(header.number), names.current, names.prepared):
        detail = f"{path} was {header.base} generation {header.number}: give it its name back; nothing was changed"
        raise JetError(Err.LogGenerationMismatch, detail, path=path)


def _linked(before: LogFile, after: LogFile) -> None:
    if after.number != before.number + 1:
        detail = f"{after.path} is generation {after.number}, not {before.number + 1}: {_REPAIR}"
        raise JetError(Err.LogGenerationMismatch, detail, path=after.path)
    if after.header.incarnation < before.header.incarnation:
        detail = f"{after.path} is of a future that a restore abandoned: move it away; nothing was changed"
        raise JetError(Err.InvalidLogSequence, detail, path=after.path)
    if after.header.previous_tag != before.tag or after.header.previous_created != before.header.created:
        detail = f"{after.path} does not continue {before.path}: {_REPAIR}"
        raise JetError(Err.InvalidLogSequence, detail, path=after.path)


class LogReader:
    """Reads linked generations. After `records` is exhausted, `end` says where the log ends."""

    def __init__(self, files: Files, generations: list[LogFile]) -> None:
        self._files = files
        self._generations = generations
        self.end: End | None = None

    def records(self, start: Position | None = None) -> Iterator[Record]:
        """Every record from `start` on (the beginning of a record, or the log's end), seals left out."""
        for batch in self.batches(start):
            yield from batch

    def batches(self, start: Position | None = None) -> Iterator[list[Record]]:
        """The same, as they come: the records of a file, or one that spans files."""
        if start is not None:
            start = self._after_early_end(start)
        since = start.generation if start else 0
        for batch in self._batches(since):
            if start is not None:
                batch = self._from(start, batch)
                if not batch:
                    continue
                start = None
            yield [record for record in batch if record[2] != Kind.SEAL]
        assert self.end is not None
        if start is not None and start != self.end.position:
            path = self._generations[-1].path
            detail = f"the log ends in {path} at {self.end.position}, before or within {start}, which was durable: {_REPAIR}"
            raise JetError(Err.CommittedLogFileCorrupt, detail, position=str(start), path=path)

    def _after_early_end(self, start: Position) -> Position:
        """The end of a generation that was closed early is the beginning of the next."""
        for before, after in pairwise(self._generations):
            if start == Position.at(before.number, after.header.previous_end) and after.header.first_record == DATA_START:
                start = Position.at(after.number, DATA_START)
        return start

    def _from(self, start: Position, batch: list[Record]) -> list[Record]:
        here = (start.generation, start.offset)
        if batch[-1][:2] < here:
            return []
        kept = [record for record in batch if record[:2] >= here]
        if kept and kept[0][:2] != here:
            path = next(one.path for one in self._generations if one.number == kept[0].generation)
            detail = f"no log record begins at {start} in {path}: {_REPAIR}"
            raise JetError(Err.CommittedLogFileCorrupt, detail, position=str(start), path=path)
        return kept

    def _batches(self, since: int) -> Iterator[list[Record]]:
        generations = [one for one in self._generations if one.number >= since]
        while len(generations) > 1 and generations[0].header.first_record == NO_RECORD:
            del generations[0]  # the middle of a record that begins before what was asked for
        if generations[0].header.first_record == NO_RECORD:
            detail = f"{generations[0].path} holds the middle of a record that begins before it: {_REPAIR}"
            raise JetError(Err.MissingPreviousLogFile, detail, path=generations[0].path)
        chain = generations[0].header.chain
        begun: tuple[LogFile, int] | None = None  # a record that goes on in the next generation: its file, and its offset
        carry = b""
        for index, this in enumerate(generations):
            header = this.header
            following = generations[index + 1].header if index + 1 < len(generations) else None
            data = self._read(this)
            stop = following.previous_end if following else header.file_bytes
            first = header.first_record or stop  # none begins here: the one that spans the file may yet end with it
            if begun:
                carry += data[DATA_START:first]
                if header.first_record == NO_RECORD and following:
                    continue
                file, offset = begun
                whole, length, new_chain = parse(carry, 0, len(carry), file.number, file.tag, chain)
                if len(whole) != 1 or length != len(carry) or new_chain != header.chain:
                    if following or was_durable(data, DATA_START, this.tag) is not None:
                        raise _corrupt(file, offset)
                    self.end = End(file.number, offset, chain, torn=True)
                    return
                yield [Record(file.number, offset, whole[0].kind, whole[0].payload, this.number, first)]
                chain, begun, carry = new_chain, None, b""
            if header.chain != chain:
                raise _corrupt(this, first)
            records, offset, chain = parse(data, first, stop, this.number, this.tag, chain)
            while len(records) == PIECE_RECORDS:
                yield records
                records, offset, chain = parse(data, offset, stop, this.number, this.tag, chain)
            if records:
                yield records
            if following is None:
                self._finish(this, data, offset, chain)
            elif offset < stop:
                if following.first_record == DATA_START or stop < header.file_bytes:
                    raise _corrupt(this, offset)
                begun, carry = (this, offset), data[offset:stop]

    def _finish(self, this: LogFile, data: bytes, offset: int, chain: int) -> None:
        torn = bool(data[offset:].strip(b"\0"))
        if torn and was_durable(data, offset, this.tag) is not None:
            raise _corrupt(this, offset)
        self.end = End(this.number, offset, chain, torn)

    def _read(self, this: LogFile) -> bytes:
        file = self._files.open(this.path, read_only=True)
        try:
            data = file.read(0, this.header.file_bytes)
        finally:
            file.close()
        if len(data) != this.header.file_bytes:
            raise _corrupt(this, len(data))
        return data


def _corrupt(log_file: LogFile, offset: int) -> JetError:
    place = Position.at(log_file.number, offset)
    detail = f"{log_file.path} is damaged at byte {offset}, before records that were durable: {_REPAIR}"
    return JetError(Err.LogFileCorrupt, detail, path=log_file.path, position=str(place))
