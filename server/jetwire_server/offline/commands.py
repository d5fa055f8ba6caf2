"""The offline verbs of `jetwired`: what people type and what they read."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from jetwire_protocol.errors import JetError
from jetwire_server.clock import SystemClock
from jetwire_server.offline import recovering, verifying
from jetwire_server.offline.checking import check_instance
from jetwire_server.offline.places import alone, instances_at

EXIT_FAULTS = 1
EXIT_REFUSED = 2
EXIT_VERIFICATION_FAILED = 6
_SHOW_SECONDS = 0.1

Directory = Annotated[Path, typer.Argument(help="A server's data directory, or one instance's.", metavar="DIR")]
AsJson = Annotated[bool, typer.Option("--json", help="One line of JSON.")]

errors = Console(stderr=True)


def register(app: typer.Typer) -> None:
    """Adds the verbs to the command."""
    for verb in (check, verify, recover):
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


def refuse(error: Exception) -> typer.Exit:
    print(f"jetwired: {error}", file=sys.stderr)
    return typer.Exit(EXIT_REFUSED)


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
    path: Annotated[Path, typer.Argument(help="A copy of a data directory, or of one instance's. Recovery changes it.")],
    manifest: Annotated[Path | None, typer.Option(help="What `jetwire snapshot run` wrote.")] = None,
    as_json: AsJson = False,
) -> None:
    """Recovers a copy, checks everything, compares it with its manifest, and notes the result beside it.

    Exit codes: 0 good, 6 not good, 2 it could not be tried.
    """
    clock = SystemClock()
    try:
        manifests = verifying.load_manifest(manifest) if manifest else []
        with alone(path), progress() as show:
            result = asyncio.run(verifying.verify(path, manifests, clock, show))
            record = verifying.note(path, result, manifest, clock)
    except (JetError, OSError, ValueError) as error:
        raise refuse(error) from None
    if as_json:
        print(json.dumps({"good": result.good, "problems": result.problems, "notes": result.notes, "instances": result.instances}))
    else:
        for problem in result.problems:
            print(problem)
        for remark in result.notes:
            print(f"note: {remark}")
        print(f"{'good' if result.good else 'NOT GOOD'}: {path}; recorded in {record}")
    raise typer.Exit(0 if result.good else EXIT_VERIFICATION_FAILED)
