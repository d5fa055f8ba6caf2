"""The roots of an instance, and the refusal of roots that come from different instants.

A root is a directory that may be a volume of its own: the instance's, its log's, those of its databases. Symbolic links
below the instance's directory are refused, so there are no others; the temporary directory holds nothing that lasts.

What is refused is decided by the markers alone, and only by those of the log's present incarnation: a restore from a backup
begins a new one. So an instance that ran on after its snapshot starts, since its roots bear the same marker, and so does
one with a new database, whose root the marker does not name.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from jetwire_protocol.errors import Err, JetError
from jetwire_server.files.interface import Files
from jetwire_server.files.whole import parent, read_if_there
from jetwire_server.redo.checkpoint import Checkpoint, load_checkpoint
from jetwire_server.redo.names import LogNames
from jetwire_server.snapshot import marker
from jetwire_server.snapshot.marker import Marker, RootMarkers
from jetwire_server.store.embedded.databases import CheckpointFile


def roots_of(names: LogNames, databases: Iterable[str]) -> list[str]:
    """The directories of an instance, below its own, which is "". `databases`: those it writes to."""
    return sorted({"", names.directory, *map(parent, databases)})


def marker_path(root: str) -> str:
    return f"{root}/{marker.FILE_NAME}" if root else marker.FILE_NAME


def read_marker(files: Files, root: str) -> RootMarkers:
    return marker.read(read_if_there(files, marker_path(root)), _name(root))


def _name(root: str) -> str:
    return root or "the instance's directory"


def refuse_mixed(files: Files, names: LogNames) -> None:
    """Refuses an instance whose roots were never on disk together, naming those that do not belong. Changes nothing."""
    checkpoint = _checkpoint(files, names)
    if checkpoint is None:
        return
    roots = roots_of(names, _attached(checkpoint))
    if len(roots) == 1:
        return
    found = {root: _of_now(read_marker(files, root), checkpoint.incarnation) for root in roots}
    odd = marker.odd_ones(found, log=names.directory)
    if odd:
        told = "; ".join(f"{_name(root)} is of {_told(found[root].sealed)}" for root in odd)
        raise JetError(
            Err.BadRestoreTargetInstance,
            f"{told}, but the rest of {_told(marker.newest_of(found))}: put back all roots of one snapshot; nothing was changed. "
            f"To roll older databases forward with a log that goes on, remove every {marker.FILE_NAME} first",
            roots=odd,
        )


def _checkpoint(files: Files, names: LogNames) -> Checkpoint | None:
    """None too if it is damaged: recovery says so, and better."""
    try:
        return load_checkpoint(files, names)
    except JetError:
        return None


def _attached(checkpoint: Checkpoint) -> list[str]:
    body = msgspec.msgpack.decode(checkpoint.body, type=CheckpointFile) if checkpoint.body else CheckpointFile()
    return [path for _, path, _, read_only in body.attached if not read_only]


def _of_now(markers: RootMarkers, incarnation: int) -> RootMarkers:
    def present(one: Marker | None) -> Marker | None:
        return one if one is not None and one.incarnation == incarnation else None

    return RootMarkers(present(markers.sealed), present(markers.pending))


def _told(sealed: Marker | None) -> str:
    return f"snapshot {sealed.snap_id}" if sealed else "no snapshot"
