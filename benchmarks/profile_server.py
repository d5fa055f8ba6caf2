"""Where the server's time goes, by function: the shares of py-spy's samples while `ycsb` runs one workload against it.

    pip install py-spy; python -m benchmarks.profile_server C [--connections 32] [--seconds 5]

"own" is a function's own time, "with calls" includes what it calls; shares of the event loop's thread while it worked.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import uvloop

from benchmarks.ycsb import WORKLOADS, Dice, Run
from benchmarks.ycsb_peers import Jetwire

RECORDS = 10_000
LINES = 28


def shares(samples: str) -> tuple[Counter[str], Counter[str], int]:
    own: Counter[str] = Counter()
    with_calls: Counter[str] = Counter()
    total = 0
    for line in samples.splitlines():
        stack, _, count = line.rpartition(" ")
        frames = stack.split(";")
        total += int(count)
        own[frames[-1]] += int(count)
        for frame in set(frames):
            with_calls[frame] += int(count)
    return own, with_calls, total


async def drive(run: Run, letter: str, connections: int, seconds: float, output: Path) -> None:
    await run.load()
    await run.connect(connections)
    pid = str(run.server.processes()[0])
    command = ["py-spy", "record", "-p", pid, "-d", str(int(seconds)), "-r", "400", "-F", "-f", "raw", "-o", str(output)]
    program = str(Path(sys.executable).with_name(command[0]))
    spy = await asyncio.create_subprocess_exec(program, *command[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    rate, spent, _ = await run.measure(WORKLOADS[letter], Dice(RECORDS, 0), seconds + 0.5)
    print(f"{letter} at {connections} connections: {rate:,.0f}/s, {spent:.1f} us of server CPU each, the sampling included")
    await spy.wait()
    await run.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workload", choices=WORKLOADS)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=5)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="profile") as directory:
        server = Jetwire(Path(directory))
        output = Path(directory) / "samples"
        try:
            uvloop.run(drive(Run(server, RECORDS), given.workload, given.connections, given.seconds, output))
        finally:
            server.stop()
        own, with_calls, total = shares(output.read_text())
    for title, counted in (("own", own), ("with calls", with_calls)):
        print(f"\n{title}")
        for frame, count in counted.most_common(LINES):
            print(f"{100 * count / total:6.1f} %  {frame}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
