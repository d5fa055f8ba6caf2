"""The offline verbs of `jetwired`: what people type and what they read."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from math import isfinite
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from jetwire_protocol.errors import JetError
from jetwire_protocol.record_lines import Format, writer
from jetwire_server.backup.directory import NEW, OLD
from jetwire_server.backup.restore import THE_END, Until
from jetwire_server.backup.restore import restore as run_restore
from jetwire_server.clock import SystemClock
from jetwire_server.files.local import LocalFiles
from jetwire_server.offline import dumping, insides, recovering, verifying
from jetwire_server.offline.checking import check_instance, mix_of
from jetwire_server.offline.places import Place, alone, instances_at, refuse_windows_file
from jetwire_server.redo.position import Position

EXIT_FAULTS = 1
EXIT_REFUSED = 2
EXIT_VERIFICATION_FAILED = 6
_SHOW_SECONDS = 0.1


def named(text: str) -> Path:
    """A path that was given. An empty one, of a variable that is not set, say, would mean the current directory: refused."""
    if not text:
        raise refuse(ValueError("an empty name is no directory: for the current one say ."))
    return Path(text)


def refuse(error: Exception) -> typer.Exit:
    print(f"jetwired: {error}", file=sys.stderr)
    return typer.Exit(EXIT_REFUSED)


Directory = Annotated[Path, typer.Argument(help="A server's data directory, or one instance's.", metavar="DIR", parser=named)]
AsJson = Annotated[bool, typer.Option("--json", help="One line of JSON.")]

errors = Console(stderr=True)


def register(app: typer.Typer) -> None:
    """Adds the verbs to the command."""
    for verb in (check, dump, verify, recover, restore):
        app.command()(verb)


@contextmanager
def progress() -> Iterator[Callable[[str], None]]:
    """Shows on a terminal what is being worked on; silent elsewhere."""
    with errors.status("") as status:
        shown = 0.0

        def show(what: str) -> None:
            nonlocal shown
            if time.monotonic() - shown > _SHOW_SECONDS:
                shown = time.monotonic()
                status.update(what)

        yield show


def check(directory: Directory, as_json: AsJson = False) -> None:
    """Reads everything and names each fault: file, tree, key. Changes nothing.

    Exit codes: 0 sound, 1 faults were found, 2 it could not be read (in use, no data there).
    """
    faults = []
    try:
        with alone(directory), progress() as show:
            places = instances_at(directory)
            for place in places:
                for fault in check_instance(place, show):
                    faults.append(
                        {"instance": place.name, "file": fault.path, "tree": fault.tree, "key": fault.key.hex(), "what": fault.what}
                    )
                    if not as_json:
                        print(f"{place.name}/{fault}")
    except (JetError, OSError) as error:
        raise refuse(error) from None
    if as_json:
        print(json.dumps({"instances": [place.name for place in places], "faults": faults}))
    elif not faults:
        print(f"sound: {', '.join(place.name for place in places)}")
    raise typer.Exit(EXIT_FAULTS if faults else 0)


def dump(
    directory: Directory,
    table: Annotated[str | None, typer.Argument(help="The table. Without one: the tables that there are.")] = None,
    instance: Annotated[str | None, typer.Option("--instance", "-i", help="Default: the only one there is.")] = None,
    database: Annotated[str | None, typer.Option("--database", "-d", help="Default: the only one there is.")] = None,
    form: Annotated[Format, typer.Option("--format", "-f", help="JSON lines or CSV, as `jetwire dump` writes them.")] = Format.JSONL,
    index: Annotated[str | None, typer.Option(help="The order: an index. Default: the primary one.")] = None,
    columns: Annotated[str | None, typer.Option(help="Only these columns, comma-separated.")] = None,
    headers: Annotated[bool, typer.Option("--headers", help="What the files say of themselves: checkpoint, log, databases.")] = False,
    log: Annotated[bool, typer.Option("--log", help="Every record of the log: where, when, how much it changes.")] = False,
) -> None:
    """Writes a table's records to stdout, without a server and without changing a byte: a copy is recovered and read.

    The copy is made in the temporary directory (TMPDIR), which must have room for the instance. Parts of different snapshots,
    which a server would not start on, are read all the same, with a warning. Exit codes: 0 done, 2 it could not be read.
    """
    try:
        refuse_windows_file(directory)
        with alone(directory):
            place = _one(instances_at(directory), instance)
            mixed = mix_of(place)
            if mixed is not None:
                print(f"jetwired: warning: {mixed}", file=sys.stderr)
            if headers or log:
                for facts in insides.headers(place) if headers else insides.log_records(place):
                    print(json.dumps(facts))
                return
            asyncio.run(_dump(place, table, database, form, index, columns.split(",") if columns else None))
            sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.pipe()[1], sys.stdout.fileno())  # takes what is still buffered, or the closed pipe would be told of again at our end
    except (JetError, OSError, ValueError) as error:
        raise refuse(error) from None


def _one(places: list[Place], name: str | None) -> Place:
    found = [place for place in places if name in (None, place.name)]
    if len(found) != 1:
        raise ValueError(f"which instance? {', '.join(place.name for place in places)}: name one with --instance")
    return found[0]


async def _dump(place: Place, table: str | None, database: str | None, form: Format, index: str | None, columns: list[str] | None) -> None:
    async with dumping.opened(place, SystemClock()) as session:
        there = [database] if database is not None else list(dumping.databases(place, session))
        if table is None:
            for name in there:
                for one in await dumping.tables(session, await dumping.open_database(session, name)):
                    print(json.dumps({"database": name, "table": one}))
            return
        if len(there) != 1:
            raise ValueError(f"which database? {', '.join(there) or 'none is there'}: name one with --database")
        source = await dumping.open_table(session, await dumping.open_database(session, there[0]), table, index, columns)
        write = writer(form, sys.stdout, source.columns)
        async for record in source.records:
            write({**source.nulls, **record})


def recover(directory: Directory, as_json: AsJson = False) -> None:
    """Recovers every instance, as a server's start would, and says what came of it."""
    try:
        with alone(directory):
            rows = [asyncio.run(recovering.recover(place, SystemClock())) for place in instances_at(directory)]
    except (JetError, OSError) as error:
        raise refuse(error) from None
    for row in rows:
        if as_json:
            print(
                json.dumps(
                    {
                        "instance": row.name,
                        "position": str(row.position),
                        "incarnation": row.incarnation,
                        "commits": row.commits,
                        "databases": row.databases,
                    }
                )
            )
        else:
            print(f"{row.name}: recovered to {row.position}, commit {row.commits}; {', '.join(row.databases) or 'no databases'}")


