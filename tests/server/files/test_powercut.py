"""The tool that makes crash images, held to its word: what was synced is in every image, and the rest is truly at risk."""

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import lmdb
import pytest

from jetwire_server.files.interface import Files
from jetwire_server.files.memory import Instant, MemoryFiles
from tests.support.powercut import Image, PageFile, PageInstant, Scene, images

SAMPLES = 40
Act = Callable[[Files], object]


def every_instant(act: Act, content: dict[str, bytes] | None = None, **options: Any) -> list[Instant]:
    """Runs `act` on files in memory; the instants before each step, and the last one."""
    instants: list[Instant] = []
    files = MemoryFiles(content, step=lambda what, path: instants.append(files.instant()), **options)
    act(files)
    instants.append(files.instant())
    return instants


def every_image(act: Act, content: dict[str, bytes] | None = None, seed: int = 1, **options: Any) -> list[Image]:
    rng = Random(seed)
    return [image for instant in every_instant(act, content, **options) for image in images(instant, rng, SAMPLES)]


def test_what_was_synced_is_in_every_image_and_the_rest_in_some() -> None:
    files = MemoryFiles()
    file = files.open("a", create=True)
    files.sync_directory()
    file.write(0, b"s" * 10_000)
    file.sync()
    file.write(5_000, b"u" * 10_000)
    found = [image.files["a"] for image in images(files.instant(), Random(1), SAMPLES)]
    assert all(data[:5_000] == b"s" * 5_000 for data in found)
    assert all(set(data[5_000:10_000]) <= set(b"su") for data in found)
    assert {b"s" * 10_000, b"s" * 5_000 + b"u" * 10_000} <= set(found)
    assert len(set(found)) > 20


def test_torn_writes_follow_sectors_and_later_writes_may_be_there_without_earlier_ones() -> None:
    files = MemoryFiles({"a": bytes(16_384)})
    file = files.open("a")
    file.write(0, b"1" * 8_192)
    file.write(8_192, b"2" * 8_192)
    found = [image.files["a"] for image in images(files.instant(), Random(2), SAMPLES)]
    for data in found:
        for at in range(0, 16_384, 512):
            assert len(set(data[at : at + 512])) == 1, "a sector is whole or not at all"
    assert bytes(8_192) + b"2" * 8_192 in found, "reordered"
    assert any(0 < data.count(b"1") < 8_192 for data in found), "torn"
    assert any(data.count(b"1") % 4096 for data in found), "torn at 512"


def test_two_writes_in_one_sector_are_never_seen_the_second_without_the_first() -> None:
    files = MemoryFiles({"a": bytes(512)})
    file = files.open("a")
    file.write(0, b"1" * 100)
    file.write(100, b"2" * 100)
    found = {image.files["a"][:200] for image in images(files.instant(), Random(3), SAMPLES)}
    assert found == {bytes(200), b"1" * 100 + bytes(100), b"1" * 100 + b"2" * 100}


def test_a_growing_file_may_be_found_long_with_zeros_in_it_or_short() -> None:
    files = MemoryFiles({"a": b""})
    file = files.open("a")
    file.write(0, b"x" * 2_048)
    file.allocate(4_096)
    found = {image.files["a"] for image in images(files.instant(), Random(4), SAMPLES)}
    assert {b"", b"x" * 2_048, b"x" * 2_048 + bytes(2_048), bytes(4_096)} <= found


def test_names_are_lost_until_their_directory_is_synced() -> None:
    files = MemoryFiles({"old": b"1"})
    file = files.open("new", create=True)
    file.write(0, b"2")
    file.sync()
    files.rename("old", "older")
    found = {tuple(sorted(image.files)) for image in images(files.instant(), Random(5), SAMPLES)}
    assert found == {("old",), ("new", "old"), ("older",), ("new", "older")}
    files.sync_directory()
    assert {tuple(sorted(image.files)) for image in images(files.instant(), Random(5), SAMPLES)} == {("new", "older")}


