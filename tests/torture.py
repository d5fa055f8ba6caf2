"""The long crash tests: `python -m tests.torture [--part NAME] [--seconds N] [--count N] [--seed N]`.

Each part is a row of `PARTS`: what it counts, how many are wanted, and the controls that must fail. The work is cut into
jobs, each a process of its own with a seed of its own, two at a time. Figures go to docs/reliability.md, between its
markers; a part that was not run keeps its figures. The exit code is 1 if anything failed, or a control did not.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from jetwire_server.store.embedded.store import EmbeddedStore
from tests.crash import corruption, deadlines, faults, killing, powerloss, restoring, served, snapshots, torn
from tests.server.snapshot import test_schedules as schedules
from tests.stateful.test_controls import conflicts_are_ignored
from tests.stateful.test_engine import MACHINES, STEPS, drive

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "reliability.md"
FIGURES = ROOT / "docs" / "reliability.json"
BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"
JOBS_AT_ONCE = 2
Found = dict[str, Any]  # count, failures, and tables of counters


def _powerloss(seed: int, dose: int) -> Found:
    result = asyncio.run(powerloss.run(seed, lives=1_000, images_max=dose))
    return {
        "count": result.images,
        "failures": result.failures,
        "extra": {"lives of a store": result.lives, "instants": result.moments, "states after a second crash": result.second},
        "table": dict(result.kinds),
    }


def _twice(seed: int, dose: int) -> Found:
    result = asyncio.run(powerloss.run(seed, lives=1_000, moments_max=20, again=0.15, images_max=2 * dose))
    extra = {"lives of a store": result.lives, "instants": result.moments, "states after the first cut": result.images - result.second}
    return {"count": result.second, "failures": result.failures, "extra": extra, "table": {}}


def _kill(seed: int, dose: int) -> Found:
    result = killing.run(seed, cycles=dose)
    extra = {
        "killed": result.killed,
        "of these while recovering": result.killed_while_recovering,
        "ended cleanly": result.ended_cleanly,
        "commits acknowledged": result.acknowledged,
    }
    return {"count": result.cycles, "failures": result.failures, "extra": extra, "table": dict(result.places)}


def _corruption(seed: int, dose: int) -> Found:
    result = corruption.run(seed, harms=dose)
    table = {f"{kind} | {outcome}": count for kind, outcomes in result.outcomes.items() for outcome, count in outcomes.items()}
    return {"count": result.harms, "failures": result.failures, "extra": {}, "table": table}


def _faults(seed: int, dose: int) -> Found:
    result = faults.run(seed, runs=dose)
    extra = {"runs that met their fault": result.failed, "commits acknowledged": result.acknowledged}
    return {"count": result.runs, "failures": result.failures, "extra": extra, "table": dict(result.faults)}


def _served(seed: int, dose: int) -> Found:
    result = served.run(seed, cycles=dose)
    extra = {"commits acknowledged over the wire": result.acknowledged}
    return {"count": result.cycles, "failures": result.failures, "extra": extra, "table": dict(result.places)}


def _restoring(result: restoring.Result) -> Found:
    extra = {"commits to choose from": result.commits} if result.commits else {}
    return {"count": result.count, "failures": result.failures, "extra": extra, "table": dict(result.table)}


def _stateful(seed: int, dose: int) -> Found:
    failures = []
    for name, machine in MACHINES.items():
        try:
            drive(machine, dose, seed)
        except AssertionError as wrong:
            failures.append(f"seed {seed}, {name}: {wrong}")
    return {"count": dose, "failures": failures, "extra": {"steps at most": STEPS * dose * len(MACHINES)}, "table": {}}


def _wrong_engine(seed: int) -> Found:
    with pytest.MonkeyPatch.context() as patch:
        conflicts_are_ignored(patch)
        return _stateful(seed, 300)


def _snapshots(result: snapshots.Result) -> Found:
    extra = {"commits in the copies": result.commits, "records compared": result.records, "commits that waited": result.waited}
    return {"count": result.snapshots, "failures": result.failures, "extra": extra, "table": dict(result.table)}


def _deadlines(result: deadlines.Result) -> Found:
    return {"count": result.freezes, "failures": result.failures, "extra": {}, "table": dict(result.table)}


def _late_gate(broken: str) -> Callable[[int], Found]:
    return lambda seed: _deadlines(deadlines.run(seed, 2 * len(deadlines.DEEDS), broken=broken))


def _torn(seed: int, dose: int) -> Found:
    result = torn.run(seed, dose)
    return {"count": result.mixes, "failures": result.failures, "extra": {"lives of a store": result.lives}, "table": dict(result.table)}


def _schedules(seed: int, dose: int) -> Found:
    failures: list[str] = []
    verdicts: Counter[str] = Counter()
    for one in range(seed * dose, (seed + 1) * dose):
        try:
            verdicts += schedules.play(range(one, one + 1))
        except BaseException as wrong:  # of simulated time: whatever came out is a failure of this schedule
            failures.append(f"schedule {one}: {wrong!r}")
    return {"count": dose, "failures": failures, "extra": {}, "table": {f"thaw: {what}": count for what, count in verdicts.items()}}


def _wrong_gate(breaking: Callable[[pytest.MonkeyPatch], None]) -> Callable[[int], Found]:
    def control(seed: int) -> Found:
        with pytest.MonkeyPatch.context() as patch:
            breaking(patch)
            return _schedules(seed, 400)

    return control


def _control(result: Any) -> Found:
    return {"count": 1, "failures": result.failures, "extra": {}, "table": {}}


async def _nothing(_: EmbeddedStore) -> None:
    """Instead of making the log durable before the pages."""


def _pages_first(seed: int) -> Found:
    with mock.patch.object(EmbeddedStore, "make_durable", _nothing):
        return _control(asyncio.run(powerloss.run(seed, lives=6, failures_max=3)))


@dataclass(frozen=True)
class Part:
    """`controls`: runs with a safety switched off, which must fail."""

    counts: str
    wanted: int
    dose: int  # a job's, some twenty seconds
    run: Callable[[int, int], Found]
    controls: dict[str, Callable[[int], Found]]


PARTS: dict[str, Part] = {
    "stateful": Part(
        "runs of the engine beside its model, on each of the two stores",
        20_000,
        500,
        _stateful,
        {"conflicts are not noticed": _wrong_engine},
    ),
    "power": Part(
        "states after a power cut, recovered and compared",
        100_000,
        3_000,
        _powerloss,
        {
            "sync switched off": lambda seed: _control(asyncio.run(powerloss.run(seed, lives=3, sync_works=False, failures_max=3))),
            "pages before the log": _pages_first,
        },
    ),
    "twice": Part("states after a second power cut, during the recovery from a first one or soon after", 20_000, 1_000, _twice, {}),
    "kill": Part(
        "cycles of kill -9 and restart",
        1_000,
        100,
        _kill,
        {"acknowledged before the commit": lambda seed: _control(killing.run(seed, cycles=60, lying=True, failures_max=1))},
    ),
    "served": Part("cycles of kill -9 of a whole server under real clients", 60, 15, _served, {}),
    "corruption": Part(
        "damages, recovered, read and checked",
        50_000,
        2_000,
        _corruption,
        {
            "damage in values that no checksum sees": lambda seed: _control(corruption.run(seed, harms=60, kinds=("value, unseen",))),
            "damage in the log that no checksum sees": lambda seed: _control(corruption.run(seed, harms=60, kinds=("log, unseen",))),
        },
    ),
    "faults": Part(
        "runs with a failing system call (strace)",
        200,
        18,
        _faults,
        {"acknowledged before the commit": lambda seed: _control(faults.run(seed, runs=2, lying=True))},
    ),
    "points": Part(
        "restores of a backup under load to a point in time, compared",
        300,
        50,
        lambda seed, dose: _restoring(restoring.points(seed, dose)),
        {"the log is not cut": lambda seed: _control(restoring.points(seed, 5, cutting=False))},
    ),
    "streams": Part(
        "damaged backup streams",
        1_000,
        125,
        lambda seed, dose: _restoring(restoring.streams(seed, dose)),
        {"sizes and checksums of files not compared": lambda seed: _control(restoring.streams(seed, 40, checksums=False))},
    ),
    "swaps": Part(
        "kills in the middle of RestoreInstance's swap",
        100,
        15,
        lambda seed, dose: _restoring(restoring.swaps(seed, dose)),
        {"a start does not finish the swap": lambda seed: _control(restoring.swaps(seed, 8, finishing=False))},
    ),
    "snapshots": Part(
        "snapshots under load by plain copy, verified, served again and compared",
        2_000,
        25,
        lambda seed, dose: _snapshots(snapshots.run(seed, dose)),
        {
            "the gate is open, judged by the manifest": lambda seed: _snapshots(
                snapshots.run(seed, 5, gate_is_open=True, judges=("verify",))
            ),
            "the gate is open, judged by the model": lambda seed: _snapshots(snapshots.run(seed, 5, gate_is_open=True, judges=("model",))),
        },
    ),
    "torn": Part(
        "mixes of the files of two frozen copies, recovered and compared",
        10_000,
        500,
        _torn,
        {"pages that know more than the log are not noticed": lambda seed: _control(torn.run(seed, 300, pages_are_compared=False))},
    ),
    "deadlines": Part(
        "freezes of a real server that nobody thawed, and when the first write came",
        450,
        45,
        lambda seed, dose: _deadlines(deadlines.run(seed, dose)),
        {
            "nobody looks at the deadline": _late_gate("no deadline"),
            "two seconds late": _late_gate("late"),
            "a timer of the event loop opens the gate": _late_gate("a timer opens"),
        },
    ),
    "schedules": Part(
        "random schedules of snapshots in simulated time",
        10_000,
        500,
        _schedules,
        {
            "the gate ignores its deadline": _wrong_gate(schedules.deadlines_are_ignored),
            "what is written while frozen is not counted": _wrong_gate(schedules.nothing_is_counted),
        },
    ),
}


# -- jobs -----------------------------------------------------------------------------------------------------------
def _job(part: str, seed: int, dose: int, control: str) -> Found:
    """In a process of its own: some parts fork, and a fork wants a single thread."""
    command = [sys.executable, "-m", "tests.torture", "--part", part, "--seed", str(seed), "--job", str(dose), "--control", control]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    try:
        found: Found = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        return {
            "count": 0,
            "failures": [f"seed {seed}: the job ended with {done.returncode}: {done.stderr[-600:]}"],
            "extra": {},
            "table": {},
        }
    return found


def _run_part(name: str, seed: int, seconds: float, wanted: int) -> Found:
    part = PARTS[name]
    began = time.monotonic()
    total: Found = {"count": 0, "failures": [], "extra": Counter(), "table": Counter()}
    waiting: dict[Future[Found], int] = {}  # a job, and its dose
    asked, jobs = 0, 0
    with ThreadPoolExecutor(JOBS_AT_ONCE) as pool:
        while True:
            in_time = time.monotonic() - began < seconds
            while in_time and len(waiting) < JOBS_AT_ONCE and asked < wanted and len(total["failures"]) < 20:
                dose = min(part.dose, wanted - asked)
                waiting[pool.submit(_job, name, seed + jobs, dose, "")] = dose
                asked += dose
                jobs += 1
            if not waiting:
                break
            for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                found = future.result()
                dose = waiting.pop(future)
                total["count"] += found["count"]
                total["failures"] += found["failures"]
                total["extra"].update(found["extra"])
                total["table"].update(found["table"])
                asked -= dose - found["count"] if found["count"] else 0
                for failure in found["failures"][:3]:
                    print(f"  {failure[:500]}", flush=True)
            print(
                f"{name}: {total['count']:,} of {wanted:,}, {len(total['failures'])} failures, {time.monotonic() - began:.0f} s",
                flush=True,
            )
    controls = {what: len(_job(name, seed, 0, what)["failures"]) for what in part.controls}
    print(f"{name}: controls {controls}", flush=True)
    total |= {"extra": dict(total["extra"]), "table": dict(total["table"]), "controls": controls}
    return total | {"seeds": [seed, seed + jobs - 1], "seconds": round(time.monotonic() - began)}


# -- the page -------------------------------------------------------------------------------------------------------
def _machine() -> str:
    model = next((line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), "?")
    return f"{os.cpu_count()} cores of {model}, Linux {platform.release().partition('-')[0]}, Python {platform.python_version()}"


def _revision() -> str:
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "?"


def _section(name: str, found: Found) -> list[str]:
    part = PARTS[name]
    first, last = found["seeds"]
    lines = [
        f"### {name}: {found['count']:,} {part.counts}",
        "",
        f"**{len(found['failures'])} failures.** Wanted: {part.wanted:,}. Seeds {first} to {last}, {found['seconds']:,} s, "
        f"{found['date']} UTC, revision {found['revision']}, {found['machine']}.",
        "",
    ]
    if found["extra"]:
        lines += ["; ".join(f"{what}: {count:,}" for what, count in found["extra"].items()) + ".", ""]
    for what, failures in found["controls"].items():
        lines += [f"Control, {what}: {'caught' if failures else 'NOT CAUGHT'} ({failures} failures).", ""]
    lines += _grid(found["table"]) if name in ("corruption", "streams") else _list(found["table"])
    lines += [f"- {failure[:300]}" for failure in found["failures"][:10]]
    return [*lines, ""]


def _list(table: dict[str, int]) -> list[str]:
    if not table:
        return []
    return ["| what | count |", "| --- | ---: |", *(f"| {what} | {count:,} |" for what, count in sorted(table.items())), ""]


def _grid(table: dict[str, int]) -> list[str]:
    kinds = list(dict.fromkeys(what.partition(" | ")[0] for what in table))
    outcomes = list(dict.fromkeys(what.partition(" | ")[2] for what in table))
    rows = [f"| {kind} | " + " | ".join(f"{table.get(f'{kind} | {outcome}', 0):,}" for outcome in outcomes) + " |" for kind in kinds]
    return ["| class | " + " | ".join(outcomes) + " |", "| --- |" + " ---: |" * len(outcomes), *rows, ""]


def _write(name: str, found: Found) -> None:
    figures: dict[str, Found] = json.loads(FIGURES.read_text()) if FIGURES.exists() else {}
    figures[name] = found | {"date": time.strftime("%Y-%m-%d %H:%M", time.gmtime()), "revision": _revision(), "machine": _machine()}
    FIGURES.write_text(json.dumps(figures, indent=1) + "\n")
    text = PAGE.read_text()
    before, after = text[: text.index(BEGIN) + len(BEGIN)], text[text.index(END) :]
    made = [line for part in PARTS if part in figures for line in _section(part, figures[part])]
    PAGE.write_text(before + "\n" + "\n".join(made) + after)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=PARTS, help="one part only")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="of each part; what is not reached by then is told")
    parser.add_argument("--count", type=int, help="how many of each part, instead of all that are wanted; the page tells both")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--job", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--control", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.job is not None:
        part = PARTS[options.part]
        found = part.controls[options.control](options.seed) if options.control else part.run(options.seed, options.job)
        print(json.dumps(found))
        return 0
    bad = False
    for name in [options.part] if options.part else PARTS:
        if name == "faults" and faults.strace() is None:
            print("faults: skipped: strace is not installed, or not allowed here")
            continue
        found = _run_part(name, options.seed, options.seconds, options.count or PARTS[name].wanted)
        _write(name, found)
        bad |= bool(found["failures"]) or not all(found["controls"].values())
    return int(bad)


if __name__ == "__main__":
    sys.exit(main())
