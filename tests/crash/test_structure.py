"""The walk over LMDB's pages: silent on every state LMDB makes, loud when a field that LMDB trusts is changed."""

from __future__ import annotations

from pathlib import Path
from random import Random

import lmdb
import pytest

from jetwire_server.files.local import LocalFiles
from jetwire_server.files.memory import MemoryFiles
from jetwire_server.store.embedded.structure import read_metas, walk

PAGE = 4096
ENTRIES_AT = 128  # of the rows' tree, in a meta page


def open_lmdb(path: Path) -> lmdb.Environment:
    return lmdb.open(str(path), subdir=False, lib_version=1, map_size=1 << 32, sync=False)


def write_some(env: lmdb.Environment, rng: Random, most: int) -> None:
    with env.begin(write=True) as txn:
        for _ in range(rng.choice((1, 20, most))):
            key = b"%06d" % rng.randrange(rng.choice((50, 3_000))) + bytes(rng.choice((0, 1, 100, 1_499, 1_500)))
            if rng.random() < 0.35:
                txn.delete(key)
            else:
                txn.put(key, rng.randbytes(rng.choice((10, 10, 60, 60, 1_990, 2_100, 5_000, 60_000))))


def damage(content: bytes) -> list[str]:
    file = MemoryFiles({"a.edb": content}).open("a.edb", read_only=True)
    return [what for what in walk(file, read_metas(file)[0]) if what is not None]


@pytest.mark.parametrize("seed", range(3))
def test_every_state_of_lmdb_is_whole(tmp_path: Path, seed: int) -> None:
    rng = Random(seed)
    readers: list[lmdb.Transaction] = []
    with open_lmdb(tmp_path / "a.edb") as env:
        file = LocalFiles(tmp_path).open("a.edb", read_only=True)
        for _ in range(25):
            write_some(env, rng, 500)
            if rng.random() < 0.3:
                readers.append(env.begin())  # keeps pages from being used again
            if readers and rng.random() < 0.2:
                readers.pop(0).abort()
            newest = read_metas(file)[0]
            assert [what for what in walk(file, newest) if what is not None] == []
        for reader in readers:
            reader.abort()
        file.close()


@pytest.fixture
def content(tmp_path: Path) -> bytes:
    rng = Random(5)
    with open_lmdb(tmp_path / "a.edb") as env:
        for _ in range(6):
            write_some(env, rng, 300)
    return (tmp_path / "a.edb").read_bytes()


def used(content: bytes, kind: int) -> int:
    """Where a page of a kind lies that the newest state uses: one whose head, made unlike any, is noticed."""
    return next(
        n * PAGE
        for n in range(2, len(content) // PAGE)
        if content[n * PAGE + 18] & 7 == kind
        and content[n * PAGE : n * PAGE + 8] == n.to_bytes(8, "little")
        and damage(changed(content, n * PAGE, b"\xff" * 8))
    )


def changed(content: bytes, at: int, data: bytes) -> bytes:
    return content[:at] + data + content[at + len(data) :]


BRANCH, LEAF, LONG = 1, 2, 4


def test_damage_is_named(content: bytes) -> None:
    assert damage(content) == []
    branch, leaf, long = (used(content, kind) for kind in (BRANCH, LEAF, LONG))
    node = leaf + 24 + int.from_bytes(content[leaf + 24 : leaf + 26], "little")
    metas = read_metas(MemoryFiles({"a": content}).open("a", read_only=True))
    newest = next(at for at in (0, PAGE) if int.from_bytes(content[at + 152 : at + 160], "little") == metas[0].transaction)
    cases = {
        "calls itself": changed(content, leaf, b"\x01"),
        "yet to come": changed(content, leaf + 8, b"\xff\xff"),
        "of kind": changed(content, leaf + 18, b"\x01"),
        "nodes from": changed(content, leaf + 20, b"\xff\x0f"),
        "a node at": changed(content, leaf + 24, b"\xff\xff"),
        "a key of": changed(content, node + 6, b"\xff\xff"),
        "out of order": changed(content, node + 8, b"\xff"),
        "first page of the long value": changed(content, long + 20, b"\x00\x01"),
        "meta page has": changed(content, newest + ENTRIES_AT, b"\x00\x00"),
        "beyond the end": content[: branch + 100],
    }
    for what, harmed in cases.items():
        assert any(what in found for found in damage(harmed)), (what, damage(harmed))


def test_a_page_that_is_used_twice_is_named(content: bytes) -> None:
    branch = used(content, BRANCH)
    one, other = (branch + 24 + int.from_bytes(content[branch + at : branch + at + 2], "little") for at in (26, 28))
    assert any("used twice" in found or "another page" in found for found in damage(changed(content, one, content[other : other + 6])))
