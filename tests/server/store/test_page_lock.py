"""LMDB maps its lock file and writes into the map: where the disk has no room, that is an error before LMDB looks, never a signal."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from jetwire_protocol.errors import Err, JetError
from jetwire_server import failpoints
from jetwire_server.files.local import LocalFiles
from jetwire_server.store.embedded.contents import ATTACHED, FORMAT, Head
from jetwire_server.store.embedded.pages import PageFile

HEAD = Head(FORMAT, b"", b"", 0, (0, 0, 0), 0, 0, ATTACHED)


@pytest.fixture
def full_disk() -> Iterator[None]:
    def full() -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    failpoints.arm("files.before_allocate", full)
    yield
    failpoints.disarm()


def reserved(path: Path) -> bool:
    found = path.stat()
    return found.st_size > 0 and found.st_blocks * 512 >= found.st_size


def test_the_whole_lock_file_has_its_place_on_the_disk(tmp_path: Path) -> None:
    lock = tmp_path / "a.edb-lock"
    PageFile.create(LocalFiles(tmp_path), "a.edb", HEAD).close()
    assert reserved(lock)

    size = lock.stat().st_size
    lock.unlink()
    with lock.open("wb") as file:  # as an older server left it: a hole
        file.truncate(size)
    PageFile.open(LocalFiles(tmp_path), "a.edb").close()
    assert reserved(lock)
    assert lock.stat().st_size == size


def test_a_full_disk_is_told_before_lmdb_opens_anything(tmp_path: Path, full_disk: None) -> None:
    with pytest.raises(JetError) as caught:
        PageFile.create(LocalFiles(tmp_path), "a.edb", HEAD)
    assert caught.value.code == Err.DiskFull
    assert (tmp_path / "a.edb").stat().st_size == 0
