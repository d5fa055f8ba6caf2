"""Which engine error an operating system's error is: a table."""

from __future__ import annotations

import errno
import os

from jetwire_protocol.errors import Err, JetError

_ERRORS: dict[int, Err] = {
    errno.ENOSPC: Err.DiskFull,
    errno.EDQUOT: Err.DiskFull,
    errno.EFBIG: Err.DiskFull,
    errno.EACCES: Err.FileAccessDenied,
    errno.EPERM: Err.FileAccessDenied,
    errno.EBADF: Err.FileAccessDenied,  # a write to a file opened to be read
    errno.EROFS: Err.FileAccessDenied,
    errno.EBUSY: Err.FileAccessDenied,
    errno.ETXTBSY: Err.FileAccessDenied,
    errno.ENOTEMPTY: Err.FileAccessDenied,
    errno.ENOENT: Err.FileNotFound,
    errno.EEXIST: Err.FileAlreadyExists,
    errno.ENOTDIR: Err.InvalidPath,
    errno.EISDIR: Err.InvalidPath,
    errno.ELOOP: Err.InvalidPath,
    errno.ENAMETOOLONG: Err.InvalidPath,
    errno.EMFILE: Err.OutOfFileHandles,
    errno.ENFILE: Err.OutOfFileHandles,
}


def jet_error(error: OSError, path: str) -> JetError:
    """The engine's name for `error`; what the engine has no name for is `DiskIO`."""
    number = error.errno or 0
    reason = os.strerror(number) if number else str(error)
    return JetError(_ERRORS.get(number, Err.DiskIO), f"{path}: {reason}", path=path, errno=number)