def verify(
    path: Annotated[Path, typer.Argument(help="A copy of a data directory, or of one instance's.", parser=named)],
    manifest: Annotated[Path | None, typer.Option(help="What `jetwire snapshot run` wrote.")] = None,
    as_json: AsJson = False,
) -> None:
    """Checks everything, recovers, compares with the manifest, and notes the result beside the copy, which stays as it is.

    Recovery is done in the temporary directory (TMPDIR), which must have room for an instance.
    Exit codes: 0 good, 6 not good, 2 it could not be tried.
    """
    clock = SystemClock()
    try:
        if not path.is_dir():  # nothing was copied there, or the name is wrong: no result to be noted beside it
            raise ValueError(f"{path} is no directory")
        manifests = verifying.load_manifest(manifest) if manifest else []
        with alone(path), progress() as show:
            result = asyncio.run(verifying.verify(path, manifests, clock, show))
            record = verifying.note(path, result, manifest, clock)
    except (JetError, OSError, ValueError) as error:
        raise refuse(error) from None
    if as_json:
        facts = {"good": result.good, "problems": result.problems, "notes": result.notes, "instances": result.instances}
        print(json.dumps({**facts, "record": str(record) if record else None}))
    else:
        for problem in result.problems:
            print(problem)
        for remark in result.notes:
            print(f"note: {remark}")
        where = f"recorded in {record}" if record else "not recorded: nothing can be written beside it"
        print(f"{'good' if result.good else 'NOT GOOD'}: {path}; {where}")
    raise typer.Exit(0 if result.good else EXIT_VERIFICATION_FAILED)


def restore(
    backup: Annotated[Path, typer.Argument(help="A directory that `jetwire backup` or BackupInstance filled.", parser=named)],
    data: Annotated[Path, typer.Argument(help="The instance's new directory, for example data/default; new or empty.", parser=named)],
    until: Annotated[
        str | None, typer.Option(help="Where to stop: a log position (GEN:SECTOR:BYTE), a commit number, or a time (ISO 8601 or @seconds).")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Makes an instance of a backup, checked file by file, to its end or to a point in time.

    Interrupted, the same command goes on where it was. Exit codes: 0 restored, 2 refused; what is wrong is named.
    """
    try:
        stop = parse_until(until)
        if not backup.is_dir():
            aside = [str(one) for end in (NEW, OLD) if (one := backup.with_name(backup.name + end)).is_dir()]
            there = f"; there is {' and '.join(aside)}: the server ended while a backup took the place of another" if aside else ""
            raise ValueError(f"{backup} is no directory{there}")
        if data.exists() and not data.is_dir():
            raise ValueError(f"{data} is no directory")
        with (
            alone(data),
            Progress(
                *(TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn()),
                console=errors,
                transient=True,
                disable=not errors.is_terminal,
            ) as bar,
        ):
            task = bar.add_task("restore")

            def show(name: str, done: int, total: int) -> None:
                bar.update(task, description=name or "recovery", completed=done, total=total)

            work = run_restore(LocalFiles(backup), LocalFiles(data), SystemClock(), until=stop, progress=show)
            result = asyncio.run(work)
    except (JetError, OSError, ValueError) as error:
        raise refuse(error) from None
    facts = {
        "position": str(result.position),
        "commit": result.commit,
        "incarnation": result.incarnation,
        "databases": result.databases,
    }
    print(json.dumps(facts) if as_json else f"restored to commit {result.commit}: {', '.join(result.databases)} in {data}")


def parse_until(text: str | None) -> Until:
    """`0000000A:0003:00FF`, `1234`, `@1700000000.5` or `2026-01-31T12:00:00+01:00` (without a zone: UTC)."""
    if text is None:
        return THE_END
    if re.fullmatch(r"[0-9A-Fa-f]+:[0-9A-Fa-f]+:[0-9A-Fa-f]+", text):
        generation, sector, byte = (int(part, 16) for part in text.split(":"))
        return Until(position=Position(generation, sector, byte))
    if text.isdigit():
        return Until(commit=int(text))
    try:
        if text.startswith("@") and isfinite(seconds := float(text[1:])):
            return Until(time=seconds)
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"--until {text}: expected GEN:SECTOR:BYTE, a commit number, @SECONDS, or 2026-01-31T12:00:00Z") from None
    return Until(time=(moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())
