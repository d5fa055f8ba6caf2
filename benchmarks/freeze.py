"""How fast a freeze closes the gate under full write load, and how soon the thaw answers the first commit that waited.

    python -m benchmarks.freeze [--rounds N] [--writers N]

The writers are a process of their own, each a connection that puts one record a durable commit (PutRecords) as fast as
it is answered; the server is another, and who freezes a third. All are on this machine and read one clock. What was
measured is left in `benchmarks/results/freeze.json`, round by round, for the plot. The exit code says whether it stayed
within its bounds.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import socket
import statistics
import sys
import tempfile
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks.figures import Figure
from tests.support.server_process import Lines, ServerProcess

RESULTS = Path(__file__).parent / "results" / "freeze.json"
FROZEN_SECONDS = 0.05
BETWEEN_SECONDS = 0.05
# Milliseconds: the median and the 99th percentile of each.
BOUNDS = {"close": (50.0, 200.0), "first": (10.0, None)}
TITLES = {
    "close": "Freeze closes the gate and answers",
    "first": "Thaw to the first commit that waited",
    "last": "Thaw to the last commit that waited",
    "commit": "For comparison, a commit that met no freeze",
}
DATABASE = "freeze.edb"
TEXT = "x" * 100


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


# -- the writers' process -------------------------------------------------------------------------------------------
def _connect(port: int) -> Lines:
    sock = socket.create_connection(("127.0.0.1", port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return Lines(sock)


def _session(lines: Lines) -> int:
    sesid: int = lines.call("BeginSession", instance=lines.call("Hello")["instances"][0]["instance"])["sesid"]
    return sesid


def _write(port: int, number: int, stop: threading.Event, spans: list[tuple[float, float]]) -> None:
    with _connect(port) as lines:
        sesid = _session(lines)
        dbid = lines.call("OpenDatabase", sesid=sesid, database=DATABASE)["dbid"]
        columns = [{"name": "id", "coltyp": "Long"}, {"name": "text", "coltyp": "Text", "cp": 1200}]
        index = {"name": "primary", "key": ["+id"], "grbit": ["IndexPrimary", "IndexUnique"]}
        create = {"name": f"t{number}", "columns": columns, "indexes": [index]}
        tableid = lines.call("CreateTableColumnIndex", sesid=sesid, dbid=dbid, tablecreate=create)["tableid"]
        members = b'{"sesid":%d,"tableid":%d,"mode":"insert","records":[{"id":%d,"text":"%s"}]}'
        put = b'{"jsonrpc":"2.0","id":1,"method":"PutRecords","params":%s}\n' % members
        row = 0
        while not stop.is_set():
            began = time.monotonic()
            lines.send(put % (sesid, tableid, row, TEXT.encode()))
            answer = lines.line()
            spans.append((began, time.monotonic()))
            assert b'"result"' in answer, answer
            row += 1


def _writers(port: int, count: int, pipe: Connection) -> None:
    stop = threading.Event()
    spans: list[list[tuple[float, float]]] = [[] for _ in range(count)]
    threads = [threading.Thread(target=_write, args=(port, n, stop, spans[n])) for n in range(count)]
    for thread in threads:
        thread.start()
    pipe.recv()
    stop.set()
    for thread in threads:
        thread.join()
    pipe.send(spans)


# -- who freezes ----------------------------------------------------------------------------------------------------
def measure(rounds: int, writers: int) -> dict[str, Any]:
    taken: list[dict[str, float]] = []
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as directory, ServerProcess(Path(directory) / "data") as server, _connect(server.tcp_port) as lines:
        lines.call("CreateDatabase", sesid=_session(lines), database=DATABASE)
        ours, theirs = context.Pipe()
        process = context.Process(target=_writers, args=(server.tcp_port, writers, theirs))
        process.start()
        time.sleep(2.0)
        began = time.monotonic()
        for _ in range(rounds):
            snap = lines.call("OSSnapshotPrepare")["snapId"]
            asked = time.monotonic()
            lines.call("OSSnapshotFreeze", snapId=snap)
            closed = time.monotonic()
            time.sleep(FROZEN_SECONDS)
            thawed = time.monotonic()
            verdict = lines.call("OSSnapshotThaw", snapId=snap)
            answered = time.monotonic()
            assert verdict["held"], verdict
            taken.append({"asked": asked, "closed": closed, "thawed": thawed, "answered": answered, "waited": verdict["commitsWaited"]})
            time.sleep(BETWEEN_SECONDS)
        seconds = time.monotonic() - began
        ours.send("stop")
        spans: list[list[tuple[float, float]]] = ours.recv()
        process.join()
    commits = sorted((span for one in spans for span in one), key=lambda span: span[1])
    done = [_round(one, commits) for one in taken]
    summary = {
        name: {
            "median_ms": round(statistics.median(one[f"{name}_ms"] for one in done), 2),
            "p99_ms": round(percentile([one[f"{name}_ms"] for one in done], 0.99), 2),
        }
        for name in ("close", "first", "last")
    }
    frozen = [(one["asked"], one["answered"]) for one in taken]
    undisturbed = [1000 * (b - a) for a, b in commits if a > began and not any(a < end and b > start for start, end in frozen)]
    summary["commit"] = {
        "median_ms": round(statistics.median(undisturbed), 2),
        "p99_ms": round(percentile(undisturbed, 0.99), 2),
    }
    within = sum(1 for span in commits if span[1] > began)
    return {"writers": writers, "rounds": done, "summary": summary, "commits_a_second": round(within / seconds)}


def _round(one: dict[str, float], commits: list[tuple[float, float]]) -> dict[str, float]:
    """Milliseconds of a freeze: to its answer, and from asking for the thaw to the answers of the commits that waited for it."""
    waited = [answered for asked, answered in commits if asked < one["thawed"] < answered]
    return {
        "close_ms": round(1000 * (one["closed"] - one["asked"]), 3),
        "thaw_ms": round(1000 * (one["answered"] - one["thawed"]), 3),
        "first_ms": round(1000 * (min(waited) - one["thawed"]), 3),
        "last_ms": round(1000 * (max(waited) - one["thawed"]), 3),
        "commits_waited": one["waited"],
    }


def picture(rounds: list[dict[str, Any]]) -> Figure:
    waited = statistics.mean(one["commits_waited"] for one in rounds)
    series = {TITLES[name]: [one[f"{name}_ms"] for one in rounds] for name in ("close", "first", "last")}
    title = f"A freeze under full write load: {waited:.1f} commits waited on average"
    return Figure(title, "shares", "ms, at most", "share of the freezes", series, {"10 ms": 10, "50 ms": 50}, log_x=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--writers", type=int, default=8)
    options = parser.parse_args()
    found = {"date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()), "load_average": os.getloadavg()[0]} | measure(
        options.rounds, options.writers
    )
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    picture(found["rounds"]).save("freeze")
    mean = statistics.mean(one["commits_waited"] for one in found["rounds"])
    print(f"{options.rounds} freezes, {options.writers} writers, {found['commits_a_second']:,} commits/s, {mean:.1f} waiting at the thaw")
    missed = False
    for name, title in TITLES.items():
        median, p99 = found["summary"][name]["median_ms"], found["summary"][name]["p99_ms"]
        wanted_median, wanted_p99 = BOUNDS.get(name, (None, None))
        missed |= (wanted_median is not None and median >= wanted_median) or (wanted_p99 is not None and p99 >= wanted_p99)
        bounds = " / ".join(f"{bound:.0f}" if bound else "-" for bound in (wanted_median, wanted_p99))
        print(f"{title}: median {median:.1f} ms, p99 {p99:.1f} ms (bounds {bounds})")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
