"""One log file: its header sector, and how a new one is made.

The header says which log the file belongs to (signature), its place in it (number, and the tag of the header before),
where the generation before ends (`previous_end`: its file's end, or earlier when it was closed early or its torn end
was cut), where the first record begins here (0: none does, a record spans the whole file) and the chain there. It is
complete and durable before the file gets its name, and never changed.
"""

from __future__ import annotations

import struct
from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from crc32c import crc32c

from jetwire_protocol.errors import Err, JetError
from jetwire_server.redo.position import SECTOR_BYTES

if TYPE_CHECKING:
    from jetwire_server.files.interface import File, Files

MAGIC = b"JETWLOG\n"
FORMAT = 1
DATA_START = SECTOR_BYTES
SIGNATURE_BYTES = 16
NO_RECORD = 0
_ZEROS = memoryview(bytes(256 << 10))  # a piece of a file in the making

_FIXED = struct.Struct("<8sI16s3sxIQddIIIIQ")
_CRC = struct.Struct("<I")
_CRC_AT = SECTOR_BYTES - _CRC.size  # of every format, so that a newer one is told from a damaged one


@dataclass(frozen=True, slots=True)
class GenerationHeader:
    """The first sector of a log file."""

    signature: bytes
    base: str
    number: int
    file_bytes: int
    created: float
    previous_created: float
    previous_tag: int
    previous_end: int
    first_record: int
    chain: int
    incarnation: int

    def encode(self) -> bytes:
        fixed = _FIXED.pack(
            MAGIC,
            FORMAT,
            self.signature,
            self.base.encode("ascii"),
            self.number,
            self.file_bytes,
            self.created,
            self.previous_created,
            self.previous_tag,
            self.previous_end,
            self.first_record,
            self.chain,
            self.incarnation,
        )
        sector = fixed.ljust(_CRC_AT, b"\0")
        return sector + _CRC.pack(crc32c(sector))

    @property
    def tag(self) -> int:
        """The header's CRC: it marks every record of this generation, and is named by the next one's header."""
        return int(_CRC.unpack_from(self.encode(), _CRC_AT)[0])


def decode_header(sector: bytes, path: str) -> GenerationHeader:
    """The header, or the error that says what is wrong with this file and what to do."""
    restore = "restore it from a backup or a replica; nothing was changed"
    if sector[: len(MAGIC)] != MAGIC:
        raise JetError(Err.LogFileCorrupt, f"{path} is no Jetwire log file, or its header is damaged: {restore}", path=path)
    if len(sector) < SECTOR_BYTES or crc32c(sector[:_CRC_AT]) != _CRC.unpack_from(sector, _CRC_AT)[0]:
        raise JetError(Err.LogFileCorrupt, f"the header of {path} is damaged: {restore}", path=path)
    _, version, signature, base, *rest = _FIXED.unpack_from(sector)
    if version != FORMAT:
        detail = f"{path} has log format {version}, this server knows {FORMAT}: start the version that wrote it; nothing was changed"
        raise JetError(Err.BadLogVersion, detail, path=path, version=version)
    return GenerationHeader(signature, base.decode("ascii"), *rest)


def read_header(file: File) -> GenerationHeader:
    """The header of an open log file, which must have the length it says."""
    header = decode_header(file.read(0, SECTOR_BYTES), file.path)
    if file.size() != header.file_bytes:
        detail = f"{file.path} has {file.size()} bytes instead of {header.file_bytes}: restore it from a backup; nothing was changed"
        raise JetError(Err.LogFileCorrupt, detail, path=file.path)
    return header


def blank(files: Files, path: str, file_bytes: int, directory: str) -> Generator[None, bool | None, File]:
    """Makes a log file of full size under its working name, a piece a step: durable, all zeros, and with no valid header yet.

    The zeros are written, not only reserved: a write to a block that never was written changes the file's map too, and takes
    half as long again to sync. A piece is small, for the syncs of commits wait behind it. Who sends True wants the file at once:
    where the log grows faster than zeros are written, they would only be waited for.
    """
    if files.exists(path):
        files.remove(path)
    file = files.open(path, create=True)
    try:
        file.allocate(file_bytes)
        for offset in range(0, file_bytes, len(_ZEROS)):
            if (yield):
                file.sync()
                break
            file.write(offset, _ZEROS[: file_bytes - offset])
            file.sync()
        files.sync_directory(directory)
    except BaseException:
        file.close()
        raise
    return file


def finished(making: Generator[None, bool | None, File], *, at_once: bool = False) -> File:
    """The file, made to its end; `at_once`: what is not filled with zeros yet is only reserved."""
    try:
        next(making)
        while True:
            making.send(at_once)
    except StopIteration as end:
        made: File = end.value
        return made