def test_a_rename_between_directories_needs_both_synced_and_is_never_half_done() -> None:
    files = MemoryFiles({"a": b"1"}, directories=frozenset({"d"}))
    files.rename("a", "d/a")
    files.sync_directory("d")
    assert {tuple(image.files) for image in images(files.instant(), Random(6), SAMPLES)} == {("a",), ("d/a",)}
    files.sync_directory()
    assert {tuple(image.files) for image in images(files.instant(), Random(6), SAMPLES)} == {("d/a",)}


def test_a_synced_name_takes_with_it_what_its_path_was_before() -> None:
    files = MemoryFiles({"a": b"1"}, directories=frozenset({"d"}))
    files.rename("a", "d/a")
    files.remove("d/a")
    files.sync_directory("d")
    assert {tuple(image.files) for image in images(files.instant(), Random(6), SAMPLES)} == {()}


def test_replace_leaves_the_old_or_the_new_at_every_instant() -> None:
    def act(files: Files) -> None:
        files.replace("chk", b"new" * 1000)

    found = every_image(act, {"chk": b"old" * 1000})
    last = every_instant(act, {"chk": b"old" * 1000})[-1]
    assert {image.files["chk"] for image in images(last, Random(1), SAMPLES)} == {b"new" * 1000}, "durable when it returns"
    assert {image.files["chk"] for image in found} == {b"old" * 1000, b"new" * 1000}


@pytest.mark.parametrize("mistake", ["no sync", "lying sync", "in place"])
def test_the_control_a_careless_replace_is_caught(mistake: str) -> None:
    def act(files: Files) -> None:
        if mistake == "in place":
            files.open("chk").write(0, b"new" * 1000)
            return
        file = files.open("chk.new", create=True)
        file.write(0, b"new" * 1000)
        if mistake == "lying sync":
            file.sync()
        files.rename("chk.new", "chk")
        files.sync_directory()

    found = every_image(act, {"chk": b"old" * 1000}, sync_works=mistake != "lying sync")
    assert not {image.files["chk"] for image in found} <= {b"old" * 1000, b"new" * 1000}


def frame(number: int, size: int) -> bytes:
    body = struct.pack("<I", number) + bytes([number + 1]) * size
    return struct.pack("<II", len(body), zlib.crc32(body)) + body


def frames_in(data: bytes) -> list[int]:
    found, at = [], 0
    while at + 8 <= len(data):
        size, crc = struct.unpack_from("<II", data, at)
        body = data[at + 8 : at + 8 + size]
        if size == 0 or len(body) < size or zlib.crc32(body) != crc:
            break
        found.append(struct.unpack_from("<I", body)[0])
        at += 8 + size
    return found


def durable_at_every_instant(sync_works: bool) -> list[tuple[int, list[int]]]:
    """A small log of checksummed frames; (acknowledged then, recovered) of every image."""
    result: list[tuple[int, list[int]]] = []
    rng = Random(7)
    acknowledged = 0

    def check(*_: str) -> None:
        result.extend((acknowledged, frames_in(image.files.get("log", b""))) for image in images(files.instant(), rng, 10))

    files = MemoryFiles(step=check, sync_works=sync_works)
    file = files.open("log", create=True)
    files.sync_directory()
    file.allocate(65_536)
    at = 0
    for number in range(12):
        data = frame(number, rng.choice((20, 700, 5_000)))
        file.write(at, data)
        at += len(data)
        if number % 3 == 2:
            file.sync()
            acknowledged = number + 1
    check()
    return result


def test_a_log_with_checksums_keeps_every_acknowledged_frame_in_order() -> None:
    result = durable_at_every_instant(sync_works=True)
    assert len(result) > 300
    assert all(found == list(range(len(found))) and len(found) >= acknowledged for acknowledged, found in result)
    assert any(len(found) > acknowledged for acknowledged, found in result)


