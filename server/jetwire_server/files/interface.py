"""What every floor above may ask of files, and nothing more.

Two implementations: `local` (real files) and `memory` (a live and a durable image, so that a power cut can be
simulated). All paths are relative to the root that the `Files` object was opened on; they use `/` and never leave it.
The methods that block are plain calls: who calls them decides which thread pays (`AsyncFiles` for the event loop,
the log's and the pages' own threads directly).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

Buffer = bytes | bytearray | memoryview

ASIDE = ".new"
"""What `replace` adds to the name of the file it writes aside. One that a crash left behind means nothing."""


class File(Protocol):
    """An open file. Offsets are explicit: there is no hidden position."""

    @property
    def path(self) -> str: ...
    def size(self) -> int: ...
    def read(self, offset: int, length: int) -> bytes:
        """At most `length` bytes; fewer only at the end of the file."""
        ...

    def write(self, offset: int, data: Buffer) -> None:
        """All of it, or an error; durable only after `sync`."""
        ...

    def writev(self, offset: int, parts: Sequence[Buffer]) -> None: ...
    def allocate(self, length: int) -> None:
        """Makes the file at least `length` bytes long, with blocks reserved, holes included (a full disk is met here, not later)."""
        ...

    def truncate(self, length: int) -> None: ...
    def sync(self) -> None:
        """fdatasync. After an error the data's fate is unknown: the caller must latch, never retry."""
        ...

    def forget(self) -> None:
        """A hint, once it is synced: it will hardly be read again, so what the system keeps of it in memory may go."""
        ...

    def close(self) -> None: ...


class Files(Protocol):
    """A directory tree. Errors are `JetError`s: `FileNotFound`, `FileAccessDenied`, `InvalidPath`, `DiskFull`, `DiskIO` ..."""

    def open(self, path: str, *, create: bool = False, read_only: bool = False) -> File:
        """A new file is durable only after a `sync` of it and a `sync_directory` of its parent."""
        ...

    def exists(self, path: str) -> bool: ...
    def list(self, path: str = "") -> list[str]:
        """The names (not paths) in a directory, sorted; an absent directory is empty."""
        ...

    def make_directory(self, path: str) -> None:
        """With its parents, durably; one that is there already is fine. `""` makes the root itself."""
        ...

    def remove(self, path: str) -> None:
        """A file or an empty directory; durable only after `sync_directory` of its parent."""
        ...

    def rename(self, source: str, target: str) -> None:
        """Atomic replace; durable only after `sync_directory` of both parents."""
        ...

    def sync_directory(self, path: str = "") -> None: ...
    def replace(self, path: str, data: bytes) -> None:
        """The whole content of a small file, atomically and durably (write aside, sync, rename, sync directory)."""
        ...

    def real_path(self, path: str) -> str:
        """The operating system's path, for libraries that open files themselves (LMDB)."""
        ...
