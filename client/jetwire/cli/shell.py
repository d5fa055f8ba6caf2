"""`jetwire shell`: calls one after another in one session, with completion and history."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from jetwire._sync.server import Server
from jetwire.cli import words
from jetwire.cli.complete import proposals
from jetwire.cli.context import Wrong, answer, console, exit_code, fail, say, settings
from jetwire.cli.shell_state import ShellState
from jetwire.cli.tables import attached, described, overview
from jetwire.errors import ConnectionLost, HandleDead, JetwireError

# The shell's own words, and what they do.
COMMANDS = {
    ".open": "DATABASE: opens a database (attaching it if need be) for the calls to come",
    ".use": "TABLE: opens a table for the calls to come, and goes to its first record",
    ".tables": "the tables of the open database, or of all that are attached",
    ".columns": "TABLE: its columns and indexes",
    ".handles": "the handles that calls get when none are given",
    ".help": "this",
    ".quit": "ends the shell, as Ctrl-D does; what is not committed is rolled back",
}


def shell() -> None:
    """An interactive shell with one session: any method of the protocol, with the handles at hand filled in.

    Lines from a pipe run without prompts and stop at the first error, with its exit code.
    """
    try:
        with Server(settings.url, token=settings.token) as server:
            state = ShellState(server, settings.instance)
            if sys.stdin.isatty():
                _converse(state)
            else:
                for line in sys.stdin:
                    if not run(state, line):
                        break
    except JetwireError as error:
        fail(error)


def run(state: ShellState, line: str) -> bool:
    """Carries out one line; False when it was the last."""
    line = line.strip()
    if not line or line.startswith("#"):
        return True
    if line.startswith("."):
        command, _, rest = line.partition(" ")
        return _command(state, command, rest.strip())
    if f".{line.lower()}" in COMMANDS:
        raise Wrong(f"{line}: the shell's own commands begin with a dot: .{line.lower()}")
    answer(state.call(words.split(line)))
    return True


def _command(state: ShellState, command: str, rest: str) -> bool:
    if command in (".open", ".use", ".columns") and not rest:
        raise Wrong(f"{command} {COMMANDS[command]}")
    if command == ".quit":
        return False
    if command == ".open":
        state.open(rest)
    elif command == ".use":
        state.use(rest)
    elif command == ".tables":
        _show_tables(state, lambda one: True)
    elif command == ".columns":
        if not _show_tables(state, lambda one: bool(one["table"] == rest)):
            raise Wrong(f"no table is called {rest}")
    elif command == ".handles":
        answer(state.handles)
    elif command == ".help":
        answer([{"command": name, "does": text} for name, text in COMMANDS.items()])
    else:
        raise Wrong(f"{command} is no command; there are {', '.join(COMMANDS)}")
    return True


def _show_tables(state: ShellState, wanted: Callable[[dict[str, Any]], bool]) -> int:
    """How many were shown."""
    databases = [state.database] if state.database else attached(state.session)
    found = [one for name in databases for one in described(state.session, name) if wanted(one)]
    if settings.for_people:
        console.print(overview(found))
    else:
        answer(found)
    return len(found)


def history_file() -> Path:
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state, "jetwire", "history")


def _make_private(file: Path) -> None:
    """A file for its owner alone, which can be read and written: what was typed may hold a token."""
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with file.open("a+b"):
        file.chmod(0o600)


def _converse(state: ShellState) -> None:
    """With somebody at a terminal: an error is said, and the next line asked for."""
    from prompt_toolkit import PromptSession  # which takes longer to import than most commands take
    from prompt_toolkit.completion import CompleteEvent, Completer, Completion
    from prompt_toolkit.document import Document
    from prompt_toolkit.history import FileHistory, History, InMemoryHistory

    class Completing(Completer):
        def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
            for one in proposals(document.text_before_cursor, COMMANDS, lambda: _quietly(state.table_names)):
                yield Completion(one.text, start_position=-one.length, display_meta=one.note)

    file = history_file()
    try:
        _make_private(file)
        history: History = FileHistory(str(file))
    except OSError as error:
        say(Wrong(f"no history is kept: {file}: {error.strerror}"))
        history = InMemoryHistory()
    session: PromptSession[str] = PromptSession(history=history, completer=Completing(), complete_while_typing=False)
    console.print(f"{state.connection.url}, instance {settings.instance}. .help for help, Ctrl-D to leave.", highlight=False)
    for line in _lines(lambda: session.prompt(state.prompt)):
        try:
            if not run(state, line):
                return
        except (ConnectionLost, HandleDead) as error:
            say(error)
            raise SystemExit(exit_code(error)) from None
        except JetwireError as error:
            say(error)


def _lines(ask: Callable[[], str]) -> Iterator[str]:
    """What is typed, until Ctrl-D; Ctrl-C throws a line away."""
    while True:
        try:
            yield ask()
        except KeyboardInterrupt:
            continue
        except EOFError:
            return


def _quietly(ask: Callable[[], list[str]]) -> list[str]:
    """A completion that cannot be had is no error."""
    try:
        return ask()
    except JetwireError:
        return []
