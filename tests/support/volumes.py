"""Real file systems for tests: made in a file, mounted through a loop device, gone afterwards. Skips where the machine does not let us."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

MIB = 300  # the least that XFS and btrfs will be made on


@contextmanager
def mounted(kind: str, base: Path) -> Iterator[Path]:
    """The root of a new file system of that kind."""
    make = shutil.which(f"mkfs.{kind}")
    if make is None:
        pytest.skip(f"no mkfs.{kind} here")
    image, point = base / f"{kind}.img", base / kind
    with image.open("wb") as file:
        file.truncate(MIB << 20)
    point.mkdir()
    for command in ([make, "-q", str(image)], ["mount", "-o", "loop", str(image), str(point)]):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            pytest.skip(f"{' '.join(command)}: {done.stderr.strip()}")
    try:
        yield point
    finally:
        subprocess.run(["umount", "--lazy", str(point)], check=False)
        image.unlink()
