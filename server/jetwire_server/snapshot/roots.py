"""The roots of an instance, and the refusal of roots that come from different instants.

A root is a directory that may be a volume of its own: the instance's, its log's, those of its databases. Symbolic links
below the instance's directory are refused, so there are no others; the temporary directory holds nothing that lasts.

What is refused is decided by the markers, and only by those of the log's present incarnation: a restore from a backup
begins a new one. So an instance that ran on after its snapshot starts, since its roots bear the same marker; so do one with
a new database, whose root the marker does not name, one whose database is detached: its root is none any more, and one
whose root was removed and made again.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing

import msgspec

from jetwire_protocol.errors import Err, JetError
from jetwire_server.files.interface import Files
from jetwire_server.files.whole import parent, read_if_there
from jetwire_server.redo.checkpoint import Checkpoint, load_checkpoint
from jetwire_server.redo.names import LogNames
from jetwire_server.redo.reader import LogReader, discover
from jetwire_server.redo.records import COMMIT_HEADER_BYTES
from jetwire_server.snapshot import marker
from jetwire_server.snapshot.marker import Marker, RootMarkers
from jetwire_server.store.embedded import changes
from jetwire_server.store.embedded.contents import CheckpointFile
from jetwire_server.store.embedded.pages import PageFile


def roots_of(names: LogNames, databases: Iterable[str]) -> list[str]:
    """The directories of an instance, below its own, which is "". `databases`: those it writes to."""
    return sorted({"", names.directory, *map(parent, databases)})


def marker_path(root: str) -> str:
    return f"{root}/{marker.FILE_NAME}" if root else marker.FILE_NAME


def read_marker(files: Files, root: str) -> RootMarkers:
    return marker.read(read_if_there(files, marker_path(root)), _name(root))


def markers(files: Files, names: LogNames, incarnation: int | None = None) -> dict[str, RootMarkers]:
    """What stands on each root that a marker names. Given an incarnation, other markers count as none."""
    found: dict[str, RootMarkers] = {}
    wanted = {"", names.directory}
    while wanted:
        root = wanted.pop()
        read = read_marker(files, root)
        found[root] = read if incarnation is None else RootMarkers(_of(incarnation, read.sealed), _of(incarnation, read.pending))
        sealed = found[root].sealed
        wanted |= set(sealed.roots if sealed else ()) - set(found)
    return found


def _of(incarnation: int, one: Marker | None) -> Marker | None:
    return one if one is not None and one.incarnation == incarnation else None


def refuse_mixed(files: Files, names: LogNames) -> None:
    """Refuses an instance whose roots were never on disk together, naming those that do not belong. Changes nothing."""
    try:
        checkpoint = load_checkpoint(files, names)
    except JetError:
        return  # recovery says so, and better
    if checkpoint is None:
        return
    found = markers(files, names, checkpoint.incarnation)
    odd = marker.odd_ones(found, log=names.directory)
    newest = marker.newest_of(found)
    if odd and newest is not None:  # what costs more is looked at only now
        databases = list(_attached(files, names, checkpoint))
        in_use = roots_of(names, databases)
        odd = [root for root in odd if root in in_use and not _is_younger(files, root, found[root], databases, newest)]
    if odd and newest is not None:
        told = "; ".join(f"{_name(root)} is of {_told(found[root].sealed)}" for root in odd)
        raise JetError(
            Err.BadRestoreTargetInstance,
            f"{told}, but the rest of snapshot {newest.snap_id}: put back all roots of one snapshot; nothing was changed",
            roots=odd,
        )


def _attached(files: Files, names: LogNames, checkpoint: Checkpoint) -> Iterable[str]:
    """The databases that recovery will find attached, as far as the log can be read."""
    body = msgspec.msgpack.decode(checkpoint.body, type=CheckpointFile) if checkpoint.body else CheckpointFile()
    attached = {slot: path for slot, path, _, _ in body.attached}
    try:
        generations = discover(files, names, since=checkpoint.position.generation)
        for record in LogReader(files, generations).records(checkpoint.position):
            if record.kind in changes.ABOUT_DATABASES:
                change = changes.decode(memoryview(record.payload)[COMMIT_HEADER_BYTES:])
                if isinstance(change, changes.AttachRecord):
                    attached[change.slot] = change.path
                elif isinstance(change, changes.DetachRecord):
                    attached.pop(change.slot, None)
    except (JetError, msgspec.DecodeError):
        pass  # recovery's to tell
    return attached.values()


def _is_younger(files: Files, root: str, there: RootMarkers, databases: Iterable[str], newest: Marker) -> bool:
    """Whether a root without a marker was made after the newest one: all its databases were created since."""
    if there != RootMarkers() or not (inside := [path for path in databases if parent(path) == root]):
        return False
    try:
        return all(_created(files, path) > newest.time for path in inside)
    except JetError:
        return False


def _created(files: Files, path: str) -> float:
    PageFile.look(files, path)  # before LMDB does
    with closing(PageFile.open(files, path, read_only=True)) as pages:
        return pages.head.created


def _name(root: str) -> str:
    return root or "the instance's directory"


def _told(sealed: Marker | None) -> str:
    return f"snapshot {sealed.snap_id}" if sealed else "no snapshot"
