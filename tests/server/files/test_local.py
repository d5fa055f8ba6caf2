"""What only a real disk can show: links, short writes, full disks, rights, and the lock of a directory."""

import ctypes
import errno
import mmap
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jetwire_protocol.errors import Err, JetError
from jetwire_server import failpoints
from jetwire_server.files.directory_lock import LOCK_FILE, DirectoryLock, file_system, refuse_network_file_system
from jetwire_server.files.local import LocalFiles


@pytest.fixture
def files(tmp_path: Path) -> LocalFiles:
    made = LocalFiles(tmp_path / "root")
    made.make_directory("")
    return made


def code_of(call: Callable[..., object], *args: Any, **kwargs: Any) -> int:
    with pytest.raises(JetError) as caught:
        call(*args, **kwargs)
    return caught.value.code


def test_a_link_out_of_the_root_is_refused_everywhere(files: LocalFiles, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "f").write_bytes(b"secret")
    os.symlink(outside, f"{files.root}/d")
    os.symlink(outside / "f", f"{files.root}/f")
    for call in (files.open, files.real_path):
        assert code_of(call, "f") == Err.InvalidPath
        assert code_of(call, "d/f") == Err.InvalidPath
    assert code_of(files.open, "f", create=True) == Err.InvalidPath
    assert code_of(files.list, "d") == Err.InvalidPath
    assert code_of(files.remove, "d/f") == Err.InvalidPath
    assert code_of(files.make_directory, "d") == Err.InvalidPath
    assert code_of(files.make_directory, "d/e") == Err.InvalidPath
    files.open("g", create=True)
    assert code_of(files.rename, "g", "d/g") == Err.InvalidPath
    files.replace("f", b"mine")  # replaces the link itself, not what it points to
    assert (outside / "f").read_bytes() == b"secret"
    assert sorted(os.listdir(outside)) == ["f"]


def test_a_planted_pipe_does_not_stop_the_server(files: LocalFiles) -> None:
    os.mkfifo(f"{files.root}/pipe")
    assert code_of(files.open, "pipe", read_only=True) == Err.InvalidPath
    assert code_of(files.open, "pipe", create=True) == Err.InvalidPath


def test_a_root_behind_a_link_is_fine(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    os.symlink(tmp_path / "real", tmp_path / "link")
    LocalFiles(tmp_path / "link").replace("a", b"x")
    assert (tmp_path / "real" / "a").read_bytes() == b"x"


def test_new_files_and_directories_are_for_the_owner_alone(files: LocalFiles) -> None:
    files.make_directory("d")
    files.replace("d/a", b"x")
    assert os.stat(files.real_path("d")).st_mode & 0o777 == 0o700
    assert os.stat(files.real_path("d/a")).st_mode & 0o777 == 0o600


def test_short_writes_and_reads_are_continued(files: LocalFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    data = [os.urandom(size) for size in (10, 1, 0, 300, 77)]
    pwrite, pwritev, pread = os.pwrite, os.pwritev, os.pread
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: pwrite(fd, bytes(data[:7]), offset))
    monkeypatch.setattr(os, "pwritev", lambda fd, parts, offset: pwritev(fd, [parts[0][:3]], offset))
    monkeypatch.setattr(os, "pread", lambda fd, length, offset: pread(fd, min(length, 5), offset))
    file = files.open("a", create=True)
    file.writev(0, data)
    file.write(388, b"and forty more bytes, as in any long write")
    assert file.read(0, 1000) == b"".join(data) + b"and forty more bytes, as in any long write"


def test_a_disk_that_takes_nothing_is_an_error_not_a_loop(files: LocalFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: 0)
    assert code_of(files.open("a", create=True).write, 0, b"x") == Err.DiskIO


def test_allocation_without_the_system_call_writes_zeros(files: LocalFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "no")

    monkeypatch.setattr(os, "posix_fallocate", unsupported)
    file = files.open("a", create=True)
    file.write(0, b"x")
    file.allocate((1 << 20) + 5)
    assert file.size() == (1 << 20) + 5
    assert os.stat(files.real_path("a")).st_blocks * 512 >= 1 << 20


@pytest.mark.parametrize("zeros", [False, True])
def test_a_file_over_the_limit_is_disk_full_and_the_allocation_is_taken_back(
    files: LocalFiles, monkeypatch: pytest.MonkeyPatch, zeros: bool
) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "no")

    if zeros:
        monkeypatch.setattr(os, "posix_fallocate", unsupported)
    file = files.open("a", create=True)
    file.write(0, b"kept")
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, old[1]))
    try:
        assert code_of(file.allocate, 100_000) == Err.DiskFull
        assert code_of(file.write, 8192, b"x") == Err.DiskFull
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert file.read(0, 100) == b"kept"
    assert file.size() == 4


