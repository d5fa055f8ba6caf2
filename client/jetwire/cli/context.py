"""What every command shares: which server, which token, and whether a person or a program reads the answer."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, NoReturn

from rich.console import Console

from jetwire._sync.connection import Connection
from jetwire._sync.server import Server
from jetwire._sync.session import Session
from jetwire.cli.render import table_of
from jetwire.errors import ConnectionLost, EngineError, HandleDead, JetwireError, RpcError

# Exit codes of every command; `snapshot run` has further ones (see `snapshots.outcome`).
EXIT_ENGINE_ERROR = 1
EXIT_USAGE = 2
EXIT_UNREACHABLE = 7
EXIT_NOT_ALLOWED = 8

_NOT_AUTHENTICATED = -32001
_RPC_EXITS = {-32001: EXIT_NOT_ALLOWED, -32002: EXIT_NOT_ALLOWED, -32005: EXIT_UNREACHABLE}


class Wrong(JetwireError):
    """What was asked for makes no sense: a file, a value or a word that cannot be used."""


@dataclass
class Settings:
    """The options before the command."""

    url: str
    token: str | None
    as_json: bool
    instance: str = "default"

    def connection(self) -> Connection:
        return Connection(self.url, token=self.token)

    @property
    def for_people(self) -> bool:
        return not self.as_json and sys.stdout.isatty()


settings = Settings("", None, False)  # filled in from the options, before any command
console = Console()
errors = Console(stderr=True)


def answer(value: Any) -> None:
    """Prints an answer: JSON for programs, rich's rendering of it for people (rows as a table)."""
    if not settings.for_people:
        print(json.dumps(value), flush=True)
    elif (table := table_of(value)) is not None:
        console.print(table)
    else:
        console.print_json(json.dumps(value))


def say(error: Exception) -> None:
    """One line about what went wrong, on stderr."""
    text = str(error)
    if isinstance(error, RpcError) and error.code == _NOT_AUTHENTICATED:
        text += f": {'a wrong token' if settings.token else 'no token, or a wrong one'}; --token gives one, or JETWIRE_TOKEN"
    with suppress(OSError):  # nobody can be told: the exit code says it too
        _say(text, error)


def _say(text: str, error: Exception) -> None:
    if settings.as_json:
        facts: dict[str, Any] = {"message": text}
        if isinstance(error, EngineError):
            facts |= {"code": error.code, "name": error.name, "retryable": error.retryable}
        elif isinstance(error, RpcError):
            facts |= {"code": error.code}
        print(json.dumps({"error": facts}), file=sys.stderr, flush=True)
    else:
        errors.print(text, style="red", highlight=False, markup=False, soft_wrap=True)


def exit_code(error: JetwireError) -> int:
    if isinstance(error, ConnectionLost | HandleDead):
        return EXIT_UNREACHABLE
    if isinstance(error, RpcError):
        return _RPC_EXITS.get(error.code, EXIT_USAGE)
    return EXIT_ENGINE_ERROR if isinstance(error, EngineError) else EXIT_USAGE


def fail(error: JetwireError) -> NoReturn:
    """Says what went wrong in one line and ends with the code that names the kind."""
    say(error)
    raise SystemExit(exit_code(error))


@contextmanager
def connected() -> Iterator[Connection]:
    """A connection for one command; its errors end the program properly."""
    try:
        with settings.connection() as connection:
            yield connection
    except JetwireError as error:
        fail(error)


@contextmanager
def in_session() -> Iterator[Session]:
    """A session in the chosen instance for one command; its errors end the program properly."""
    try:
        with Server(settings.url, token=settings.token) as server, server.session(settings.instance) as session:
            yield session
    except JetwireError as error:
        fail(error)
