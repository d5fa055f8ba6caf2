"""What every command shares: which server, which token, and whether a person or a program reads the answer."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

from rich.console import Console

from jetwire import address
from jetwire._sync.connection import Connection
from jetwire.errors import ConnectionLost, EngineError, JetwireError, RpcError

# Exit codes of every command; `snapshot run` has further ones (see `snapshots.outcome`).
EXIT_ENGINE_ERROR = 1
EXIT_USAGE = 2
EXIT_UNREACHABLE = 7
EXIT_NOT_ALLOWED = 8


@dataclass
class Settings:
    """The options before the command."""

    url: str
    token: str | None
    as_json: bool

    def connection(self) -> Connection:
        return Connection(self.url, token=self.token)


settings = Settings(address.default(), os.environ.get("JETWIRE_TOKEN"), False)
console = Console()
errors = Console(stderr=True)


def answer(value: Any) -> None:
    """Prints an answer: JSON for programs, rich's rendering of it for people."""
    if settings.as_json or not sys.stdout.isatty():
        print(json.dumps(value))
    else:
        console.print_json(json.dumps(value))


def fail(error: JetwireError) -> NoReturn:
    """Says what went wrong in one line and ends with the code that names the kind."""
    code = EXIT_ENGINE_ERROR
    if isinstance(error, ConnectionLost):
        code = EXIT_UNREACHABLE
    elif isinstance(error, RpcError):
        code = EXIT_NOT_ALLOWED if error.code in (-32001, -32002) else EXIT_USAGE
    if settings.as_json:
        facts = {"message": str(error)}
        if isinstance(error, EngineError):
            facts |= {"code": str(error.code), "name": error.name}
        print(json.dumps({"error": facts}), file=sys.stderr)
    else:
        errors.print(f"[red]{error}[/red]", highlight=False)
    raise SystemExit(code)


@contextmanager
def connected() -> Iterator[Connection]:
    """A connection for one command; its errors end the program properly."""
    try:
        with settings.connection() as connection:
            yield connection
    except JetwireError as error:
        fail(error)
