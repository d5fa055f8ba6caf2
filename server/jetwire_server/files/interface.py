"""What every floor above may ask of files, and nothing more.

Two implementations: `local` (real files) and `memory` (a live and a durable image, so that a power cut can be
simulated). All paths are relative to the root that the `Files` object was opened on; they use `/` and never leave it.
The methods that block are plain calls: who calls them decides which thread pays (`AsyncFiles` for the event loop,
the log's and the pages' own threads directly).
"""

from __future__ import annotations

from typing import Protocol


class File(Protocol):
    """An open file. Offsets are explicit: there is no hidden position."""

    @property
    def path(self) -> str: ...
    def size(self) -> int: ...
    def read(self, offset: int, length: int) -> bytes:
        """At most `length` bytes; fewer only at the end of the file."""
        ...

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """All of it, or an error; durable only after `sync`."""
        ...

    def writev(self, offset: int, parts: list[bytes]) -> None: ...
    def allocate(self, length: int) -> None:
        """Makes the file at least `length` bytes long, with blocks reserved (a full disk is met here, not later)."""
        ...

    def truncate(self, length: int) -> None: ...
    def sync(self) -> None:
        """fdatasync. After an error the data's fate is unknown: the caller must latch, never retry."""
        ...

    def close(self) -> None: ...


class Files(Protocol):
    """A directory tree."""

    def open(self, path: str, *, create: bool = False, read_only: bool = False) -> File: ...
    def exists(self, path: str) -> bool: ...
    def list(self, path: str = "") -> list[str]:
        """The names (not paths) in a directory, sorted; an absent directory is empty."""
        ...

    def make_directory(self, path: str) -> None: ...
    def remove(self, path: str) -> None: ...
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
