"""An engine instance on the embedded store, as a snapshot session sees it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import msgspec

from jetwire_protocol.data.parameters import Param
from jetwire_protocol.errors import JetError
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
from jetwire_server.snapshot.roots import marker_path, read_marker, roots_of
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
    """See `participant.Participant`. `files` is the instance's directory."""

    def __init__(self, instance: Instance, store: EmbeddedStore, log: Log, files: Files) -> None:
        self._instance = instance
        self._store = store
        self._log = log
        self._files = files
        # An aborted freeze may leave its thread behind: it and the next freeze's must not write one file at a time.
        self._marking = threading.Lock()
        self._newest_mark = ""
        self._copied = Position(0, 0, 0)  # the log up to here is in the last snapshot's copy

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
        covered = set(self._store.databases().values()) <= set(stamp.databases)
        continued = int(stamp.position.partition(":")[0], 16) >= self._log.generations()[0]  # else a backup removed what came after it
        return stamp if covered and continued and stamp.incarnation == self._log.incarnation else None

    def commits_waiting(self) -> int:
        return self._store.commits_waiting

    # -- freezing ---------------------------------------------------------------------------------------------
    async def mark(self, snap_id: int, marker_id: str, time: float, *, logs_only: bool) -> None:
        position = position_text(self._log.end)
        roots = tuple(roots_of(self._log.names, (file.path for file in self._store.files.values() if not file.read_only)))
        self._newest_mark = marker_id
        await asyncio.to_thread(self._mark, marker.Marker(snap_id, marker_id, time, position, self._log.incarnation, roots, logs_only))

    def _mark(self, new: marker.Marker) -> None:
        with self._marking, self.gate.permit("snapshot marker"):
            if self._newest_mark != new.marker_id:
                return
            if len(new.roots) > 1:  # a single root has none that it could disagree with
                for root in new.roots:
                    self._files.replace(marker_path(root), marker.first_round(self._standing(root), new))
            hit("snapshot.between_markers")
            for root in new.roots:
                self._files.replace(marker_path(root), marker.second_round(new))

    def _standing(self, root: str) -> marker.RootMarkers:
        try:
            return read_marker(self._files, root)
        except JetError:  # damaged: a start would have said so, and the new one takes its place
            return marker.RootMarkers()

    async def seal(self) -> None:
        await self._log.settle()

    def files(self, *, logs_only: bool) -> list[FileEntry]:
        """What a copy must hold: logs, checkpoint, markers, and the databases unless only logs are wanted."""
        return list(self._walk([] if logs_only else sorted(self._store.databases().values())))

    def _walk(self, databases: Sequence[str]) -> Iterator[FileEntry]:
        marked = map(marker_path, roots_of(self._log.names, databases))
        own = [path for path in (STAMP_FILE, *marked) if self._files.exists(path)]
        for path in [*sorted(self._log_files()), *own, *databases]:
            file = self._files.open(path, read_only=True)
            try:
                yield FileEntry(path, file.size())
            finally:
                file.close()

    def _log_files(self) -> Iterator[str]:
        names = self._log.names
        known = (names.current, names.prepared, names.checkpoint)
        for name in self._files.list(names.directory):
            path = names.path(name)
            if not name.endswith(ASIDE) and (path in known or names.number(name) is not None):
                yield path

    def log_range(self) -> LogRange:
        self._copied = self._log.end
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
            self._files.replace(STAMP_FILE, msgspec.json.encode(replace(stamp, incarnation=self._log.incarnation)))

    async def truncate_log(self) -> Truncation:
        return await asyncio.to_thread(self._truncate)

    def _truncate(self) -> Truncation:
        """Removes what is in the copy, and neither recovery nor a backup under way needs; says too what should have been there."""
        checkpoint = self._log.checkpoint()
        if checkpoint is None:
            return Truncation()
        before = self._log.generations()
        with self.gate.permit("log truncation"):
            hit("snapshot.truncating")
            gone = self._log.truncate_before(min(checkpoint.position, self._copied))
        if not gone:
            return Truncation()
        expected = range(gone[0], gone[-1] + 1)
        return Truncation(gone[0], gone[-1], len(expected) - len([n for n in before if n in expected]))
