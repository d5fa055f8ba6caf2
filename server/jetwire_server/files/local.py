"""Files on a real disk: the only module of the server that opens a file for writing.

Every path is walked component by component from the root without following symbolic links, so that nothing below the
root, however it got there, can lead a read or a write out of it. The root itself may be reached through a link.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from jetwire_protocol.errors import Err, JetError
from jetwire_server.failpoints import hit
from jetwire_server.files.errno_map import jet_error
from jetwire_server.files.interface import Buffer
from jetwire_server.files.paths import components, unwatched
from jetwire_server.files.whole import replace

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_FILE = os.O_NOFOLLOW | os.O_NONBLOCK  # the latter for a named pipe somebody planted: opening one must not wait
_FILE_MODE, _DIRECTORY_MODE = 0o600, 0o700
_STANDARD_ERROR = 2
_PARTS_MAX = 1024  # IOV_MAX on Linux
_ZEROS = bytes(1 << 20)
_NO_FALLOCATE = {errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS}


def reserve_standard_streams() -> None:
    """Where input, output or errors were closed (`>&-`), they lead to nowhere from here on.

    Else the first file that is opened, a database perhaps, has the number, and is written what is printed.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= _STANDARD_ERROR:
        pass
    os.close(descriptor)


class LocalFile:
    """An open file; see `files.interface.File`. Safe to use from several threads, except for `close`."""

    def __init__(self, fd: int, path: str, watch: Callable[[int], None]) -> None:
        self._fd = fd
        self._path = path
        self._watch = watch
        self._sync_failed = False

    @property
    def path(self) -> str:
        return self._path

    def size(self) -> int:
        return os.fstat(self._fd).st_size

    def read(self, offset: int, length: int) -> bytes:
        try:
            hit("files.read")
            data = os.pread(self._fd, length, offset)
            if len(data) == length or not data:
                return data
            parts = [data]  # a short read: the end of the file, or a signal
            got = len(data)
            while got < length and (data := os.pread(self._fd, length - got, offset + got)):
                parts.append(data)
                got += len(data)
            return b"".join(parts)
        except OSError as error:
            raise jet_error(error, self._path) from error

    def write(self, offset: int, data: Buffer) -> None:
        self._watch(len(data))
        try:
            hit("files.before_write")
            self._write_all(offset, data)
            hit("files.after_write")
        except OSError as error:
            raise jet_error(error, self._path) from error

    def writev(self, offset: int, parts: Sequence[Buffer]) -> None:
        self._watch(sum(map(len, parts)))
        try:
            hit("files.before_write")
            for start in range(0, len(parts), _PARTS_MAX):
                some = parts[start : start + _PARTS_MAX]
                size = sum(map(len, some))
                done = os.pwritev(self._fd, some, offset)
                if done < size:  # rare: then one copy is cheaper than code that is never run
                    self._write_all(offset + done, memoryview(b"".join(some))[done:])
                offset += size
            hit("files.after_write")
        except OSError as error:
            raise jet_error(error, self._path) from error

    def allocate(self, length: int) -> None:
        old = self.size()
        if length > old:
            self._watch(length - old)
        try:
            hit("files.before_allocate")
            try:
                self._reserve(old, length)
            except OSError:
                with suppress(OSError):
                    os.ftruncate(self._fd, old)  # half a reservation helps nobody and fills the disk further
                raise
        except OSError as error:
            raise jet_error(error, self._path) from error

    def truncate(self, length: int) -> None:
        self._watch(0)
        try:
            hit("files.before_truncate")
            os.ftruncate(self._fd, length)
        except OSError as error:
            raise jet_error(error, self._path) from error

    def sync(self) -> None:
        if self._sync_failed:  # the kernel may have dropped the dirty pages: a second call would lie
            raise JetError(Err.DiskIO, f"{self._path}: an earlier sync failed", path=self._path)
        try:
            hit("files.before_sync")
            os.fdatasync(self._fd)
            hit("files.after_sync")
        except OSError as error:
            self._sync_failed = True
            raise jet_error(error, self._path) from error

    def forget(self) -> None:
        with suppress(OSError):
            os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_DONTNEED)

    def try_lock(self) -> bool:
        """Takes the advisory lock of this file, until it is closed; False if another open file has it."""
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            raise jet_error(error, self._path) from error
        return True

    def fileno(self) -> int:
        """For libraries that write to a descriptor themselves (LMDB, copying)."""
        return self._fd

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _write_all(self, offset: int, data: Buffer) -> None:
        done = os.pwrite(self._fd, data, offset)
        while done < len(data):
            more = os.pwrite(self._fd, memoryview(data)[done:], offset + done)
            if more == 0:
                raise OSError(errno.EIO, "the disk takes no more")
            done += more

    def _reserve(self, old: int, length: int) -> None:
        try:
            os.posix_fallocate(self._fd, 0, length)
        except OSError as error:
            if error.errno not in _NO_FALLOCATE:
                raise
            for offset in range(old, length, len(_ZEROS)):
                self._write_all(offset, _ZEROS[: length - offset])


