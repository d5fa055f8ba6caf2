"""Runs the benchmarks one after the other: `python -m benchmarks [--save] [NAME ...]`, or `--list`. Each also runs alone and has options.

`--save` also leaves what they print in `results/NAME.txt`, and the raw figures and the data of the plots beside it; then
`python docs/plots.py` (with the site's tools: `make docs`) draws the plots anew.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
BENCHMARKS = {
    "keys_bench": "index keys, per key",
    "rows_bench": "rows written, read and told as JSON, per row",
    "files_aio": "file calls: threads, aiofiles, blocking",
    "redo_log": "durable appends with group commit, beside raw appends",
    "store_bench": "the store, beside bare LMDB",
    "engine_bench": "inserts, seeks and bulk reads in process, by table size",
    "wire_bench": "Ping over TCP and WebSocket, beside bare servers",
    "idle_connections": "5,000 idle connections: memory, and a working client's p99",
    "freeze": "how fast a freeze closes the gate under load",
    "ycsb": "YCSB A to F, inserts and bulk load over the client, beside PostgreSQL",
}
# What these are asked for besides, because they have raw figures and plots of their own.
SAVE = {"engine_bench": ("--save", "--rows", "1000,10000,100000,1000000"), "ycsb": ("--save",)}


def run(name: str, save: bool) -> bool:
    """Whether it kept its bounds."""
    command = [sys.executable, "-m", f"benchmarks.{name}"]
    if not save:
        return subprocess.run(command, cwd=ROOT, check=False).returncode == 0
    lines = [f"{time.strftime('%d %B %Y, %H:%M UTC', time.gmtime())}, load average {os.getloadavg()[0]:.1f}"]
    with subprocess.Popen([*command, *SAVE.get(name, ())], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            lines.append(line.rstrip())
    lines.append(f"load average at the end {os.getloadavg()[0]:.1f}")
    (ROOT / "benchmarks" / "results" / f"{name}.txt").write_text("\n".join(lines) + "\n")
    return process.returncode == 0


def main(arguments: list[str]) -> int:
    save = "--save" in arguments
    arguments = [name for name in arguments if name != "--save"]
    unknown = set(arguments) - set(BENCHMARKS)
    if unknown:
        for name, title in BENCHMARKS.items():
            print(f"{name:18}{title}")
        return 0 if unknown == {"--list"} else 2
    missed = []
    for name in arguments or BENCHMARKS:
        print(f"\n## {name}: {BENCHMARKS[name]}\n", flush=True)
        if not run(name, save):
            missed.append(name)
    if missed:
        print(f"\nMissed a bound of their own, or failed: {', '.join(missed)}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
