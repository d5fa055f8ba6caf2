"""The limit of versions that an instance sets (JET_paramMaxVerPages) really limits, and only what it should."""

from __future__ import annotations

from pathlib import Path

import pytest

from jetwire_protocol.data.parameters import Param
from jetwire_protocol.errors import Err, JetError
from jetwire_server import limits
from jetwire_server.clock import SystemClock
from jetwire_server.engine.parameters import Parameters
from jetwire_server.hosting import _version_bytes_max
from jetwire_server.store.embedded.assemble import assemble
from jetwire_server.store.interface import tree_id


@pytest.mark.parametrize(
    ("pages", "page_bytes", "limit"),
    [
        (None, None, limits.VERSION_BYTES_MAX),
        (64, None, 64 * 32_768),
        (1, None, limits.VERSION_BYTES_MIN),
        (100, 65_536, 100 * 65_536),
        (100, 1_024, 100 * 32_768),
    ],
)
def test_pages_as_bytes(pages: int | None, page_bytes: int | None, limit: int) -> None:
    server = Parameters()
    if page_bytes is not None:
        server._values[Param.VerPageSize] = page_bytes
    parameters = Parameters(server)
    if pages is not None:
        parameters._values[Param.MaxVerPages] = pages
    assert _version_bytes_max(parameters) == limit


@pytest.mark.parametrize("pages", [64, 256])
async def test_a_transaction_is_limited_and_many_of_them_are_not(tmp_path: Path, pages: int) -> None:
    limit = pages * limits.VERSION_PAGE_BYTES
    store = assemble(str(tmp_path), SystemClock(), version_bytes_max=limit).store
    await store.start()
    tree = tree_id(await store.create_database("a.edb"), 16)
    writer = await store.begin()
    written = 0

    def fill() -> None:
        nonlocal written
        while True:
            writer.put(tree, b"%08d" % written, bytes(1_000))
            written += 1

    with pytest.raises(JetError) as caught:
        fill()
    assert caught.value.code == Err.VersionStoreOutOfMemory
    assert limit * 0.9 < written * 1_258 <= limit
    await writer.rollback()
    for number in range(20):  # several times the limit, in transactions of a tenth: the checkpoint makes room
        writer = await store.begin()
        for i in range(limit // 12_580):
            writer.put(tree, b"%02d%06d" % (number, i), bytes(1_000))
        await writer.commit()
        assert store.fullness() < 1
    assert await store.count(tree) == 20 * (limit // 12_580)
    await store.stop()
