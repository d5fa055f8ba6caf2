"""What is used up: memory, threads, file handles, space, and the limits of the server's own."""

from __future__ import annotations

import asyncio
import errno
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from jetwire_server import failpoints
from tests.support.bench import Bench
from tests.support.calls import BEGIN, OTHER, OTHER_GONE, Params, Step
from tests.support.shown import Case, documenting, failures, shows, shows_all, shows_cases, shows_entries

ROOMS = tuple(f"/jetwire_server/{room}/" for room in ("engine", "backup", "snapshot", "rpc/handlers"))
OF_ONE_FILE = {"OpenFile", "OpenFileInstance"}  # in a backup: shown by test_sequences
HANDLERS_ONLY = {"GetInstanceInfo"}  # which asks the engine for nothing


def in_background(frame: FrameType | None) -> bool:
    """Whether this is nobody's call: a snapshot's watch and the event table's writer look at the clock all the time."""
    while frame is not None and frame.f_code.co_name not in ("_keep_watch", "holding"):
        frame = frame.f_back
    return frame is not None


@contextmanager
def no_memory(rooms: tuple[str, ...]) -> Iterator[list[str]]:
    """The first line that is run in one of these rooms finds no memory. Yields where that was."""
    where: list[str] = []
    before = sys.gettrace()

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        code = frame.f_code
        if not where and event == "line" and any(room in code.co_filename for room in rooms) and not in_background(frame):
            where.append(f"{code.co_filename}:{frame.f_lineno}")
            raise MemoryError
        return trace

    sys.settrace(trace)
    try:
        yield where
    finally:
        sys.settrace(before)


@shows_all("JET_errOutOfMemory", among=set(documenting("JET_errOutOfMemory")) - OF_ONE_FILE)
async def test_memory(tmp_path: Path) -> None:
    """The call is told, and the same call succeeds when there is memory again."""
    found = []
    async with Bench(tmp_path) as bench:
        for method in documenting("JET_errOutOfMemory"):
            if method in OF_ONE_FILE:
                continue
            world = await bench.world()
            await world.ready(method)
            with no_memory(ROOMS if method in HANDLERS_ONLY else ROOMS[:-1]) as where:
                answer = await world.name_of(method)
            if answer != "JET_errOutOfMemory" or not where:
                found.append(f"{method}: {answer} {where}")
            await world.over(method)
            world = await bench.world()
            await world.ready(method)
            again = await world.name_of(method)
            if again != "JET_errSuccess":
                found.append(f"{method} again: {again}")
            await world.over(method)
    assert not found, "\n".join(found)


@shows("OSSnapshotFreeze", "JET_errOutOfThreads")
async def test_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with Bench(tmp_path) as bench:
        world = await bench.world()
        await world.ready("OSSnapshotFreeze")

        def start(self: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor())  # one without threads that wait for work
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", start)
            assert await world.name_of("OSSnapshotFreeze") == "JET_errOutOfThreads"
        await bench.line.must("OSSnapshotAbort", {"snapId": world.kept["snap"]})
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor())  # the other has kept the work it could not do
        await world.ready("OSSnapshotFreeze")
        assert await world.name_of("OSSnapshotFreeze") == "JET_errSuccess"


# -- what the system says of files ------------------------------------------------------------------------------------
FILES = [
    ("SetDatabaseSize", "files.before_open", errno.EMFILE, "JET_errOutOfFileHandles"),
    ("SetDatabaseSize", "files.before_open", errno.EACCES, "JET_errFileAccessDenied"),
    ("SetDatabaseSize", "files.before_open", errno.ENOSPC, "JET_errDiskFull"),
    ("SetDatabaseSize", "files.before_open", errno.EIO, "JET_errDiskIO"),
    ("SetDatabaseSize", "files.before_open", errno.ENOTDIR, "JET_errInvalidPath"),
    ("AttachDatabase", "files.before_open", errno.EACCES, "JET_errFileAccessDenied"),
    ("OpenFile", "files.before_open", errno.EACCES, "JET_errFileAccessDenied"),
    ("OpenFileInstance", "files.before_open", errno.EACCES, "JET_errFileAccessDenied"),
    *((method, "redo.roll.before_sync", errno.EIO, "JET_errLogWriteFail") for method in ("Backup", "BackupInstance")),
]


