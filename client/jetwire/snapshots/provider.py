"""Providers: who makes the copy while everything stands still.

A provider is a command. What Jetwire gives it is in its environment:

    JETWIRE_MANIFEST      a JSON file: what the copy must hold, per server
    JETWIRE_SNAPSHOT_IDS  the snapIds, comma-separated, in the order of the servers
    JETWIRE_DEADLINE      seconds since the epoch after which the freeze is over

It must exit 0 only when its copy is complete. It is stopped, with all that it started, when the freeze is over before it
is done: its copy proves nothing.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress

from jetwire.snapshots.outcome import Outcome, RunFailed

_KILL_GRACE_SECONDS = 2.0
_STDERR = 2  # where what a provider prints goes: standard output is the report's


def directory_copy(source: str, target: str) -> list[str]:
    """A plain recursive copy: right for any file system, slow for large databases."""
    return ["cp", "--archive", "--no-target-directory", source, target]


def reflink(source: str, target: str) -> list[str]:
    """A copy that shares blocks (btrfs, XFS): as quick as a snapshot; fails where the file system cannot."""
    return ["cp", "--archive", "--reflink=always", "--no-target-directory", source, target]


def btrfs(source: str, target: str) -> list[str]:
    """A read-only snapshot of the subvolume that holds the data."""
    return ["btrfs", "subvolume", "snapshot", "-r", source, target]


PROVIDERS = {"copy": directory_copy, "reflink": reflink, "btrfs": btrfs}


async def run(argv: Sequence[str], environment: Mapping[str, str]) -> None:
    """Runs a provider to its end; `RunFailed` if it fails or cannot start. Cancelled, it leaves no process behind."""
    shown = shlex.join(argv)
    try:
        process = await asyncio.create_subprocess_exec(*argv, env={**os.environ, **environment}, stdout=_STDERR, start_new_session=True)
    except (OSError, ValueError) as error:
        raise RunFailed(Outcome.PROVIDER_FAILED, f"{shown}: {error}") from error
    try:
        status = await process.wait()
    except asyncio.CancelledError:
        await asyncio.shield(_stop(process))
        raise
    if status != 0:
        how = f"exit status {status}" if status > 0 else f"signal {signal.Signals(-status).name}"
        raise RunFailed(Outcome.PROVIDER_FAILED, f"{shown}: {how}")


async def _stop(process: asyncio.subprocess.Process) -> None:
    """The whole process group: a shell's children must not go on copying, whatever they do with SIGTERM."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
        with suppress(TimeoutError):
            async with asyncio.timeout(_KILL_GRACE_SECONDS):
                await process.wait()
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()
