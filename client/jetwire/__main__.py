"""The `jetwire` command."""

from __future__ import annotations

import os
import signal
import sys
from io import TextIOWrapper
from typing import NoReturn

import typer

from jetwire.cli.app import app
from jetwire.cli.context import EXIT_USAGE, Wrong, say, settings

_ENDS = (signal.SIGTERM, signal.SIGHUP)


def main() -> None:
    """Runs the command. What goes wrong is one line for programs, and never a traceback."""
    _open_what_is_closed()
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # what a terminal has no letter for
    for_people = sys.stderr.isatty() and "--json" not in sys.argv
    settings.as_json = "--json" in sys.argv[1:]  # till the options are read: a wrong one is told as it is asked for
    for number in _ENDS:
        if signal.getsignal(number) is signal.SIG_DFL:  # not so under nohup
            signal.signal(number, _end)
    try:
        code = app(standalone_mode=for_people)
    except typer.TyperException as error:
        say(Wrong(error.format_message()))
        raise SystemExit(error.exit_code) from None
    except OSError as error:
        _cannot_write(error)
    raise SystemExit(code)


def _end(number: int, _: object) -> NoReturn:
    """As after Ctrl-C: the terminal is put back, and what is half written goes."""
    raise SystemExit(128 + number)


def _open_what_is_closed() -> None:
    """As after `>&-`: or the connection would get the number of a standard stream."""
    while (null := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(null)
    sys.stdin = sys.stdin or os.fdopen(0)
    sys.stdout = sys.stdout or os.fdopen(1, "w")
    sys.stderr = sys.stderr or os.fdopen(2, "w")


def _cannot_write(error: OSError) -> NoReturn:
    """Files are opened where their errors are looked after; what is left is an answer that nobody takes, as on a full disk."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or what is still buffered would fail once more at our end
    say(Wrong(f"the answer cannot be written: {error.strerror or error}"))
    raise SystemExit(EXIT_USAGE)


if __name__ == "__main__":
    main()