@shows_entries((method, error) for method, _, _, error in FILES)
async def test_files(tmp_path: Path) -> None:
    """Each on a server of its own: some of it nothing but a restart can mend."""
    found = []
    for number, (method, place, code, error) in enumerate(FILES):
        async with Bench(tmp_path / str(number)) as bench:
            world = await bench.world()
            await world.ready(method)
            failpoints.arm(place, lambda code=code: _fail(code))  # type: ignore[misc]
            try:
                answer = await world.name_of(method)
            finally:
                failpoints.disarm(place)
            if answer != error:
                found.append(f"{method} {place}: {answer}, not {error}")
    assert not found, "\n".join(found)


def _fail(code: int) -> None:
    raise OSError(code, "injected")


# -- the server's own limits ------------------------------------------------------------------------------------------
def limited(parameter: str, value: int, *more: Step) -> tuple[Step, ...]:
    """An instance with a limit, and a session, a database and a table in it."""
    theirs = {"sesid": "$theirs"}
    return (
        OTHER,
        Step("SetSystemParameter", {"instance": "$other", "paramid": parameter, "paramValue": value}),
        Step("Init", {"instance": "$other"}),
        Step("BeginSession", {"instance": "$other"}, {"theirs": "sesid"}),
        Step("CreateDatabase", {**theirs, "database": "small.edb"}, {"small": "dbid"}),
        *more,
    )


THEIRS = {"sesid": "$theirs"}
OPEN = Step("CreateTable", {**THEIRS, "dbid": "$small", "tablename": "t"}, {"open": "tableid"})
ANOTHER_CLOSED = (
    Step("CreateTable", {**THEIRS, "dbid": "$small", "tablename": "u"}, {"another": "tableid"}),
    Step("CloseTable", {**THEIRS, "tableid": "$another"}),
)
THEIR_TABLE: Params = {**THEIRS, "tableid": "$open"}
LIMITS = [
    Case("BeginSession", "JET_errOutOfSessions", {"instance": "$other"}, limited("MaxSessions", 1), after=OTHER_GONE),
    Case("DupSession", "JET_errOutOfSessions", THEIRS, limited("MaxSessions", 1), after=OTHER_GONE),
    Case(
        "OpenTable",
        "JET_errTooManyOpenTables",
        {**THEIRS, "dbid": "$small", "tablename": "u"},
        limited("MaxOpenTables", 1, *ANOTHER_CLOSED, OPEN),
        after=OTHER_GONE,
    ),
    *(
        Case(method, "JET_errOutOfCursors", params, limited("MaxCursors", 1, OPEN), bare=True, after=OTHER_GONE)
        for method, params in {
            "OpenTable": {**THEIRS, "dbid": "$small", "tablename": "t"},
            "DupCursor": THEIR_TABLE,
            "OpenTempTable": THEIRS,
            "OpenTemporaryTable": THEIRS,
        }.items()
    ),
    *(
        Case(method, "JET_errTooManySorts", params, limited("MaxTemporaryTables", 0, OPEN), bare=True, after=OTHER_GONE)
        for method, params in {
            "OpenTempTable": THEIRS,
            "OpenTemporaryTable": THEIRS,
        }.items()
    ),
]


@shows_cases(LIMITS)
async def test_limits(tmp_path: Path) -> None:
    wrong = await failures(tmp_path, LIMITS)
    assert not wrong, "\n".join(wrong)


@shows("Delete", "JET_errVersionStoreOutOfMemory")
@shows("Update", "JET_errVersionStoreOutOfMemory")
async def test_memory_for_versions(tmp_path: Path) -> None:
    async with Bench(tmp_path) as bench:
        for method in ("Delete", "Update"):
            world = await bench.world()
            await world.do((BEGIN,))
            await world.ready(method)
            usage = bench.hosting.backups.storage_of(bench.hosting.engine.instance(bench.instance)).store.timeline.usage
            limit, usage.limit = usage.limit, usage.used
            assert await world.name_of(method) == "JET_errVersionStoreOutOfMemory", method
            usage.limit = limit
            await world.over(method)