class LocalFiles:
    """A directory tree on a real disk; see `files.interface.Files`.

    `watch` is told the size of every write before it is done (0 for a change of names or of a length): pass
    `gate.wrote`, so that what is written while frozen is counted. Scratch trees have no watch.
    """

    def __init__(self, root: str | os.PathLike[str], *, watch: Callable[[int], None] = unwatched) -> None:
        self._root = os.path.realpath(root)
        self._watch = watch

    @property
    def root(self) -> str:
        return self._root

    def open(self, path: str, *, create: bool = False, read_only: bool = False) -> LocalFile:
        flags = _FILE | (os.O_RDONLY if read_only else os.O_RDWR | (os.O_CREAT if create else 0))
        try:
            hit("files.before_open")
            if flags & os.O_CREAT and not self.exists(path):
                self._watch(0)
            with self._parent(path) as (parent, name):
                fd = os.open(name, flags, _FILE_MODE, dir_fd=parent)
        except OSError as error:
            raise jet_error(error, path) from error
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise JetError(Err.InvalidPath, f"{path}: not a regular file", path=path)
        return LocalFile(fd, path, self._watch)

    def exists(self, path: str) -> bool:
        try:
            with self._parent(path) as (parent, name):
                os.stat(name, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise jet_error(error, path) from error
        return True

    def make_directory(self, path: str) -> None:
        names = components(path)
        try:
            if not os.path.isdir(self._root):
                self._watch(0)
                self._make_root()
            for depth, name in enumerate(names):
                with self._directory(names[:depth]) as parent:
                    with suppress(FileExistsError):
                        os.mkdir(name, _DIRECTORY_MODE, dir_fd=parent)
                        self._watch(0)
                    os.fsync(parent)
            with self._directory(names):
                pass  # an existing file or link of that name is met here
        except OSError as error:
            raise jet_error(error, path) from error

    def remove(self, path: str) -> None:
        self._watch(0)
        try:
            hit("files.before_remove")
            with self._parent(path) as (parent, name):
                if stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
                    os.rmdir(name, dir_fd=parent)
                else:
                    os.unlink(name, dir_fd=parent)
        except OSError as error:
            raise jet_error(error, path) from error

    def rename(self, source: str, target: str) -> None:
        self._watch(0)
        try:
            hit("files.before_rename")
            with self._parent(source) as (old_parent, old), self._parent(target) as (new_parent, new):
                os.rename(old, new, src_dir_fd=old_parent, dst_dir_fd=new_parent)
            hit("files.after_rename")
        except OSError as error:
            raise jet_error(error, source) from error

    def sync_directory(self, path: str = "") -> None:
        try:
            hit("files.before_sync_directory")
            with self._directory(components(path)) as fd:
                os.fsync(fd)
        except OSError as error:
            raise jet_error(error, path) from error

    def replace(self, path: str, data: bytes) -> None:
        replace(self, path, data)

    def real_path(self, path: str) -> str:
        """The system's path, with a check that no link lies on it now (who opens it later opens it by name)."""
        if path:
            self._refuse_links(path)
        real = os.path.join(self._root, *components(path))
        try:
            real.encode()
        except UnicodeEncodeError:
            raise JetError(Err.InvalidPath, f"{real!r}: a path that is not UTF-8 is not taken", path=path) from None
        return real

    def list(self, path: str = "") -> list[str]:
        try:
            with self._directory(components(path)) as fd:
                return sorted(os.listdir(fd))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise jet_error(error, path) from error

    # -- walking ----------------------------------------------------------------------------------------------
    def _refuse_links(self, path: str) -> None:
        try:
            with self._parent(path) as (parent, name):
                if stat.S_ISLNK(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
                    raise OSError(errno.ELOOP, "a symbolic link")
        except FileNotFoundError:
            return
        except OSError as error:
            raise jet_error(error, path) from error

    @contextmanager
    def _parent(self, path: str) -> Iterator[tuple[int, str]]:
        names = components(path)
        if not names:
            raise JetError(Err.InvalidPath, "the root itself is not a file", path=path)
        with self._directory(names[:-1]) as fd:
            yield fd, names[-1]

    @contextmanager
    def _directory(self, names: Sequence[str]) -> Iterator[int]:
        fd = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            for name in names:
                above, fd = fd, os.open(name, _DIRECTORY, dir_fd=fd)
                os.close(above)
            yield fd
        finally:
            os.close(fd)

    def _make_root(self) -> None:
        missing, above = [self._root], os.path.dirname(self._root)
        while not os.path.isdir(above):
            missing.append(above)
            above = os.path.dirname(above)
        for path in reversed(missing):
            os.mkdir(path, _DIRECTORY_MODE)
            fd = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
