"""How fast a freeze closes the gate under full write load, and how soon the thaw answers the first waiting commit.

    python -m benchmarks.freeze [ROUNDS]

Client and server on this machine, each writer a connection that commits as fast as it is answered.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path

from tests.integration.test_freeze import Load, create_database
from tests.support.server_process import ServerProcess

WRITERS = 8
FROZEN_SECONDS = 0.02


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def main(rounds: int) -> None:
    closing: list[float] = []
    answering: list[float] = []
    waited: list[int] = []
    with tempfile.TemporaryDirectory() as directory, ServerProcess(Path(directory) / "data") as server:
        create_database(server)
        loads = [Load(server, f"b{n}_") for n in range(WRITERS)]
        with server.connect() as lines:
            for _ in range(rounds):
                snap = lines.call("OSSnapshotPrepare")["snapId"]
                began = time.monotonic()
                lines.call("OSSnapshotFreeze", snapId=snap)
                closing.append(time.monotonic() - began)
                time.sleep(FROZEN_SECONDS)
                thawed = time.monotonic()
                verdict = lines.call("OSSnapshotThaw", snapId=snap)
                assert verdict["held"], verdict
                waited.append(verdict["commitsWaited"])
                time.sleep(0.03)
                first = min(when for load in loads for when in list(load.done.values())[-200:] if when > thawed)
                answering.append(first - thawed)
        for load in loads:
            load.stop()
    print(f"{rounds} freezes, {WRITERS} writers, {statistics.mean(waited):.1f} commits waiting at the thaw")
    for name, values in (("freeze closes the gate", closing), ("thaw answers the first commit", answering)):
        print(f"{name}: median {1000 * statistics.median(values):.1f} ms, p99 {1000 * percentile(values, 0.99):.1f} ms")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100)
