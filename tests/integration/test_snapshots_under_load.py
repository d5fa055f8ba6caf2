"""Snapshots by plain copy while records are put, each restored in a new process and compared with what was frozen.

Each writer counts up in a table of its own, one record a commit. So the state at any position is one number a writer:
the copy must hold 1..n without a gap, n not less than what was answered before Freeze was asked, and not more than
what had been asked when Freeze answered. `JETWIRE_SNAPSHOTS=200` says how many the long test takes.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.integration.test_freeze import prepare
from tests.support.server_process import Lines, ServerProcess

WRITERS = 3
SNAPSHOTS = 10


def session(lines: Lines) -> int:
    instance = lines.call("Hello")["instances"][0]["instance"]
    sesid: int = lines.call("BeginSession", instance=instance)["sesid"]
    return sesid


class Counting:
    """A writer: `asked` and `answered` are the highest numbers put, and known to be put."""

    def __init__(self, server: ServerProcess, name: str) -> None:
        self.name = name
        self.asked = self.answered = 0
        self._stop = threading.Event()
        self._lines = server.connect()
        self._sesid = session(self._lines)
        self._lines.ask("AttachDatabase", sesid=self._sesid, database="count.edb")
        dbid = self._lines.call("OpenDatabase", sesid=self._sesid, database="count.edb")["dbid"]
        columns = [{"name": "id", "coltyp": "Long"}, {"name": "text", "coltyp": "LongText", "cp": 1200}]
        indexes = [{"name": "primary", "key": ["+id"], "grbit": ["IndexPrimary", "IndexUnique"]}, {"name": "text", "key": ["-text"]}]
        create = {"name": name, "columns": columns, "indexes": indexes}
        self._tableid = self._lines.call("CreateTableColumnIndex", sesid=self._sesid, dbid=dbid, tablecreate=create)["tableid"]
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.is_set():
            number = self.asked = self.asked + 1
            record = {"id": number, "text": f"{self.name} {number} " + "x" * (number % 300)}
            self._lines.call("PutRecords", sesid=self._sesid, tableid=self._tableid, records=[record], mode="insert")
            self.answered = number
            time.sleep(0.002)

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(30)
        assert not self._thread.is_alive(), "a commit was never answered"
        self._lines.close()


def numbers(server: ServerProcess, names: list[str]) -> dict[str, list[int]]:
    """What each table holds, read to its end, with each text compared."""
    found: dict[str, list[int]] = {}
    with server.connect() as lines:
        sesid = session(lines)
        lines.ask("AttachDatabase", sesid=sesid, database="count.edb")
        dbid = lines.call("OpenDatabase", sesid=sesid, database="count.edb")["dbid"]
        for name in names:
            tableid = lines.call("OpenTable", sesid=sesid, dbid=dbid, tablename=name)["tableid"]
            more, found[name] = True, []
            while more:
                answer: dict[str, Any] = lines.call("GetRecords", sesid=sesid, tableid=tableid, limit=1_000)
                more = answer["more"]
                for record in answer["records"]:
                    assert record["text"] == f"{name} {record['id']} " + "x" * (record["id"] % 300)
                    found[name].append(record["id"])
    return found


def jetwired(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "jetwire_server", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def copy_frozen(server: ServerProcess, lines: Lines, writers: list[Counting], target: Path) -> dict[str, range]:
    """A snapshot by plain copy; for each writer the numbers that its table may end with."""
    snap = prepare(lines)
    least = {w.name: w.answered for w in writers}
    lines.call("OSSnapshotFreeze", snapId=snap)
    most = {w.name: w.asked for w in writers}
    shutil.copytree(server.data, target, ignore=shutil.ignore_patterns("jetwire.lock", "*-lock"))
    verdict = lines.call("OSSnapshotThaw", snapId=snap)
    assert verdict["held"]
    assert verdict["bytesWrittenWhileFrozen"] == 0
    return {name: range(least[name], most[name] + 1) for name in least}


def try_snapshots(path: Path, count: int) -> Counter[str]:
    done: Counter[str] = Counter()
    with ServerProcess(path / "data") as server, server.connect() as lines:
        lines.call("CreateDatabase", sesid=session(lines), database="count.edb")
        writers = [Counting(server, f"w{n}") for n in range(WRITERS)]
        try:
            for round_ in range(count):
                time.sleep(0.05)
                copy = path / "copy"
                may_end = copy_frozen(server, lines, writers, copy)
                with ServerProcess(copy) as restored:
                    found = numbers(restored, list(may_end))
                    restored.stop()
                for name, ids in found.items():
                    assert ids == list(range(1, len(ids) + 1)), f"snapshot {round_}: {name} has a gap"
                    assert len(ids) in may_end[name], f"snapshot {round_}: {name} ends with {len(ids)}, not in {may_end[name]}"
                    done["records compared"] += len(ids)
                checked = jetwired("check", copy)
                assert checked.returncode == 0, (checked.stdout, checked.stderr)
                shutil.rmtree(copy)
                done["snapshots"] += 1
        finally:
            for writer in writers:
                writer.stop()
    return done


def test_copies_under_load_hold_what_was_frozen(tmp_path: Path):
    try_snapshots(tmp_path, SNAPSHOTS)


@pytest.mark.torture
def test_many_copies_under_load(tmp_path: Path):
    done = try_snapshots(tmp_path, int(os.environ.get("JETWIRE_SNAPSHOTS", "200")))
    print(dict(done))


def test_control_a_copy_of_another_instant_is_caught(tmp_path: Path):
    """What the comparison is worth: the numbers of an older copy are not those of a newer freeze."""
    with ServerProcess(tmp_path / "data") as server, server.connect() as lines:
        lines.call("CreateDatabase", sesid=session(lines), database="count.edb")
        writer = Counting(server, "w0")
        try:
            copy_frozen(server, lines, [writer], tmp_path / "old")
            time.sleep(0.3)
            may_end = copy_frozen(server, lines, [writer], tmp_path / "new")
        finally:
            writer.stop()
        with ServerProcess(tmp_path / "old") as restored:
            assert len(numbers(restored, ["w0"])["w0"]) not in may_end["w0"]
