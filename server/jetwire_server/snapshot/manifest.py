"""The manifest: what a copy taken during a freeze must be found to hold.

What is cheap (files, sizes, log range) is there when Freeze answers; counts and digests of the databases are computed
in the background from a snapshot pinned at the frozen position, and are in `SnapshotStatus` and the verdict once done.
"""

from __future__ import annotations

from typing import Any

import msgspec


class FileRow(msgspec.Struct, frozen=True):
    path: str
    size: int


class LogRow(msgspec.Struct, frozen=True, rename="camel"):
    gen_low: int
    gen_high: int
    position: str


class DatabaseRow(msgspec.Struct, frozen=True, omit_defaults=True):
    name: str
    tables: int | None = None
    records: int | None = None
    digest: str | None = None


class InstanceRow(msgspec.Struct, frozen=True):
    name: str
    files: tuple[FileRow, ...]
    log: LogRow
    databases: tuple[DatabaseRow, ...]


class Manifest(msgspec.Struct, frozen=True, rename="camel"):
    snap_id: int
    marker: str
    time: float
    instances: tuple[InstanceRow, ...]

    def to_wire(self) -> dict[str, Any]:
        wire: dict[str, Any] = msgspec.to_builtins(self)
        return wire
