"""The steps of a freeze that only look: who stands in its way, and what the frozen files are."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping

from jetwire_protocol.errors import Err, JetError
from jetwire_server.snapshot.manifest import DatabaseRow, FileRow, InstanceRow, LogRow, Manifest
from jetwire_server.snapshot.participant import DatabaseDigest, Participant
from jetwire_server.snapshot.session import SnapshotSession


def refuse_obstacles(session: SnapshotSession, participant: Participant) -> None:
    if obstacle := participant.obstacle():
        raise JetError(Err.OSSnapshotNotAllowed, obstacle)
    if session.incremental:
        if participant.circular_logging():
            raise JetError(Err.InvalidBackup, "an incremental snapshot needs logs that circular logging removes")
        if participant.last_full() is None:
            raise JetError(Err.MissingFullBackup, f"no full snapshot of every database of {participant.info().name} yet")


def describe(session: SnapshotSession, marker_id: str, now: float) -> Manifest:
    """What is O(files): at once, while nothing moves."""
    rows: list[InstanceRow] = []
    for participant in session.participants:
        log = participant.log_range()
        info = participant.info()
        rows.append(
            InstanceRow(
                info.name,
                tuple(FileRow(f.path, f.size) for f in participant.files(logs_only=session.incremental)),
                LogRow(log.low, log.high, log.position),
                tuple(DatabaseRow(name) for name in info.databases),
            )
        )
    return Manifest(session.id, marker_id, now, tuple(rows))


async def fill_digests(session: SnapshotSession, pinned: Mapping[str, Awaitable[list[DatabaseDigest]]]) -> None:
    """What is O(data): from snapshots that were pinned while frozen, whatever happens since."""
    found = {name: await digests for name, digests in pinned.items()}
    manifest = session.manifest
    assert manifest is not None
    rows = tuple(
        InstanceRow(
            row.name,
            row.files,
            row.log,
            tuple(DatabaseRow(d.name, d.tables, d.records, d.digest) for d in found[row.name]) or row.databases,
        )
        for row in manifest.instances
    )
    session.manifest = Manifest(manifest.snap_id, manifest.marker, manifest.time, rows)
