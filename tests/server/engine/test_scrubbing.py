"""The scrub of a running instance: what it finds, when it runs, and that it hinders nobody."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from jetwire_protocol.data.parameters import Param
from jetwire_server import limits
from jetwire_server.events import Event
from tests.support.hosted import Hosted

ROWS = 4_000
BEGINS, DAMAGED = 717, 474


async def made(directory: Path) -> Hosted:
    hosted = await (await Hosted(directory).start()).create()
    await hosted.write(ROWS)
    return hosted


async def damaged(directory: Path) -> None:
    """A row of which nobody reads has one bit changed."""
    await (await made(directory)).stop()
    [path] = directory.rglob("a.edb")
    data = path.read_bytes()
    assert data.count(b"2345 of ") == 1
    path.write_bytes(data.replace(b"2345 of ", b"2344 of "))


def soon(monkeypatch: pytest.MonkeyPatch, after: float = 0.01) -> None:
    monkeypatch.setattr(limits, "SCRUB_AFTER_SECONDS", after)
    monkeypatch.setattr(limits, "SCRUB_PAUSE_SECONDS_MIN", 0.01)


async def at_once_and_again(hosted: Hosted, monkeypatch: pytest.MonkeyPatch) -> None:
    await hosted.instance.scrubbing.stop()
    soon(monkeypatch)
    hosted.instance.parameters.take({Param.DbScanThrottle: 0, Param.DbScanIntervalMinSec: 0})
    hosted.instance.scrubbing.start()


async def until(there: Any) -> None:
    async with asyncio.timeout(20):
        while not there():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def found(hosted: Hosted) -> list[Event]:
    return [event for event in hosted.events if event.id == DAMAGED]


def begun(hosted: Hosted) -> int:
    return sum(event.id == BEGINS for event in hosted.events)


async def test_damage_that_nobody_reads_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await damaged(tmp_path)
    soon(monkeypatch)
    hosted = await Hosted(tmp_path).start()
    await until(lambda: found(hosted))
    [event] = found(hosted)[:1]
    assert event.severity == "error"
    assert event.args["file"] == "a.edb"
    assert event.args["key"].endswith((2345).to_bytes(4, "big").hex())
    assert event.args["what"] == "the checksum does not match"
    await hosted.stop()


async def test_control_a_whole_database_is_read_and_nothing_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await (await made(tmp_path)).stop()
    hosted = await Hosted(tmp_path).start()
    await at_once_and_again(hosted, monkeypatch)
    await until(lambda: begun(hosted) >= 2)
    assert not found(hosted)
    await hosted.stop()


async def test_the_next_one_waits_for_its_interval(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    soon(monkeypatch)
    hosted = await made(tmp_path)
    await until(lambda: begun(hosted))
    await asyncio.sleep(0.3)
    assert begun(hosted) == 1, "a day has not passed"
    await hosted.stop()


async def test_it_pauses_as_long_as_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    soon(monkeypatch, 3600)
    hosted = await made(tmp_path)
    took = []
    for pause in (0, 100):
        hosted.instance.set_parameter(Param.DbScanThrottle, pause)
        began = asyncio.get_running_loop().time()
        await hosted.instance.scrubbing.scrub()
        took.append(asyncio.get_running_loop().time() - began)
    assert took[1] > took[0] + 0.15, "several slices"
    await hosted.stop()


async def test_a_failure_is_not_the_last_scrub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    hosted = await made(tmp_path)

    async def fails(pause: float) -> None:
        raise ValueError(f"pause {pause}")

    hosted.instance.store = _Instead(hosted.instance.store, fails)
    await at_once_and_again(hosted, monkeypatch)
    await until(lambda: begun(hosted) >= 3)
    assert "the scrub of" in caplog.text
    await hosted.stop()


class _Instead:
    """A store whose scrub is another."""

    def __init__(self, store: Any, scrub: Any) -> None:
        self.scrub = scrub
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


@pytest.mark.parametrize("seed", range(12))
async def test_databases_that_go_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """Detached, or the whole instance ended, at one moment or another of a scrub: no fault is told, and nothing is left."""
    soon(monkeypatch, 3600)
    hosted = await made(tmp_path)
    session = hosted.session
    second = await session.create_database("b.edb")
    await session.create_table(second, "u")
    scrub = asyncio.create_task(hosted.instance.store.scrub(0.001))
    for _ in range(seed):
        await asyncio.sleep(0.001)
    if seed % 3:
        for dbid in list(session.opened):
            await session.close_database(dbid)
        await session.detach_database("a.edb")
        if seed % 3 == 2:
            await session.attach_database("a.edb")
        assert await scrub == []
    else:
        scrub.cancel()
        await asyncio.wait([scrub])
    await hosted.stop()
