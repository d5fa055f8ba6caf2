"""The marker: how parts of an instance, restored from different instants, are told apart.

An instance may live on several roots (volumes): its directory, its log path, further database roots. Before a freeze
the same marker is written to each, in two rounds: first beside the old one as `pending` on every root, then as
`sealed`. A copy taken while frozen therefore holds the same sealed marker everywhere. A crash between the rounds
leaves a root whose `pending` is another root's `sealed`, which is no reason for alarm; anything else is a set that
was never on disk at one instant.
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
    incarnation: str
    roots: int

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


def odd_ones(roots: Mapping[str, RootMarkers]) -> list[str]:
    """The roots that cannot have been on disk together with the newest one; empty when all is well."""
    known = [m for markers in roots.values() for m in (markers.sealed, markers.pending) if m]
    if not known:
        return []
    sealed = {m.sealed.marker_id for m in roots.values() if m.sealed}
    newest = max((m.sealed for m in roots.values() if m.sealed), key=lambda m: m.time, default=None)
    if newest is None or (len(sealed) == 1 and all(m.sealed for m in roots.values())):
        return []

    def belongs(markers: RootMarkers) -> bool:
        return any(m is not None and m.marker_id == newest.marker_id for m in (markers.sealed, markers.pending))

    return sorted(root for root, markers in roots.items() if not belongs(markers))
