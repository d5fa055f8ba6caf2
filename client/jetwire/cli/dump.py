"""`jetwire dump`: the records of a table, as one snapshot of them, to a file or a pipe."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer

from jetwire._sync.session import Session
from jetwire._sync.table import Table
from jetwire.cli.context import Wrong, errors, in_session, settings
from jetwire.cli.progress import progress
from jetwire.cli.tables import attached
from jetwire_protocol.record_lines import Format, writer

_PAGE_ROWS = 500

Database = Annotated[str | None, typer.Option("--database", "-d", help="The database. Default: the one that is attached.")]
Form = Annotated[Format | None, typer.Option("--format", "-f", help="Default: by the file's name, else jsonl.")]


def dump(
    table: Annotated[str, typer.Argument(help="The table.")],
    database: Database = None,
    form: Form = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="A file, which appears when it is whole. Default: stdout.")] = None,
    index: Annotated[str | None, typer.Option(help="The order: an index. Default: the primary one.")] = None,
    columns: Annotated[str | None, typer.Option(help="Only these columns, comma-separated.")] = None,
) -> None:
    """Writes a table's records as JSON lines or CSV, all of one snapshot.

    jetwire dump people --database app.edb > people.jsonl
    """
    with in_session() as session, session.transaction(read_only=True):
        source = open_table(session, database, table)
        names, written_nulls = _columns(session, source, columns.split(",") if columns else None)
        bare = Table(session, source.id, table, {})  # which leaves values as they stand on the wire
        total = source.count() if errors.is_terminal and not settings.as_json else None
        started, count = time.monotonic(), 0
        with progress(table, total) as advance, _destination(output) as out:
            write = writer(format_of(form, output), out, names)
            for record in bare.range(index=index, columns=names if columns else None, page=_PAGE_ROWS):
                write({**written_nulls, **record})
                count += 1
                if count % _PAGE_ROWS == 0:
                    advance(_PAGE_ROWS)
    if errors.is_terminal and not settings.as_json:
        errors.print(f"{count} records in {time.monotonic() - started:.1f} s", highlight=False)


def open_table(session: Session, database: str | None, table: str) -> Table:
    """A table of the named database, or of the only one there is."""
    if database is None:
        there = attached(session)
        if len(there) != 1:
            raise Wrong(f"which database? {', '.join(there) or 'none is attached'}: name one with --database")
        database = there[0]
    return session.open(database).table(table)


def format_of(form: Format | None, path: Path | None) -> Format:
    return form or Format.of(path.name if path is not None else None)


def _columns(session: Session, table: Table, wanted: list[str] | None) -> tuple[list[str], dict[str, Any]]:
    """The columns in their order, and those whose NULLs must be written since leaving them out would mean their default."""
    rows = session.connection.GetTableColumnInfo(session.id, table.id, infoLevel="List")["rows"]
    names = [row["columnname"] for row in sorted(rows, key=lambda row: row.get("presentationOrder") or row["columnid"])]
    if wanted is not None:
        unknown = [name for name in wanted if name not in names]
        if unknown:
            raise Wrong(f"the table has no column {', '.join(unknown)}; it has {', '.join(names)}")
        names = wanted
    return names, {row["columnname"]: None for row in rows if row.get("defaultValue") is not None and row["columnname"] in names}


@contextmanager
def _destination(path: Path | None) -> Iterator[TextIO]:
    """Stdout, or a file that takes its name when all of it has been written."""
    if path is None:
        if isinstance(sys.stdout, TextIOWrapper):
            sys.stdout.reconfigure(encoding="utf-8")
        yield sys.stdout
        sys.stdout.flush()
        return
    if not path.name:
        raise Wrong(f"{path} is no file")
    part = path.with_name(path.name + ".part")
    try:
        with part.open("w", encoding="utf-8", newline="") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        raise Wrong(f"{path}: {error.strerror}") from error
    finally:
        part.unlink(missing_ok=True)
