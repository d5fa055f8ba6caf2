"""Faults of the system, injected by strace: a sync, a write, an allocation or a rename that fails in a real process.

From the first failure on nothing that is begun may be acknowledged, ever, although only one call failed and all later
ones would work; and after a restart everything that had been acknowledged is there.
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from tests.crash.worker import BEGUN, DONE, FAILED, LAZY, Expectation, said, verify_directory

SECONDS_MAX = 3.0
ROOT = Path(__file__).parents[2]

FAULTS: list[tuple[str, str, int]] = [
    ("fdatasync", "EIO", 200),
    ("fdatasync", "ENOSPC", 200),
    ("pwrite64", "EIO", 300),
    ("pwrite64", "ENOSPC", 300),
    ("fallocate", "ENOSPC", 8),
    ("ftruncate", "ENOSPC", 4),
    ("fsync", "EIO", 60),
    ("rename,renameat,renameat2", "EIO", 30),
    ("unlink,unlinkat", "EACCES", 20),
]
"""System call, error, and how late the failing call may be."""


@dataclass
class Result:
    runs: int = 0
    failed: int = 0  # runs in which the worker met the fault
    acknowledged: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)


def strace() -> str | None:
    """The strace command, if it is there and allowed here."""
    command = shutil.which("strace")
    if command is None:
        return None
    tried = subprocess.run([command, "-f", "-qq", "-o", "/dev/null", "true"], capture_output=True, check=False)
    return command if tried.returncode == 0 else None


def run_one(directory: str, seed: int, call: str, error: str, when: str, *, lying: bool = False) -> tuple[bytes, str]:
    """A worker from nothing, under a fault, for at most a few seconds; what it said."""
    command = strace()
    assert command is not None
    fault = f"inject={call}:error={error}:when={when}"
    traced = [command, "-f", "-qq", "--seccomp-bpf", "-o", "/dev/null", "-e", f"trace={call}", "-e", fault]
    worker = [sys.executable, "-m", "tests.crash.worker", directory, str(seed), *(["lying"] if lying else [])]
    process = subprocess.Popen([*traced, *worker], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        output, errors = process.communicate(timeout=SECONDS_MAX)
    except subprocess.TimeoutExpired:
        subprocess.run(["kill", "-9", *_children(process.pid)], check=False, capture_output=True)
        output, errors = process.communicate()
    return output, errors.decode()


def _children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def judge(output: bytes, expectation: Expectation) -> tuple[int, bool, str]:
    """How much was acknowledged, whether something failed, and what is wrong."""
    failed = False
    begun_late: set[tuple[int, int]] = set()
    wrong = ""
    for what, who, n in said(output):
        if what == FAILED:
            failed = True
        elif what == BEGUN and failed:
            begun_late.add((who, n))
        elif what in (DONE, LAZY) and (who, n) in begun_late:
            wrong = f"commit {n} of committer {who} was begun after the failure, and acknowledged"
    return expectation.take(output), failed, wrong


def run(seed: int, *, runs: int, seconds: float = 1e9, lying: bool = False) -> Result:
    result = Result()
    rng = Random(f"faults/{seed}")
    until = time.monotonic() + seconds
    while result.runs < runs and time.monotonic() < until:
        call, error, latest = FAULTS[result.runs % len(FAULTS)]
        when = f"{rng.randint(1, latest)}{rng.choice(('', '+'))}"
        where = f"seed {seed}, run {result.runs}: {call} {error} at {when}"
        with tempfile.TemporaryDirectory(prefix="jetwire-fault-") as directory:
            expectation = Expectation(rng.getrandbits(32))
            output, errors = run_one(f"{directory}/data", expectation.seed, call, error, when, lying=lying)
            acknowledged, failed, wrong = judge(output, expectation)
            failed = failed or "did not start" in errors
            result.runs += 1
            result.failed += failed
            result.faults[f"{call.partition(',')[0]} {error}"] += failed
            result.acknowledged += acknowledged
            if wrong:
                result.failures.append(f"{where}: {wrong}")
            try:
                asyncio.run(verify_directory(f"{directory}/data", expectation))
            except Exception as problem:
                result.failures.append(f"{where}: after the restart: {problem!r}")
    return result
