"""Whether the copy is there: before the freeze it must not be, afterwards it must hold every file that was frozen.

This looks at names and sizes only, so it costs next to nothing and tells a provider that did nothing, or stopped half-way,
from one that did its work. What the files hold is for `jetwire snapshot verify`.
"""

from __future__ import annotations

import glob
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jetwire.snapshots.outcome import Outcome, RunFailed


def refuse_existing(copy: Path) -> None:
    """What is there already would be mixed with the new copy, or be taken for it."""
    if copy.exists() or copy.is_symlink():
        raise RunFailed(Outcome.REFUSED, f"{copy} is there already: remove it, or write {{time}} in its name")


def check(copy: Path, manifest: Mapping[str, Any]) -> None:
    """`RunFailed` if the copy lacks a file that one server's manifest names, or has it in another size."""
    for instance in manifest["instances"]:
        missing = min((_missing(root, instance["files"]) for root in _roots(copy, instance["name"])), key=len)
        if missing:
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise RunFailed(Outcome.PROVIDER_FAILED, f"{copy} is no whole copy of instance {instance['name']}: {missing[0]}{more}")


def _roots(copy: Path, instance: str) -> Iterator[Path]:
    """Where the instance's directory may be: the copy is of a data directory, of one instance's, or of a volume with one on it."""
    yield copy
    yield from copy.rglob(glob.escape(instance))


def _missing(root: Path, files: list[dict[str, Any]]) -> list[str]:
    found = []
    for file in files:
        path = root / file["path"]
        if not path.is_file():
            found.append(f"{file['path']} is missing")
        elif path.stat().st_size != file["size"]:
            found.append(f"{file['path']} has {path.stat().st_size} bytes, frozen were {file['size']}")
    return found
