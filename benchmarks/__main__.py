"""Runs the benchmarks one after the other: `python -m benchmarks [NAME ...]`, or `--list`. Each also runs alone and has options."""

from __future__ import annotations

import subprocess
import sys
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


def main(arguments: list[str]) -> int:
    unknown = set(arguments) - set(BENCHMARKS)
    if unknown:
        for name, title in BENCHMARKS.items():
            print(f"{name:18}{title}")
        return 0 if unknown == {"--list"} else 2
    missed = []
    for name in arguments or BENCHMARKS:
        print(f"\n## {name}: {BENCHMARKS[name]}\n", flush=True)
        if subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], cwd=ROOT, check=False).returncode:
            missed.append(name)
    if missed:
        print(f"\nMissed a bound of their own, or failed: {', '.join(missed)}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
