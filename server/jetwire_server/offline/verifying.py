"""`jetwired verify`: proves that a copy is what its manifest says, by doing with it what a restore would do.

Before recovery: the files and sizes, the marker on every root, the log up to exactly the frozen position. After it:
every page read, tables, records and digests of every database. Recovery writes, so it is done in a scratch copy: the
copy stays what it was, may be read-only, and can be verified again. The result is noted in a file beside it.
"""

from __future__ import annotations

import getpass
import os
import socket
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from jetwire_protocol.errors import Err, JetError
from jetwire_server.clock import Clock
from jetwire_server.files.local import LocalFiles
from jetwire_server.offline.checking import Progress, check_instance
from jetwire_server.offline.copying import scratch_copy
from jetwire_server.offline.places import Place, instances_at
from jetwire_server.offline.recovering import digests, recovered, scrubbed
from jetwire_server.redo.position import Position
from jetwire_server.redo.reader import LogReader, discover
from jetwire_server.snapshot.manifest import InstanceRow, Manifest
from jetwire_server.snapshot.participant import DatabaseDigest
from jetwire_server.snapshot.roots import markers

RECORD_SUFFIX = ".verified.jsonl"


@dataclass
class Result:
    """`problems` is empty if the copy is good; `notes` say what could not be compared."""

    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    instances: list[dict[str, Any]] = field(default_factory=list)

    @property
    def good(self) -> bool:
        return not self.problems


def load_manifest(path: Path) -> list[Manifest]:
    """The manifests of a run, one a server. A file that is none is a `ValueError`."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=list[Manifest])
    except ValueError as error:
        raise ValueError(f"{path} is no manifest: {error}") from error


async def verify(path: Path, manifests: Sequence[Manifest], clock: Clock, progress: Progress) -> Result:
    """Everything there is to know about a copy."""
    result = Result()
    try:
        places = instances_at(path)
    except JetError as error:
        result.problems.append(error.detail)
        return result
    try:
        expected = _expected(places, manifests, result)
    except JetError as error:
        result.problems.append(error.detail)
        return result
    for place in places:
        await _verify_instance(place, expected.get(place.name), clock, progress, result)
    return result


def _expected(places: list[Place], manifests: Sequence[Manifest], result: Result) -> dict[str, InstanceRow]:
    """Which manifest belongs to this copy: the one whose marker it bears."""
    if not manifests:
        result.notes.append("no manifest was given: the copy is checked, but compared with nothing")
        return {}
    marked = {place.name: _marked(place) for place in places}
    for manifest in manifests:
        rows = {row.name: row for row in manifest.instances}
        if len(places) == 1 and len(rows) == 1:  # a copy of one instance may have any name
            rows = {places[0].name: next(iter(rows.values()))}
        if not any(manifest.marker in marked[name].values() for name in rows if name in marked):
            continue
        for name in rows:
            if name not in marked:
                result.problems.append(f"instance {name} is in the manifest, but not in the copy")
                continue
            for root, marker_id in marked[name].items():
                if marker_id != manifest.marker:
                    what = f"{name}/{root}" if root else name
                    result.problems.append(f"{what} does not bear the marker of this snapshot: it was copied at another time")
        return rows
    wanted = ", ".join(manifest.marker for manifest in manifests)
    result.problems.append(f"no instance here bears the marker of the manifest ({wanted}): this is a copy of something else")
    return {}


def _marked(place: Place) -> dict[str, str | None]:
    """Which snapshot's marker each root of a copy bears. A copy of logs only need not have the roots of databases."""
    found = markers(place.files, place.names)
    log = found[place.names.directory].sealed
    wanted = {"", place.names.directory} if log and log.logs_only else found
    return {root: read.sealed.marker_id if read.sealed else None for root, read in sorted(found.items()) if root in wanted}


