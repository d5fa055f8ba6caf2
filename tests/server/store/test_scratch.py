"""The scratch file: what sorts and temporary tables put aside, and how the disk has its space back."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from jetwire_protocol.errors import JetError
from jetwire_server.files.local import LocalFiles
from jetwire_server.store.embedded.bulk import BulkTree
from jetwire_server.store.embedded.scratch import Scratch

VALUE = b"v" * 8_000
MIB = 1 << 20


@contextmanager
def files_no_longer_than(size: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def fill(tree: BulkTree, mib: int) -> None:
    for part in range(mib):
        await tree.put_many([(b"%06d%06d" % (part, n), VALUE) for n in range(130)])


async def test_a_disk_that_was_full_is_usable_again_once_everything_was_given_back(tmp_path: Path) -> None:
    scratch = Scratch(LocalFiles(tmp_path))
    with files_no_longer_than(20 * MIB):
        for _ in range(3):
            too_large = scratch.new_tree()
            with pytest.raises(JetError):
                await fill(too_large, 40)
            await too_large.free()
            small = scratch.new_tree()
            await fill(small, 8)
            assert await small.get(b"%06d%06d" % (7, 129)) == VALUE
            await small.free()
    scratch.close()


async def test_the_file_goes_with_its_last_tree_and_no_sooner(tmp_path: Path) -> None:
    scratch = Scratch(LocalFiles(tmp_path))
    first, second = scratch.new_tree(), scratch.new_tree()
    await fill(first, 2)
    await fill(second, 1)
    await first.free()
    assert len(await second.scan(limit=1000)) == 130
    assert (tmp_path / "scratch.tmp").exists()
    await second.free()
    assert list(tmp_path.iterdir()) == []
    third = scratch.new_tree()
    assert await third.get(b"%06d%06d" % (0, 0)) is None
    await fill(third, 1)
    await first.free()  # once more: it is none of the new file's
    assert len(await third.scan(limit=1000)) == 130
    scratch.close()
    assert list(tmp_path.iterdir()) == []


async def test_two_that_go_at_the_same_time(tmp_path: Path) -> None:
    scratch = Scratch(LocalFiles(tmp_path))
    for _ in range(3):
        first, second = scratch.new_tree(), scratch.new_tree()
        await first.put_many([(b"%06d" % n, b"") for n in range(20_000)])  # takes several steps to delete
        await fill(second, 1)
        await asyncio.gather(first.free(), second.free())
        assert list(tmp_path.iterdir()) == []
    scratch.close()
