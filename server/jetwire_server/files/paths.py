"""What a path may be, and the watch that counts nothing: shared by both kinds of files."""

from __future__ import annotations

from jetwire_protocol.errors import Err, JetError


def components(path: str) -> list[str]:
    """The names in a relative path; `InvalidPath` for any path that could mean something else."""
    if path == "":
        return []
    names = path.split("/")
    if "\0" in path or any(name in ("", ".", "..") for name in names):
        raise JetError(Err.InvalidPath, f"not a plain path below the root: {path!r}", path=path)
    return names


def plain(path: str) -> str:
    """A path as a client writes it, with either slash and `.` for the directory itself, as the file layer has it."""
    return "/".join(part for part in path.replace("\\", "/").split("/") if part not in ("", "."))


def unwatched(_size: int) -> None:
    """Stands where nobody counts: scratch files, and tests."""
