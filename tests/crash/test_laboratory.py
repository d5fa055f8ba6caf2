"""A small dose of the crash laboratory, and its controls: what `make torture` does for an hour. Other parts have theirs beside their tests.

The jobs are those of `tests.torture`, each in a process of its own.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.crash import faults
from tests.crash.killing import failpoint_names
from tests.torture import PARTS, ROOT

DOSES = {"power": 300, "twice": 80, "kill": 25, "served": 2, "corruption": 240, "faults": 6}


def job(part: str, seed: int, dose: int, control: str = "") -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.torture", "--part", part, "--seed", str(seed), "--job", str(dose), "--control", control]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("part", DOSES)
def test_the_promise_holds(part: str) -> None:
    if part == "faults" and faults.strace() is None:
        pytest.skip("strace is not installed, or not allowed here")
    found = job(part, 1, DOSES[part])
    assert found["failures"] == []
    assert found["count"] >= DOSES[part] // 2


CONTROL_RUNS_MAX = 8
SLOW = {"pages before the log"}
CONTROLS = [(name, control) for name in DOSES for control in PARTS[name].controls if control not in SLOW]


@pytest.mark.parametrize(("part", "control"), CONTROLS)
def test_a_broken_promise_is_noticed(part: str, control: str) -> None:
    if part == "faults" and faults.strace() is None:
        pytest.skip("strace is not installed, or not allowed here")
    # Where real processes race, one small run may happen to keep even a broken promise; several do not.
    assert any(job(part, seed, 0, control)["failures"] for seed in range(1, CONTROL_RUNS_MAX + 1))


def test_the_risky_lines_have_names() -> None:
    assert {"redo.before_sync", "redo.roll.between_renames", "pages.before_commit", "files.before_rename"} <= set(failpoint_names())
