"""`jetwired check`: reads everything of an instance that nobody is running, and names each fault: file, tree, key."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator

import msgspec

from jetwire_protocol.errors import JetError
from jetwire_server.backup.restore import MARK
from jetwire_server.backup.swap import PLAN
from jetwire_server.files.local import LocalFiles
from jetwire_server.offline.places import Place, page_files
from jetwire_server.redo.checkpoint import load_checkpoint
from jetwire_server.redo.position import Position
from jetwire_server.redo.reader import LogReader, discover
from jetwire_server.redo.records import COMMIT_HEADER_BYTES
from jetwire_server.snapshot.marker import FILE_NAME
from jetwire_server.snapshot.roots import refuse_mixed
from jetwire_server.store.embedded import changes
from jetwire_server.store.embedded.check import check_database
from jetwire_server.store.embedded.contents import CheckpointFile, Head
from jetwire_server.store.embedded.pages import PageFile
from jetwire_server.store.interface import Fault

Progress = Callable[[str], None]
"""Told what is being read, again after every piece of it."""


def check_instance(place: Place, progress: Progress) -> Iterator[Fault]:
    """All faults of one instance: its roots' markers, its checkpoint file, its log from the oldest generation, its page files.

    A tail that a crash tore is no fault: recovery cuts it. Changes nothing but LMDB's scratch beside the page files.
    """
    files = place.files
    for mark in (MARK, PLAN):
        if files.exists(mark):
            yield Fault(mark, -1, b"", "a restore is not finished here: repeat it, or run recover")
    mixed = mix_of(place)
    if mixed is not None:
        yield Fault(FILE_NAME, -1, b"", mixed)
    found = set(page_files(place))
    attached: dict[str, bool] = {}
    end: Position | None = None
    try:
        progress(place.names.checkpoint)
        attached = _attached_at_checkpoint(place)
    except (JetError, msgspec.DecodeError) as error:
        yield Fault(place.names.checkpoint, -1, b"", _words(error))
    try:
        end = yield from _check_log(place, attached, progress)
    except (JetError, msgspec.DecodeError, ValueError) as error:
        yield Fault(place.names.current, -1, b"", _words(error))
    for path in sorted(found | {path for path, there in attached.items() if there}):
        for fault in check_database(files, path):
            progress(path)
            if fault is not None:
                yield fault
        if end is not None and path in found:
            yield from _check_head(files, path, end)


def mix_of(place: Place) -> str | None:
    """Why the parts of an instance do not belong together; None if they do, as far as can be told: a start would refuse them."""
    try:
        refuse_mixed(place.files, place.names)
    except JetError as error:
        return error.detail
    except msgspec.DecodeError:
        pass  # a checkpoint file that cannot be understood: it is named as such
    return None


def _words(error: Exception) -> str:
    return error.detail or str(error) if isinstance(error, JetError) else str(error)


def _attached_at_checkpoint(place: Place) -> dict[str, bool]:
    checkpoint = load_checkpoint(place.files, place.names)
    if checkpoint is None or not checkpoint.body:
        return {}
    return {row[1]: True for row in msgspec.msgpack.decode(checkpoint.body, type=CheckpointFile).attached}


def _check_log(place: Place, attached: dict[str, bool], progress: Progress) -> Generator[Fault, None, Position | None]:
    """Reads every record; notes which databases the log leaves attached; answers where the log ends."""
    slots: dict[int, str] = {}
    reader = LogReader(place.files, discover(place.files, place.names))
    last = 0
    for record in reader.records():
        if record.generation != last:
            last = record.generation
            progress(place.names.archived(last))
        try:
            change = changes.decode(memoryview(record.payload)[COMMIT_HEADER_BYTES:])
        except (msgspec.DecodeError, msgspec.ValidationError) as error:
            yield Fault(place.names.archived(record.generation), -1, b"", f"the record at {record.position} cannot be understood: {error}")
            continue
        if isinstance(change, changes.AttachRecord):
            slots[change.slot] = change.path
            attached[change.path] = True
        elif isinstance(change, changes.DetachRecord) and change.slot in slots:
            attached[slots.pop(change.slot)] = False
    return reader.end.position if reader.end is not None else None


def _check_head(files: LocalFiles, path: str, end: Position) -> Iterator[Fault]:
    try:
        file = PageFile.open(files, path, read_only=True)
    except JetError:
        return  # named already
    head: Head = file.head
    file.close()
    if Position(*head.position) > end:
        yield Fault(path, -1, b"", f"its pages know the log up to {Position(*head.position)}, but the log ends at {end}: the log is older")
