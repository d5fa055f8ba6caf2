"""Which instances are brought up at the next start: marks in their directories, whoever begins and ends beside whom."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from jetwire_protocol.data.parameters import Param
from jetwire_protocol.errors import Err, JetError
from jetwire_server import failpoints
from jetwire_server.clock import SystemClock
from jetwire_server.engine.indexes import UnicodeIndex
from jetwire_server.engine.instance import State
from jetwire_server.events import EventLog
from jetwire_server.files.local import LocalFiles
from jetwire_server.hosting import RUNNING_FILE, Hosting


def marked(data: Path) -> set[str]:
    return {path.parent.name for path in data.glob(f"*/{RUNNING_FILE}")}


async def test_instances_that_begin_and_end_at_the_same_time(tmp_path: Path) -> None:
    hosting = Hosting(LocalFiles(tmp_path), SystemClock(), EventLog())
    await hosting.start()
    others = [await hosting.engine.create_instance(name) for name in "ab"]
    try:
        for name in ("files.before_rename", "files.before_remove"):
            failpoints.arm(name, lambda: time.sleep(0.02))
        for instance in others:
            await instance.init()
        await asyncio.gather(hosting.remember(), hosting.remember(), hosting.remember())
        assert marked(tmp_path) == {"default", "a", "b"}
        await others[0].term()
        gone = asyncio.create_task(hosting.remember())
        await asyncio.sleep(0.01)
        gone.cancel()  # its caller's connection closes
        await others[1].term()
        await asyncio.gather(hosting.remember(), hosting.remember())
        assert marked(tmp_path) == {"default"}
    finally:
        failpoints.disarm()
        assert await hosting.stop() == []


async def again(data: Path) -> Hosting:
    hosting = Hosting(LocalFiles(data), SystemClock(), EventLog())
    await hosting.start()
    return hosting


def running(hosting: Hosting) -> set[str]:
    return {one.name for one in hosting.engine.instances.values() if one.state is State.RUNNING}


async def test_a_name_that_differs_from_default_by_case_alone(tmp_path: Path) -> None:
    hosting = await again(tmp_path)
    await next(iter(hosting.engine.instances.values())).term()
    await (await hosting.engine.create_instance("Default")).init()
    await hosting.remember()
    await hosting.stop()
    hosting = await again(tmp_path)
    assert running(hosting) == {"Default"}
    await hosting.stop()


async def test_more_instances_than_a_fresh_server_would_take(tmp_path: Path) -> None:
    hosting = await again(tmp_path)
    hosting.engine.set_parameter(Param.MaxInstances, 4)
    for name in "abc":
        await (await hosting.engine.create_instance(name)).init()
    await hosting.remember()
    await hosting.stop()
    hosting = Hosting(LocalFiles(tmp_path), SystemClock(), EventLog())
    hosting.engine.set_parameter(Param.MaxInstances, 2)
    await hosting.start()
    assert running(hosting) == {"default", "a", "b", "c"}
    with pytest.raises(JetError) as refused:
        await hosting.engine.create_instance("d")
    assert refused.value.code == Err.TooManyInstances
    await hosting.stop()


async def test_a_damaged_instance_does_not_keep_the_others_from_running(tmp_path: Path) -> None:
    hosting = await again(tmp_path)
    for name in "ab":
        await (await hosting.engine.create_instance(name)).init()
    await hosting.remember()
    await hosting.stop()
    log = tmp_path / "a" / "edb.log"
    whole = log.read_bytes()
    log.write_bytes(b"x" * 100 + whole[100:])

    hosting = await again(tmp_path)
    assert running(hosting) == {"default", "b"}
    error = hosting.not_started["a"]
    assert list(hosting.not_started) == ["a"]
    assert isinstance(error, JetError)
    assert error.code == Err.LogFileCorrupt
    assert marked(tmp_path) == {"default", "a", "b"}  # it is to run: the next start tries again
    log.write_bytes(whole)
    damaged = next(one for one in hosting.engine.instances.values() if one.name == "a")
    await damaged.init()
    await damaged.term()
    await hosting.remember()
    assert marked(tmp_path) == {"default", "b"}
    await hosting.stop()


async def test_a_server_of_which_nothing_runs_does_not_start(tmp_path: Path) -> None:
    hosting = await again(tmp_path)
    await hosting.stop()
    (tmp_path / "default" / "edb.log").write_bytes(b"x" * 5000)
    hosting = Hosting(LocalFiles(tmp_path), SystemClock(), EventLog())
    with pytest.raises(JetError) as refused:
        await hosting.start()
    assert refused.value.code == Err.LogFileCorrupt
    await hosting.stop()


async def test_an_instance_runs_again_with_its_parameters(tmp_path: Path) -> None:
    hosting = await again(tmp_path)
    instance = await hosting.engine.create_instance("a")
    for paramid, value in GIVEN.items():
        instance.set_parameter(paramid, value)
    await instance.init()
    await (await instance.begin_session()).create_database("a.edb")
    await hosting.remember()
    await hosting.stop()

    hosting = await again(tmp_path)
    instance = next(one for one in hosting.engine.instances.values() if one.name == "a")
    assert {paramid: instance.parameters.get(paramid) for paramid in GIVEN} == GIVEN
    assert [database.path for database in instance.databases.values()] == ["a.edb"]
    assert not (tmp_path / "a" / "edb.log").exists()
    await hosting.stop()

    (tmp_path / "a" / RUNNING_FILE).write_bytes(b"{")
    hosting = await again(tmp_path)
    assert list(hosting.not_started) == ["a"]  # not with other parameters: it would be empty
    await hosting.stop()
    (tmp_path / "a" / RUNNING_FILE).write_bytes(b"")  # as older servers left it
    hosting = await again(tmp_path)
    assert running(hosting) == {"default", "a"}
    await hosting.stop()


GIVEN = {
    Param.LogFilePath: "logs",
    Param.BaseName: "abc",
    Param.CircularLog: True,
    Param.MaxSessions: 5,
    Param.UnicodeIndexDefault: UnicodeIndex(0, "de-DE", 1),
}
