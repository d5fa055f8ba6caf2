"""Providers: who makes the copy while everything stands still.

A provider is a command. What Jetwire gives it is in its environment:

    JETWIRE_MANIFEST      a JSON file: what the copy must hold, per server
    JETWIRE_SNAPSHOT_IDS  the snapIds, comma-separated, in the order of the servers
    JETWIRE_DEADLINE      seconds since the epoch after which the freeze is over

It must exit 0 only when its copy is complete. It is killed when the freeze's deadline passes: its copy proves nothing.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
from collections.abc import Mapping, Sequence

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


async def run(argv: Sequence[str], environment: Mapping[str, str], seconds: float) -> None:
    """Runs a provider to its end; `RunFailed` if it fails, cannot start, or takes longer than the freeze lasts."""
    shown = shlex.join(argv)
    try:
        process = await asyncio.create_subprocess_exec(*argv, env={**os.environ, **environment}, stdout=_STDERR, start_new_session=True)
    except OSError as error:
        raise RunFailed(Outcome.PROVIDER_FAILED, f"{shown}: {error}") from error
    try:
        async with asyncio.timeout(max(0.0, seconds)):
            status = await process.wait()
    except TimeoutError:
        await _stop(process)
        raise RunFailed(Outcome.FREEZE_LOST, f"{shown} was still running when the freeze ended") from None
    except asyncio.CancelledError:
        await asyncio.shield(_stop(process))
        raise
    if status != 0:
        how = f"exit status {status}" if status > 0 else f"signal {signal.Signals(-status).name}"
        raise RunFailed(Outcome.PROVIDER_FAILED, f"{shown}: {how}")


async def _stop(process: asyncio.subprocess.Process) -> None:
    """The whole process group: a shell's children must not go on copying."""
    for how, patience in ((signal.SIGTERM, _KILL_GRACE_SECONDS), (signal.SIGKILL, None)):
        if process.returncode is not None:
            return
        try:
            os.killpg(process.pid, how)
        except ProcessLookupError:
            return
        try:
            async with asyncio.timeout(patience):
                await process.wait()
        except TimeoutError:
            continue
