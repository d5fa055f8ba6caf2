"""Where the instances are: in a server's data directory, or one instance's own directory."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from jetwire_protocol.errors import Err, JetError
from jetwire_server.files.directory_lock import LOCK_FILE, DirectoryLock
from jetwire_server.files.local import LocalFiles
from jetwire_server.redo.names import LogNames
from jetwire_server.store.embedded.assemble import SCRATCH_DIRECTORY

_LOG_FILE = re.compile(r"([A-Za-z0-9]{3})(\.chk|\.log|[0-9A-F]{8}\.log)")
_LMDB_MAGIC = b"\xde\xc0\xef\xbe"
_START_BYTES = 64
_WINDOWS_MAGIC = b"\xef\xcd\xab\x89"  # the second word of its header


@dataclass(frozen=True, slots=True)
class Place:
    """An instance's directory and the names of its log."""

    root: Path
    names: LogNames

    @property
    def name(self) -> str:
        return self.root.name

    @property
    def files(self) -> LocalFiles:
        return LocalFiles(self.root)


def instances_at(path: Path) -> list[Place]:
    """The instances in a data directory, or the one whose own directory this is."""
    path = path.resolve()
    if not path.is_dir():
        raise JetError(Err.InvalidPath, f"{path} is no directory", path=str(path))
    own = _log_in(path, "")
    if own is not None:
        return [Place(path, own)]
    found = [place for child in sorted(path.iterdir()) if child.is_dir() and (place := _place(child)) is not None]
    if not found:
        raise JetError(Err.FileNotFound, f"{path} is neither a data directory with instances nor an instance's own: no log is there")
    return found


def _place(directory: Path) -> Place | None:
    if directory.name.startswith("."):
        return None
    names = _log_in(directory, "")
    if names is None:  # JET_paramLogFilePath may point one or two levels down
        below = [d for pattern in ("*", "*/*") for d in sorted(directory.glob(pattern)) if d.is_dir()]
        names = next((n for d in below if (n := _log_in(d, str(d.relative_to(directory)))) is not None), None)
    return Place(directory, names) if names is not None else None


def _log_in(directory: Path, below: str) -> LogNames | None:
    bases = {match[1] for name in os.listdir(directory) if (match := _LOG_FILE.fullmatch(name))}
    return LogNames(below, min(bases)) if bases else None


def page_files(place: Place) -> list[str]:
    """Every file below the instance's directory that begins as page files do."""
    found = []
    for file in sorted(place.root.rglob("*")):
        relative = file.relative_to(place.root)
        if relative.parts[0] == SCRATCH_DIRECTORY or file.name.endswith("-lock") or file.is_symlink() or not file.is_file():
            continue
        with file.open("rb") as opened:
            if _LMDB_MAGIC in opened.read(_START_BYTES):
                found.append(str(relative))
    return found


def refuse_windows_file(path: Path) -> None:
    """A file of the engine on Windows where a directory is asked for: what to do with it instead."""
    if not path.is_file():
        return
    with path.open("rb") as file:
        start = file.read(8)
    if start[4:] == _WINDOWS_MAGIC:
        raise JetError(
            Err.DatabaseInvalidPath,
            f"{path} is a database of the engine on Windows, whose pages are not Jetwire's: "
            "write its tables as CSV or JSON lines and load them (docs/migrate.md: A database of Windows)",
        )
    raise JetError(Err.InvalidPath, f"{path} is a file; name a server's data directory, or one instance's")


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Keeps servers away, or is refused because one is at work: in the directory itself or the one above an instance."""
    path = path.resolve()
    holder = path.parent if (path.parent / LOCK_FILE).exists() else path
    if not (holder / LOCK_FILE).exists() or not os.access(holder, os.W_OK):  # never served from here: a copy, a backup, read-only
        yield
        return
    with DirectoryLock(LocalFiles(holder)):
        yield
