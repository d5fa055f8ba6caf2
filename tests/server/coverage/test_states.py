"""What every function answers while its instance, its session or the server is in a state in which it cannot be served.

For each situation each function that documents its error is called, with params that are valid (tests.support.calls: there
each call succeeds, which is this test's control), and must answer that error and no other.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from jetwire_protocol.declarations import METHODS
from jetwire_server import failpoints
from tests.support.bench import Bench, Line, World
from tests.support.calls import CALLS, Params
from tests.support.shown import documenting, shows_all

OF_SESSIONS = {name for name, method in METHODS.items() if any(member.name == "sesid" and member.required for member in method.params)}
NAMING = {name for name, method in METHODS.items() if any(member.name == "instance" and member.required for member in method.params)}
# Of these a session is one of the ways to say which instance is meant.
BY_SESSION_TOO: dict[str, Params] = {
    "SetSystemParameter": {"instance": None, "sesid": "$sesid"},
    "GetSystemParameter": {"instance": None, "sesid": "$sesid"},
}


async def made_ready(bench: Bench, error: str, among: Iterable[str]) -> list[tuple[str, World, Params]]:
    """A session for each of the functions, brought to where its call would succeed."""
    ready = []
    for method in documenting(error, among=among):
        world = await bench.world()
        if method in OF_SESSIONS:
            await world.ready(method)
        ready.append((method, world, world.params(method, BY_SESSION_TOO.get(method))))
    return ready


async def wrong(ready: list[tuple[str, World, Params]], error: str) -> list[str]:
    found = []
    for method, world, params in ready:
        answer = await world.answer_of(method, params)
        if answer != error:
            found.append(f"{method}: {answer}")
    return found


async def wrong_of_instance(bench: Bench, error: str, instance: int, among: Iterable[str]) -> list[str]:
    """The functions that name this instance, or that mean the only one there is."""
    found = []
    kept = {"instance": instance, "other": instance, "again": instance, "name": "none", "handle": 1, "file": "world.edb", "snap": 1}
    for method in documenting(error, among=among):
        answer = await World(bench.line, kept).name_of(method)
        if answer != error:
            found.append(f"{method}: {answer}")
    return found


SESSIONS = OF_SESSIONS | BY_SESSION_TOO.keys()
INSTANCES = METHODS.keys() - SESSIONS


@asynccontextmanager
async def paused(place: str) -> AsyncIterator[Callable[[], None]]:
    """Whatever comes to this place in a thread beside the loop waits there. Yields what ends that."""
    go_on = threading.Event()
    loop = threading.get_ident()

    def wait() -> None:
        if threading.get_ident() != loop:
            assert go_on.wait(20)

    failpoints.arm(place, wait)
    try:
        yield go_on.set
    finally:
        go_on.set()
        failpoints.disarm(place)


async def turns() -> None:
    """So many that what was begun has come to where it waits."""
    for _ in range(20):
        await asyncio.sleep(0)


# -- the instance -----------------------------------------------------------------------------------------------------
@shows_all("JET_errNotInitialized")
async def test_of_an_instance_that_does_not_run(tmp_path: Path) -> None:
    error = "JET_errNotInitialized"
    async with Bench(tmp_path) as bench:
        ready = await made_ready(bench, error, SESSIONS)
        await bench.line.must("Term", {"instance": bench.instance})
        assert await wrong(ready, error) == []
        again = (await bench.line.must("CreateInstance", {"name": "default"}))["instance"]
        assert await wrong_of_instance(bench, error, again, INSTANCES) == []


@shows_all("JET_errTermInProgress")
async def test_while_an_instance_ends(tmp_path: Path) -> None:
    """It waits for the end of a snapshot session, which counts as a backup from its freeze on."""
    error = "JET_errTermInProgress"
    async with Bench(tmp_path) as bench:
        ready = await made_ready(bench, error, SESSIONS)
        snap = (await bench.line.must("OSSnapshotPrepare", {"grbit": ["ContinueAfterThaw"]}))["snapId"]
        await bench.line.must("OSSnapshotFreeze", {"snapId": snap})
        await bench.line.must("OSSnapshotThaw", {"snapId": snap})
        ending = asyncio.create_task(bench.line.must("Term", {"instance": bench.instance}))
        await turns()
        assert await wrong(ready, error) == []
        assert await wrong_of_instance(bench, error, bench.instance, INSTANCES) == []
        assert not ending.done()
        await bench.line.must("OSSnapshotEnd", {"snapId": snap})
        await ending


@shows_all("JET_errRestoreInProgress")
async def test_while_an_instance_is_restored(tmp_path: Path) -> None:
    """Sessions of the instance that ran on the same data are told so too: there is nothing else that they could wait for."""
    error = "JET_errRestoreInProgress"
    async with Bench(tmp_path) as bench:
        ready = await made_ready(bench, error, SESSIONS)
        await bench.line.must("BackupInstance", {"instance": bench.instance, "destination": "copy"})
        await bench.line.must("Term", {"instance": bench.instance})
        again = (await bench.line.must("CreateInstance", {"name": "default"}))["instance"]
        async with paused("files.before_write") as go_on:
            restoring = asyncio.create_task(bench.line.must("RestoreInstance", {"instance": again, "source": "copy"}))
            await turns()
            assert await wrong(ready, error) == []
            assert await wrong_of_instance(bench, error, again, INSTANCES) == []
            assert not restoring.done()
            go_on()
            await restoring
        assert (await wrong(ready[:1], error)) == [f"{ready[0][0]}: JET_errNotInitialized"]


@shows_all("JET_errInitInProgress")
@shows_all("JET_errBackupNotAllowedYet")
async def test_while_an_instance_starts(tmp_path: Path) -> None:
    async with Bench(tmp_path) as bench:
        await bench.line.must("Term", {"instance": bench.instance})
        again = (await bench.line.must("CreateInstance", {"name": "default"}))["instance"]
        async with paused("files.read") as go_on:
            starting = asyncio.create_task(bench.line.must("Init", {"instance": again}))
            await turns()
            for error in ("JET_errInitInProgress", "JET_errBackupNotAllowedYet"):
                assert await wrong_of_instance(bench, error, again, METHODS) == []
            assert not starting.done()
            go_on()
            await starting


@shows_all("JET_errInstanceUnavailable")
async def test_after_a_write_that_failed(tmp_path: Path) -> None:
    error = "JET_errInstanceUnavailable"
    async with Bench(tmp_path) as bench:
        ready = await made_ready(bench, error, SESSIONS)
        world = await bench.world()

        def fail() -> None:
            raise OSError(5, "the disk is gone")

        failpoints.arm("redo.before_sync", fail)
        try:
            assert await world.name_of("PutRecords") == "JET_errLogWriteFail"
        finally:
            failpoints.disarm("redo.before_sync")
        assert await wrong(ready, error) == []
        assert await wrong_of_instance(bench, error, bench.instance, INSTANCES) == []
        await bench.line.must("Term", {"instance": bench.instance})  # which alone helps, with the start that comes after it


GIVING_BACK = ("Rollback", "CloseTable", "EndSession", "CloseDatabase", "ResetSessionContext")


@shows_all("JET_errClientRequestToStopJetService")
async def test_after_stop_service(tmp_path: Path) -> None:
    error = "JET_errClientRequestToStopJetService"
    async with Bench(tmp_path) as bench:
        ready = await made_ready(bench, error, SESSIONS)
        giving_back = [(method, await bench.world()) for method in GIVING_BACK]
        for method, world in giving_back:
            await world.ready(method)
        await bench.line.must("StopServiceInstance", {"instance": bench.instance})
        assert await wrong(ready, error) == []
        assert await wrong_of_instance(bench, error, bench.instance, INSTANCES) == []
        for method, world in giving_back:
            assert await world.name_of(method) == "JET_errSuccess", method


# -- handles ----------------------------------------------------------------------------------------------------------
@shows_all("JET_errInvalidSesid")
@pytest.mark.parametrize("dead", ["ended", "never given", "another connection's"])
async def test_a_session_that_is_none(dead: str, tmp_path: Path) -> None:
    """Every function that takes a session says so, not only those that document it."""
    async with Bench(tmp_path) as bench:
        found = []
        for method in sorted(SESSIONS):
            world = await bench.world()
            await world.ready(method)
            sesid = world.kept["sesid"]
            if dead == "ended":
                await bench.line.ask("ResetSessionContext", {"sesid": sesid})
                await bench.line.must("EndSession", {"sesid": sesid})
            params = {**world.params(method, BY_SESSION_TOO.get(method)), "sesid": 1 << 40 if dead == "never given" else sesid}
            line = Line(bench, "somebody else") if dead == "another connection's" else bench.line
            answer = await World(line, world.kept).answer_of(method, params)
            if answer != "JET_errInvalidSesid":
                found.append(f"{method}: {answer}")
            await line.peer.close() if line is not bench.line else None
            await world.over(method)
        assert found == []


@shows_all("JET_errInvalidInstance")
async def test_an_instance_that_is_none(tmp_path: Path) -> None:
    """The same for every function that takes an instance."""
    async with Bench(tmp_path) as bench:
        found = []
        for method in sorted(NAMING | set(documenting("JET_errInvalidInstance"))):
            world = await bench.world()
            await world.do(tuple(step for step in CALLS[method].before if step.method.startswith("OSSnapshot")))
            kept = {"handle": 1, "file": "world.edb", **world.kept, **dict.fromkeys(("instance", "other", "again"), 1 << 40)}
            answer = await World(bench.line, kept).name_of(method)
            if answer != "JET_errInvalidInstance":
                found.append(f"{method}: {answer}")
            await bench.line.ask("OSSnapshotAbort", {"snapId": world.kept.get("snap", 1)})
        assert found == []


@shows_all("JET_errRunningInMultiInstanceMode")
async def test_calls_that_mean_the_only_instance_where_there_are_two(tmp_path: Path) -> None:
    error = "JET_errRunningInMultiInstanceMode"
    async with Bench(tmp_path) as bench:
        second = (await bench.line.must("CreateInstance", {"name": "second"}))["instance"]
        await bench.line.must("Init", {"instance": second})
        assert await wrong_of_instance(bench, error, bench.instance, METHODS) == []


def test_the_situations_are_of_the_table() -> None:
    assert CALLS.keys() >= SESSIONS