async def _verify_instance(place: Place, row: InstanceRow | None, clock: Clock, progress: Progress, result: Result) -> None:
    say = result.problems.append
    before = len(result.problems)
    try:
        if row is not None:
            for problem in (*_compare_files(place, row), *_compare_log(place, row)):
                say(problem)
        for fault in check_instance(place, progress):
            say(f"{place.name}: {fault}")
        if len(result.problems) > before:
            return
        progress(f"{place.name}: recovery")
        with scratch_copy(place) as scratch:
            found = await _recover(scratch, clock, progress, result)
        if row is None:
            return
        for wanted in row.databases:
            there = found.get(wanted.name)
            if there is None:
                say(f"{place.name}: database {wanted.name} is not there after recovery")
            elif wanted.digest is None:
                result.notes.append(f"{place.name}: the manifest has no digest of {wanted.name}")
            elif (there.tables, there.records, there.digest) != (wanted.tables, wanted.records, wanted.digest):
                say(
                    f"{place.name}: {wanted.name} holds {there.tables} tables, {there.records} records, digest {there.digest}; "
                    f"frozen were {wanted.tables} tables, {wanted.records} records, digest {wanted.digest}"
                )
        for name in sorted(set(found) - {wanted.name for wanted in row.databases}):
            say(f"{place.name}: database {name} is not in the manifest")
    except (JetError, OSError, ValueError) as error:
        if isinstance(error, JetError) and error.code == Err.DiskFull:
            raise  # of the scratch copy: that says nothing about this one
        say(f"{place.name}: {error}")


async def _recover(place: Place, clock: Clock, progress: Progress, result: Result) -> dict[str, DatabaseDigest]:
    """What every database holds after recovery, by name."""
    async with recovered(place, clock) as storage:
        for fault in await scrubbed(storage):
            result.problems.append(f"{place.name}: {fault}")
        progress(f"{place.name}: digests")
        found = await digests(storage)
        result.instances.append({"name": place.name, "position": str(storage.log.end), "databases": msgspec.to_builtins(found)})
    return {one.name: one for one in found}


def _compare_files(place: Place, row: InstanceRow) -> list[str]:
    problems = []
    for wanted in row.files:
        path = place.root / wanted.path
        if not path.is_file():
            problems.append(f"{place.name}: {wanted.path} is missing")
        elif path.stat().st_size != wanted.size:
            problems.append(f"{place.name}: {wanted.path} has {path.stat().st_size} bytes, frozen were {wanted.size}")
    return problems


def _compare_log(place: Place, row: InstanceRow) -> list[str]:
    """The log must hold the frozen position and nothing after it."""
    generation, sector, byte = (int(part, 16) for part in row.log.position.split(":"))
    frozen = Position(generation, sector, byte)
    generations = discover(place.files, place.names)
    if generations[0].number > row.log.gen_low:
        return [f"{place.name}: log generation {row.log.gen_low:X} is missing; the copy begins with {generations[0].number:X}"]
    beyond = next(iter(LogReader(place.files, generations).records(frozen)), None)
    if beyond is not None:
        return [f"{place.name}: the log goes on beyond the frozen position {row.log.position}: it was copied after the thaw"]
    return []


def note(path: Path, result: Result, manifest: Path | None, clock: Clock) -> Path | None:
    """Appends who verified the copy, when, and what was found, to a file beside it. None if nothing can be written there."""
    path = path.resolve()
    line = {
        "time": clock.now(),
        "who": f"{_user()}@{socket.gethostname()}",
        "copy": str(path),
        "manifest": str(manifest.resolve()) if manifest else None,
        "result": "good" if result.good else "bad",
        "problems": result.problems,
        "notes": result.notes,
        "instances": result.instances,
    }
    record = path.parent / (path.name + RECORD_SUFFIX)
    if not os.access(record.parent, os.W_OK):
        return None
    with closing(LocalFiles(record.parent).open(record.name, create=True)) as file:
        size = file.size()
        try:
            file.write(size, msgspec.json.encode(line) + b"\n")
            file.sync()
        except JetError as error:
            if error.code != Err.DiskFull:
                raise
            file.truncate(size)
            return None
    return record


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container whose user has no name
        return f"uid {os.getuid()}"
