"""Killed, started again, and then a power cut: what the start found in memory only must be durable before more is promised."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import pytest

from jetwire_protocol.errors import JetError
from jetwire_server.files.memory import Instant, MemoryFiles
from jetwire_server.redo.generation import DATA_START
from jetwire_server.redo.log import Log
from jetwire_server.redo.records import Kind
from tests.server.redo.logs import payloads, started
from tests.support.powercut import Image, images

ROOM = 64 * 1024 - DATA_START
LIFE = [b"first", b"second" * 2000, b"spans" * 30_000, b"last"]
MORE = [b"more", b"m" * (ROOM // 2), b"n" * ROOM]  # a next file is made, and taken

Moment = tuple[str, Instant, int]  # about to do what, what is there, and how many of the records were promised by then


class Watched:
    """Takes the moments at which something is about to be synced or to change its name: between them no more can be lost."""

    def __init__(self) -> None:
        self.moments: list[Moment] = []
        self.files = MemoryFiles(step=self.step)
        self.promised = 0

    def step(self, what: str, path: str) -> None:
        if what not in ("write", "allocate", "truncate"):
            promised = self.promised
            self.moments.append((f"{what} {path}", self.files.instant(), promised))

    async def write(self, log: Log, records: list[bytes]) -> None:
        for payload in records:
            await log.write(Kind.COMMIT, payload)
            self.promised += 1


async def killed(records: list[bytes]) -> list[Moment]:
    life = Watched()
    log = started(life.files)
    await life.write(log, records)
    await log.close()
    return life.moments


async def cut_again(before: Moment) -> Iterator[tuple[str, Image, list[bytes], int]]:
    """Every image of every cut after a start on what a kill left; with what may be there, and how much of it must."""
    killed_at, instant, promised = before
    after = Watched()
    after.files = MemoryFiles.after_kill(instant, step=after.step)
    found = payloads(after.files)
    assert len(found) >= promised
    after.promised = promised
    log = started(after.files)
    after.promised = len(found)
    await after.write(log, MORE)
    await log.close()
    wanted = [*found, *MORE]
    return (
        (f"killed at {killed_at}, cut at {what}, {image.how}", image, wanted, least)
        for what, cut, least in after.moments
        for image in images(cut, Random(0), 0)
    )


async def test_a_power_cut_after_a_kill_loses_nothing_that_was_promised() -> None:
    states = 0
    for before in await killed(LIFE):
        for how, image, wanted, least in await cut_again(before):
            try:
                found = payloads(image.open())
            except JetError as error:
                pytest.fail(f"{how}: {error}")
            assert found == wanted[: len(found)], how
            assert len(found) >= least, how
            states += 1
    assert states > 1000