def test_a_root_is_made_with_its_parents(tmp_path: Path) -> None:
    LocalFiles(tmp_path / "a" / "b" / "c").make_directory("d")
    assert (tmp_path / "a" / "b" / "c" / "d").is_dir()


def test_a_name_that_is_not_utf_8_is_refused_before_a_library_sees_it(tmp_path: Path) -> None:
    assert code_of(LocalFiles(os.fsencode(tmp_path).decode() + "/\udcff").real_path, "a.edb") == Err.InvalidPath


def test_the_real_path_of_a_file_that_is_not_there_yet(files: LocalFiles) -> None:
    assert files.real_path("new.edb") == f"{files.root}/new.edb"
    assert files.real_path("") == files.root


HOLD = """
import sys
from jetwire_server.files.directory_lock import DirectoryLock
from jetwire_server.files.local import LocalFiles
with DirectoryLock(LocalFiles(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_process_is_refused_with_the_pid_of_the_first(files: LocalFiles) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD, files.root], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        with pytest.raises(JetError, match=rf"in use by process {child.pid} on ") as caught:
            DirectoryLock(files).acquire()
        assert caught.value.code == Err.SystemPathInUse
        child.kill()
        child.wait()
    with DirectoryLock(files):  # the kernel let go of it, though nobody cleaned up
        assert files.open(LOCK_FILE).read(0, 99).startswith(f"process {os.getpid()} on ".encode())
        assert code_of(DirectoryLock(files).acquire) == Err.SystemPathInUse, "the same process, a second time"
    with DirectoryLock(files):
        pass


def test_a_full_disk_keeps_nobody_from_having_the_directory(files: LocalFiles) -> None:
    """Whoever wants to look what is there, or to get it away from there: only the holder's name cannot be told."""

    def full() -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    failpoints.arm("files.before_write", full)
    try:
        with DirectoryLock(files):
            assert code_of(DirectoryLock(files).acquire) == Err.SystemPathInUse
    finally:
        failpoints.disarm()


MOUNTS = r"""
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 0:26 / /mnt/share\040one rw - nfs4 server:/export rw
31 30 0:27 / /mnt/share\040one/disk rw - xfs /dev/vdb rw
32 22 0:28 / /data rw - ext4 /dev/vdc rw
33 22 0:29 / /data rw - cifs //server/data rw
34 22 0:30 / /work rw - btrfs /dev/vdd rw
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "ext4"),
        ("/home/x", "ext4"),
        ("/mnt/share one/db", "nfs4"),
        ("/mnt/share one/disk/db", "xfs"),
        ("/mnt/share one", "nfs4"),
        ("/mnt/share onerous", "ext4"),
        ("/data/x", "cifs"),
        ("/workshop", "ext4"),
    ],
)
def test_the_file_system_of_a_path(path: str, kind: str) -> None:
    assert file_system(path, MOUNTS) == kind


def test_a_network_file_system_is_refused_by_name_with_advice() -> None:
    with pytest.raises(JetError, match=r"nfs4.*use a directory on a local disk") as caught:
        refuse_network_file_system("/mnt/share one/db", MOUNTS)
    assert caught.value.code == Err.FileAccessDenied
    refuse_network_file_system("/mnt/share one/disk/db", MOUNTS)
    refuse_network_file_system("/anything", "")


def resident_pages(path: str) -> int:
    """How many pages of a file the system holds in memory."""
    size = os.path.getsize(path)
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), size) as view:
        held = (ctypes.c_ubyte * (size // mmap.PAGESIZE))()
        start = ctypes.c_char.from_buffer(view)
        asked = ctypes.CDLL(None, use_errno=True).mincore(ctypes.c_void_p(ctypes.addressof(start)), ctypes.c_size_t(size), held)
        del start
    assert asked == 0
    return sum(page & 1 for page in held)


def test_what_is_forgotten_leaves_memory_and_nothing_else(files: LocalFiles) -> None:
    file = files.open("f", create=True)
    data = os.urandom(64 * mmap.PAGESIZE)
    file.write(0, data)
    file.sync()
    path = f"{files.root}/f"
    before = resident_pages(path)
    file.forget()
    if file_system(path, Path("/proc/self/mountinfo").read_text()) not in ("tmpfs", "ramfs"):
        assert before == 64
        assert resident_pages(path) == 0
    assert file.read(0, len(data)) == data
    file.close()
    file.forget()  # a hint is no reason to fail


def test_a_hole_is_filled_by_an_allocation_of_no_more_than_there_is(files: LocalFiles) -> None:
    file = files.open("a", create=True)
    file.truncate(1 << 20)
    assert os.stat(files.real_path("a")).st_blocks == 0
    file.allocate(1 << 20)
    assert os.stat(files.real_path("a")).st_blocks * 512 >= 1 << 20
    assert file.size() == 1 << 20
