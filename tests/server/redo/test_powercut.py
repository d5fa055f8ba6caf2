"""Power cuts at every step of a running log: what was acknowledged as durable is there, and the log goes on."""

from __future__ import annotations

from random import Random

import pytest

from jetwire_protocol.errors import JetError
from jetwire_server.files.memory import Instant, MemoryFiles
from jetwire_server.redo.records import Kind
from tests.server.redo.logs import payloads, started, write_all
from tests.support.powercut import images


async def scenes(seed: int, *, sync_works: bool = True) -> list[tuple[Instant, list[bytes], list[bytes]]]:
    """Instants of one run: with what had been appended and what had been acknowledged durable when it was taken."""
    rng = Random(seed)
    appended: list[bytes] = []
    acknowledged: list[bytes] = []
    taken: list[tuple[Instant, list[bytes], list[bytes]]] = []

    def step(what: str, _path: str) -> None:
        if len(appended) > 2 and (what != "write" or rng.random() < 0.3):
            known = list(acknowledged)  # first: what is acknowledged while the instant is made does not count
            taken.append((files.instant(), [], known))

    files = MemoryFiles(step=step, sync_works=sync_works)
    log = started(files)
    for number in range(60):
        payload = b"%d:" % number + rng.randbytes(rng.choice((0, 10, 300, 3000, 20_000)))
        durable = rng.random() < 0.5
        appended.append(payload)
        await log.write(Kind.COMMIT, payload, durable=durable)
        if durable:
            acknowledged[:] = appended
    await log.close()
    return [(instant, appended, known) for instant, _, known in taken]


async def check(seed: int, samples: int, at_most: int, *, sync_works: bool = True) -> int:
    rng = Random(seed)
    found = await scenes(seed, sync_works=sync_works)
    states = 0
    for instant, appended, known in rng.sample(found, min(at_most, len(found))):
        for image in images(instant, rng, samples):
            files = image.open()
            try:
                recovered = payloads(files)
            except JetError as error:
                raise AssertionError(f"{image.how}: {error}") from error
            assert recovered == appended[: len(recovered)], image.how
            assert len(recovered) >= len(known), f"{image.how}: an acknowledged commit is lost"
            states += 1
            if states % 10 == 0:
                await write_all(files, [b"on it goes"])
                assert payloads(files) == [*recovered, b"on it goes"], image.how
    return states


@pytest.mark.parametrize("seed", range(3))
async def test_what_was_acknowledged_survives_any_power_cut(seed: int) -> None:
    assert await check(seed, samples=4, at_most=25) > 100


@pytest.mark.torture
@pytest.mark.parametrize("seed", range(100, 140))
async def test_what_was_acknowledged_survives_many_power_cuts(seed: int) -> None:
    assert await check(seed, samples=20, at_most=200) > 1000


async def test_control_a_sync_that_lies_loses_commits() -> None:
    with pytest.raises(AssertionError, match=r"lost|Missing|Corrupt"):
        await check(1, samples=4, at_most=25, sync_works=False)
