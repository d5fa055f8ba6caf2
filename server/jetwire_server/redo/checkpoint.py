"""`edb.chk`: where recovery starts, and what the store needs to know there (which databases are attached)."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from crc32c import crc32c

from jetwire_protocol.errors import Err, JetError
from jetwire_server.files.interface import Files
from jetwire_server.redo.names import LogNames
from jetwire_server.redo.position import Position

MAGIC = b"JETWCHK\n"
FORMAT = 1
_FIXED = struct.Struct("<8sI16sIIIQdI")
_CRC = struct.Struct("<I")
_BYTES_MAX = 1 << 20


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """All changes before `position` are in the pages. `body` belongs to the store."""

    signature: bytes
    position: Position
    incarnation: int
    time: float
    body: bytes = b""


def save_checkpoint(files: Files, names: LogNames, checkpoint: Checkpoint) -> None:
    """Replaces the file, atomically and durably. The caller holds a permit of the gate."""
    place = checkpoint.position
    data = _FIXED.pack(
        MAGIC,
        FORMAT,
        checkpoint.signature,
        place.generation,
        place.sector,
        place.byte,
        checkpoint.incarnation,
        checkpoint.time,
        len(checkpoint.body),
    )
    data += checkpoint.body
    files.replace(names.checkpoint, data + _CRC.pack(crc32c(data)))


def load_checkpoint(files: Files, names: LogNames) -> Checkpoint | None:
    """The checkpoint, None if there is none, or the error that says what to do."""
    path = names.checkpoint
    if not files.exists(path):
        return None
    file = files.open(path, read_only=True)
    try:
        data = file.read(0, _BYTES_MAX)
    finally:
        file.close()
    body, crc = data[: -_CRC.size], data[-_CRC.size :]
    if len(body) < _FIXED.size or data[: len(MAGIC)] != MAGIC or _CRC.pack(crc32c(body)) != crc:
        detail = f"{path} is damaged: restore it, or the instance from its last backup; nothing was changed"
        raise JetError(Err.CheckpointCorrupt, detail, path=path)
    _, version, signature, generation, sector, byte, incarnation, time, length = _FIXED.unpack_from(body)
    if version != FORMAT:
        detail = f"{path} has format {version}, this server knows {FORMAT}: start the version that wrote it; nothing was changed"
        raise JetError(Err.BadLogVersion, detail, path=path, version=version)
    if length != len(body) - _FIXED.size:
        raise JetError(Err.CheckpointCorrupt, f"{path} is damaged: its length is wrong; nothing was changed", path=path)
    return Checkpoint(signature, Position(generation, sector, byte), incarnation, time, body[_FIXED.size :])
