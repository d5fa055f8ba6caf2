"""Small files as a whole: read at once, replaced atomically and durably. The same few steps on every kind of files."""

from __future__ import annotations

from contextlib import suppress

from jetwire_protocol.errors import JetError
from jetwire_server.files.interface import ASIDE, Files
from jetwire_server.files.paths import components


def parent(path: str) -> str:
    return path.rpartition("/")[0]


def read_whole(files: Files, path: str) -> bytes:
    file = files.open(path, read_only=True)
    try:
        return file.read(0, file.size())
    finally:
        file.close()


def read_if_there(files: Files, path: str) -> bytes | None:
    return read_whole(files, path) if files.exists(path) else None


def replace(files: Files, path: str, data: bytes) -> None:
    """Writes aside, syncs, renames, syncs the directory: a crash leaves the old content or the new, never a mixture."""
    components(path)  # here already, since a path that is none may become one with something added
    aside = path + ASIDE
    try:
        file = files.open(aside, create=True)
        try:
            file.truncate(0)  # what an earlier crash may have left there
            file.write(0, data)
            file.sync()
        finally:
            file.close()
        files.rename(aside, path)
    except JetError:
        with suppress(JetError):
            files.remove(aside)
        raise
    files.sync_directory(parent(path))
