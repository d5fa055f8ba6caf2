"""What a backup consists of: every file with its size and SHA-256, and how it continues the one before.

The manifest is a file of the backup like the others, read by the same calls, and stands in the same directory:
`backup.json` of the full one, `backup-<first log>.json` of each incremental one after it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import pairwise

import msgspec

from jetwire_protocol.errors import Err, JetError
from jetwire_server.files.interface import Files
from jetwire_server.files.whole import read_whole
from jetwire_server.limits import FILE_CHUNK_BYTES
from jetwire_server.redo.names import LogNames

FULL_NAME = "backup.json"
FORMAT = 1


class BackupFile(msgspec.Struct, frozen=True):
    """A file of the backup: its path in the backup, and in the instance."""

    path: str
    size: int
    sha256: str


class BackupManifest(msgspec.Struct, frozen=True, rename="camel"):
    """`position`: where recovery begins. `consistent`: the earliest place and commit a restore can stop at."""

    kind: str  # full, incremental
    instance: str
    time: float
    signature: str
    incarnation: int
    base_name: str
    log_directory: str
    gen_low: int
    gen_high: int
    position: str
    end: str
    consistent: str
    consistent_commit: int
    databases: tuple[str, ...]
    files: tuple[BackupFile, ...]
    previous: str = ""  # the digest of the manifest that this one continues
    format: int = FORMAT
    digest: str = ""

    @property
    def name(self) -> str:
        return FULL_NAME if self.kind == "full" else f"backup-{self.gen_low:08X}.json"

    def sealed(self) -> BackupManifest:
        """With its digest over everything else: the whole backup's, since every file's is in it."""
        return msgspec.structs.replace(self, digest=self._digest())

    def _digest(self) -> str:
        return hashlib.sha256(msgspec.json.encode(msgspec.structs.replace(self, digest=""))).hexdigest()

    def encode(self) -> bytes:
        return msgspec.json.format(msgspec.json.encode(self), indent=1) + b"\n"


def damaged(detail: str, code: Err = Err.InvalidBackup) -> JetError:
    return JetError(code, f"{detail}; nothing was restored")


def decode(data: bytes, name: str) -> BackupManifest:
    try:
        manifest = msgspec.json.decode(data, type=BackupManifest)
    except (msgspec.MsgspecError, ValueError) as error:  # the latter: bytes that are no text
        raise damaged(f"{name} is no backup manifest or is damaged: {error}") from error
    if manifest.format != FORMAT:
        raise damaged(f"{name} has format {manifest.format}, this version knows {FORMAT}")
    if manifest._digest() != manifest.digest:
        raise damaged(f"{name} is damaged: its digest does not match")
    if manifest.name != name:
        raise damaged(f"{name} was {manifest.name}: give it its name back", Err.InvalidLogSequence)
    return manifest


def sha256_of(files: Files, path: str) -> BackupFile:
    """Reads the file whole. Hashing lets others run beside it."""
    total = hashlib.sha256()
    file = files.open(path, read_only=True)
    try:
        offset = 0
        while data := file.read(offset, FILE_CHUNK_BYTES):
            total.update(data)
            offset += len(data)
    finally:
        file.close()
    return BackupFile(path, offset, total.hexdigest())


def load_chain(files: Files) -> list[BackupManifest]:
    """The manifests in a backup directory, the full one first. Each must continue the one before, without a gap."""
    if not files.exists(FULL_NAME):
        raise damaged(f"there is no {FULL_NAME}", Err.MissingFullBackup)
    names = [FULL_NAME, *sorted(n for n in files.list() if n.startswith("backup-") and n.endswith(".json"))]
    chain = [decode(read_whole(files, name), name) for name in names]
    for before, after in pairwise(chain):
        if after.previous != before.digest or after.signature != before.signature or after.gen_low != before.gen_high + 1:
            raise damaged(f"{after.name} does not continue {before.name}", Err.InvalidLogSequence)
        if after.incarnation != before.incarnation:
            raise damaged(f"{after.name} is of another life of the instance than {before.name}", Err.InvalidLogSequence)
    return chain


UNFINISHED = "backup.unfinished"  # what an incremental one leaves that was interrupted: its files are no part of the backup yet


def check_presence(files: Files, chain: Sequence[BackupManifest]) -> None:
    """Every file is there, with its size. What is in them is checked when it is read.

    A log file that no manifest names says that one is missing: what it holds must not be left out without a word.
    """
    names = LogNames(chain[0].log_directory, chain[0].base_name)
    known = {file.path for manifest in chain for file in manifest.files}
    present = [names.path(name) for name in files.list(names.directory) if names.number(name) is not None]
    unnamed = [path for path in present if path not in known]
    if unnamed and not files.exists(UNFINISHED):
        raise damaged(f"{unnamed[0]} is in no manifest: the last one is missing, or its backup was not finished (then move the file away)")
    for manifest in chain:
        for wanted in manifest.files:
            if not files.exists(wanted.path):
                raise damaged(f"{wanted.path} is missing", Err.MissingFileToBackup)
            file = files.open(wanted.path, read_only=True)
            try:
                size = file.size()
            finally:
                file.close()
            if size != wanted.size:
                raise damaged(f"{wanted.path} has {size} bytes instead of {wanted.size}", Err.BadBackupDatabaseSize)
