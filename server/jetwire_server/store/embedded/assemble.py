"""A store put together with what stands below it: the files of one directory, its gate, its log."""

from __future__ import annotations

from typing import NamedTuple

from jetwire_server.clock import Clock
from jetwire_server.files.gate import Gate
from jetwire_server.files.local import LocalFiles
from jetwire_server.limits import LOG_FILE_KB_DEFAULT, VERSION_BYTES_MAX
from jetwire_server.redo.log import Log
from jetwire_server.redo.names import LogNames
from jetwire_server.store.embedded.store import EmbeddedStore

SCRATCH_DIRECTORY = "scratch"  # sorts, temporary tables, copies for backups: unlogged, in no manifest, emptied at start


class Storage(NamedTuple):
    """One instance's directory, ready for `store.start()`."""

    gate: Gate
    files: LocalFiles
    log: Log
    store: EmbeddedStore


def assemble(
    root: str,
    clock: Clock,
    *,
    names: LogNames | None = None,
    file_kb: int = LOG_FILE_KB_DEFAULT,
    circular: bool = False,
    version_bytes_max: int = VERSION_BYTES_MAX,
) -> Storage:
    """Makes the directories that are missing and opens nothing yet."""
    gate = Gate(clock)
    files = LocalFiles(root, watch=gate.wrote)
    files.make_directory("")
    names = names or LogNames()
    if names.directory:
        files.make_directory(names.directory)
    log = Log(files, gate, clock, names=names, file_kb=file_kb)
    scratch = LocalFiles(f"{root}/{SCRATCH_DIRECTORY}")
    scratch.make_directory("")
    return Storage(
        gate, files, log, EmbeddedStore(log, files, scratch, gate, clock, circular=circular, version_bytes_max=version_bytes_max)
    )
