"""One process owns a data directory, or a socket's path: an advisory lock with its holder's name, on a disk where locks mean something."""

from __future__ import annotations

import os
import re
import socket

from jetwire_protocol.errors import Err, JetError
from jetwire_server.files.local import LocalFile, LocalFiles

LOCK_FILE = "jetwire.lock"
"""Scratch: outside every manifest, meaningless in a copy."""

_NETWORK = frozenset(
    [
        "9p",
        "afs",
        "beegfs",
        "ceph",
        "cifs",
        "coda",
        "davfs",
        "davfs2",
        "drvfs",
        "fuse.ceph",
        "fuse.gcsfuse",
        "fuse.glusterfs",
        "fuse.mfs",
        "fuse.rclone",
        "fuse.s3fs",
        "fuse.sshfs",
        "fuseblk.sshfs",
        "gfs2",
        "glusterfs",
        "gpfs",
        "lustre",
        "ncpfs",
        "nfs",
        "nfs4",
        "ocfs2",
        "orangefs",
        "prl_fs",
        "smb2",
        "smb3",
        "smbfs",
        "vboxsf",
    ]
)


def file_system(path: str, mounts: str) -> str:
    """The type of the file system that holds the real path `path`, from the text of /proc/self/mountinfo ("" if unknown)."""
    best, kind = "", ""
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        fields = before.split(" ")
        if len(fields) < 5 or not after:
            continue
        point = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), fields[4])
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):  # of mounts on the same point the last one is seen
            best, kind = point, after.split(" ")[0]
    return kind


def refuse_network_file_system(path: str, mounts: str | None = None) -> None:
    """`FileAccessDenied` where locks, mapped pages and syncs cannot be relied on."""
    if mounts is None:
        try:
            with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
                mounts = file.read()
        except OSError:
            return  # not Linux, or a bare container: nothing is known, so nothing is claimed
    kind = file_system(os.path.realpath(path), mounts)
    if kind in _NETWORK:
        raise JetError(
            Err.FileAccessDenied,
            f"{path} lies on a network or shared file system ({kind}), whose locks, memory maps and syncs cannot be relied on; "
            "use a directory on a local disk or a block device volume",
            path=path,
            fileSystem=kind,
        )


class DirectoryLock:
    """`with DirectoryLock(files):` - `SystemPathInUse`, naming the holder, if another process has the directory.

    `DirectoryLock(files, "NAME.lock")` is for one NAME in it, and leaves the rest of the directory to others.

    The lock is the kernel's: it ends with its process, however that ends. The file stays, and means nothing by itself.
    """

    def __init__(self, files: LocalFiles, name: str = LOCK_FILE) -> None:
        self._files = files
        self._name = name
        self._place = files.root if name == LOCK_FILE else f"{files.root}/{name.removesuffix('.lock')}"
        self._file: LocalFile | None = None

    def acquire(self) -> None:
        refuse_network_file_system(self._files.root)
        file = self._files.open(self._name, create=True)
        try:
            if not file.try_lock():
                holder = file.read(0, 1000).decode("utf-8", "replace").strip() or "a process that is just starting"
                raise JetError(
                    Err.SystemPathInUse,
                    f"{self._place} is in use by {holder}; stop it first, or choose another place",
                    path=self._place,
                    holder=holder,
                )
            file.truncate(0)
            try:
                file.write(0, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
            except JetError as error:
                if (
                    error.code != Err.DiskFull
                ):  # the lock is had without the name: on a full disk who looks what is there must not be kept out
                    raise
        except JetError:
            file.close()
            raise
        self._file = file

    def release(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def __enter__(self) -> DirectoryLock:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
