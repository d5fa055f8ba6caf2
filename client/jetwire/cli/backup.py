"""`jetwire backup`: a backup of a running instance, over the network."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from jetwire import backups
from jetwire.cli.context import Wrong, answer, connected, errors, settings


def backup(
    target: Annotated[
        Path, typer.Argument(help="A directory of this machine: new for a full backup, the full one's for an incremental one.")
    ],
    incremental: Annotated[bool, typer.Option("--incremental", help="Only the log since the last backup.")] = False,
    truncate: Annotated[
        bool,
        typer.Option(help="Remove the log files that are not needed any more; without it no incremental backup can continue this one."),
    ] = True,
) -> None:
    """Copies an instance while everything goes on writing. Interrupted, the same command goes on where it was."""
    with connected() as connection:
        running = {row["name"]: row["instance"] for row in connection.call("Hello", client="jetwire backup")["instances"]}
        if settings.instance not in running:
            raise Wrong(f"no running instance is called {settings.instance!r}; there are {', '.join(sorted(running)) or 'none'}")
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
        with Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal or settings.as_json) as bar:
            task = bar.add_task("backup", total=None)

            def show(name: str, done: int, size: int) -> None:
                bar.update(task, description=name, completed=done, total=size)

            instance = running[settings.instance]
            try:
                taken = backups.take(connection, instance, target, incremental=incremental, truncate=truncate, progress=show)
            except OSError as error:
                raise Wrong(f"{error.filename or target}: {error.strerror or error}") from error
    answer({"kind": taken.kind, "files": taken.files, "bytes": taken.bytes, "digest": taken.digest, "resumed": taken.resumed})
