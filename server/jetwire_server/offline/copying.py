"""A copy of an instance to be recovered in its place, so that what is looked at stays as it is."""

from __future__ import annotations

import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NoReturn

from jetwire_protocol.errors import Err, JetError
from jetwire_server import limits
from jetwire_server.backup.restore import MARK
from jetwire_server.backup.swap import PLAN
from jetwire_server.files.local import LocalFiles
from jetwire_server.offline.places import Place, page_files
from jetwire_server.redo.checkpoint import load_checkpoint
from jetwire_server.redo.reader import discover


@contextmanager
def scratch_copy(place: Place) -> Iterator[Place]:
    """What recovery needs of an instance, in the system's temporary directory (`TMPDIR` names another); gone afterwards."""
    if place.files.exists(MARK) or place.files.exists(PLAN):  # finishing it would change what is there
        raise JetError(Err.RestoreInProgress, f"{place.root} holds an unfinished restore: repeat it, or start a server, first")
    with _ended_by_sigterm(), tempfile.TemporaryDirectory(prefix="jetwired-") as scratch:
        copy = Place(Path(scratch, place.name), place.names)
        _copy(place, copy.files)
        yield copy


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """SIGTERM ends the program as an exit does: the copy, which may be large, goes with it."""

    def end(number: int, _: object) -> NoReturn:
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():  # as in tests: handlers are the main thread's
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _copy(place: Place, target: LocalFiles) -> None:
    """The page files, and the log from the checkpoint on."""
    files = place.files
    checkpoint = load_checkpoint(files, place.names)
    since = checkpoint.position.generation if checkpoint is not None else 0
    paths = [*page_files(place), *(one.path for one in discover(files, place.names, since=since))]
    if checkpoint is not None:
        paths.append(place.names.checkpoint)
    for path in paths:
        target.make_directory(path.rpartition("/")[0])
        with closing(files.open(path, read_only=True)) as source, closing(target.open(path, create=True)) as made:
            for offset in range(0, source.size(), limits.FILE_CHUNK_BYTES):
                made.write(offset, source.read(offset, limits.FILE_CHUNK_BYTES))
