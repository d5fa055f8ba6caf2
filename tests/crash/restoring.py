"""Restores by the hundred: to points in time, from damaged backups, and killed in the middle of the swap.

`points` compares with a model what a restore to a random position, time or commit holds. `streams` damages a backup that
was taken under load, in every way a network, a disk or a person may, and wants each damage named. `swaps` kills a process
that restores in place at each of the steps of its swap, and wants the instance as it was, or the restored one, whole.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

from jetwire_protocol.errors import Err, JetError
from jetwire_server import failpoints
from jetwire_server.backup import restore as restoring
from jetwire_server.backup.directory import backup_instance
from jetwire_server.backup.inplace import restore_instance
from jetwire_server.backup.manifest import BackupFile
from jetwire_server.backup.restore import Until
from jetwire_server.clock import SystemClock
from jetwire_server.events import EventLog
from jetwire_server.files.local import LocalFiles
from jetwire_server.hosting import Hosting
from tests.server.backup.lives import Taken, points_of, restored, take_under_load
from tests.support.hosted import Hosted, Model, copy_of, rows_of

ROOT = Path(__file__).parents[2]


@dataclass
class Result:
    count: int = 0
    failures: list[str] = field(default_factory=list)
    table: Counter[str] = field(default_factory=Counter)
    commits: int = 0


# -- points in time -----------------------------------------------------------------------------------------------------
def points(seed: int, restores: int, *, cutting: bool = True) -> Result:
    """Control: a restore that never cuts the log (`cutting` off)."""
    result = Result()
    with tempfile.TemporaryDirectory(prefix="jetwire-points-") as scratch, ExitStack() as stack:
        directory = Path(scratch)
        taken = asyncio.run(take_under_load(directory, seed))
        result.commits = taken.last - taken.first + 1
        dice = random.Random(seed)
        if not cutting:
            stack.enter_context(mock.patch.object(Until, "beyond", return_value=False))
        for nth in range(restores):
            kind, until, commit = points_of(taken, dice)
            target = directory / str(nth)
            try:
                _, rows = asyncio.run(restored(taken.directory, target, taken.tree, until))
                if rows != taken.hosted.history[commit]:
                    result.failures.append(f"seed {seed}, restore {nth}: {until} is not commit {commit}")
            except JetError as error:
                result.failures.append(f"seed {seed}, restore {nth}: {until}: {error}")
            result.count += 1
            result.table[f"to a {kind}"] += 1
            shutil.rmtree(target, ignore_errors=True)
    return result


# -- damaged streams ----------------------------------------------------------------------------------------------------
def _change(path: Path, change: Callable[[bytes], bytes]) -> None:
    path.write_bytes(change(path.read_bytes()))


def _flip(dice: random.Random, data: bytes) -> bytes:
    at = dice.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << dice.randrange(8)]) + data[at + 1 :]


def _reorder(dice: random.Random, data: bytes) -> bytes:
    """Two pieces of the stream come in the wrong order, as from a client that reads out of turn."""
    size = dice.choice((512, 4_096, 65_536))
    pieces = [data[i : i + size] for i in range(0, len(data), size)]
    if len(pieces) > 1:
        one, two = dice.sample(range(len(pieces)), 2)
        pieces[one], pieces[two] = pieces[two], pieces[one]
    return b"".join(pieces)


def _repeat(dice: random.Random, data: bytes) -> bytes:
    at = dice.randrange(len(data) // 512 + 1) * 512
    return data[:at] + data[at : at + 512] + data[at:]


def _zero(dice: random.Random, data: bytes) -> bytes:
    at = dice.randrange(len(data) // 512 + 1) * 512
    return (data[:at] + bytes(512) + data[at + 512 :])[: len(data)]


IN_A_FILE: dict[str, Callable[[random.Random, bytes], bytes]] = {
    "a bit": _flip,
    "reordered": _reorder,
    "truncated": lambda dice, data: data[: dice.randrange(len(data))],
    "a piece twice": _repeat,
    "a piece missing": lambda dice, data: (lambda at: data[:at] + data[at + 512 :])(dice.randrange(len(data) // 512 + 1) * 512),
    "zeroed": _zero,
    "longer": lambda dice, data: data + bytes(dice.randrange(1, 5_000)),
}


def _missing(dice: random.Random, files: list[Path]) -> None:
    dice.choice(files).unlink()


def _swapped(dice: random.Random, files: list[Path]) -> None:
    one, two = dice.sample(files, 2)
    first, second = one.read_bytes(), two.read_bytes()
    one.write_bytes(second)
    two.write_bytes(first)


def _doubled(dice: random.Random, files: list[Path]) -> None:
    one, two = dice.sample(files, 2)
    shutil.copy(one, two)


AMONG_FILES: dict[str, Callable[[random.Random, list[Path]], None]] = {
    "a file missing": _missing,
    "two files swapped": _swapped,
    "a file in place of another": _doubled,
}


def streams(seed: int, harms: int, *, checksums: bool = True) -> Result:
    """Control: files are copied without comparing their sizes and checksums; what the log and the pages know of damage is left."""
    result = Result()
    with tempfile.TemporaryDirectory(prefix="jetwire-streams-") as scratch, ExitStack() as stack:
        directory = Path(scratch)
        taken = asyncio.run(take_under_load(directory, seed))
        dice = random.Random(seed)
        if not checksums:
            stack.enter_context(mock.patch.object(restoring, "_copy", _copy_unchecked))
            stack.enter_context(mock.patch.object(restoring, "check_presence", return_value=None))
        for nth in range(harms):
            kind = dice.choice((*IN_A_FILE, *AMONG_FILES)) if checksums else "a bit"
            copy = copy_of(taken.directory, directory / f"copy{nth}")
            what = _harm(dice, copy, kind)
            _judge(result, taken, copy, f"seed {seed}, harm {nth}: {what}", kind)
            shutil.rmtree(copy)
    return result


def _copy_unchecked(source: LocalFiles, target: LocalFiles, wanted: BackupFile) -> None:
    restoring.copy_file(source, wanted.path, target, wanted.path)


def _harm(dice: random.Random, copy: Path, kind: str) -> str:
    files = sorted(path for path in copy.iterdir() if path.is_file())
    before = {path: path.read_bytes() for path in files}
    while {path: path.read_bytes() for path in files if path.exists()} == before:  # zeroes over zeroes are no harm
        if kind in AMONG_FILES:
            AMONG_FILES[kind](dice, files)
        else:
            _change(dice.choice(files), lambda data: IN_A_FILE[kind](dice, data))
    return f"{kind}: {', '.join(path.name for path in files if not path.exists() or path.read_bytes() != before[path])}"


def _judge(result: Result, taken: Taken, copy: Path, what: str, kind: str) -> None:
    target = copy.with_name(copy.name + "-restored")
    result.count += 1
    try:
        asyncio.run(restored(copy, target, taken.tree))
        result.failures.append(f"{what}: not noticed")
    except JetError as error:
        result.table[f"{kind} | {Err(error.code).name}"] += 1
    except Exception as error:  # anything else is no answer
        result.failures.append(f"{what}: {error!r}")
    shutil.rmtree(target, ignore_errors=True)


# -- killed in the swap ---------------------------------------------------------------------------------------------------
PLACES = ("before_plan", "planned", "removed", "moved", "before_done", "done")


@dataclass
class _Case:
    data: Path
    hosted: Hosted
    old: Model


async def _case(data: Path, seed: int) -> _Case:
    """A backup, then more commits, in log files that the backup does not have; and a second database only they know."""
    hosted = await (await Hosted(data).start()).create()
    dice = random.Random(seed)
    for _ in range(5):
        await hosted.write(dice.randrange(1, 60))
    await backup_instance(hosted.hosting.backups, hosted.instance, "bk", 0, lambda *_: None)
    for _ in range(dice.randrange(1, 4)):
        await hosted.write(dice.randrange(1, 60))
        await hosted.hosting.backups.storage_of(hosted.instance).log.roll()
    await hosted.write(7)
    await hosted.stop()
    return _Case(data, hosted, dict(hosted.model))


async def _content(case: _Case, data: Path) -> Model:
    again = await Hosted(data).start()
    try:
        snapshot = await again.instance.store.begin(read_only=True)
        try:
            return await rows_of(snapshot, case.hosted.tree)
        finally:
            await snapshot.rollback()
    finally:
        await again.stop()


def swaps(seed: int, cycles: int, *, finishing: bool = True) -> Result:
    """Control: a start that does not finish what it finds (`finishing` off)."""
    result = Result()
    dice = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="jetwire-swaps-") as scratch, ExitStack() as stack:
        directory = Path(scratch)
        case = asyncio.run(_case(directory / "data", seed))
        if not finishing:
            stack.enter_context(mock.patch("jetwire_server.hosting.settle_unfinished", return_value=None))
        for nth in range(cycles):
            data = copy_of(case.data, directory / str(nth))
            place, hit = dice.choice((*PLACES, "moved", "moved")), dice.randrange(1, 7)
            spoilt = dice.random() < 0.5  # the reason for the restore
            if not finishing:  # a place where half of it is done, and the old half of no use
                place, hit, spoilt = "moved", 1 + hit % 3, True
            if spoilt:
                (data / "default" / "a.edb").write_bytes(b"no database any more")
            hit = hit if place == "moved" else 1
            environment = {**os.environ, "JETWIRE_FAILPOINTS": f"restore.swap.{place}=kill:{hit}"}
            command = [sys.executable, "-m", "tests.crash.restoring", str(data)]
            done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
            what = f"seed {seed}, cycle {nth}: {place}:{hit}, {'spoilt' if spoilt else 'whole'}"
            killed = done.returncode == -signal.SIGKILL
            if not killed and done.returncode:
                result.failures.append(f"{what}: {done.stderr[-300:]}")
            result.count += killed
            result.table[place] += killed
            try:
                if place == "before_plan" and spoilt:  # as it was; and the restore can be repeated
                    subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
                if asyncio.run(_content(case, data)) != case.old:
                    result.failures.append(f"{what}: commits are missing")
            except (JetError, subprocess.CalledProcessError) as error:
                result.failures.append(f"{what}: {error}")
            shutil.rmtree(data)
    return result


async def _restore_here(data: Path) -> None:
    instance = await Hosting(LocalFiles(data), SystemClock(), EventLog()).engine.create_instance("default")
    await restore_instance(instance, str(data / "default"), SystemClock(), "bk", None, lambda *_: None)


if __name__ == "__main__":
    failpoints.arm_from_environment(os.environ.get("JETWIRE_FAILPOINTS", ""))
    asyncio.run(_restore_here(Path(sys.argv[1])))
    print(json.dumps({"restored": True}))
