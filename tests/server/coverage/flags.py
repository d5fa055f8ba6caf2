"""One server for the tests of a module that show what flags do, and short ways to call it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.support.bench import Bench, World, name_of
from tests.support.calls import Params, Step


class Player:
    """A world of one's own, and calls to it by name: the params are the table's but for those given."""

    def __init__(self, bench: Bench, world: World) -> None:
        self.bench = bench
        self.world = world
        self.kept = world.kept

    async def play(self, *steps: Step) -> Player:
        await self.world.do(steps)
        return self

    async def ready(self, method: str) -> Player:
        await self.world.ready(method)
        return self

    def _params(self, method: str, given: Params) -> Params:
        params = self.world.params(method, {name: value for name, value in given.items() if value is not ...})
        return {name: value for name, value in params.items() if given.get(name) is not ...}

    async def __call__(self, method: str, **given: Any) -> dict[str, Any]:
        """The result of a call that has to succeed. `...` leaves one of the table's params out."""
        return await self.world.line.must(method, self._params(method, given))

    async def answer(self, method: str, **given: Any) -> str:
        """What came of a call, by name."""
        return name_of(await self.world.line.ask(method, self._params(method, given)))

    def showed(self, method: str, flag: str) -> None:
        """Of a flag whose effect comes with an error, or that stands in a result: what was just asserted shows it."""
        self.bench.seen.add((method, flag))

    async def value(self, column: str, **given: Any) -> Any:
        return (await self("RetrieveColumn", columnid=column, **given))["data"]

    async def walk(self, column: str = "id", step: Any = "Next", start: Any = "First", **moving: Any) -> list[Any]:
        """The values of a column along the current index; `start` None: from where the cursor is."""
        found = []
        if start is not None and await self.answer("Move", numRows=start) != "JET_errSuccess":
            return []
        while True:
            found.append(await self.value(column))
            if await self.answer("Move", numRows=step, **moving) != "JET_errSuccess":
                return found

    async def insert(self, **values: Any) -> None:
        await self("PutRecords", records=[values])


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def bench(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    root: Path = tmp_path_factory.mktemp("flags")
    async with Bench(root) as made:
        yield made


@pytest_asyncio.fixture(loop_scope="module")
async def play(bench: Bench) -> AsyncIterator[Player]:
    world = await bench.world()
    yield Player(bench, world)
    await world.over()
