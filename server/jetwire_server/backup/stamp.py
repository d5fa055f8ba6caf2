"""The stamp: what a finished backup leaves in the instance, so that an incremental one knows where it begins."""

from __future__ import annotations

import msgspec

from jetwire_server.files.interface import Files
from jetwire_server.files.whole import read_if_there

STAMP_FILE = "backup.stamp"


class Stamp(msgspec.Struct, frozen=True):
    next_generation: int
    time: float
    databases: dict[str, str]  # their signatures: another one may come under an old name
    digest: str  # of the finished backup's manifest
    incarnation: int
    detached: tuple[int, ...] = ()  # the numbers of the log records since the full backup that detached a database


def load_stamp(files: Files) -> Stamp | None:
    data = read_if_there(files, STAMP_FILE)
    if data is None:
        return None
    try:
        return msgspec.json.decode(data, type=Stamp)
    except msgspec.DecodeError:
        return None


def save_stamp(files: Files, stamp: Stamp) -> None:
    files.replace(STAMP_FILE, msgspec.json.encode(stamp))
