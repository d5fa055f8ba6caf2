"""An engine instance on the embedded store, as a snapshot session sees it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Mapping

import msgspec

from jetwire_protocol.data.parameters import Param
from jetwire_protocol.errors import Err, JetError
from jetwire_server.engine.instance import Instance, State
from jetwire_server.failpoints import hit
from jetwire_server.files.gate import Gate
from jetwire_server.files.interface import ASIDE, Files
from jetwire_server.files.whole import read_if_there
from jetwire_server.redo.log import Log
from jetwire_server.redo.position import Position
from jetwire_server.snapshot import marker
from jetwire_server.snapshot.digest import digest_database
from jetwire_server.snapshot.participant import DatabaseDigest, FileEntry, InstanceInfo, LogRange, Pinned, Stamp, Truncation
from jetwire_server.store.embedded.store import EmbeddedStore
from jetwire_server.store.interface import Transaction

STAMP_FILE = "snapshot.stamp"
_OBSTACLES = {
    State.CREATED: "is not initialised",
    State.INITIALISING: "is going through recovery",
    State.TERMINATING: "is terminating",
    State.ENDED: "has ended",
}


def position_text(position: Position) -> str:
    """As ESE prints an LGPOS."""
    return f"{position.generation:X}:{position.sector:X}:{position.byte:X}"


def check_roots(roots: Mapping[str, Files]) -> None:
    """Refuses roots that were never on disk together: parts of different snapshots, put back side by side."""
    odd = marker.odd_ones({name: marker.read(read_if_there(files, marker.FILE_NAME), name) for name, files in roots.items()})
    if odd:
        raise JetError(
            Err.BadRestoreTargetInstance,
            f"{', '.join(odd)} comes from another snapshot than the rest: restore all roots of one snapshot",
            roots=odd,
        )


class PinnedDigests:
    """See `participant.Pinned`."""

    def __init__(self, databases: Mapping[int, str], snapshot: Transaction) -> None:
        self._databases = databases
        self._snapshot = snapshot

    async def digests(self) -> list[DatabaseDigest]:
        return [await digest_database(path, slot, self._snapshot) for slot, path in self._databases.items()]

    def close(self) -> None:
        self._snapshot.rollback_now()


class InstanceParticipant:
    """See `participant.Participant`. `roots` are the directories that the instance lives on, its own first."""

    def __init__(self, instance: Instance, store: EmbeddedStore, log: Log, roots: Mapping[str, Files]) -> None:
        self._instance = instance
        self._store = store
        self._log = log
        self._roots = roots
        self._files = next(iter(roots.values()))
        # An aborted freeze may leave its thread behind: it and the next freeze's must not write one file at a time.
        self._marking = threading.Lock()
        self._newest_mark = ""

    @property
    def gate(self) -> Gate:
        return self._store.gate

    def info(self) -> InstanceInfo:
        return InstanceInfo(self._instance.handle, self._instance.name, tuple(self._store.databases().values()))

    def obstacle(self) -> str | None:
        if self._instance.backups:
            return f"a streaming backup of {self._instance.name} is in progress"
        why = _OBSTACLES.get(self._instance.state)
        return f"{self._instance.name} {why}" if why else None

    def circular_logging(self) -> bool:
        return bool(self._instance.parameters.number(Param.CircularLog))

    def last_full(self) -> Stamp | None:
        data = read_if_there(self._files, STAMP_FILE)
        if data is None:
            return None
        try:
            stamp = msgspec.json.decode(data, type=Stamp)
        except msgspec.DecodeError:
            return None
        return stamp if set(self._store.databases().values()) <= set(stamp.databases) else None

    def commits_waiting(self) -> int:
        return self._store.commits_waiting

    # -- freezing ---------------------------------------------------------------------------------------------
    async def mark(self, snap_id: int, marker_id: str, time: float) -> None:
        new = marker.Marker(snap_id, marker_id, time, position_text(self._log.end), str(self._log.incarnation), len(self._roots))
        self._newest_mark = marker_id
        await asyncio.to_thread(self._mark, new)

    def _mark(self, new: marker.Marker) -> None:
        with self._marking, self.gate.permit("snapshot marker"):
            if self._newest_mark != new.marker_id:
                return
            if len(self._roots) > 1:  # a single root has none that it could disagree with
                for name, files in self._roots.items():
                    old = marker.read(read_if_there(files, marker.FILE_NAME), name)
                    files.replace(marker.FILE_NAME, marker.first_round(old, new))
            hit("snapshot.between_markers")
            for files in self._roots.values():
                files.replace(marker.FILE_NAME, marker.second_round(new))

    async def seal(self) -> None:
        await self._log.settle()

    def files(self, *, logs_only: bool) -> list[FileEntry]:
        """What a copy must hold: logs, checkpoint, marker, and the databases unless only logs are wanted."""
        databases = set(self._store.databases().values())
        return [entry for entry in self._walk() if not (logs_only and entry.path in databases)]

    def _walk(self) -> Iterator[FileEntry]:
        databases = sorted(self._store.databases().values())
        names = self._files.list()
        own = [n for n in names if self._is_log_file(n) or n in (marker.FILE_NAME, STAMP_FILE)]
        for path in [*own, *databases]:
            file = self._files.open(path, read_only=True)
            try:
                yield FileEntry(path, file.size())
            finally:
                file.close()

    def _is_log_file(self, name: str) -> bool:
        names = self._log.names
        known = (names.current, names.prepared, names.checkpoint)
        return not name.endswith(ASIDE) and (name in known or names.number(name) is not None)

    def log_range(self) -> LogRange:
        generations = self._log.generations()
        return LogRange(generations[0], generations[-1], position_text(self._log.end))

    async def pin(self) -> Pinned:
        return PinnedDigests(dict(self._store.databases()), await self._store.begin(read_only=True))

    # -- around it --------------------------------------------------------------------------------------------
    def freeze_began(self, snap_id: int) -> None:
        self._instance.snapshot_holds.add(snap_id)

    def freeze_over(self, snap_id: int) -> None:
        self._instance.snapshot_holds.discard(snap_id)  # a session may end without having frozen

    async def let_out(self) -> None:
        await self._log.flush()

    async def stamp(self, stamp: Stamp) -> None:
        await asyncio.to_thread(self._stamp, stamp)

    def _stamp(self, stamp: Stamp) -> None:
        with self.gate.permit("snapshot stamp"):
            self._files.replace(STAMP_FILE, msgspec.json.encode(stamp))

    async def truncate_log(self) -> Truncation:
        return await asyncio.to_thread(self._truncate)

    def _truncate(self) -> Truncation:
        """Removes what neither recovery nor a backup under way needs; says too what should have been there."""
        checkpoint = self._log.checkpoint()
        if checkpoint is None:
            return Truncation()
        before = self._log.generations()
        with self.gate.permit("log truncation"):
            hit("snapshot.truncating")
            gone = self._log.truncate_before(checkpoint.position)
        if not gone:
            return Truncation()
        expected = range(gone[0], gone[-1] + 1)
        return Truncation(gone[0], gone[-1], len(expected) - len([n for n in before if n in expected]))
