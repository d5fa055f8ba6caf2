"""The marker: how parts of an instance, restored from different instants, are told apart.

An instance may live on several roots, each of which may be a volume of its own: its directory, its log's, its databases'
(`roots.py`). Before a freeze the same marker is written to each, in two rounds: first beside the old one as `pending`
on every root, then as `sealed`. A copy taken while frozen therefore holds the same sealed marker everywhere. A crash
between the rounds leaves a root whose `pending` is another root's `sealed`, which is no reason for alarm; anything else
is a set that was never on disk at one instant.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import msgspec

from jetwire_protocol.errors import Err, JetError

FILE_NAME = "snapshot.marker"


class Marker(msgspec.Struct, frozen=True):
    """Who froze what, and where its log stood."""

    snap_id: int
    marker_id: str
    time: float
    position: str
    incarnation: int  # of the log: a restore begins a new one, and what was marked before it says nothing any more
    roots: tuple[str, ...]  # which were marked: one that joined the instance later need not bear this marker
    logs_only: bool = False  # an incremental snapshot: its log belongs beside the databases of the full one before it

    def digest(self) -> str:
        return hashlib.blake2s(msgspec.json.encode(self), digest_size=16).hexdigest()


class RootMarkers(msgspec.Struct, frozen=True):
    """What stands in a root's marker file."""

    sealed: Marker | None = None
    pending: Marker | None = None
    digest: str = ""


def _encode(sealed: Marker | None, pending: Marker | None) -> bytes:
    digest = "".join(m.digest() for m in (sealed, pending) if m)
    return msgspec.json.encode(RootMarkers(sealed, pending, digest))


def read(data: bytes | None, root: str) -> RootMarkers:
    """The markers of one root; a damaged file is reported, not guessed at."""
    if data is None:
        return RootMarkers()
    try:
        markers = msgspec.json.decode(data, type=RootMarkers)
    except msgspec.DecodeError as error:
        raise JetError(Err.BadRestoreTargetInstance, f"the snapshot marker of {root} cannot be read: {error}", root=root) from error
    if _encode(markers.sealed, markers.pending) != data:
        raise JetError(Err.BadRestoreTargetInstance, f"the snapshot marker of {root} is damaged", root=root)
    return markers


def first_round(old: RootMarkers, new: Marker) -> bytes:
    return _encode(old.sealed, new)


def second_round(new: Marker) -> bytes:
    return _encode(new, None)


def odd_ones(roots: Mapping[str, RootMarkers], *, log: str) -> list[str]:
    """The roots that cannot have been on disk together with the newest one; empty when all is well. `log` is the log's."""
    newest = newest_of(roots)
    if newest is not None and newest.logs_only and _bears(roots[log], newest):
        roots = {root: markers for root, markers in roots.items() if root != log}
        newest = newest_of(roots)
    if newest is None:
        return []
    return sorted(root for root, markers in roots.items() if root in newest.roots and not _bears(markers, newest))


def newest_of(roots: Mapping[str, RootMarkers]) -> Marker | None:
    return max((markers.sealed for markers in roots.values() if markers.sealed), key=lambda sealed: sealed.time, default=None)


def _bears(markers: RootMarkers, marker: Marker) -> bool:
    return any(one is not None and one.marker_id == marker.marker_id for one in (markers.sealed, markers.pending))
