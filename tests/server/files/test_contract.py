"""What both kinds of files promise, asked of both."""

import errno
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from jetwire_protocol.errors import Err, JetError
from jetwire_server import failpoints
from jetwire_server.files.interface import Files
from jetwire_server.files.local import LocalFiles
from jetwire_server.files.memory import MemoryFiles


@pytest.fixture(params=["local", "memory"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> Files:
    return LocalFiles(tmp_path) if request.param == "local" else MemoryFiles()


@pytest.fixture(autouse=True)
def _clean() -> Iterator[None]:
    yield
    failpoints.disarm()


def code_of(call: Callable[..., object], *args: Any, **kwargs: Any) -> int:
    with pytest.raises(JetError) as caught:
        call(*args, **kwargs)
    return caught.value.code


def test_what_is_written_is_read_and_reads_end_at_the_end(files: Files) -> None:
    file = files.open("a", create=True)
    file.write(0, b"hello")
    file.write(3, bytearray(b"p!"))
    file.write(8, memoryview(b"gap"))
    assert (file.size(), file.path) == (11, "a")
    assert file.read(0, 100) == b"help!\0\0\0gap"
    assert file.read(2, 2) == b"lp"
    assert file.read(11, 5) == b""


def test_many_parts_are_written_in_order(files: Files) -> None:
    file = files.open("a", create=True)
    parts = [str(n).encode() for n in range(3000)]
    file.writev(2, parts)
    file.writev(file.size(), [])
    assert file.read(0, 1 << 20) == b"\0\0" + b"".join(parts)


def test_allocation_grows_with_zeros_and_never_shrinks(files: Files) -> None:
    file = files.open("a", create=True)
    file.write(0, b"x")
    file.allocate(5000)
    file.allocate(10)
    assert file.read(0, 9999) == b"x" + bytes(4999)
    file.truncate(1)
    file.truncate(3)
    assert file.read(0, 9) == b"x\0\0"


def test_a_file_must_exist_or_be_created(files: Files) -> None:
    assert code_of(files.open, "a") == Err.FileNotFound
    assert code_of(files.open, "a", create=True, read_only=True) == Err.FileNotFound
    assert code_of(files.open, "d/a", create=True) == Err.FileNotFound
    files.open("a", create=True).write(0, b"kept")
    assert files.open("a", create=True).read(0, 9) == b"kept"


def test_a_file_opened_to_be_read_is_not_written(files: Files) -> None:
    files.open("a", create=True).write(0, b"kept")
    file = files.open("a", read_only=True)
    assert code_of(file.write, 0, b"lost") == Err.FileAccessDenied
    assert file.read(0, 9) == b"kept"
    file.close()
    file.close()


@pytest.mark.parametrize("path", ["/etc/passwd", "../a", "d/../../a", "a//b", "a/", "./a", "a\0b", "d/./a"])
def test_no_path_leaves_the_root(files: Files, path: str) -> None:
    for call in (files.open, files.exists, files.list, files.remove, files.make_directory, files.sync_directory):
        assert code_of(call, path) == Err.InvalidPath
    assert code_of(files.rename, path, "x") == Err.InvalidPath
    assert code_of(files.replace, path, b"") == Err.InvalidPath


def test_directories_are_made_with_their_parents_and_listed(files: Files) -> None:
    files.make_directory("")
    files.make_directory("d/e")
    files.make_directory("d/e")
    files.open("d/e/f", create=True)
    files.open("b", create=True)
    assert files.list() == ["b", "d"]
    assert files.list("d") == ["e"]
    assert files.list("absent") == []
    assert files.exists("d/e/f")
    assert files.exists("d")
    assert not files.exists("d/x")
    assert code_of(files.list, "b") == Err.InvalidPath
    assert code_of(files.make_directory, "b") == Err.InvalidPath
    assert code_of(files.make_directory, "b/c") == Err.InvalidPath
    assert code_of(files.open, "b/c", create=True) == Err.InvalidPath
    assert code_of(files.open, "d") == Err.InvalidPath


def test_removal_of_files_and_empty_directories(files: Files) -> None:
    files.make_directory("d")
    file = files.open("d/f", create=True)
    assert code_of(files.remove, "d") == Err.FileAccessDenied
    files.remove("d/f")
    file.write(0, b"an open file outlives its name")
    assert file.read(0, 7) == b"an open"
    files.remove("d")
    assert code_of(files.remove, "d") == Err.FileNotFound
    assert files.list() == []


def test_a_rename_replaces_its_target_and_open_files_follow(files: Files) -> None:
    files.make_directory("d")
    files.open("old", create=True).write(0, b"old")
    file = files.open("new", create=True)
    files.rename("new", "old")
    file.write(0, b"new")
    assert files.open("old").read(0, 9) == b"new"
    files.rename("old", "d/x")
    files.rename("d", "e")
    assert files.open("e/x").read(0, 9) == b"new"
    assert files.list() == ["e"]
    assert code_of(files.rename, "absent", "y") == Err.FileNotFound
    assert code_of(files.rename, "e/x", "nowhere/y") == Err.FileNotFound
    files.sync_directory()
    files.sync_directory("e")
    assert code_of(files.sync_directory, "d") == Err.FileNotFound


def test_replace_leaves_nothing_aside(files: Files) -> None:
    files.replace("a", b"a longer first version")
    files.replace("a", b"second")
    assert files.open("a").read(0, 99) == b"second"
    assert files.list() == ["a"]


@pytest.mark.parametrize("place", ["files.before_write", "files.before_sync", "files.before_rename"])
def test_a_replace_that_fails_keeps_the_old_content(files: Files, place: str) -> None:
    files.replace("a", b"old")
    failpoints.arm_from_environment(f"{place}=error")
    assert code_of(files.replace, "a", b"new") == Err.DiskIO
    assert files.open("a").read(0, 9) == b"old"
    assert files.list() == ["a"]


def test_a_failed_sync_is_never_tried_again(files: Files) -> None:
    file = files.open("a", create=True)
    file.write(0, b"x")
    file.sync()
    failpoints.arm_from_environment("files.before_sync=error")
    assert code_of(file.sync) == Err.DiskIO
    failpoints.disarm()
    assert code_of(file.sync) == Err.DiskIO, "though the disk would answer well now"


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (errno.ENOSPC, Err.DiskFull),
        (errno.EDQUOT, Err.DiskFull),
        (errno.EROFS, Err.FileAccessDenied),
        (errno.EIO, Err.DiskIO),
        (errno.ENODEV, Err.DiskIO),
        (errno.EMFILE, Err.OutOfFileHandles),
    ],
)
def test_errors_carry_the_engines_names_and_the_path(files: Files, number: int, code: Err) -> None:
    def fail() -> None:
        raise OSError(number, "failpoint")

    file = files.open("a", create=True)
    calls: dict[str, Callable[[], object]] = {
        "files.before_write": lambda: file.write(0, b"x"),
        "files.before_allocate": lambda: file.allocate(100),
        "files.before_truncate": lambda: file.truncate(0),
        "files.read": lambda: file.read(0, 1),
        "files.before_open": lambda: files.open("a"),
        "files.before_rename": lambda: files.rename("a", "b"),
        "files.before_remove": lambda: files.remove("a"),
        "files.before_sync_directory": files.sync_directory,
    }
    for place, call in calls.items():
        failpoints.arm(place, fail)
        with pytest.raises(JetError) as caught:
            call()
        failpoints.disarm()
        assert caught.value.code == code, place
        assert caught.value.data["errno"] == number
    assert files.open("a").size() == 0, "nothing of it was done"
