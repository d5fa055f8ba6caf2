"""The `jetwire` command: its groups, and the options before them."""

from __future__ import annotations

from typing import Annotated

import typer

from jetwire.cli import backup, calls, dump, load, shell, snapshot, tables, top
from jetwire.cli.context import fail, settings
from jetwire.errors import JetwireError
from jetwire.local import default_url

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
app.add_typer(snapshot.app, name="snapshot")
for command in (calls.ping, calls.call, shell.shell, tables.tables, dump.dump, load.load, top.top, backup.backup):
    app.command()(command)


@app.callback()
def options(
    url: Annotated[str | None, typer.Option(envvar="JETWIRE_URL", help="tcp://, unix://, ws:// or http:// address of the server.")] = None,
    token: Annotated[str | None, typer.Option(envvar="JETWIRE_TOKEN", help="Who you are, for servers that ask.")] = None,
    instance: Annotated[str, typer.Option(envvar="JETWIRE_INSTANCE", help="The instance to work in.")] = "default",
    as_json: Annotated[bool, typer.Option("--json", help="Answers as JSON, one line, whatever the terminal.")] = False,
) -> None:
    """Talks to a Jetwire server.

    Exit codes: 0 done, 1 an error of the engine, 2 wrong usage, 7 no server there, 8 not allowed; `snapshot run` adds 3 to 6.
    """
    try:
        settings.url = url or default_url()
    except JetwireError as error:
        fail(error)
    settings.token = token
    settings.instance = instance
    settings.as_json = as_json
