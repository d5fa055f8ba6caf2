"""`jetwire load`: records from a file into a table, in chunks, each of which is there as a whole or not at all."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, TextIO

import typer

from jetwire._sync.table import Table
from jetwire.cli.context import Wrong, answer, console, errors, exit_code, in_session, say, settings
from jetwire.cli.dump import Database, Form, format_of, open_table
from jetwire.cli.progress import Advance, progress
from jetwire.cli.rows import Line, reader
from jetwire.errors import ConnectionLost, EngineError, HandleDead, JetwireError, ValueCut

_CHUNK_RECORDS = 1_000
_CHUNK_ELEMENTS = 50_000  # the server takes 100,000 in a message, columns and values counted
_CHUNK_CHARACTERS = 2 << 20
_ATTEMPTS = 20
_PAUSE_SECONDS = 0.05
_TELL_CHARACTERS = 64 * 1024
_ENCODING = "utf-8-sig"  # spreadsheets begin a file with a mark
_UNDECODED = "surrogateescape"  # so that the line at fault is known


class Mode(StrEnum):
    INSERT = "insert"
    REPLACE = "replace"
    UPSERT = "upsert"
    DELETE = "delete"


class Stopped(JetwireError):
    """A line that could not be loaded. What stands before it is loaded, nothing from it on is."""

    def __init__(self, what: str, cause: JetwireError, last_loaded: int) -> None:
        super().__init__(f"{what}; what stands before is loaded, go on with --after {last_loaded}")
        self.cause = cause


def load(
    table: Annotated[str, typer.Argument(help="The table; it must be there.")],
    source: Annotated[Path | None, typer.Argument(help="A file. Default: stdin.")] = None,
    database: Database = None,
    form: Form = None,
    mode: Annotated[
        Mode, typer.Option(help="What to do with each record; replace, upsert and delete go by the primary key.")
    ] = Mode.INSERT,
    after: Annotated[int, typer.Option(min=0, help="Skip everything up to this line: where an earlier load stopped.")] = 0,
) -> None:
    """Loads JSON lines or CSV as `jetwire dump` writes them.

    If a record cannot be loaded the error names its line; everything before it is loaded, and --after goes on from there.

        jetwire load people people.jsonl --database app.edb
    """
    count, last, cut = 0, after, []
    chunk: list[Line] = []
    with in_session() as session, _source(source) as file:
        target = open_table(session, database, table)
        bare = Table(session, target.id, table, {})  # which leaves values as they stand in the file
        size = source.stat().st_size if source is not None and source.is_file() else None
        try:
            with progress(table, size) as advance:
                lines = reader(format_of(form, source), _counted(file, advance), target.coltyps)
                for chunk in _chunks(line for line in lines if line.number > after):
                    with warnings.catch_warnings(record=True) as found:
                        warnings.simplefilter("always", ValueCut)
                        _put(bare, chunk, mode, last)
                    cut += [f"{chunk[0].number} to {chunk[-1].number}"] if found else []
                    count, last = count + len(chunk), chunk[-1].number
        except (KeyboardInterrupt, SystemExit):  # a signal
            doubt = f"; whether lines {last + 1} to {chunk[-1].number} are there is not known" if chunk and chunk[-1].number > last else ""
            say(Stopped(f"interrupted{doubt}", Wrong("interrupted"), last))
            raise
        except Stopped as stopped:
            say(stopped)
            raise SystemExit(exit_code(stopped.cause)) from None
        except Wrong as wrong:
            say(Stopped(str(wrong), wrong, last))
            raise SystemExit(exit_code(wrong)) from None
    if cut:
        errors.print(f"values that were longer than their columns were cut, in lines {', '.join(cut)}", highlight=False, soft_wrap=True)
    if settings.for_people:
        console.print(f"{count} records loaded", highlight=False)
    else:
        answer({"count": count, "lastLine": last})


def _chunks(lines: Iterator[Line]) -> Iterator[list[Line]]:
    """Lists of lines that fit into one call. A line that cannot be read ends them: those before it come first."""
    chunk: list[Line] = []
    room_elements, room_characters = _CHUNK_ELEMENTS, _CHUNK_CHARACTERS
    try:
        for line in lines:
            elements = 1 + len(line.record) + sum(len(v) for v in line.record.values() if isinstance(v, list | dict))
            characters = sum(len(v) if isinstance(v, str) else 20 for v in line.record.values())
            if chunk and (len(chunk) == _CHUNK_RECORDS or room_elements < elements or room_characters < characters):
                yield chunk
                chunk, room_elements, room_characters = [], _CHUNK_ELEMENTS, _CHUNK_CHARACTERS
            chunk.append(line)
            room_elements -= elements
            room_characters -= characters
    except Wrong:
        if chunk:
            yield chunk
        raise
    if chunk:
        yield chunk


def _put(table: Table, chunk: list[Line], mode: Mode, last: int) -> None:
    """One chunk, in a transaction of the server's; if it is refused, its records one by one up to the one at fault."""
    put = getattr(table, mode.value)
    try:
        put(*(line.record for line in chunk))
    except (ConnectionLost, HandleDead) as error:
        raise Stopped(f"{error}; lines {chunk[0].number} to {chunk[-1].number} are there all or none", error, last) from error
    except JetwireError as error:
        if len(chunk) == 1:
            _again(put, chunk[0], error, last)
            return
        for line in chunk:
            _put(table, [line], mode, last)
            last = line.number


def _again(put: Callable[..., int], line: Line, error: JetwireError, last: int) -> None:
    """A conflict with somebody else's work passes; anything else is the record's own fault."""
    for _ in range(_ATTEMPTS):
        if not (isinstance(error, EngineError) and error.retryable):
            break
        time.sleep(_PAUSE_SECONDS)
        try:
            put(line.record)
        except JetwireError as failed:
            error = failed
        else:
            return
    raise Stopped(f"line {line.number}: {error}", error, last) from error


@contextmanager
def _source(path: Path | None) -> Iterator[TextIO]:
    if path is None:
        if isinstance(sys.stdin, TextIOWrapper):
            sys.stdin.reconfigure(encoding=_ENCODING, errors=_UNDECODED, newline="")
        yield sys.stdin
        return
    try:
        file = path.open(encoding=_ENCODING, errors=_UNDECODED, newline="")
    except OSError as error:
        raise Wrong(f"{path}: {error.strerror}") from error
    with file:
        yield file


def _counted(file: Iterable[str], advance: Advance) -> Iterator[str]:
    """A file's lines, telling now and then how much of it has been read."""
    unsaid = 0
    for number, line in enumerate(file, 1):
        if not line.isascii():
            try:
                line.encode()
            except UnicodeEncodeError:
                raise Wrong(f"line {number} is no text in UTF-8: convert the file first, for example with iconv") from None
        unsaid += len(line)
        if unsaid > _TELL_CHARACTERS:
            advance(unsaid)
            unsaid = 0
        yield line