def test_the_control_without_sync_acknowledged_frames_are_lost() -> None:
    assert any(len(found) < acknowledged for acknowledged, found in durable_at_every_instant(sync_works=False))


def test_a_seed_gives_the_same_images_again() -> None:
    def act(files: Files) -> None:
        files.open("b", create=True).write(0, b"x" * 9_000)
        files.replace("a", b"y" * 9_000)

    first, second = every_image(act, seed=8), every_image(act, seed=8)
    assert [(image.how, image.files) for image in first] == [(image.how, image.files) for image in second]


def test_an_image_opens_in_memory_and_on_a_disk(tmp_path: Path) -> None:
    image = Image("test", {"a": b"1", "d/b": b"2"}, frozenset({"d", "empty"}))
    files = image.open()
    assert (files.list(), files.open("d/b").read(0, 9)) == (["a", "d", "empty"], b"2")
    image.write_to(tmp_path)
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == ["a", "d", "d/b", "empty"]


# -- LMDB ---------------------------------------------------------------------------------------------------------
def open_lmdb(path: Path) -> lmdb.Environment:
    return lmdb.open(str(path), subdir=False, map_size=1 << 24, max_dbs=0, lib_version=1)


def lmdb_content(path: Path) -> dict[bytes, bytes]:
    with open_lmdb(path) as environment, environment.begin() as transaction:
        return dict(transaction.cursor())


def lmdb_commits(path: Path, seed: int) -> list[tuple[dict[bytes, bytes], dict[bytes, bytes], PageInstant]]:
    """Random commits; for each the content before, after, and the file in the middle of it."""
    rng, made = Random(seed), []
    content: dict[bytes, bytes] = {}
    with open_lmdb(path) as environment:
        page = PageFile(path)
        for _ in range(8):
            before = dict(content)
            with environment.begin(write=True) as transaction:
                for _ in range(rng.randint(1, 60)):
                    key = b"%04d" % rng.randrange(200)
                    if rng.random() < 0.2:
                        transaction.delete(key)
                        content.pop(key, None)
                    else:
                        content[key] = rng.randbytes(rng.choice((10, 300, 6_000)))
                        transaction.put(key, content[key])
            made.append((before, dict(content), page.cut()))
    return made


def test_an_lmdb_file_cut_in_the_middle_of_a_commit_holds_the_old_or_the_new_content(tmp_path: Path) -> None:
    rng, kinds = Random(9), set()
    for before, after, instant in lmdb_commits(tmp_path / "a.edb", seed=9):
        assert instant.data
        assert len(instant.meta) == 1
        for how, data in instant.images(rng, 5):
            (tmp_path / "image.edb").write_bytes(data)
            found = lmdb_content(tmp_path / "image.edb")
            assert found in (before, after), how
            kinds.add(found == after)
    assert kinds == {True, False}


def test_the_control_a_meta_page_before_its_data_pages_is_caught(tmp_path: Path) -> None:
    caught = 0
    for before, after, instant in lmdb_commits(tmp_path / "a.edb", seed=10)[2:]:
        _, data = instant.dishonest()
        (tmp_path / "image.edb").write_bytes(data)
        try:
            caught += lmdb_content(tmp_path / "image.edb") not in (before, after)
        except lmdb.Error:
            caught += 1
    assert caught


def test_a_scene_joins_log_and_pages_of_one_instant() -> None:
    files = MemoryFiles({"log": b""})
    files.open("log").write(0, b"L" * 2_000)
    page = PageInstant(b"0" * 16_384, b"0" * 8_192 + b"1" * 8_192, (2, 3), (), 4_096)
    found = list(Scene(files.instant(), {"db/a.edb": page}).images(Random(11), 30))
    pairs = {(image.files["log"], image.files["db/a.edb"]) for image in found}
    assert {b"", b"L" * 2_000} <= {log for log, _ in pairs}
    assert {page.before, page.after} <= {data for _, data in pairs}
    assert len(pairs) > 20
    assert all("db/a.edb: " in image.how for image in found)
